"""Collect the pictures of an evaluation for an HTML page with scores, confusions and examples."""

import bisect
from pathlib import Path

import numpy as np

from keras_pspnet import visualize
from keras_pspnet.errors import UserError
from keras_pspnet.files import writable_folder
from keras_pspnet.images import resize_image, resize_nearest
from keras_pspnet.labels import LabelSet
from keras_pspnet.scoring.metrics import ConfusionMatrix
from keras_pspnet.scoring.report_page import VOID, PictureEntry, data_uri, render

SHOWN = 6
"""Number of worst pictures on the page, and of best pictures."""

SIDE = 480
"""Maximum length in pixels of a thumbnail's longer side."""

WRONG = np.array((255, 40, 30))
"""The colour of wrong pixels."""


def page_in(folder) -> Path:
    """Return the path of a folder's page, `index.html`, without creating anything.

    Raises:
        UserError: the folder cannot be written, or `index.html` is a folder.
    """
    page = writable_folder(folder) / "index.html"
    if page.is_dir():
        raise UserError(f"{page}: is a folder; --report needs this name for its page")
    return page


class Report:
    """Collect the pixel counts of an evaluation and thumbnails of its worst and best pictures.

    At most 12 pictures are kept, as thumbnails. Pass `Report.add` as `on_picture` to
    `metrics.evaluate`, then call `page`.

    Args:
        labels: the classes.
    """

    def __init__(self, labels: LabelSet):
        self.labels = labels
        self.matrix = ConfusionMatrix(len(labels))
        self.images = self.pixels = 0
        self.kept: list[PictureEntry] = []  # worst first

    def add(self, name: str, image, mask, prediction, matrix: ConfusionMatrix) -> None:
        """Add a picture; the arrays are not kept.

        Args:
            name: the picture's path.
            image: (H, W, 3) uint8.
            mask: (H, W) true class ids, or void.
            prediction: (H, W) predicted class ids.
            matrix: the confusion matrix of this picture alone.
        """
        self.matrix.counts += matrix.counts
        self.images, self.pixels = self.images + 1, self.pixels + mask.size
        if not matrix.counts.any():  # all void: there is no score
            return
        score = matrix.scores()["mIoU"]
        place = bisect.bisect(self.kept, score, key=lambda entry: entry.score)
        if place == SHOWN and len(self.kept) == 2 * SHOWN:  # neither among the worst nor the best
            return
        self.kept.insert(place, self._entry(name, image, mask, prediction, matrix, score))
        if len(self.kept) > 2 * SHOWN:
            del self.kept[SHOWN]

    def page(self, scores: dict, *, model, dataset: str, split: str, command: str) -> bytes:
        """Return the page as HTML in UTF-8. Equal inputs give equal bytes.

        Args:
            scores: the dictionary that `metrics.evaluate` returned.
            model: path of the model.
            dataset: name of the dataset.
            split: name of the split.
            command: the command line that made the page.
        """
        worst = min(SHOWN, (len(self.kept) + 1) // 2)  # of few pictures, none is shown twice
        return render(
            self.matrix.counts,
            self.labels,
            title=f"{Path(model).name} on {dataset}, {split}",
            command=command,
            scores=scores,
            void=1 - self.matrix.counts.sum() / max(self.pixels, 1),
            worst=self.kept[:worst],
            best=self.kept[worst:][::-1],
        )

    def _entry(self, name, image, mask, prediction, matrix, score) -> PictureEntry:
        scale = min(SIDE / max(mask.shape), 1)
        size = tuple(max(round(side * scale), 1) for side in mask.shape)
        image = resize_image(image, size)
        truth, found = resize_nearest(mask, size), resize_nearest(prediction, size)
        void = truth == self.matrix.ignore
        wrong = (truth != found) & ~void
        # Right pixels are lightened: none of them is as dark as void.
        errors = np.where(wrong[..., None], 0.3 * image + 0.7 * WRONG, 0.45 * image + 0.55 * 255)
        errors = errors.astype(np.uint8)
        truth, found = (visualize.colorize(ids, self.labels) for ids in (truth, found))
        truth[void] = errors[void] = VOID
        counts, iou = matrix.counts, matrix.iou()
        order = np.lexsort((-counts.sum(0), -counts.sum(1)))
        return PictureEntry(
            name=name,
            score=score,
            size=size,
            figures=(
                ("picture", _jpeg(image)),
                ("truth", data_uri("png", visualize.png(truth))),
                ("prediction", data_uri("png", visualize.png(found))),
                ("wrong pixels, red", _jpeg(errors)),
            ),
            classes=tuple((int(n), float(iou[n])) for n in order if not np.isnan(iou[n])),
            void=float(np.mean(mask == self.matrix.ignore)),
        )


def _jpeg(picture) -> str:
    return data_uri("jpeg", visualize.jpeg(picture, quality=88))
