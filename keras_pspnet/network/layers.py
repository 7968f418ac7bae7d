"""Layers that Keras lacks: pyramid pooling, the convolution behind it, upsampling."""

import keras
from keras import ops

from keras_pspnet.labels import LabelSet
from keras_pspnet.network.batch_norm import BatchNormalization
from keras_pspnet.network.resampling import (
    adaptive_pools,
    interpolation,
    resize,
    spatial_size,
    split,
)
from keras_pspnet.network.saving import refuse_version_0_1


@keras.saving.register_keras_serializable("keras_pspnet")
class PyramidPoolingModule(keras.layers.Layer):
    """Pool a feature map at several grid sizes and concatenate the results with it.

    This is the pyramid pooling module of the paper (section 3.2, figure 3), for any feature map.
    Each branch pools the map to bins x bins regions, reduces the channels with a 1x1 convolution,
    batch norm and ReLU, and upsamples the result to the map's size. The output is the
    concatenation [x, branch of bins[0], branch of bins[1], ...], in the order of semseg
    model/pspnet.py.

    Args:
        bins: Grid sizes, one branch each; positive integers.
        pooling: "average" (the best in table 1) or "max".
        reduce_channels: Whether each branch reduces the C channels of the map to C // len(bins),
            at least 1 ("DR" in table 1). False upsamples the pooled maps as they are, and the
            module has no weights.
        align_corners: How branches are upsampled, bilinearly: True aligns the centres of the corner
            pixels (the authors' Interp layer), False uses half-pixel centres.
        upsample: False returns the list [x, branch, ...] without upsampling, each branch
            (B, bins, bins, channels), as `PyramidConv2D` takes it.

    Call:
        (B, H, W, C) floats, any H and W, also unknown ones -> (B, H, W, C + len(bins) *
        (C // len(bins))), or (B, H, W, C * (1 + len(bins))) without reduction.

    Raises:
        ValueError: `bins` or `pooling` has another form.
    """

    def __init__(
        self,
        bins: tuple = (1, 2, 3, 6),
        *,
        pooling: str = "average",
        reduce_channels: bool = True,
        align_corners: bool = True,
        upsample: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not bins or any(int(b) != b or b < 1 for b in bins):
            raise ValueError(f"`bins` must be positive integers, at least one. Received: {bins}")
        if pooling not in ("average", "max"):
            raise ValueError(f'`pooling` must be "average" or "max". Received: {pooling!r}')
        self.bins = tuple(int(b) for b in bins)
        self.pooling = pooling
        self.reduce_channels = reduce_channels
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
        # In float32: a sum over thousands of float16 values overflows.
        pyramid = adaptive_pools(ops.cast(x, "float32"), self.bins, self.pooling, bool(training))
        for index, pooled in enumerate(pyramid):
            pooled = ops.cast(pooled, self.compute_dtype)
            if self.reduce_channels:
                pooled = self.convolutions[index](pooled)
                pooled = ops.relu(self.norms[index](pooled, training=training))
            levels.append(pooled)
        if not self.upsample:
            return levels
        size = spatial_size(x)
        how = self.align_corners, bool(training)
        levels[1:] = [resize(level, size, *how) for level in levels[1:]]
        return ops.concatenate(levels, axis=-1)

    def _branch_channels(self, input_shape):
        if not self.reduce_channels:
            return input_shape[-1]
        return max(input_shape[-1] // len(self.bins), 1)

    def compute_output_shape(self, input_shape):
        channels = self._branch_channels(input_shape)
        if not self.upsample:
            return [input_shape, *((input_shape[0], b, b, channels) for b in self.bins)]
        channels = input_shape[-1] + len(self.bins) * channels
        return (*input_shape[:-1], channels)

    @classmethod
    def from_config(cls, config):
        refuse_version_0_1(config, "channels")
        return super().from_config(config)

    def get_config(self):
        return {
            **super().get_config(),
            "bins": self.bins,
            "pooling": self.pooling,
            "reduce_channels": self.reduce_channels,
            "align_corners": self.align_corners,
            "upsample": self.upsample,
        }


@keras.saving.register_keras_serializable("keras_pspnet")
class PyramidConv2D(keras.layers.Layer):
    """Convolve (3x3) a feature pyramid without upsampling or concatenating it.

    The result is that of `PyramidPoolingModule()` followed by a `Conv2D` with the same kernel and
    "same" padding, for any H and W, also unknown ones. It is computed at low rank: a branch of
    b x b regions is multiplied by the kernel's nine taps before it is upsampled, and the products
    are upsampled by two constant matrices, one for the columns and one for the rows. PSPNet-50 at
    473x473 needs 258 instead of 324 GFLOP, and a training step half of the time
    (benchmarks/results/training_steps.json).

    Args:
        filters: Number of output channels.
        align_corners: How branches are upsampled, see `PyramidPoolingModule`.

    Call:
        [x, branch, ...], the output of `PyramidPoolingModule(upsample=False)` ->
        (B, H, W, filters).

    The kernel has the shape (3, 3, channels of x and all branches, filters), in the order of the
    concatenation, as in semseg.
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
        kernel, *kernels = split(self.kernel, [part.shape[-1] for part in inputs], axis=2)
        outputs = ops.conv(x, kernel, padding="same")
        return outputs + self.convolve_branches(branches, kernels, spatial_size(x))

    def convolve_branches(self, branches, kernels, size):
        """Return the branches' part of the convolution, (B, *size, filters).

        Args:
            branches: Tensors (B, bins, bins, channels).
            kernels: The part of the kernel for each branch, (3, 3, its channels, filters).
            size: (H, W) of the feature map.
        """
        height, width = size
        across, down = [], []
        for bins, products in self.tap_products(branches, kernels):
            products = ops.transpose(products, (0, 1, 3, 5, 2, 4))
            products = ops.reshape(products, (-1, 3 * bins, self.filters, 3 * bins))
            across.append(_matmul(products, self.tap_weights(bins, width)))
            down.append(self.tap_weights(bins, height))
        # (B, 3 * bins of all branches, filters, W)
        across, down = ops.concatenate(across, axis=1), ops.concatenate(down, axis=0)
        across = ops.reshape(across, (-1, 1, across.shape[1], self.filters * width))
        spread = _matmul(ops.transpose(across, (0, 1, 3, 2)), down)
        spread = ops.reshape(spread, (-1, self.filters, width, height))
        return ops.transpose(spread, (0, 3, 2, 1))

    def tap_products(self, branches, kernels):
        """Yield (bins, products of the regions with the taps) of each branch.

        The products have the shape (B, bins, bins, 3, 3, filters).
        """
        for branch, kernel in zip(branches, kernels):
            bins, channels = branch.shape[2:]
            taps = ops.reshape(ops.transpose(kernel, (2, 0, 1, 3)), (1, 1, channels, -1))
            products = ops.conv(branch, taps, padding="valid")
            yield bins, ops.reshape(products, (-1, bins, bins, 3, 3, self.filters))

    def tap_weights(self, bins, side):
        """Return the interpolation weights (3 * bins, side) of an axis, shifted by the taps.

        Entry [3 * i + tap, n] is how much region i counts at the pixel that this tap sees from n.
        """
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


def _matmul(x, matrix):
    """Return x @ matrix along the last axis, as a convolution: XNNPACK runs that in int8 too."""
    return ops.conv(x, matrix[None, None], padding="valid")


@keras.saving.register_keras_serializable("keras_pspnet")
class Upsample(keras.layers.Layer):
    """Upsample one feature map bilinearly to the height and width of another.

    The layer also holds the labels, the source and the plan of the network, although it does not
    compute with them: attributes of a model are lost when it is saved, but the config of a layer
    survives saving, ModelCheckpoint and clone_model. The network's last layer, `main`, is an
    Upsample.

    Args:
        align_corners: True aligns the centres of the corner pixels, False uses half-pixel centres.
        labels: LabelSet of the network's classes, or its config.
        source: JSON-like record of where a converted network came from, see `convert`.
        plan: The arguments with which `build_pspnet` made the network, as JSON values: backbone
            (see `backbones.to_config`), output_stride, bins, pooling, reduce_channels, channels,
            detail, dropout (its rate; None for a layer without one) and align_corners.

    Call:
        x (B, h, w, C), like (B, H, W, any) -> (B, H, W, C).
    """

    def __init__(self, align_corners=True, labels=None, source=None, plan=None, **kwargs):
        super().__init__(**kwargs)
        self.align_corners = align_corners
        self.source = source
        self.plan = plan
        self.labels = LabelSet.from_config(labels) if isinstance(labels, dict) else labels

    def call(self, x, like, training=None):
        return resize(x, spatial_size(like), self.align_corners, bool(training))

    def compute_output_shape(self, x_shape, like_shape):
        return (x_shape[0], *like_shape[1:3], x_shape[-1])

    def get_config(self):
        return {
            **super().get_config(),
            "align_corners": self.align_corners,
            "labels": self.labels.to_config() if self.labels else None,
            "source": self.source,
            "plan": self.plan,
        }
