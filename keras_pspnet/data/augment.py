"""Random scale, rotation, blur, flip, colours and crop of an image and its mask."""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from keras_pspnet.errors import UserError
from keras_pspnet.images import IMAGENET_MEAN, as_picture
from keras_pspnet.labels import IGNORE

PAIR = "an image (H, W, 3) float32 in 0..255 and a mask (H, W) uint8 of class ids and 255"
"""What an augmentation returns."""


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Scale, rotate, blur and flip at random, as semseg does, in its order.

    Order and defaults are those of semseg's tool/train.py and util/transform.py. The authors
    leave the colours alone: `color` adds brightness, contrast and saturation after the rest.

    Args:
        scales: (least, greatest) resizing factor; uniform.
        rotation: greatest angle in degrees; uniform in both directions.
        rotation_share, blur_share, flip_share: probability of each operation, 0..1.
        color: greatest change, 0..1; 0 changes nothing. The shift of the brightness is uniform in
            -128 * color .. 128 * color, the factors of contrast and of saturation are uniform in
            1 - color .. 1 + color.
    """

    scales: tuple[float, float] = (0.5, 2.0)
    rotation: float = 10.0
    rotation_share: float = 0.5
    blur_share: float = 0.5
    flip_share: float = 0.5
    color: float = 0.0

    def __call__(self, image, mask, seed):
        """Augment one pair.

        Args:
            image: (H, W, 3) float32 in 0..255.
            mask: (H, W) uint8, class ids; void is 255.
            seed: (2,) integers; the same seed, image and mask give the same result.

        Returns:
            Image (H', W', 3) float32 in 0..255 and mask (H', W') uint8, H' and W' scaled by the
            factor drawn. The mask holds no id that it did not hold before, but for 255.
        """
        factor, angle, rotates, blurs, flips = self.draw(seed)
        image, mask = rescale(image, mask, factor)
        image, mask = tf.cond(rotates, lambda: rotate(image, mask, angle), lambda: (image, mask))
        image = tf.cond(blurs, lambda: blur(image), lambda: image)
        image, mask = tf.cond(flips, lambda: flip(image, mask), lambda: (image, mask))
        return (jitter(image, self.color, seed) if self.color else image), mask

    def draw(self, seed):
        """Draw the resizing factor, the angle in radians, and whether to rotate, blur and flip."""
        draws = tf.random.stateless_uniform((4,), seed)
        scale, angle = self.scales, math.radians(self.rotation)
        # One draw says whether to rotate and how far: below the share it is uniform in 0..share.
        direction = 2 * draws[1] / max(self.rotation_share, 1e-9) - 1  # -1..1
        return (
            scale[0] + (scale[1] - scale[0]) * draws[0],
            angle * direction,
            draws[1] < self.rotation_share,
            draws[2] < self.blur_share,
            draws[3] < self.flip_share,
        )


def rescale(image, mask, factor):
    """Resize both by a factor: the image bilinearly, the mask to the nearest label."""
    size = scaled_size(mask, factor)
    image = tf.image.resize(image, size)
    mask = tf.image.resize(mask[..., None], size, method="nearest")[..., 0]
    return image, mask


def scaled_size(mask, factor):
    """Return the size (H, W) that `rescale` gives."""
    size = tf.cast(tf.shape(mask), tf.float32) * factor
    return tf.maximum(tf.cast(tf.round(size), tf.int32), 1)


def rotate(image, mask, angle):
    """Rotate both by `angle` radians about the centre; fill with ImageNet's mean and void."""
    size = tf.shape(mask)
    box = tf.stack([tf.zeros_like(size), size])
    return rotate_part(image, mask, angle, size, box, box)


def rotate_part(image, mask, angle, size, read, box):
    """Rotate a picture of `size` (H, W) of which image and mask are a part, see `rotate`.

    Args:
        read: the box [[top, left], [bottom, right]] of the picture that image and mask hold.
        box: the box of the rotated picture to compute; pixels outside `read` count as filled.
    """
    center = tf.cast(size - 1, tf.float32) / 2
    cos, sin = tf.cos(angle), tf.sin(angle)
    top, left = tf.unstack(tf.cast(box[0], tf.float32))
    start = tf.cast(read[0], tf.float32)
    x_offset = center[1] - cos * center[1] + sin * center[0] + (cos * left - sin * top - start[1])
    y_offset = center[0] - sin * center[1] - cos * center[0] + (sin * left + cos * top - start[0])
    matrix = tf.stack([cos, -sin, x_offset, sin, cos, y_offset, 0.0, 0.0])[None]

    def transform(values, method, fill):
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=values[None],
            transforms=matrix,
            output_shape=box[1] - box[0],
            interpolation=method,
            fill_mode="CONSTANT",
            fill_value=fill,
        )[0]

    image = transform(image - IMAGENET_MEAN, "BILINEAR", 0.0) + IMAGENET_MEAN
    return image, transform(mask[..., None], "NEAREST", float(IGNORE))[..., 0]


