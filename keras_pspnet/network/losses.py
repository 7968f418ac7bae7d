"""Cross-entropy over the pixels that count: class weights, OHEM, focal; soft Jaccard and Dice."""

import math

import keras
import numpy as np
from keras import ops

from keras_pspnet.network import replicas
from keras_pspnet.network.saving import refuse_version_0_1

OHEM_MIN_SHARE = 0.1
"""Share of a batch's valid pixels, the hardest ones, that OHEM always keeps. Our choice: a share,
since crops differ in size; mmsegmentation's OHEMPixelSampler keeps 100,000 pixels per picture,
which is 17 % of a 769x769 crop."""

LEAST_MISS = 1e-7
"""Least 1 - p that the focal loss tells from 0: about the spacing of float32 below 1."""


@keras.saving.register_keras_serializable("keras_pspnet")
class VoidCrossentropy(keras.losses.Loss):
    """Compute the softmax cross-entropy of logits, averaged over the pixels that are not void.

    Equal to PyTorch's `CrossEntropyLoss(weight, ignore_index)`: with class weights the mean is
    weighted. A batch of nothing but void has loss 0.

    With `focal`, pixels that are predicted well count less (the focal loss of Lin et al. 2017): the
    cross-entropy of a pixel is multiplied by (1 - p) ** focal, where p is the predicted probability
    of its true class. What the mean divides by stays the same.

    With `jaccard`, a soft Jaccard loss is added, which is closer to what mIoU measures (Rahman and
    Wang 2016). It is 1 - the mean, over the classes that occur in the batch, of
    sum(p * t) / sum(p + t - p * t), where the sums run over all valid pixels of the batch, p is the
    softmax of the logits and t is 1 for the true class and 0 otherwise.

    With `dice`, a soft Dice loss is added (Milletari et al. 2016). It is 1 - the same mean of
    2 * sum(p * t) / sum(p ** 2 + t ** 2). Neither of the two uses class weights or OHEM.

    Over several devices, by `tf.distribute` or `keras.distribution`, the batch is the whole one:
    pixels, weights, hard pixels and the sums of both overlaps count over all devices.

    Args:
        ignore: Mask value of void pixels.
        class_weights: C factors, one per class; None weighs all classes equally.
        ohem_threshold: Online hard example mining (OHEM): only pixels whose predicted probability
            of the true class is below this value, in (0, 1], contribute to the loss, and always at
            least the hardest tenth of a batch's valid pixels. 0.7 is usual (mmsegmentation's
            OHEMPixelSampler). None uses all pixels.
        jaccard: Weight of the soft Jaccard loss; 0 adds none.
        dice: Weight of the soft Dice loss; 0 adds none.
        focal: Exponent of the focal loss, gamma in the paper, which found 2 best; 0 is the plain
            cross-entropy. OHEM chooses its pixels by their probability, so it chooses the same.
        name: Name of the loss.
        reduction: Must be "sum_over_batch_size", the mean.

    Call:
        y_true (B, H, W) or (B, H, W, 1) class ids, y_pred (B, H, W, C) logits -> a float32 scalar.

    A label that is neither `ignore` nor a class is an InvalidArgumentError in TensorFlow. Under
    XLA, which removes checks and which Keras uses on a GPU, and under JAX the loss is NaN then:
    `data.with_aux(dataset, num_classes)` finds such labels on every backend.

    Raises:
        ValueError: An argument is out of range; when called, `class_weights` are not C factors.
    """

    def __init__(
        self,
        ignore: int = 255,
        class_weights: list | None = None,
        ohem_threshold: float | None = None,
        jaccard: float = 0.0,
        dice: float = 0.0,
        focal: float = 0.0,
        name: str = "void_crossentropy",
        reduction: str = "sum_over_batch_size",
        **kwargs,
    ):
        super().__init__(name=name, reduction=reduction, **kwargs)
        if reduction != "sum_over_batch_size":
            raise ValueError(f"`reduction` must be left as it is. Received: {reduction!r}")
        if ohem_threshold is not None and not 0 < ohem_threshold <= 1:
            raise ValueError(f"`ohem_threshold` must be in (0, 1]. Received: {ohem_threshold}")
        for argument, value in (("jaccard", jaccard), ("dice", dice), ("focal", focal)):
            if not 0 <= value < math.inf:
                raise ValueError(f"`{argument}` must be a number, at least 0. Received: {value}")
        self.ignore = ignore
        self.class_weights = None if class_weights is None else [float(w) for w in class_weights]
        self.ohem_threshold = ohem_threshold
        self.jaccard = float(jaccard)
        self.dice = float(dice)
        self.focal = float(focal)

    def call(self, y_true, y_pred):
        """Return one value per pixel, scaled so that their plain mean is the loss."""
        if len(y_true.shape) == len(y_pred.shape):
            y_true = ops.squeeze(y_true, -1)
        y_true = ops.cast(y_true, "int32")
        y_pred = ops.cast(y_pred, "float32")
        valid = ops.not_equal(y_true, self.ignore)
        labels = ops.where(valid, y_true, 0)
        valid = weights = ops.cast(valid, "float32")
        # Products with the one-hot truth: with deterministic operations TensorFlow's own sparse
        # cross-entropy gathers and scatters, at two to three times the time.
        truth = ops.one_hot(labels, y_pred.shape[-1], dtype="float32")
        # log(sum(exp)) step by step: TensorFlow's own log_softmax takes twice the time.
        shifted = y_pred - ops.stop_gradient(ops.max(y_pred, -1, keepdims=True))
        shares = ops.exp(shifted)
        total = ops.sum(shares, -1)
        losses = ops.log(total) - ops.sum(truth * shifted, -1)
        if self.jaccard or self.dice:
            sums = replicas.add(_class_sums(truth, valid, shares, total, losses))
        if self.ohem_threshold is not None:
            weights = weights * self._ohem_mask(losses, weights)
        if self.class_weights is not None:
            given, classes = len(self.class_weights), y_pred.shape[-1]
            if given != classes:
                raise ValueError(
                    f"{given} `class_weights` for {classes} classes; give one for each"
                )
            weights = weights * ops.take(ops.array(self.class_weights, "float32"), labels)
        # Keras takes the mean of these values on each replica, then that of the replicas.
        pixels = ops.cast(ops.size(losses), "float32") * replicas.count()
        if self.focal:
            losses = losses * _focal_factor(losses, self.focal)
        (counted,) = replicas.add([ops.sum(weights)])
        losses = losses * weights * ops.divide_no_nan(pixels, counted)
        overlap = replicas.share(losses) * replicas.count() if self.jaccard or self.dice else 0.0
        if self.jaccard:
            losses = losses + self.jaccard * overlap * _jaccard(*sums)
        if self.dice:
            losses = losses + self.dice * overlap * _dice(*sums)
        return _nan_at_no_class(losses, labels, y_pred.shape[-1])

    def counted(self, y_true):
        """Return the number of each picture's valid pixels, each times its class weight.

        Args:
            y_true: (B, H, W) or (B, H, W, 1) class ids.

        Returns:
            (B,) float32. The cross-entropy of a batch is divided by their sum; with OHEM, by that
            of the hard pixels alone.
        """
        labels = ops.cast(ops.reshape(y_true, (ops.shape(y_true)[0], -1)), "int32")
        valid = ops.not_equal(labels, self.ignore)
        weights = ops.cast(valid, "float32")
        if self.class_weights is not None:
            factors = ops.array(self.class_weights, "float32")
            weights = weights * ops.take(factors, ops.where(valid, labels, 0))
        return ops.sum(weights, axis=-1)

    def _ohem_mask(self, losses, valid):
        """Return 1 for hard pixels: a loss of -log(ohem_threshold) or more, or the hardest share.

        The mask may be 1 at void pixels.
        """
        losses = ops.stop_gradient(losses)
        batch = replicas.gather(ops.reshape(ops.where(valid > 0, losses, -1.0), (-1,)))
        ranked = -ops.sort(-batch)
        (number,) = replicas.add([ops.sum(valid)])
        keep = ops.cast(OHEM_MIN_SHARE * number, "int32")
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
            "dice": self.dice,
            "focal": self.focal,
        }


