"""Scores from one confusion matrix, in numpy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import numpy as np

from keras_pspnet.errors import UserError
from keras_pspnet.labels import LabelSet, default_void_label


class ConfusionMatrix:
    """Counts pixels by true and predicted class over any number of pictures.

    Args:
        num_classes: classes 0..num_classes - 1.
        ignore: the true label of pixels that do not count; by default 255, or 65535 where 255 is
            a class id.
    """

    def __init__(self, num_classes: int, ignore: int | None = None):
        self.num_classes = num_classes
        self.ignore = default_void_label(num_classes) if ignore is None else ignore
        self.counts = np.zeros((num_classes, num_classes), np.int64)  # [truth, prediction]

    def update(self, truth, prediction) -> None:
        """Adds pictures: integer class ids of one shape.

        Raises:
            UserError: shapes that differ, a label out of range.
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
            if ids.size and not (ids.min() >= 0 and ids.max() < self.num_classes):
                wrong = ids[(ids < 0) | (ids >= self.num_classes)][0]
                raise UserError(
                    f"label {wrong} in a {what} is out of range; expected 0..{self.num_classes - 1}"
                    f" or {self.ignore} for void"
                )
        pairs = truth * self.num_classes + prediction
        self.counts += np.bincount(pairs, minlength=self.num_classes**2).reshape(self.counts.shape)

    def iou(self) -> np.ndarray:
        """(num_classes,) intersection over union; nan where neither truth nor prediction has it."""
        hit = np.diag(self.counts)
        union = self.counts.sum(0) + self.counts.sum(1) - hit
        return np.divide(hit, union, out=np.full(len(hit), np.nan), where=union > 0)

    def scores(self, labels: LabelSet | None = None) -> dict:
        """All scores, ready for JSON.

        `mIoU` is the mean over classes that occur in truth or prediction, as in
        keras.metrics.MeanIoU; `mIoU_all` counts absent classes as 0, as the authors' test program
        does; an absent class has the IoU None. Without any pixel all means are 0.
        """
        names = (labels or LabelSet.numbered(self.num_classes)).names
        iou = self.iou()
        occurs = ~np.isnan(iou)
        hit, true = np.diag(self.counts), self.counts.sum(1)
        recall = hit[true > 0] / true[true > 0]
        return {
            "mIoU": float(iou[occurs].mean()) if occurs.any() else 0.0,
            "mIoU_all": float(np.nan_to_num(iou).mean()),
            "mean_accuracy": float(recall.mean()) if recall.size else 0.0,
            "pixel_accuracy": float(hit.sum() / max(true.sum(), 1)),
            "classes": {
                name: None if np.isnan(value) else float(value) for name, value in zip(names, iou)
            },
        }


def evaluate(
    predict: Callable, examples: Iterable, labels: LabelSet, watch: Callable | None = None
) -> dict:
    """Scores a prediction on pictures with masks.

    Args:
        predict: image (H, W, 3) uint8 -> class ids (H, W).
        examples: (name, image, mask) each; masks hold class ids or 255.
        labels: the classes.
        watch: is called after each picture with its (name, image, mask), the prediction and the
            ConfusionMatrix of this picture alone; report.Report.watch is one.

    Returns:
        `ConfusionMatrix.scores` and "images", "seconds" (of prediction alone).

    Raises:
        UserError: a mask that does not fit its picture or the labels, with the picture's name.
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
        if watch is not None:
            watch(name, image, mask, prediction, picture)
    return {**matrix.scores(labels), "images": images, "seconds": round(seconds, 3)}
