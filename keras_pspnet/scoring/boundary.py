"""Boundary IoU: the IoU of the pixels along the contours of the classes."""

import math

import numpy as np

from keras_pspnet.labels import LabelSet
from keras_pspnet.scoring.metrics import ConfusionMatrix

WIDTH = 0.02
"""Width of a boundary as a share of the picture's diagonal (Cheng et al., "Boundary IoU", CVPR
2021: 2 %; boundary_iou_api: dilation_ratio)."""


class BoundaryIoU:
    """Count the boundary pixels of each class that truth and prediction share.

    The boundary of a class are its pixels at most `WIDTH` x diagonal from a pixel that is not of
    it, where diagonal neighbours are one pixel apart; beyond the picture's edge nothing is. Void
    pixels are of no class, in the truth and in the prediction. Pass `BoundaryIoU.add` as
    `on_picture` to `metrics.evaluate`, then call `add_to`.

    Args:
        labels: the classes.
    """

    def __init__(self, labels: LabelSet):
        self.names = labels.names
        self.shared, self.either = np.zeros((2, len(labels)), np.int64)

    def add(self, name: str, image, mask, prediction, matrix: ConfusionMatrix) -> None:
        """Add a picture.

        Args:
            name, image: not used.
            mask, prediction: (H, W) class ids; the mask may hold void.
            matrix: the confusion matrix of this picture alone.
        """
        width = max(round(WIDTH * math.hypot(*mask.shape)), 1)
        valid = mask != matrix.ignore
        for label in np.flatnonzero(matrix.counts.sum(0) + matrix.counts.sum(1)):
            true, found = (boundary((ids == label) & valid, width) for ids in (mask, prediction))
            self.shared[label] += np.count_nonzero(true & found)
            self.either[label] += np.count_nonzero(true | found)

    def add_to(self, scores: dict) -> None:
        """Add "boundary_mIoU" to scores, and "boundary_IoU" to each class of their "per_class".

        The mean is that of the classes that occur; the others get None.
        """
        known = self.either > 0
        ious = self.shared[known] / self.either[known]
        scores["boundary_mIoU"] = float(ious.mean()) if ious.size else 0.0
        for row in scores["per_class"].values():
            row["boundary_IoU"] = None
        for label, iou in zip(np.flatnonzero(known), ious):
            scores["per_class"][self.names[label]]["boundary_IoU"] = float(iou)


def boundary(region, width: int) -> np.ndarray:
    """Return the pixels of a region, (H, W) bool, at most `width` from a pixel outside of it."""
    sums = np.pad(region, width).astype(np.int32)
    side = 2 * width + 1
    for axis in (0, 1):  # sums over the square around each pixel
        totals = np.insert(np.cumsum(sums, axis, dtype=np.int32), 0, 0, axis)
        count = totals.shape[axis]
        sums = totals.take(range(side, count), axis) - totals.take(range(count - side), axis)
    return region & (sums < side**2)
