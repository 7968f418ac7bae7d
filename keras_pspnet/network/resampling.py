"""Bilinear resizing with align-corners, and adaptive pooling, for sizes known or unknown."""

from __future__ import annotations

import keras
from keras import ops


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
    x = ops.tensordot(interpolation(rows, size[0], align_corners, x.dtype), x, [[1], [1]])
    x = ops.tensordot(interpolation(columns, size[1], align_corners, x.dtype), x, [[1], [2]])
    return ops.transpose(x, (2, 1, 0, 3))


def interpolation(count, new_count, align_corners, dtype):
    """(new_count, count): the weights of the linear interpolation along one axis."""
    target = ops.arange(new_count, dtype="float32")
    if align_corners:
        steps = ops.cast(ops.maximum(new_count - 1, 1), "float32")
        source = target * ((count - 1) / steps)
    else:
        share = count / ops.cast(new_count, "float32")
        source = ops.clip((target + 0.5) * share - 0.5, 0, count - 1)
    distance = ops.abs(source[:, None] - ops.arange(count, dtype="float32")[None])
    return ops.cast(ops.maximum(1.0 - distance, 0.0), dtype)


def adaptive_pools(x, bins, pooling="average"):
    """Pools (B, H, W, C) to a list of (B, b, b, C), one for each b of `bins`.

    Where the finest regions fill the map without overlap, and each coarser one is made of whole
    ones, the coarser are pooled from the finest: the map is read once.
    """
    finest = max(bins)
    if not _even(x, finest) or any(finest % b for b in bins):
        return [adaptive_pool(x, b, pooling) for b in bins]
    x = adaptive_pool(x, finest, pooling)
    return [x if b == finest else adaptive_pool(x, b, pooling) for b in bins]


def adaptive_pool(x, bins, pooling="average"):
    """Pools (B, H, W, C) to (B, bins, bins, C) with the windows of adaptive pooling.

    Bin i of an axis of n covers floor(i n / bins) to ceil((i + 1) n / bins), as PyTorch's
    AdaptiveAvgPool2d: windows overlap where n is no multiple of `bins`.
    """
    reduce = ops.mean if pooling == "average" else ops.max
    if _even(x, bins):
        # Means over axes 1 and 2 stay in XNNPACK when quantised, and each has a range of its own;
        # an AVERAGE_POOL_2D leaves it and must keep the range of its input.
        rows, columns, channels = x.shape[1:]
        x = ops.reshape(x, (-1, columns // bins, 1, channels))
        x = reduce(x, axis=(1, 2))
        x = ops.reshape(x, (-1, rows // bins, 1, bins * channels))
        x = reduce(x, axis=(1, 2))
        return ops.reshape(x, (-1, bins, bins, channels))
    # keras.layers.AdaptiveAveragePooling2D wants known sizes; slices work for any.
    for axis, count in zip((1, 2), spatial_size(x)):
        x = _pool_axis(x, axis, count, bins, reduce)
    return x


def _even(x, bins) -> bool:
    """Whether the regions are known to be of one size, without overlap."""
    rows, columns = x.shape[1:3]
    return bool(rows and columns) and rows % bins == 0 and columns % bins == 0


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
