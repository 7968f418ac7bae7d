"""The network as a device computes it: batch norms folded, long reductions split, the class map."""

from __future__ import annotations

import math

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_pspnet import private_api
from keras_pspnet.export.winograd import WinogradConv2D, conv_in_parts
from keras_pspnet.network.layers import PyramidConv2D
from keras_pspnet.network.resampling import resize

LONGEST = 4608
"""Longest reduction (kernel height x width x input channels) of one float convolution that XNNPACK
computes at the speed of a matrix product: 3x3 over 512 channels, as most of a PSPNet is. Longer
ones fall out of cache; 1x1 kernels of any length do not (benchmarks/results/reductions.json)."""

PLAIN = {"parts": 1, "winograd": False}

STRIP = 4
"""Steps of the feature map that a strip of the class map covers (benchmarks/memory.py)."""


def device_network(
    network: keras.Model, *, split: bool, winograd: bool
) -> tuple[keras.Model, dict[str, dict]]:
    """The same function for inference, in a form that runtimes compute faster.

    TFLite folds the batch norm behind one convolution by itself; behind a sum of them it is folded
    here.

    Args:
        network: a float32 network of a fixed size, without the auxiliary head.
        split: whether convolutions with a reduction above `LONGEST` are made in parts.
        winograd: whether those of 3x3, stride 1, without dilation are made by `winograd`.

    Returns:
        The network, and by name what was done to each of its long convolutions:
        {"parts": 4, "winograd": False}.
    """
    forms = {layer.name: _form(layer, winograd) for layer in network.layers if split}
    forms = {name: form for name, form in forms.items() if form != PLAIN}
    sums = [x for x in network.layers if isinstance(x, PyramidConv2D) or x.name in forms]
    norms = {layer.name: _norm_behind(layer, network) for layer in sums}
    folded = [norm.name for norm in norms.values() if norm]

    def copy(layer):
        config = layer.get_config()
        if layer.name in folded:
            return FoldedNormalization(name=layer.name, dtype="float32")
        if layer.name not in norms:
            return type(layer).from_config(config)
        form = forms.get(layer.name, PLAIN)
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
    """In how many parts a convolution is made, and whether by Winograd's algorithm."""
    if isinstance(layer, PyramidConv2D):
        size, channels, simple = (3, 3), layer.input[0].shape[-1], True
    elif type(layer) is layers.Conv2D and layer.groups == 1:
        size, channels = layer.kernel_size, layer.kernel.shape[2]
        simple = size == (3, 3) and layer.strides == layer.dilation_rate == (1, 1)
        simple = simple and layer.padding == "same"
    else:
        return PLAIN
    reduction = math.prod(size) * channels
    if reduction <= LONGEST or math.prod(size) == 1:
        return PLAIN
    winograd = winograd and simple
    if winograd:
        reduction //= 3  # its kernels are 3x1
    return {"parts": -(-reduction // LONGEST), "winograd": winograd}


def _norm_behind(layer, network):
    """The batch norm that alone takes a layer's output, or None; both are called once."""
    takers = [
        operation
        for operation in network.operations
        for node in private_api.inbound_nodes(operation)
        if any(x is layer.output for x in node.input_tensors)
    ]
    lone = len(takers) == 1 and not any(layer.output is x for x in network.outputs)
    linear = getattr(layer, "activation", None) in (None, keras.activations.linear)
    norm = lone and linear and isinstance(takers[0], layers.BatchNormalization)
    once = (
        norm
        and len(private_api.inbound_nodes(layer)) == len(private_api.inbound_nodes(takers[0])) == 1
    )
    return takers[0] if once else None


def _folded(layer, norm) -> list[np.ndarray]:
    """The kernel and bias of a convolution with the batch norm behind it."""
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
    """In place of a batch norm that has become part of the convolution in front of it."""

    def call(self, inputs, training=None, mask=None):
        return inputs


@keras.saving.register_keras_serializable("keras_pspnet")
class DeviceConv2D(layers.Conv2D):
    """A Conv2D with a bias that is computed in `parts`."""

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
    """A PyramidConv2D with a bias; the map's own convolution is a layer inside, `map`."""

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
        return self.map(x) + self.pyramid(branches, self.kernel, x.shape[1:3])

    def get_config(self):
        return {**super().get_config(), "parts": self.parts, "winograd": self.winograd}


def class_map(scores, size, align_corners):
    """The classes of scores enlarged to `size`, without holding the enlarged scores.

    With align-corners, where `size` has a whole number of rows a step of the features, rows k to
    k + 1 of those decide the rows between, so that strips can be enlarged by themselves. Each waits
    for the one before: XNNPACK would hold all at once.

    Args:
        scores: (1, h, w, C) float32.
        size: (H, W).
        align_corners: see `resample.resize`.

    Returns:
        (1, H, W) int32.
    """
    steps, (height, width) = scores.shape[1] - 1, size
    if not in_strips(scores.shape[1], height, align_corners):
        return tf.argmax(resize(scores, size, align_corners), -1, output_type=tf.int32)
    rows_a_step = (height - 1) // steps
    strips = []
    for top in range(0, steps, STRIP):
        bottom = min(top + STRIP, steps)
        features = scores[:, top : bottom + 1]
        if strips:
            nothing = tf.minimum(strips[-1][:, -1:, :1], 0)  # class ids are never negative
            features += tf.cast(nothing, tf.float32)[..., None]
        enlarged = resize(features, ((bottom - top) * rows_a_step + 1, width))
        strip = tf.argmax(enlarged, -1, output_type=tf.int32)
        strips.append(strip if bottom == steps else strip[:, :-1])
    return tf.concat(strips, axis=1)


def in_strips(rows, height, align_corners) -> bool:
    """Whether `class_map` needs no whole map of scores: rows of the features, of the picture."""
    return align_corners and rows > STRIP + 1 and (height - 1) % (rows - 1) == 0
