"""Scores people can look at: what an evaluation saw, kept small, and made into one HTML page."""

from __future__ import annotations

import bisect
import io
from pathlib import Path

import numpy as np
from PIL import Image

from keras_pspnet import visualize
from keras_pspnet.errors import UserError
from keras_pspnet.files import writable_folder
from keras_pspnet.images import resize_image, resize_nearest
from keras_pspnet.labels import LabelSet
from keras_pspnet.scoring.metrics import ConfusionMatrix
from keras_pspnet.scoring.report_page import PictureEntry, data_uri, percent, render

SHOWN, SIDE = 6, 480
"""So many of the worst pictures are shown, and of the best; the longest side of a thumbnail."""

WRONG = np.array((255, 40, 30))


def page_in(folder) -> Path:
    """The file that the page of a folder is; makes nothing.

    Raises:
        UserError: the folder cannot be written, or the page's place is taken by a folder.
    """
    page = writable_folder(folder) / "index.html"
    if page.is_dir():
        raise UserError(f"{page}: is a folder; --report needs this name for its page")
    return page


class Report:
    """Watches `metrics.evaluate`; keeps counts, and the thumbnails of at most 12 pictures.

    Args:
        labels: the classes.
    """

    def __init__(self, labels: LabelSet):
        self.labels = labels
        self.matrix = ConfusionMatrix(len(labels))
        self.images = self.pixels = 0
        self.order: list[tuple[float, int]] = []  # (mIoU, number) of each in `kept`, worst first
        self.kept: list[PictureEntry] = []

    def watch(self, name: str, image, mask, classes, matrix: ConfusionMatrix) -> None:
        """Takes a picture as `metrics.evaluate` hands it on; the arrays are not kept.

        Args:
            name: what the picture is called.
            image: (H, W, 3) uint8.
            mask: (H, W) class ids of the truth, or void.
            classes: (H, W) predicted class ids.
            matrix: the counts of this picture alone.
        """
        self.matrix.counts += matrix.counts
        self.images, self.pixels = self.images + 1, self.pixels + mask.size
        if not matrix.counts.any():  # nothing but void has no score
            return
        score = matrix.scores()["mIoU"]
        place = bisect.bisect(self.order, (score, self.images))
        if place == SHOWN and len(self.order) == 2 * SHOWN:  # neither among the worst nor the best
            return
        self.order.insert(place, (score, self.images))
        self.kept.insert(place, self._seen(name, image, mask, classes, matrix, score))
        if len(self.order) > 2 * SHOWN:
            del self.order[SHOWN], self.kept[SHOWN]

    def worst_and_best(self) -> tuple[list[PictureEntry], list[PictureEntry]]:
        """The worst pictures, worst first, and the best, best first; of few, none is in both."""
        worst = min(SHOWN, (len(self.kept) + 1) // 2)
        return self.kept[:worst], self.kept[worst:][::-1]

    def page(self, scores: dict, *, model, dataset: str, split: str, command: str) -> bytes:
        """The page. The same scores, pictures and arguments give the same bytes.

        Args:
            scores: what `metrics.evaluate` returned.
            model: the model's path.
            dataset: the dataset's name.
            split: the split's name.
            command: what was typed to get the page.

        Returns:
            HTML in UTF-8.
        """
        worst, best = self.worst_and_best()
        return render(
            f"{Path(model).name} on {dataset}, {split}",
            command,
            scores,
            self.labels,
            self.matrix.counts,
            void=1 - self.matrix.counts.sum() / max(self.pixels, 1),
            worst=worst,
            best=best,
        )

    def _seen(self, name, image, mask, classes, matrix, score) -> PictureEntry:
        scale = min(SIDE / max(mask.shape), 1)
        size = tuple(max(round(side * scale), 1) for side in mask.shape)
        image = resize_image(image, size)
        truth, found = resize_nearest(mask, size), resize_nearest(classes, size)
        void = truth == self.matrix.ignore
        wrong = (truth != found) & ~void
        errors = np.where(wrong[..., None], 0.3 * image + 0.7 * WRONG, 0.45 * image)
        errors = errors.astype(np.uint8)
        colors = [visualize.colorize(ids, self.labels) for ids in (truth, found)]
        # Stripes, since black may be the colour of a class.
        stripes = np.where(np.add.outer(*map(np.arange, size)) // 3 % 2, 150, 40)[..., None]
        for picture in (colors[0], errors):
            picture[void] = stripes[void]
        counts = matrix.counts
        missed = 1 - np.diag(counts).sum() / counts.sum()
        figures = (
            ("picture", _jpeg(image), f"the picture {name}"),
            ("truth", _png(colors[0]), f"truth: {self._shares(counts.sum(1))}"),
            ("prediction", _png(colors[1]), f"prediction: {self._shares(counts.sum(0))}"),
            ("wrong pixels, red", _jpeg(errors), f"{percent(missed)} of the pixels are wrong"),
        )
        iou = matrix.iou()
        order = np.lexsort((-counts.sum(0), -counts.sum(1)))
        return PictureEntry(
            name=name,
            score=score,
            size=size,
            figures=figures,
            classes=tuple((int(n), float(iou[n])) for n in order if not np.isnan(iou[n])),
            void=float(np.mean(mask == self.matrix.ignore)),
        )

    def _shares(self, counts) -> str:
        """The largest classes of a picture in words, for those who do not see it."""
        order = [n for n in np.argsort(-counts, kind="stable") if counts[n]]
        named = [f"{self.labels.names[n]} {percent(counts[n] / counts.sum())}" for n in order[:5]]
        return ", ".join(named) + (f" and {len(order) - 5} more" if len(order) > 5 else "")


def _png(picture) -> str:
    return data_uri("png", visualize.png(picture))


def _jpeg(picture) -> str:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=88, subsampling=0)
    return data_uri("jpeg", stream.getvalue())
