"""Resize bilinearly with align-corners, and pool adaptively, for known and unknown sizes."""

import keras
import numpy as np
from keras import ops


def spatial_size(x):
    """Return (H, W) of a (B, H, W, C) tensor: ints where known, scalar tensors elsewhere."""
    return tuple(ops.shape(x)[1:3])


def resize(x, size, align_corners=True, training=False):
    """Resize (B, H, W, C) floats bilinearly, without antialiasing.

    Args:
        size: (H, W), ints or integer tensors.
        align_corners: True aligns the centres of the corner pixels (the authors' Interp layer,
            F.interpolate(align_corners=True)); False uses half-pixel centres.
        training: True resizes by products of matrices on every backend: TensorFlow's own operation
            has a gradient that uses one core.

    Returns:
        (B, *size, C), of the dtype of `x`.
    """
    if keras.backend.backend() == "tensorflow" and not training:
        import tensorflow as tf

        # The raw operation becomes one RESIZE_BILINEAR in TFLite. keras.ops.image.resize has no
        # align_corners, and in Keras 3.15 it fails on the second unknown size of a session.
        resized = tf.raw_ops.ResizeBilinear(
            images=x,
            size=tf.stack(size),
            align_corners=align_corners,
            half_pixel_centers=not align_corners,
        )
        return ops.cast(resized, x.dtype)
    resized = ops.cast(x, "float32")
    for axis, (count, new_count) in enumerate(zip(spatial_size(x), size)):
        weights = interpolation(count, new_count, align_corners, "float32")
        resized = _mix(weights, resized, axis)
    return ops.cast(resized, x.dtype)


def split(x, sizes, axis):
    """Split a tensor into parts of some sizes along an axis; return a list."""
    ends = np.cumsum(sizes)[:-1].tolist()
    return ops.split(x, ends, axis=axis) if ends else [x]  # Keras 3.15 fails without an end


def _mix(weights, x, axis):
    """Return the products of weights (n, H or W) with (B, H, W, C) along axis 0 (H) or 1 (W)."""
    if axis == 1:
        return ops.matmul(weights, x)
    height, width = spatial_size(x)
    channels = x.shape[-1]
    x = ops.matmul(weights, ops.reshape(x, (-1, height, width * channels)))
    return ops.reshape(x, (-1, ops.shape(weights)[0], width, channels))


def interpolation(count, new_count, align_corners, dtype):
    """Return the weights of linear interpolation along one axis: (new_count, count)."""
    target = ops.arange(new_count, dtype="float32")
    if align_corners:
        steps = ops.cast(ops.maximum(new_count - 1, 1), "float32")
        source = target * (ops.cast(count - 1, "float32") / steps)
    else:
        last = ops.cast(count - 1, "float32")
        share = (last + 1) / ops.cast(new_count, "float32")
        source = ops.clip((target + 0.5) * share - 0.5, 0, last)
    distance = ops.abs(source[:, None] - ops.arange(count, dtype="float32")[None])
    return ops.cast(ops.maximum(1.0 - distance, 0.0), dtype)


def adaptive_pools(x, bins, pooling="average", training=False):
    """Pool (B, H, W, C) adaptively to a list of (B, b, b, C), one for each b of `bins`.

    If the regions of the largest b divide the map evenly, and all other b divide the largest, the
    others are pooled from its result, so that the map is read once. Averages are products of
    matrices in training: the gradient then writes the map once and not once for each region.
    """
    if training and pooling == "average":
        height, width = spatial_size(x)
        rows = _mix(ops.concatenate([_regions(height, b) for b in bins]), x, axis=0)
        parts = split(rows, bins, axis=1)
        return [_mix(_regions(width, b), part, axis=1) for b, part in zip(bins, parts)]
    finest = max(bins)
    if not _divides_evenly(x, finest) or any(finest % b for b in bins):
        return [adaptive_pool(x, b, pooling) for b in bins]
    x = adaptive_pool(x, finest, pooling)
    return [x if b == finest else adaptive_pool(x, b, pooling) for b in bins]


def _regions(count, bins):
    """Return the weights of the averages over the regions of `adaptive_pool`: (bins, count)."""
    numbers, pixels = ops.arange(bins)[:, None], ops.arange(count)[None]
    start, stop = (numbers * count) // bins, -((-(numbers + 1) * count) // bins)
    inside = ops.cast(ops.logical_and(pixels >= start, pixels < stop), "float32")
    return inside / ops.cast(stop - start, "float32")


def adaptive_pool(x, bins, pooling):
    """Pool (B, H, W, C) adaptively to (B, bins, bins, C), by "average" or "max".

    Bin i of an axis of n pixels covers floor(i n / bins) to ceil((i + 1) n / bins), as in PyTorch's
    AdaptiveAvgPool2d: bins overlap if n is no multiple of `bins`.
    """
    reduce = ops.mean if pooling == "average" else ops.max
    if _divides_evenly(x, bins):
        # When quantized, means over axes 1 and 2 run in XNNPACK, each with its own range. An
        # AVERAGE_POOL_2D does not, and must keep the range of its input.
        rows, columns, channels = x.shape[1:]
        x = ops.reshape(x, (-1, columns // bins, 1, channels))
        x = reduce(x, axis=(1, 2))
        x = ops.reshape(x, (-1, rows // bins, 1, bins * channels))
        x = reduce(x, axis=(1, 2))
        return ops.reshape(x, (-1, bins, bins, channels))
    # keras.layers.AdaptiveAveragePooling2D needs known sizes; slices work for all.
    for axis, count in zip((1, 2), spatial_size(x)):
        x = _pool_axis(x, axis, count, bins, reduce)
    return x


def _divides_evenly(x, bins) -> bool:
    """Return whether H and W are known multiples of `bins`."""
    rows, columns = x.shape[1:3]
    return bool(rows and columns) and rows % bins == 0 and columns % bins == 0


def _pool_axis(x, axis, count, bins, reduce):
    """Pool one axis of `count` pixels to `bins`."""
    everything = (slice(None),) * axis
    windows = [
        everything + (slice((i * count) // bins, -((-(i + 1) * count) // bins)),)
        for i in range(bins)
    ]
    pooled = [reduce(x[window], axis=axis, keepdims=True) for window in windows]
    while len(pooled) > 4:  # XNNPACK concatenates four tensors at once, newer versions five
        pooled = [ops.concatenate(pooled[i : i + 3], axis=axis) for i in range(0, len(pooled), 3)]
    return ops.concatenate(pooled, axis=axis)
