"""The layers Keras lacks: the pyramid pooling module, its convolution, upsampling."""

from __future__ import annotations

import keras
from keras import ops

from keras_pspnet.labels import LabelSet
from keras_pspnet.network.resampling import adaptive_pools, interpolation, resize, spatial_size

BN_MOMENTUM = 0.9  # PyTorch's momentum 0.1, semseg model/resnet.py

BN_EPSILON = 1e-5  # torch.nn.BatchNorm2d, semseg model/resnet.py


@keras.saving.register_keras_serializable("keras_pspnet")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's batch norm with the reference's momentum; on TensorFlow its training step is fused.

    Keras 3 computes moments and their gradients one operation after the other on TensorFlow; with
    the fused kernel a training step of EfficientNet-Lite0 takes 0.86 of the time
    (benchmarks/results/training_steps.json). The values are Keras's, and so is everything in
    inference and on other backends.
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
        upsample: False leaves the branches bins x bins and concatenates nothing: what a
            `PyramidConv2D` takes.

    Input: (B, H, W, C) floats, any H and W, also unknown ones.
    Output: (B, H, W, C + len(bins) * channels), or C * (1 + len(bins)) without reduction; with
        `upsample=False` the list of x and each branch, (B, bins, bins, channels).
    """

    def __init__(
        self,
        bins=(1, 2, 3, 6),
        *,
        pooling="average",
        reduce_channels=True,
        channels=None,
        align_corners=True,
        upsample=True,
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
        self.upsample = upsample

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
        levels = [x]
        # In float32: a sum of thousands of half-precision values overflows.
        pyramid = adaptive_pools(ops.cast(x, "float32"), self.bins, self.pooling)
        for index, pooled in enumerate(pyramid):
            pooled = ops.cast(pooled, self.compute_dtype)
            if self.reduce_channels:
                pooled = self.convolutions[index](pooled)
                pooled = ops.relu(self.norms[index](pooled, training=training))
            levels.append(pooled)
        if not self.upsample:
            return levels
        size = spatial_size(x)
        levels[1:] = [resize(level, size, self.align_corners) for level in levels[1:]]
        return ops.concatenate(levels, axis=-1)

    def _branch_channels(self, input_shape):
        if not self.reduce_channels:
            return input_shape[-1]
        return self.channels or max(input_shape[-1] // len(self.bins), 1)

    def compute_output_shape(self, input_shape):
        channels = self._branch_channels(input_shape)
        if not self.upsample:
            return [input_shape, *((input_shape[0], b, b, channels) for b in self.bins)]
        channels = input_shape[-1] + len(self.bins) * channels
        return (*input_shape[:-1], channels)

    def get_config(self):
        return {
            **super().get_config(),
            "bins": self.bins,
            "pooling": self.pooling,
            "reduce_channels": self.reduce_channels,
            "channels": self.channels,
            "align_corners": self.align_corners,
            "upsample": self.upsample,
        }


@keras.saving.register_keras_serializable("keras_pspnet")
class PyramidConv2D(keras.layers.Layer):
    """A 3x3 convolution over the upsampled, concatenated pyramid that makes neither of them.

    The convolution is linear in each branch, and a branch of b x b regions has b * b degrees of
    freedom at each channel: its regions are multiplied by the kernel's nine taps first, and the
    products spread over the map by two constant matrices, first along the rows, then down the
    columns. The result is that of `PyramidPoolingModule` and a `Conv2D` with the same kernel,
    padding "same", for any H and W, also unknown ones. PSPNet-50 at 473x473 needs 258 instead of
    324 GFLOP so, and half of the time of a training step (benchmarks/results/training_steps.json).

    Args:
        filters: output channels.
        align_corners: how the branches would be upsampled.

    Call: [x, branch, ...], what a `PyramidPoolingModule` with `upsample=False` gives
        -> (B, H, W, filters).
    Kernel: (3, 3, all channels, filters), in the order of the concatenation: the reference's.
    """

    def __init__(self, filters, *, align_corners=True, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.align_corners = align_corners

    def build(self, input_shape):
        channels = sum(shape[-1] for shape in input_shape)
        self.kernel = self.add_weight(
            shape=(3, 3, channels, self.filters), initializer="he_normal", name="kernel"
        )

    def call(self, inputs):
        x, *branches = inputs
        channels = x.shape[-1]
        outputs = ops.conv(x, self.kernel[:, :, :channels], padding="same")
        return outputs + self.pyramid(branches, self.kernel[:, :, channels:], spatial_size(x))

    def pyramid(self, branches, kernel, size):
        """What the branches add, at low rank: (B, *size, filters)."""
        height, width = size
        across, down = [], []
        for bins, products in self.under_taps(branches, kernel):
            products = ops.transpose(products, (0, 1, 3, 5, 2, 4))
            products = ops.reshape(products, (-1, 3 * bins, self.filters, 3 * bins))
            across.append(_mix(products, self._spread(bins, width)))
            down.append(self._spread(bins, height))
        # (B, 3 * bins of all branches, filters, W)
        across, down = ops.concatenate(across, axis=1), ops.concatenate(down, axis=0)
        across = ops.reshape(across, (-1, 1, across.shape[1], self.filters * width))
        spread = _mix(ops.transpose(across, (0, 1, 3, 2)), down)
        spread = ops.reshape(spread, (-1, self.filters, width, height))
        return ops.transpose(spread, (0, 3, 2, 1))

    def under_taps(self, branches, kernel):
        """Yields of each branch its bins and (B, bins, bins, 3, 3, filters): its regions' products
        with the kernel's taps."""
        first = 0
        for branch in branches:
            bins, channels = branch.shape[2:]
            taps = kernel[:, :, first : first + channels]
            first += channels
            taps = ops.reshape(ops.transpose(taps, (2, 0, 1, 3)), (1, 1, channels, -1))
            products = ops.conv(branch, taps, padding="valid")
            yield bins, ops.reshape(products, (-1, bins, bins, 3, 3, self.filters))

    def _spread(self, bins, side):
        """(3 * bins, side): what each region weighs at a place of an axis under each tap."""
        weights = interpolation(bins, side, self.align_corners, self.compute_dtype)
        padded = ops.pad(weights, ((1, 1), (0, 0)))
        under = ops.stack([padded[tap : tap + side] for tap in range(3)], axis=-1)
        return ops.transpose(ops.reshape(under, (side, 3 * bins)))

    def compute_output_shape(self, input_shape):
        return (*input_shape[0][:-1], self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "align_corners": self.align_corners,
        }


def _mix(x, matrix):
    """x @ matrix along the last axis, as a convolution: XNNPACK takes that in int8 too."""
    return ops.conv(x, matrix[None, None], padding="valid")


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