def _nan_at_no_class(values, labels, classes: int):
    """Return values of pixels with NaN where the label is no class.

    Raises:
        tf.errors.InvalidArgumentError: on TensorFlow without XLA, if there is such a label; XLA
            removes checks, and JAX has none.
    """
    wrong = ops.logical_or(labels < 0, labels >= classes)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        text = f"a label is out of range, expected 0..{classes - 1} or `ignore`; least, greatest"
        tf.debugging.Assert(
            ~tf.reduce_any(wrong), [text, tf.reduce_min(labels), tf.reduce_max(labels)]
        )
    return ops.where(wrong, float("nan"), values)


def _focal_factor(losses, exponent):
    """Return (1 - p) ** exponent of each pixel, where p = exp(-its cross-entropy)."""
    # The least value keeps the gradient finite where p is 1 and the exponent below 1.
    return ops.power(ops.maximum(-ops.expm1(-losses), LEAST_MISS), exponent)


def _class_sums(truth, valid, shares, total, losses):
    """Sum over the valid pixels of a batch; return four vectors of one value per class.

    The softmax p is shares / total, which is never computed: the sums are products of matrices.

    Args:
        truth: one-hot true classes t, (B, H, W, C).
        valid: 1 at valid pixels and 0 elsewhere, (B, H, W).
        shares: positive values in proportion to the softmax, (B, H, W, C).
        total: their sum over the classes, (B, H, W).
        losses: cross-entropy of each pixel, (B, H, W).

    Returns:
        sum(t), sum(p), sum(p * t) and sum(p ** 2), each (C,).
    """
    classes = truth.shape[-1]
    return [
        ops.matmul(ops.reshape(factors, (1, -1)), ops.reshape(values, (-1, classes)))[0]
        for factors, values in (
            (valid, truth),
            (valid / total, shares),
            (valid * ops.exp(-losses), truth),  # exp(-loss) is p of the true class
            (valid / ops.square(total), ops.square(shares)),
        )
    ]


