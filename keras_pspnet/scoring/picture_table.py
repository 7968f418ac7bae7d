"""Scores of each picture as a CSV table."""

import csv
import io

import numpy as np

from keras_pspnet.labels import LabelSet
from keras_pspnet.scoring.metrics import ConfusionMatrix


class PictureTable:
    """Collect one row of scores for each picture.

    Pass `PictureTable.add` as `on_picture` to `metrics.evaluate`, then call `csv`.

    Args:
        labels: the classes.
    """

    def __init__(self, labels: LabelSet):
        names = [f"IoU {name}" for name in labels.names]
        self.rows = [["name", "mIoU", "pixel_accuracy", "pixels", "void", *names]]

    def add(self, name: str, image, mask, prediction, matrix: ConfusionMatrix) -> None:
        """Add a picture.

        Args:
            name: the picture's path.
            image, prediction: not used.
            mask: (H, W) class ids or void.
            matrix: the confusion matrix of this picture alone.
        """
        scores, pixels = matrix.scores(), int(matrix.counts.sum())
        known = [scores["mIoU"], scores["pixel_accuracy"]] if pixels else [None, None]
        counts = [pixels, int(np.sum(np.asarray(mask) == matrix.ignore))]
        self.rows.append([name, *known, *counts, *scores["classes"].values()])

    def csv(self) -> bytes:
        """Return the table in UTF-8.

        The columns are the picture's name, its mIoU and pixel accuracy (empty if all is void), the
        number of pixels that count and of void ones, and the IoU of each class (empty if absent).
        """
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows(self.rows)
        return stream.getvalue().encode("utf-8", "replace")  # names may hold bytes that are no text
