"""Training augmentation of an image and its mask together, in the reference's order, on tf.data."""

from __future__ import annotations

import dataclasses
import math

import tensorflow as tf

from keras_pspnet.images import IMAGENET_MEAN
from keras_pspnet.labels import IGNORE


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Scale, rotation, blur, flip, in the order of semseg's tool/train.py (util/transform.py).

    The reference leaves the colours alone; `color` changes them last.

    Args:
        scales: range of the resizing factor, uniform.
        rotation: largest angle in degrees, either way.
        rotation_share, blur_share, flip_share: the probability of each.
        color: largest change of brightness (as a share of 128), contrast and saturation (factors
            from 1 - color to 1 + color), each uniform; 0 for none.
    """

    scales: tuple[float, float] = (0.5, 2.0)
    rotation: float = 10.0
    rotation_share: float = 0.5
    blur_share: float = 0.5
    flip_share: float = 0.5
    color: float = 0.0

    def __call__(self, image, mask, seed):
        """Augments one pair.

        Args:
            image: (H, W, 3) float32, 0..255.
            mask: (H, W) uint8, class ids or 255.
            seed: (2,) integers; the same seed, image and mask give the same result.

        Returns:
            (image, mask) of another size; the mask holds only ids it held before, or 255.
        """
        draws = tf.random.stateless_uniform((4,), seed)
        scale, angle = self.scales, math.radians(self.rotation)
        image, mask = rescale(image, mask, scale[0] + (scale[1] - scale[0]) * draws[0])
        # One draw decides both whether and how: uniform below the share, stretched to -1..1.
        turn = 2 * draws[1] / max(self.rotation_share, 1e-9) - 1
        image, mask = tf.cond(
            draws[1] < self.rotation_share,
            lambda: rotate(image, mask, angle * turn),
            lambda: (image, mask),
        )
        image = tf.cond(draws[2] < self.blur_share, lambda: blur(image), lambda: image)
        image, mask = tf.cond(
            draws[3] < self.flip_share,
            lambda: (image[:, ::-1], mask[:, ::-1]),
            lambda: (image, mask),
        )
        return (jitter(image, self.color, seed) if self.color else image), mask


def rescale(image, mask, factor):
    """Resizes both by a factor: the image bilinearly, the mask to nearest labels."""
    size = tf.cast(tf.shape(mask), tf.float32) * factor
    size = tf.maximum(tf.cast(tf.round(size), tf.int32), 1)
    image = tf.image.resize(image, size)
    mask = tf.image.resize(mask[..., None], size, method="nearest")[..., 0]
    return image, mask


def rotate(image, mask, angle):
    """Turns both about their centre by `angle` radians; what comes in is mean colour and void."""
    size = tf.shape(mask)
    center = tf.cast(size - 1, tf.float32) / 2
    cos, sin = tf.cos(angle), tf.sin(angle)
    x_offset = center[1] - cos * center[1] + sin * center[0]
    y_offset = center[0] - sin * center[1] - cos * center[0]
    matrix = tf.stack([cos, -sin, x_offset, sin, cos, y_offset, 0.0, 0.0])[None]

    def transform(values, method, fill):
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=values[None],
            transforms=matrix,
            output_shape=size,
            interpolation=method,
            fill_mode="CONSTANT",
            fill_value=fill,
        )[0]

    image = transform(image - IMAGENET_MEAN, "BILINEAR", 0.0) + IMAGENET_MEAN
    return image, transform(mask[..., None], "NEAREST", float(IGNORE))[..., 0]


def blur(image):
    """5x5 Gaussian, the taps that OpenCV's GaussianBlur((5, 5), 0) takes for that size."""
    taps = tf.constant([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    padded = tf.pad(image, ((2, 2), (2, 2), (0, 0)), "SYMMETRIC")[None]
    for kernel in (taps[:, None], taps[None, :]):
        kernel = tf.tile(kernel[..., None, None], (1, 1, 3, 1))
        padded = tf.nn.depthwise_conv2d(padded, kernel, (1, 1, 1, 1), "VALID")
    return padded[0]


def jitter(image, color, seed):
    """Other brightness, contrast and saturation, still in 0..255."""
    seed = tf.convert_to_tensor(seed)  # those of the other draws are (n, 0) and (n, 1)
    image = tf.image.stateless_random_brightness(image, 128 * color, seed + [0, 2])
    image = tf.image.stateless_random_contrast(image, 1 - color, 1 + color, seed + [0, 3])
    image = tf.clip_by_value(image, 0.0, 255.0)
    return tf.image.stateless_random_saturation(image, 1 - color, 1 + color, seed + [0, 4])


def crop(image, mask, size, seed=None):
    """Crops both to `size` (H, W); what is smaller is first padded, centred, with mean and void.

    Args:
        seed: (2,) integers for a random place; None crops the centre.
    """
    shape = tf.shape(mask)
    missing = tf.maximum(tf.constant(size) - shape, 0)
    before = missing // 2
    paddings = tf.stack([before, missing - before], axis=1)
    image = tf.pad(image - IMAGENET_MEAN, tf.concat([paddings, [[0, 0]]], 0)) + IMAGENET_MEAN
    mask = tf.pad(mask, paddings, constant_values=IGNORE)

    room = shape + missing - size
    if seed is None:
        start = room // 2
    else:
        draw = tf.random.stateless_uniform((2,), seed)
        start = tf.cast(tf.floor(draw * tf.cast(room + 1, tf.float32)), tf.int32)
        start = tf.minimum(start, room)
    image = tf.slice(image, (start[0], start[1], 0), (*size, 3))
    mask = tf.slice(mask, start, size)
    return image, mask
