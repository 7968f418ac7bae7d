"""Rewrite a network for fast inference: fold norms, split reductions, compute the class map."""

import math

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_pspnet import private_api
from keras_pspnet.export.winograd import WinogradConv2D, conv_in_parts
from keras_pspnet.network.layers import PyramidConv2D
from keras_pspnet.network.resampling import resize, split

MAX_REDUCTION = 4608
"""Longest reduction (kernel height x width x input channels) that XNNPACK's float convolution
computes at full speed: 3x3 over 512 channels. Longer ones do not fit into the cache; 1x1 kernels
are fast at any length (benchmarks/results/reductions.json)."""

UNCHANGED = {"parts": 1, "winograd": False}

STRIP = 4
"""Rows of the feature map per strip of the class map (measured by benchmarks/memory.py)."""


def device_network(
    network: keras.Model, *, split: bool, winograd: bool
) -> tuple[keras.Model, dict[str, dict]]:
    """Return a network that computes the same, in a form that runtimes compute faster.

    TFLite itself folds a batch norm into a single convolution, but not into a sum of convolutions;
    those are folded here.

    Args:
        network: a float32 keras.Model of a fixed size, without the auxiliary head.
        split: compute convolutions with a reduction above `MAX_REDUCTION` in parts.
        winograd: compute those among them that are 3x3 with stride 1 and without dilation by
            Winograd's algorithm (`WinogradConv2D`).

    Returns:
        The network, and the form of each convolution that was changed:
        {layer name: {"parts": 4, "winograd": False}}.
    """
    forms = {layer.name: _form(layer, winograd) for layer in network.layers if split}
    forms = {name: form for name, form in forms.items() if form != UNCHANGED}
    sums = [x for x in network.layers if isinstance(x, PyramidConv2D) or x.name in forms]
    norms = {layer.name: _foldable_norm(layer, network) for layer in sums}
    folded = [norm.name for norm in norms.values() if norm]

    def copy(layer):
        config = layer.get_config()
        if layer.name in folded:
            return FoldedNormalization(name=layer.name, dtype="float32")
        if layer.name not in norms:
            return type(layer).from_config(config)
        form = forms.get(layer.name, UNCHANGED)
        if isinstance(layer, PyramidConv2D):
            return DevicePyramidConv2D.from_config({**config, **form})
        if form["winograd"]:
            kept = {key: config[key] for key in ("name", "dtype", "filters", "activation")}
            return WinogradConv2D.from_config({**kept, "parts": form["parts"]})
        return DeviceConv2D.from_config({**config, "use_bias": True, "parts": form["parts"]})

    clone = keras.models.clone_model(network, clone_function=copy)
    for layer in network.layers:
        if layer.name in norms:
            clone.get_layer(layer.name).assign(*_folded(layer, norms[layer.name]))
        elif layer.weights and layer.name not in folded:
            clone.get_layer(layer.name).set_weights(layer.get_weights())
    return clone, forms


def _form(layer, winograd) -> dict:
    """Return the number of parts of a convolution, and whether to use Winograd's algorithm."""
    if isinstance(layer, PyramidConv2D):
        size, channels = (3, 3), layer.input[0].shape[-1]
    elif type(layer) is layers.Conv2D and layer.groups == 1:
        size, channels = layer.kernel_size, layer.kernel.shape[2]
        plain = layer.strides == layer.dilation_rate == (1, 1) and layer.padding == "same"
        winograd = winograd and plain and size == (3, 3)
    else:
        return UNCHANGED
    reduction = math.prod(size) * channels
    if reduction <= MAX_REDUCTION or math.prod(size) == 1:
        return UNCHANGED
    if winograd:
        reduction //= 3  # its kernels are 3x1
    return {"parts": math.ceil(reduction / MAX_REDUCTION), "winograd": winograd}


def _foldable_norm(layer, network):
    """Return the batch norm that can be folded into a layer, or None.

    It must be the only consumer of the layer's output, the layer must have no activation, and both
    must be called once.
    """
    consumers = [
        operation
        for operation in network.operations
        for node in private_api.inbound_nodes(operation)
        if any(x is layer.output for x in node.input_tensors)
    ]
    if len(consumers) != 1 or any(layer.output is x for x in network.outputs):
        return None
    (norm,) = consumers
    linear = getattr(layer, "activation", None) in (None, keras.activations.linear)
    once = all(len(private_api.inbound_nodes(x)) == 1 for x in (layer, norm))
    return norm if linear and once and isinstance(norm, layers.BatchNormalization) else None


