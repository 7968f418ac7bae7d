"""Cross-entropy over the pixels that are not void, with class weights, OHEM and soft Jaccard."""

import math

import keras
import numpy as np
from keras import ops

from keras_pspnet.network.saving import refuse_version_0_1

OHEM_MIN_SHARE = 0.1
"""Share of a batch's valid pixels, the hardest ones, that OHEM always keeps. Our choice: a share,
since crops differ in size; mmsegmentation's OHEMPixelSampler keeps 100,000 pixels per picture,
which is 17 % of a 769x769 crop."""


@keras.saving.register_keras_serializable("keras_pspnet")
class VoidCrossentropy(keras.losses.Loss):
    """Compute the softmax cross-entropy of logits, averaged over the pixels that are not void.

    Equal to PyTorch's `CrossEntropyLoss(weight, ignore_index)`: with class weights the mean is
    weighted. A batch of nothing but void has loss 0.

    With `jaccard`, a soft Jaccard loss is added, which is closer to what mIoU measures (Rahman and
    Wang 2016). It is 1 - the mean, over the classes that occur in the batch, of
    sum(p * t) / sum(p + t - p * t), where the sums run over all valid pixels of the batch, p is the
    softmax of the logits and t is 1 for the true class and 0 otherwise.

    Args:
        ignore: Mask value of void pixels.
        class_weights: One factor per class; None weighs all classes equally.
        ohem_threshold: Online hard example mining (OHEM): only pixels whose predicted probability
            of the true class is below this value, in (0, 1], contribute to the loss, and always at
            least the hardest tenth of a batch's valid pixels. 0.7 is usual (mmsegmentation's
            OHEMPixelSampler). None uses all pixels.
        jaccard: Weight of the soft Jaccard loss; 0 adds none.
        name: Name of the loss.
        reduction: Must be "sum_over_batch_size", the mean.

    Call:
        y_true (B, H, W) or (B, H, W, 1) class ids, y_pred (B, H, W, C) logits -> a float32 scalar.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        ignore: int = 255,
        class_weights: list | None = None,
        ohem_threshold: float | None = None,
        jaccard: float = 0.0,
        name: str = "void_crossentropy",
        reduction: str = "sum_over_batch_size",
        **kwargs,
    ):
        super().__init__(name=name, reduction=reduction, **kwargs)
        if reduction != "sum_over_batch_size":
            raise ValueError(f"`reduction` must be left as it is. Received: {reduction!r}")
        if ohem_threshold is not None and not 0 < ohem_threshold <= 1:
            raise ValueError(f"`ohem_threshold` must be in (0, 1]. Received: {ohem_threshold}")
        if jaccard < 0:
            raise ValueError(f"`jaccard` must not be negative. Received: {jaccard}")
        self.ignore = ignore
        self.class_weights = None if class_weights is None else [float(w) for w in class_weights]
        self.ohem_threshold = ohem_threshold
        self.jaccard = float(jaccard)

    def call(self, y_true, y_pred):
        """Return one value per pixel, scaled so that their plain mean is the loss."""
        if len(y_true.shape) == len(y_pred.shape):
            y_true = ops.squeeze(y_true, -1)
        y_true = ops.cast(y_true, "int32")
        y_pred = ops.cast(y_pred, "float32")
        valid = ops.not_equal(y_true, self.ignore)
        labels = ops.where(valid, y_true, 0)
        losses = ops.sparse_categorical_crossentropy(labels, y_pred, from_logits=True)
        valid = weights = ops.cast(valid, losses.dtype)
        if self.ohem_threshold is not None:
            weights = weights * self._ohem_mask(losses, weights)
        if self.class_weights is not None:
            weights = weights * ops.take(ops.array(self.class_weights, losses.dtype), labels)
        pixels = ops.cast(ops.size(losses), losses.dtype)
        losses = losses * weights * ops.divide_no_nan(pixels, ops.sum(weights))
        return losses + self.jaccard * _jaccard(labels, valid, y_pred) if self.jaccard else losses

    def _ohem_mask(self, losses, valid):
        """Return 1 for hard pixels: a loss of -log(ohem_threshold) or more, or the hardest share.

        The mask may be 1 at void pixels.
        """
        losses = ops.stop_gradient(losses)
        ranked = -ops.sort(-ops.reshape(ops.where(valid > 0, losses, -1.0), (-1,)))
        keep = ops.cast(OHEM_MIN_SHARE * ops.sum(valid), "int32")
        last_kept = ops.take(ranked, ops.maximum(keep - 1, 0))
        limit = ops.where(keep > 0, last_kept, float("inf"))
        limit = ops.minimum(limit, -math.log(self.ohem_threshold))
        return ops.cast(losses >= ops.cast(limit, losses.dtype), losses.dtype)

    @classmethod
    def from_config(cls, config):
        refuse_version_0_1(config, "hard_below")
        return super().from_config(config)

    def get_config(self):
        return {
            **super().get_config(),
            "ignore": self.ignore,
            "class_weights": self.class_weights,
            "ohem_threshold": self.ohem_threshold,
            "jaccard": self.jaccard,
        }


def _jaccard(labels, valid, logits):
    """Return the soft Jaccard loss of a batch, a scalar in 0..1; 0 if all pixels are void."""
    truth = ops.one_hot(labels, logits.shape[-1], dtype=logits.dtype) * valid[..., None]
    probabilities = ops.softmax(logits) * valid[..., None]
    both = ops.sum(probabilities * truth, (0, 1, 2))
    truth = ops.sum(truth, (0, 1, 2))
    either = ops.sum(probabilities, (0, 1, 2)) + truth - both
    occurs = ops.cast(truth > 0, logits.dtype)
    missing = occurs * (1.0 - ops.divide_no_nan(both, either))
    return ops.divide_no_nan(ops.sum(missing), ops.sum(occurs))


def class_weights(pixel_counts) -> list[float]:
    """Return one weight per class, sqrt(median count / count of the class).

    The median is over the classes that have pixels; a class without pixels gets weight 1. This is
    median frequency balancing (Eigen and Fergus 2015) with two changes: the square root, which
    keeps the weights of rare classes moderate, and frequencies over all pixels of the dataset,
    where Eigen and Fergus count only the pictures in which the class occurs.

    Args:
        pixel_counts: Number of pixels of each class in the training set.
    """
    counts = np.asarray(pixel_counts, np.float64)
    median = np.median(counts[counts > 0]) if (counts > 0).any() else 1.0
    return np.sqrt(median / np.where(counts > 0, counts, median)).tolist()
