"""Cross-entropy over the pixels that count."""

from __future__ import annotations

import math

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable("keras_pspnet")
class VoidCrossentropy(keras.losses.Loss):
    """Softmax cross-entropy of logits, the mean over the pixels that are not void.

    As PyTorch's CrossEntropyLoss(weight, ignore_index): with class weights the mean is weighted. A
    batch with nothing but void has loss 0.

    With `jaccard`, a soft Jaccard loss is added, which is nearer to what mIoU measures (Rahman and
    Wang 2016): 1 - the mean, over the classes that occur in the batch, of
    sum(p * t) / sum(p + t - p * t) over all valid pixels of the batch, p the softmax, t 0 or 1.

    Args:
        ignore: the mask value of void pixels.
        class_weights: one factor a class, None for all 1.
        ohem_threshold: mine hard pixels: only those count whose true class has a probability below
            this value (0.7 is usual: mmsegmentation's OHEMPixelSampler); None counts all.
        hard_share: but at least this share of a batch's valid pixels, the hardest, always counts.
        jaccard: weight of the soft Jaccard loss, 0 for none.

    Call: y_true (B, H, W) or (B, H, W, 1) class ids, y_pred (B, H, W, C) logits.
    """

    def __init__(
        self,
        ignore=255,
        class_weights=None,
        ohem_threshold=None,
        hard_share=0.1,
        jaccard=0.0,
        name="void_crossentropy",
        reduction="sum_over_batch_size",
        **kwargs,
    ):
        super().__init__(name=name, reduction=reduction, **kwargs)
        if reduction != "sum_over_batch_size":
            raise ValueError(f"`reduction` must be left as it is. Received: {reduction!r}")
        if ohem_threshold is not None and not 0 < ohem_threshold <= 1:
            raise ValueError(f"`ohem_threshold` must be in (0, 1]. Received: {ohem_threshold}")
        if jaccard < 0:
            raise ValueError(f"`jaccard` must not be negative. Received: {jaccard}")
        if not 0 <= hard_share <= 1:
            raise ValueError(f"`hard_share` must be in [0, 1]. Received: {hard_share}")
        self.ignore = ignore
        self.class_weights = None if class_weights is None else [float(w) for w in class_weights]
        self.ohem_threshold = ohem_threshold
        self.hard_share = hard_share
        self.jaccard = float(jaccard)

    def call(self, y_true, y_pred):
        """The loss of each pixel, scaled so that the plain mean is the mean over what counts."""
        if len(y_true.shape) == len(y_pred.shape):
            y_true = ops.squeeze(y_true, -1)
        y_true = ops.cast(y_true, "int32")
        y_pred = ops.cast(y_pred, "float32")
        valid = ops.not_equal(y_true, self.ignore)
        labels = ops.where(valid, y_true, 0)
        losses = ops.sparse_categorical_crossentropy(labels, y_pred, from_logits=True)
        valid = weights = ops.cast(valid, losses.dtype)
        if self.ohem_threshold is not None:
            weights = weights * self._hard(losses, weights)
        if self.class_weights is not None:
            weights = weights * ops.take(ops.array(self.class_weights, losses.dtype), labels)
        pixels = ops.cast(ops.size(losses), losses.dtype)
        losses = losses * weights * ops.divide_no_nan(pixels, ops.sum(weights))
        return losses + self.jaccard * _jaccard(labels, valid, y_pred) if self.jaccard else losses

    def _hard(self, losses, valid):
        """1 for hard pixels: a loss over -log(ohem_threshold), or in the hardest share."""
        losses = ops.stop_gradient(losses)
        ranked = -ops.sort(-ops.reshape(ops.where(valid > 0, losses, -1.0), (-1,)))
        keep = ops.cast(self.hard_share * ops.sum(valid), "int32")
        last_kept = ops.take(ranked, ops.maximum(keep - 1, 0))
        limit = ops.where(keep > 0, last_kept, float("inf"))
        limit = ops.minimum(limit, -math.log(self.ohem_threshold))
        return ops.cast(losses >= ops.cast(limit, losses.dtype), losses.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "ignore": self.ignore,
            "class_weights": self.class_weights,
            "ohem_threshold": self.ohem_threshold,
            "hard_share": self.hard_share,
            "jaccard": self.jaccard,
        }


def _jaccard(labels, valid, logits):
    """The soft Jaccard loss of a batch, a scalar in 0..1; 0 where all is void."""
    truth = ops.one_hot(labels, logits.shape[-1], dtype=logits.dtype) * valid[..., None]
    probabilities = ops.softmax(logits) * valid[..., None]
    both = ops.sum(probabilities * truth, (0, 1, 2))
    truth = ops.sum(truth, (0, 1, 2))
    either = ops.sum(probabilities, (0, 1, 2)) + truth - both
    occurs = ops.cast(truth > 0, logits.dtype)
    missing = occurs * (1.0 - ops.divide_no_nan(both, either))
    return ops.divide_no_nan(ops.sum(missing), ops.sum(occurs))


def class_weights(pixel_counts) -> list[float]:
    """Square-rooted median-frequency weights of classes from their pixel counts.

    Median-frequency balancing (Eigen and Fergus 2015) weighs a class by median share / its share;
    the root tempers it. A class without pixels gets weight 1.
    """
    counts = np.asarray(pixel_counts, np.float64)
    median = np.median(counts[counts > 0]) if (counts > 0).any() else 1.0
    return np.sqrt(median / np.where(counts > 0, counts, median)).tolist()