def _folded(layer, norm) -> list[np.ndarray]:
    """Return the kernel and bias of a convolution with a batch norm (or None) folded in."""
    kernel, *bias = layer.get_weights()
    bias = bias[0] if bias else np.zeros(kernel.shape[-1], np.float32)
    if norm is None:
        return [kernel, bias]
    factor = (norm.gamma.numpy() if norm.scale else 1.0) / np.sqrt(
        norm.moving_variance.numpy() + norm.epsilon
    )
    shift = norm.beta.numpy() if norm.center else 0.0
    return [kernel * factor, (bias - norm.moving_mean.numpy()) * factor + shift]


@keras.saving.register_keras_serializable("keras_pspnet")
class FoldedNormalization(layers.Layer):
    """Do nothing, in place of a batch norm that was folded into the convolution before it."""

    def call(self, inputs, training=None, mask=None):
        return inputs


@keras.saving.register_keras_serializable("keras_pspnet")
class DeviceConv2D(layers.Conv2D):
    """Compute a Conv2D with a bias as the sum of `parts` convolutions of some input channels each.

    Args:
        parts: number of convolutions.
        *args, **kwargs: as of keras.layers.Conv2D.
    """

    def __init__(self, *args, parts, **kwargs):
        super().__init__(*args, **kwargs)
        self.parts = parts

    def assign(self, kernel, bias):
        self.kernel.assign(kernel)
        self.bias.assign(bias)

    def call(self, inputs):
        arguments = {"strides": list(self.strides), "padding": self.padding}
        arguments["dilation_rate"] = list(self.dilation_rate)
        return self.activation(
            conv_in_parts(inputs, self.kernel, self.bias, self.parts, **arguments)
        )

    def get_config(self):
        return {**super().get_config(), "parts": self.parts}


@keras.saving.register_keras_serializable("keras_pspnet")
class DevicePyramidConv2D(PyramidConv2D):
    """Compute a PyramidConv2D with a bias; the layer `map` inside convolves the feature map.

    Args:
        filters: number of output channels.
        parts: see `DeviceConv2D`.
        winograd: whether `map` is a `WinogradConv2D`.
        **kwargs: as of `PyramidConv2D`.
    """

    def __init__(self, filters, *, parts, winograd, **kwargs):
        super().__init__(filters, **kwargs)
        self.parts, self.winograd = parts, winograd
        if winograd:
            self.map = WinogradConv2D(filters, parts=parts, dtype=self.dtype_policy)
        else:
            self.map = DeviceConv2D(
                filters, 3, padding="same", parts=parts, dtype=self.dtype_policy
            )

    def build(self, input_shape):
        self.map.build(input_shape[0])
        super().build(input_shape[1:])

    def assign(self, kernel, bias):
        channels = kernel.shape[2] - self.kernel.shape[2]
        self.map.assign(kernel[:, :, :channels], bias)
        self.kernel.assign(kernel[:, :, channels:])

    def call(self, inputs):
        x, *branches = inputs
        kernels = split(self.kernel, [branch.shape[-1] for branch in branches], axis=2)
        return self.map(x) + self.convolve_branches(branches, kernels, x.shape[1:3])

    def get_config(self):
        return {**super().get_config(), "parts": self.parts, "winograd": self.winograd}


def class_map(scores, size, align_corners):
    """Return the argmax of scores resized to `size`, without holding all resized scores.

    Where `in_strips` holds, every output row between two rows of the scores depends on those two
    alone, so the scores are resized strip by strip. Each strip is made to depend on the one before;
    else XNNPACK would hold all strips at once.

    Args:
        scores: (1, h, w, C) float32.
        size: (H, W).
        align_corners: see `network.resampling.resize`.

    Returns:
        Class ids, (1, H, W) int32.
    """
    steps, (height, width) = scores.shape[1] - 1, size
    if not in_strips(scores.shape[1], height, align_corners):
        return tf.argmax(resize(scores, size, align_corners), -1, output_type=tf.int32)
    rows_per_step = (height - 1) // steps
    strips = []
    for top in range(0, steps, STRIP):
        bottom = min(top + STRIP, steps)
        rows = scores[:, top : bottom + 1]
        if strips:
            zero = tf.minimum(strips[-1][:, -1:, :1], 0)  # class ids are never negative
            rows += tf.cast(zero, tf.float32)[..., None]
        resized = resize(rows, ((bottom - top) * rows_per_step + 1, width))
        strip = tf.argmax(resized, -1, output_type=tf.int32)
        strips.append(strip if bottom == steps else strip[:, :-1])
    return tf.concat(strips, axis=1)


def in_strips(rows, height, align_corners) -> bool:
    """Return True if `class_map` resizes strip by strip.

    That takes align-corners, more than one strip, and a whole number of output rows per step.

    Args:
        rows: rows of the scores.
        height: rows of the class map.
    """
    return align_corners and rows > STRIP + 1 and (height - 1) % (rows - 1) == 0
