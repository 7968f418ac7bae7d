"""Compute segmentation scores from a confusion matrix, in numpy."""

import time
from collections.abc import Callable, Iterable

import numpy as np

from keras_pspnet.errors import UserError
from keras_pspnet.labels import LabelSet, default_void_label


class ConfusionMatrix:
    """Count pixels by true and predicted class, over any number of pictures.

    Args:
        num_classes: number of classes; their ids are 0..num_classes - 1.

    Attributes:
        counts: (num_classes, num_classes) int64 pixel counts; rows are the truth, columns the
            prediction.
        ignore: the void label, 255, or 65535 where 255 is a class id. Pixels with this true label
            do not count.
    """

    def __init__(self, num_classes: int):
        self.num_classes = num_classes
        self.ignore = default_void_label(num_classes)
        self.counts = np.zeros((num_classes, num_classes), np.int64)

    def update(self, truth, prediction) -> None:
        """Add the pixels of one or several pictures.

        Args:
            truth: integer class ids or void, of any shape.
            prediction: integer class ids, of the same shape.

        Raises:
            UserError: the shapes differ, or a label is out of range.
        """
        truth, prediction = np.asarray(truth), np.asarray(prediction)
        if truth.shape != prediction.shape:
            raise UserError(
                f"the mask has shape {truth.shape}, the prediction {prediction.shape}; "
                "expected the same"
            )
        valid = truth != self.ignore
        truth = truth[valid].astype(np.int64)
        prediction = prediction[valid].astype(np.int64)
        for what, ids in (("mask", truth), ("prediction", prediction)):
            wrong = ids[(ids < 0) | (ids >= self.num_classes)]
            if wrong.size:
                raise UserError(
                    f"label {wrong[0]} in a {what} is out of range; expected "
                    f"0..{self.num_classes - 1} or {self.ignore} for void"
                )
        pairs = truth * self.num_classes + prediction
        self.counts += np.bincount(pairs, minlength=self.num_classes**2).reshape(self.counts.shape)

    def iou(self) -> np.ndarray:
        """Return the intersection over union of each class.

        Returns:
            (num_classes,) float64 in 0..1; nan for classes in neither truth nor prediction.
        """
        hit = np.diag(self.counts)
        return _ratio(hit, self.counts.sum(0) + self.counts.sum(1) - hit)

    def scores(self, labels: LabelSet | None = None) -> dict:
        """Return all scores as a dictionary that JSON can hold.

        With the pixels TP (of the class and predicted as it), FP (predicted as it, of another) and
        FN (of the class, predicted as another): IoU = TP / (TP + FP + FN), precision =
        TP / (TP + FP), recall = TP / (TP + FN), F1 (Dice) = 2 TP / (2 TP + FP + FN).

        Args:
            labels: names of the classes; class_0, class_1, ... by default.

        Returns:
            "mIoU": mean IoU of the classes that occur in truth or prediction, as in
            keras.metrics.MeanIoU; "mIoU_all": mean IoU in which absent classes count as 0, as in
            the authors' test program; "fwIoU": IoU weighted by the classes' pixels in the truth;
            "mean_accuracy" and "mean_recall": mean recall of the classes in the truth;
            "mean_precision": mean of the classes that are predicted; "mean_F1": mean of those in
            truth or prediction; "pixel_accuracy"; "classes": {name: IoU}; "per_class":
            {name: {"IoU", "precision", "recall", "F1"}}, None where the denominator is 0. All are
            in 0..1, and means are 0 without any pixel.
        """
        names = (labels or LabelSet.numbered(self.num_classes)).names
        hit, found, true = np.diag(self.counts), self.counts.sum(0), self.counts.sum(1)
        columns = {
            "IoU": self.iou(),
            "precision": _ratio(hit, found),
            "recall": _ratio(hit, true),
            "F1": _ratio(2 * hit, found + true),
        }
        iou = columns["IoU"]
        rows = [dict(zip(columns, map(_or_none, row))) for row in zip(*columns.values())]
        return {
            "mIoU": _mean(iou),
            "mIoU_all": float(np.nan_to_num(iou).mean()),
            "fwIoU": float((true * np.nan_to_num(iou)).sum() / max(true.sum(), 1)),
            "mean_accuracy": _mean(columns["recall"]),
            "mean_precision": _mean(columns["precision"]),
            "mean_recall": _mean(columns["recall"]),
            "mean_F1": _mean(columns["F1"]),
            "pixel_accuracy": float(hit.sum() / max(true.sum(), 1)),
            "classes": {name: row["IoU"] for name, row in zip(names, rows)},
            "per_class": dict(zip(names, rows)),
        }


def _ratio(part, whole) -> np.ndarray:
    """Return part / whole, float64; nan where the whole is 0."""
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _mean(values) -> float:
    """Return the mean of the values that are not nan, or 0 if there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else 0.0


def _or_none(value) -> float | None:
    return None if np.isnan(value) else float(value)


def evaluate(
    predict: Callable, examples: Iterable, labels: LabelSet, on_picture: Callable | None = None
) -> dict:
    """Score predictions on pictures with masks.

    Args:
        predict: maps a picture (H, W, 3) uint8 to its class ids (H, W).
        examples: yields (name, image, mask); image (H, W, 3) uint8, mask (H, W) with class ids, or
            255 for void.
        labels: the classes.
        on_picture: called after each picture as `on_picture(name, image, mask, prediction,
            matrix)`, where matrix is the ConfusionMatrix of this picture alone; for example
            `Report.add`.

    Returns:
        The dictionary of `ConfusionMatrix.scores` over all pictures, and "images": their number,
        "seconds": the time spent in `predict`.

    Raises:
        UserError: a mask does not fit its picture or the labels; the message names the picture.
    """
    matrix = ConfusionMatrix(len(labels))
    images, seconds = 0, 0.0
    for name, image, mask in examples:
        start = time.perf_counter()
        prediction = predict(image)
        seconds += time.perf_counter() - start
        picture = ConfusionMatrix(len(labels))
        try:
            picture.update(mask, prediction)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        matrix.counts += picture.counts
        images += 1
        if on_picture is not None:
            on_picture(name, image, mask, prediction, picture)
    return {**matrix.scores(labels), "images": images, "seconds": round(seconds, 3)}
