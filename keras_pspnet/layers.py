"""The layers Keras lacks: the pyramid pooling module, and bilinear resizing with align-corners."""

from __future__ import annotations

import keras
from keras import ops

from keras_pspnet.labels import LabelSet

BN_MOMENTUM = 0.9  # PyTorch's momentum 0.1, semseg model/resnet.py
BN_EPSILON = 1e-5  # torch.nn.BatchNorm2d, semseg model/resnet.py


def spatial_size(x):
    """(H, W) of a (B, H, W, C) tensor: ints where known, tensors where only the run tells."""
    return tuple(ops.shape(x)[1:3])


def resize(x, size, align_corners=True):
    """Bilinear interpolation of (B, H, W, C) floats to `size`, without antialiasing.

    Args:
        size: (H, W), ints or integer tensors.
        align_corners: True puts the corner pixels' centres on each other (the paper's Interp layer,
            F.interpolate(align_corners=True)); False uses half-pixel centres.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # The op itself: it becomes one RESIZE_BILINEAR in TFLite. keras.ops.image.resize has no
        # align_corners, and in Keras 3.15 it fails on the second unknown size of a session.
        resized = tf.raw_ops.ResizeBilinear(
            images=x,
            size=tf.stack(size),
            align_corners=align_corners,
            half_pixel_centers=not align_corners,
        )
        return ops.cast(resized, x.dtype)
    rows, columns = spatial_size(x)
    x = ops.tensordot(_interpolation(rows, size[0], align_corners, x.dtype), x, [[1], [1]])
    x = ops.tensordot(_interpolation(columns, size[1], align_corners, x.dtype), x, [[1], [2]])
    return ops.transpose(x, (2, 1, 0, 3))


def _interpolation(count, new_count, align_corners, dtype):
    """(new_count, count): the weights of the linear interpolation along one axis."""
    target = ops.arange(new_count, dtype="float32")
    if align_corners:
        source = target * ((count - 1) / max(new_count - 1, 1))
    else:
        source = ops.clip((target + 0.5) * (count / new_count) - 0.5, 0, count - 1)
    distance = ops.abs(source[:, None] - ops.arange(count, dtype="float32")[None])
    return ops.cast(ops.maximum(1.0 - distance, 0.0), dtype)


def adaptive_pool(x, bins, pooling="average"):
    """Pools (B, H, W, C) to (B, bins, bins, C) with the windows of adaptive pooling.

    Bin i of an axis of n covers floor(i n / bins) to ceil((i + 1) n / bins), as PyTorch's
    AdaptiveAvgPool2d: windows overlap where n is no multiple of `bins`.
    """
    if bins == 1:
        return (ops.mean if pooling == "average" else ops.max)(x, axis=(1, 2), keepdims=True)
    rows, columns = x.shape[1:3]
    if rows and columns and rows % bins == 0 and columns % bins == 0:
        pool = ops.average_pool if pooling == "average" else ops.max_pool
        window = (rows // bins, columns // bins)
        return pool(x, window, window, padding="valid")  # JAX in Keras 3.15 fails without strides
    # keras.layers.AdaptiveAveragePooling2D wants known sizes; slices work for any.
    for axis, count in zip((1, 2), spatial_size(x)):
        x = _pool_axis(x, axis, count, bins, ops.mean if pooling == "average" else ops.max)
    return x


def _pool_axis(x, axis, count, bins, reduce):
    everything = (slice(None),) * axis
    windows = [
        everything + (slice((i * count) // bins, -((-(i + 1) * count) // bins)),)
        for i in range(bins)
    ]
    pooled = [reduce(x[window], axis=axis, keepdims=True) for window in windows]
    while len(pooled) > 4:  # XNNPACK takes four maps at a time, five in its newer versions
        pooled = [ops.concatenate(pooled[i : i + 3], axis=axis) for i in range(0, len(pooled), 3)]
    return ops.concatenate(pooled, axis=axis)


@keras.saving.register_keras_serializable("keras_pspnet")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's batch norm with the reference's momentum; on TensorFlow its training step is fused.

    Keras 3 computes moments and their gradients one operation after the other on TensorFlow; with
    the fused kernel a training step of EfficientNet-Lite0 takes 0.80 of the time
    (benchmarks/batch_norm.py). The values are Keras's, and so is everything in inference and on
    other backends.
    """

    def __init__(self, momentum=BN_MOMENTUM, epsilon=BN_EPSILON, **kwargs):
        super().__init__(momentum=momentum, epsilon=epsilon, **kwargs)

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable and mask is None and self._fusible(inputs)):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        outputs, mean, variance, *_ = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            ops.cast(self.gamma, "float32"),
            ops.cast(self.beta, "float32"),
            epsilon=self.epsilon,
            is_training=True,
        )
        # The kernel's variance is divided by n - 1, Keras's by n.
        count = ops.cast(ops.size(inputs) // inputs.shape[-1], "float32")
        for moving, batch in (
            (self.moving_mean, mean),
            (self.moving_variance, variance * ((count - 1) / count)),
        ):
            moving.assign(moving * self.momentum + batch * (1 - self.momentum))
        return outputs

    def _fusible(self, inputs):
        """What the kernel can do: maps, channels last, single precision inside."""
        return (
            keras.backend.backend() == "tensorflow"
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and self.variable_dtype == "float32"
            and (self.scale and self.center)
            and not (self.synchronized or getattr(self, "renorm", False))
        )


@keras.saving.register_keras_serializable("keras_pspnet")
class PyramidPoolingModule(keras.layers.Layer):
    """The paper's pyramid pooling module (section 3.2, figure 3), for any feature map.

    Each bin size pools the map to bins x bins regions, reduces them with a 1x1 convolution, batch
    norm and ReLU, and is upsampled to the map's size; the map itself and all branches are
    concatenated, in the order of semseg's model/pspnet.py: [x, bins[0], bins[1], ...].

    Args:
        bins: regions along each side, one branch each.
        pooling: "average" (the paper's best, table 1) or "max".
        reduce_channels: True reduces each branch with its convolution ("DR" in table 1); False
            upsamples the pooled maps as they are, without any weights.
        channels: output channels of each branch; by default the input's divided by len(bins).
        align_corners: how the branches are upsampled.

    Input: (B, H, W, C) floats, any H and W, also unknown ones.
    Output: (B, H, W, C + len(bins) * channels), or C * (1 + len(bins)) without reduction.
    """

    def __init__(
        self,
        bins=(1, 2, 3, 6),
        *,
        pooling="average",
        reduce_channels=True,
        channels=None,
        align_corners=True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not bins or any(int(b) != b or b < 1 for b in bins):
            raise ValueError(f"`bins` must be positive integers, at least one. Received: {bins}")
        if pooling not in ("average", "max"):
            raise ValueError(f'`pooling` must be "average" or "max". Received: {pooling!r}')
        if channels is not None and channels < 1:
            raise ValueError(f"`channels` must be positive. Received: {channels}")
        self.bins = tuple(int(b) for b in bins)
        self.pooling = pooling
        self.reduce_channels = reduce_channels
        self.channels = channels
        self.align_corners = align_corners

    def build(self, input_shape):
        self.convolutions, self.norms = [], []
        if self.reduce_channels:
            channels = self._branch_channels(input_shape)
            pooled_shape = (input_shape[0], None, None, input_shape[-1])
            for index, bins in enumerate(self.bins):
                conv = keras.layers.Conv2D(
                    channels,
                    1,
                    use_bias=False,
                    kernel_initializer="he_normal",
                    dtype=self.dtype_policy,
                    name=f"{index}_bin{bins}_conv",
                )
                norm = BatchNormalization(dtype=self.dtype_policy, name=f"{index}_bin{bins}_bn")
                conv.build(pooled_shape)
                norm.build((*pooled_shape[:3], channels))
                self.convolutions.append(conv)
                self.norms.append(norm)

    def call(self, x, training=None):
        size = spatial_size(x)
        levels = [x]
        for index, bins in enumerate(self.bins):
            # In float32: a sum of thousands of half-precision values overflows.
            pooled = adaptive_pool(ops.cast(x, "float32"), bins, self.pooling)
            pooled = ops.cast(pooled, self.compute_dtype)
            if self.reduce_channels:
                pooled = self.convolutions[index](pooled)
                pooled = ops.relu(self.norms[index](pooled, training=training))
            levels.append(resize(pooled, size, self.align_corners))
        return ops.concatenate(levels, axis=-1)

    def _branch_channels(self, input_shape):
        if not self.reduce_channels:
            return input_shape[-1]
        return self.channels or max(input_shape[-1] // len(self.bins), 1)

    def compute_output_shape(self, input_shape):
        channels = input_shape[-1] + len(self.bins) * self._branch_channels(input_shape)
        return (*input_shape[:-1], channels)

    def get_config(self):
        return {
            **super().get_config(),
            "bins": self.bins,
            "pooling": self.pooling,
            "reduce_channels": self.reduce_channels,
            "channels": self.channels,
            "align_corners": self.align_corners,
        }


@keras.saving.register_keras_serializable("keras_pspnet")
class Upsample(keras.layers.Layer):
    """Bilinear upsampling of one map to the height and width of another.

    Args:
        align_corners: see `resize`.
        labels: the LabelSet of a network's class scores, or its config. It stands in the last
            layer's config because that survives saving, ModelCheckpoint and clone_model.
        source: what a converted network came from, plain values; see `convert`.

    Call: x (B, h, w, C) and like (B, H, W, any) -> (B, H, W, C).
    """

    def __init__(self, align_corners=True, labels=None, source=None, **kwargs):
        super().__init__(**kwargs)
        self.align_corners = align_corners
        self.source = source
        self.labels = LabelSet.from_config(labels) if isinstance(labels, dict) else labels

    def call(self, x, like):
        return resize(x, spatial_size(like), self.align_corners)

    def compute_output_shape(self, x_shape, like_shape):
        return (x_shape[0], *like_shape[1:3], x_shape[-1])

    def get_config(self):
        return {
            **super().get_config(),
            "align_corners": self.align_corners,
            "labels": self.labels.to_config() if self.labels else None,
            "source": self.source,
        }
