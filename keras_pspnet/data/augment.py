"""Random scale, rotation, blur, flip, colours and crop of an image and its mask."""

import dataclasses
import math

import tensorflow as tf

from keras_pspnet.images import IMAGENET_MEAN
from keras_pspnet.labels import IGNORE


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
        draws = tf.random.stateless_uniform((4,), seed)
        scale, angle = self.scales, math.radians(self.rotation)
        image, mask = rescale(image, mask, scale[0] + (scale[1] - scale[0]) * draws[0])
        # The same draw gives the angle: where it is below the share, it is uniform there too.
        direction = 2 * draws[1] / max(self.rotation_share, 1e-9) - 1  # -1..1
        image, mask = tf.cond(
            draws[1] < self.rotation_share,
            lambda: rotate(image, mask, angle * direction),
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
    """Resize both by a factor: the image bilinearly, the mask to the nearest label."""
    size = tf.cast(tf.shape(mask), tf.float32) * factor
    size = tf.maximum(tf.cast(tf.round(size), tf.int32), 1)
    image = tf.image.resize(image, size)
    mask = tf.image.resize(mask[..., None], size, method="nearest")[..., 0]
    return image, mask


def rotate(image, mask, angle):
    """Rotate both by `angle` radians about the centre; fill with ImageNet's mean and void."""
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


def jitter(image, color, seed):
    """Change brightness, contrast and saturation at random, see `Augmentation`; keep 0..255."""
    # The other draws have the seeds (n, 0) and (n, 1).
    seed = tf.convert_to_tensor(seed)
    image = tf.image.stateless_random_brightness(image, 128 * color, seed + [0, 2])
    image = tf.image.stateless_random_contrast(image, 1 - color, 1 + color, seed + [0, 3])
    image = tf.clip_by_value(image, 0.0, 255.0)
    return tf.image.stateless_random_saturation(image, 1 - color, 1 + color, seed + [0, 4])


def crop(image, mask, size, seed=None):
    """Crop both to `size` (H, W); pad smaller ones around with ImageNet's mean colour and void.

    Args:
        seed: (2,) integers for a random position; None crops the centre.
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