def blur(image):
    """Blur with a 5x5 Gaussian as OpenCV's GaussianBlur((5, 5), 0), its border reflect-101."""
    taps = tf.constant([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    height, width = tf.unstack(tf.shape(image)[:2])
    padded = tf.gather(tf.gather(image, _reflected(height)), _reflected(width), axis=1)[None]
    for kernel in (taps[:, None], taps[None, :]):
        kernel = tf.tile(kernel[..., None, None], (1, 1, 3, 1))
        padded = tf.nn.depthwise_conv2d(padded, kernel, (1, 1, 1, 1), "VALID")
    return padded[0]


def _reflected(length):
    """Return the indices that pad by 2 on both sides, mirrored without repeating the edge.

    tf.pad's REFLECT does the same, but refuses fewer than 3 pixels.
    """
    period = tf.maximum(2 * (length - 1), 1)
    places = tf.math.floormod(tf.range(-2, length + 2), period)
    return tf.minimum(places, period - places)


def flip(image, mask):
    """Mirror both, left to right."""
    # A slice with the step -1 takes thirteen times as long.
    return tf.reverse(image, [1]), tf.reverse(mask, [1])


def jitter(image, color, seed, whole=None):
    """Change brightness, contrast and saturation at random, see `Augmentation`; keep 0..255.

    Args:
        whole: the picture that `image` is a part of, smaller; contrast is about its mean colour.
            None if `image` is the whole picture.
    """
    # The other draws have the seeds (n, 0) and (n, 1).
    seed = tf.convert_to_tensor(seed)

    def brighten(image):
        return tf.image.stateless_random_brightness(image, 128 * color, seed + [0, 2])

    image = brighten(image)
    if whole is None:
        image = tf.image.stateless_random_contrast(image, 1 - color, 1 + color, seed + [0, 3])
    else:
        mean = tf.reduce_mean(brighten(whole), (0, 1))
        factor = tf.random.stateless_uniform((), seed + [0, 3], 1 - color, 1 + color)
        image = (image - mean) * factor + mean
    image = tf.clip_by_value(image, 0.0, 255.0)
    return tf.image.stateless_random_saturation(image, 1 - color, 1 + color, seed + [0, 4])


def crop(image, mask, size, seed=None):
    """Crop both to `size` (H, W); pad smaller ones around with ImageNet's mean colour and void.

    Args:
        seed: (2,) integers for a random position; None crops the centre.
    """
    return pad(*cut(image, mask, crop_box(tf.shape(mask), size, seed)), size)


def crop_box(shape, size, seed=None):
    """Return the part of a picture of `shape` (H, W) that a crop to `size` shows, see `crop`."""
    room = tf.maximum(shape - tf.constant(size), 0)
    if seed is None:
        start = room // 2
    else:
        draw = tf.random.stateless_uniform((2,), seed)
        start = tf.cast(tf.floor(draw * tf.cast(room + 1, tf.float32)), tf.int32)
        start = tf.minimum(start, room)
    return tf.stack([start, start + tf.minimum(shape, tf.constant(size))])


def cut(image, mask, box):
    """Return the part of both within a box [[top, left], [bottom, right]], ends excluded."""
    size = box[1] - box[0]
    image = tf.slice(image, tf.pad(box[0], [[0, 1]]), tf.concat([size, [3]], 0))
    return image, tf.slice(mask, box[0], size)


def pad(image, mask, size):
    """Pad both around to `size` (H, W) with ImageNet's mean colour and void."""
    missing = tf.constant(size) - tf.shape(mask)
    before = missing // 2
    paddings = tf.stack([before, missing - before], axis=1)
    image = tf.cast(image, tf.float32) - IMAGENET_MEAN
    image = tf.pad(image, tf.concat([paddings, [[0, 0]]], 0)) + IMAGENET_MEAN
    mask = tf.pad(mask, paddings, constant_values=IGNORE)
    return tf.ensure_shape(image, (*size, 3)), tf.ensure_shape(mask, size)


def trouble_of(pair, classes: int, before) -> str | None:
    """Return what is wrong with an augmented pair, or None; `before` is its picture, an array."""
    if not isinstance(pair, tuple) or not all(isinstance(part, tf.Tensor) for part in pair):
        return "returns no pair of tensors"
    if len(pair) != 2:
        return f"returns {len(pair)} values"
    image, mask = (part.numpy() for part in pair)
    if image.dtype != np.float32 or image.ndim != 3 or image.shape[2] != 3:
        return f"returns an image {image.shape} {image.dtype}"
    if mask.dtype != np.uint8 or mask.ndim != 2:
        return f"returns a mask {mask.shape} {mask.dtype}"
    if mask.shape != image.shape[:2]:
        return f"returns an image {image.shape} and a mask {mask.shape}"
    try:
        if before.max() > 1:  # the values of a black picture say nothing
            as_picture(image, "its image")
    except UserError as error:
        return str(error).partition("; ")[0]
    wrong = mask[(mask >= classes) & (mask != IGNORE)]
    return f"returns a mask with the id {wrong[0]}, of {classes} classes" if len(wrong) else None
