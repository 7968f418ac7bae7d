"""Augment large pictures in a window around the crop alone."""

import tensorflow as tf

from keras_pspnet.data.augment import (
    Augmentation,
    blur,
    crop,
    crop_box,
    cut,
    flip,
    jitter,
    pad,
    rotate,
    rotate_part,
    scaled_size,
)

WHOLE_PIXELS = 2**18
"""Pixels of the largest picture that is augmented whole, about 512x512: at 640x480 the window takes
two thirds of the time, at CamVid's 480x360 as long."""

BLUR_REACH = 2
"""Pixels that the blur reads beyond a pixel, on each side."""

THUMBNAIL = 8
"""How often smaller the picture is from which a large one's mean colour is taken."""


def augment_and_crop(augmentation, image, mask, size, seed):
    """Augment one pair and crop it to `size` (H, W) at a random place, see `crop`.

    Of a picture of more than WHOLE_PIXELS an `Augmentation` computes only what the crop shows, in
    little memory. The result is that of the whole picture, up to rounding.

    Args:
        augmentation: an `Augmentation`, or a function of (image, mask, seed) like one.
        image: (H, W, 3) uint8.
        mask: (H, W) uint8, class ids; void is 255.
        seed: (2,) int64; the same seed, image and mask give the same result.
    """

    def whole():
        augmented = augmentation(tf.cast(image, tf.float32), mask, seed)
        return crop(*augmented, size, seed + [0, 1])

    if type(augmentation) is not Augmentation:  # a subclass may do anything to the picture
        return whole()
    return tf.cond(
        tf.size(mask) > WHOLE_PIXELS,
        lambda: _augment_window(augmentation, image, mask, tuple(size), seed),
        whole,
    )


@tf.function(autograph=False, reduce_retracing=True)  # a training builds a pipeline each epoch
def _augment_window(augmentation, image, mask, size, seed):
    """Compute what `augment_and_crop` returns from the part of the picture that it shows.

    The boxes are [[top, left], [bottom, right]] in pixels of the rescaled picture, ends excluded.
    Each step reads a larger box than it fills; they are found from the last step to the first.
    """
    factor, angle, rotates, blurs, flips = augmentation.draw(seed)
    full = scaled_size(mask, factor)
    shown = crop_box(full, size, seed + [0, 1])
    mirrored = tf.stack([shown[:, 0], full[1] - shown[::-1, 1]], 1)
    shown = tf.where(flips, mirrored, shown)
    blurred = _within(full, shown[0] - BLUR_REACH, shown[1] + BLUR_REACH)
    read = tf.cond(rotates, lambda: _box_before_rotation(blurred, angle, full), lambda: blurred)

    part, ids = _rescale_part(image, mask, full, read)
    part, ids = tf.cond(
        rotates, lambda: rotate_part(part, ids, angle, full, read, blurred), lambda: (part, ids)
    )
    part = tf.cond(blurs, lambda: blur(part), lambda: part)
    part, ids = cut(part, ids, shown - blurred[0])
    part, ids = tf.cond(flips, lambda: flip(part, ids), lambda: (part, ids))
    if augmentation.color:
        small = tf.image.resize(image, tf.maximum(tf.shape(mask) // THUMBNAIL, 1), method="area")
        void = tf.zeros(tf.shape(small)[:2], tf.uint8)
        small = tf.cond(rotates, lambda: rotate(small, void, angle)[0], lambda: small)
        part = jitter(part, augmentation.color, seed, whole=small)
    return pad(part, ids, size)


def _rescale_part(image, mask, size, box):
    """Return what `rescale` to `size` (H, W) gives within a box, from a uint8 image."""
    nearest, lower, upper, share = [], [], [], []
    for axis in (0, 1):  # the places where tf.image.resize reads
        length = tf.shape(mask)[axis]
        step = tf.cast(length, tf.float32) / tf.cast(size[axis], tf.float32)
        place = (tf.cast(tf.range(box[0, axis], box[1, axis]), tf.float32) + 0.5) * step
        nearest.append(tf.minimum(tf.cast(tf.floor(place), tf.int32), length - 1))
        below = tf.floor(place - 0.5)
        share.append(place - 0.5 - below)
        lower.append(tf.maximum(tf.cast(below, tf.int32), 0))
        upper.append(tf.minimum(tf.cast(below, tf.int32) + 1, length - 1))
    top, left = lower[0][0], lower[1][0]
    part = tf.cast(image[top : upper[0][-1] + 1, left : upper[1][-1] + 1], tf.float32)

    # Rows first, which are whole in memory.
    one, other = tf.gather(part, lower[0] - top), tf.gather(part, upper[0] - top)
    part = one + (other - one) * share[0][:, None, None]
    one, other = (tf.gather(part, place[1] - left, axis=1) for place in (lower, upper))
    part = one + (other - one) * share[1][:, None]
    return part, tf.gather(tf.gather(mask, nearest[0]), nearest[1], axis=1)


def _box_before_rotation(box, angle, size):
    """Return the box that the pixels of `box` come from in a rotation of a picture of `size`."""
    center = tf.cast(size - 1, tf.float32) / 2
    cos, sin = tf.cos(angle), tf.sin(angle)
    sides = tf.cast(box - [[0, 0], [1, 1]], tf.float32) - center
    y, x = (tf.reshape(part, [-1]) for part in tf.meshgrid(sides[:, 0], sides[:, 1]))
    places = tf.stack([sin * x + cos * y, cos * x - sin * y], 1) + center
    # Bilinear interpolation reads the next pixel too, and a rounding may read one more.
    first = tf.cast(tf.floor(tf.reduce_min(places, 0)), tf.int32) - 1
    last = tf.cast(tf.floor(tf.reduce_max(places, 0)), tf.int32) + 2
    return _within(size, first, last + 1)


def _within(size, start, end):
    """Return the box from `start` to `end` cut off at the picture's edges, at least one pixel."""
    start = tf.clip_by_value(start, 0, size - 1)
    return tf.stack([start, tf.clip_by_value(end, start + 1, size)])