def _jaccard(truth, probabilities, both, squares):
    """Return the soft Jaccard loss of a batch, a scalar in 0..1; 0 if all pixels are void."""
    return _mean_missing(both, probabilities + truth - both, truth)


def _dice(truth, probabilities, both, squares):
    """Return the soft Dice loss of a batch, a scalar in 0..1; 0 if all pixels are void."""
    return _mean_missing(2.0 * both, squares + truth, truth)  # the truth's squares are itself


def _mean_missing(part, whole, truth):
    """Return the mean of 1 - part / whole over the classes with true pixels; 0 if none has any."""
    occurs = ops.cast(truth > 0, part.dtype)
    missing = occurs * (1.0 - ops.divide_no_nan(part, whole))
    return ops.divide_no_nan(ops.sum(missing), ops.sum(occurs))


def class_weights(pixel_counts) -> list[float]:
    """Return one weight per class, sqrt(median count / count of the class).

    The median is over the classes that have pixels; a class without pixels gets weight 1. This is
    median frequency balancing (Eigen and Fergus 2015) with two changes: the square root, which
    keeps the weights of rare classes moderate, and frequencies over all pixels of the dataset,
    where Eigen and Fergus count only the pictures in which the class occurs.

    Args:
        pixel_counts: Number of pixels of each class in the training set, C integers.

    Returns:
        A list of C floats for `VoidCrossentropy(class_weights=)`.
    """
    counts = np.asarray(pixel_counts, np.float64)
    median = np.median(counts[counts > 0]) if (counts > 0).any() else 1.0
    return np.sqrt(median / np.where(counts > 0, counts, median)).tolist()
