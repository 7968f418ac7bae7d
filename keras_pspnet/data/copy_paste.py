"""Paste the things of rare classes from one training picture into another."""

import dataclasses

import numpy as np
import tensorflow as tf

RARE = 0.5
"""A class is rare that has fewer pixels than this share of the median class. Our choice: of the
eleven of CamVid it takes the five that cover 1.2 % of the pixels or less."""

DRAWS = 8
"""Offset of the seed for the other picture's augmentation, larger than the number of draws of one
augmentation, so that both are independent."""


def rare_classes(pixel_counts) -> tuple[int, ...]:
    """Return the ids of the rare classes, see `RARE`.

    Args:
        pixel_counts: number of pixels of each class in the training set. Classes without any count
            neither as rare nor for the median.
    """
    counts = np.asarray(pixel_counts)
    present = counts[counts > 0]
    limit = RARE * np.median(present) if present.size else 0
    return tuple(int(index) for index in np.flatnonzero((counts > 0) & (counts < limit)))


@dataclasses.dataclass(frozen=True)
class CopyPaste:
    """Paste the pixels of some classes from another training picture, with their labels.

    "Simple Copy-Paste" (Ghiasi et al. 2021) for masks of classes: the other picture is augmented
    and cropped by itself, and nothing is blended.

    Args:
        share: probability of pasting, 0..1.
        classes: ids of the classes whose pixels are pasted.
        pictures: number of training pictures to take the other one from.
    """

    share: float
    classes: tuple[int, ...]
    pictures: int

    def __call__(self, image, mask, seed, augmented):
        """Paste into one pair, or not.

        Args:
            image: (H, W, 3) float32, augmented and cropped.
            mask: (H, W) uint8, class ids; void is 255.
            seed: (2,) int64, that of the pair's augmentation; it decides all here too.
            augmented: function of an index and a seed that returns a pair of the same size.

        Returns:
            Image and mask of the same form.
        """
        if not self.classes:
            return image, mask
        pastes, place = tf.unstack(tf.random.stateless_uniform((2,), seed + [0, DRAWS - 1]))
        index = tf.cast(place * self.pictures, tf.int64)
        index = tf.minimum(index, self.pictures - 1)  # a rounding may reach 1

        def pasted():
            other, ids = augmented(index, seed + [0, DRAWS])
            rare = tf.reduce_any(ids[..., None] == tf.constant(self.classes, tf.uint8), -1)
            return tf.where(rare[..., None], other, image), tf.where(rare, ids, mask)

        return tf.cond(pastes < self.share, pasted, lambda: (image, mask))
