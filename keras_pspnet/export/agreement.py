"""Compare the classes of an exported file with the Keras model's, pixel by pixel."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np

from keras_pspnet.errors import UserError
from keras_pspnet.export.calibration import read_pictures, shortened
from keras_pspnet.export.formats import (
    CLASS_LOSS,
    EXACT_PICTURES,
    RANGE_PICTURES,
    WARN_BELOW,
)
from keras_pspnet.files import evenly_spaced
from keras_pspnet.images import resize_image
from keras_pspnet.inference.predictor import Predictor
from keras_pspnet.inference.segment import segment
from keras_pspnet.labels import LabelSet, default_void_label
from keras_pspnet.progress import track
from keras_pspnet.scoring.metrics import ConfusionMatrix


@dataclasses.dataclass
class ComparisonPictures:
    """The pictures on which files are calibrated and compared, and the Keras model's classes.

    Args:
        images: uint8 (H, W, 3), of any sizes.
        masks: class ids (H, W), or None, for each image.
        expected: the Keras model's class ids (1, H, W) for each image, at the model's size.
        keras_predictor: the Keras model.
        source: what the pictures are, for the card.
        faults: warnings of those that show nothing.
    """

    images: list[np.ndarray]
    masks: list[np.ndarray | None]
    expected: list[np.ndarray]
    keras_predictor: Predictor
    source: str
    faults: tuple[str, ...] = ()

    @classmethod
    def read(cls, calibration, network, labels: LabelSet, source) -> ComparisonPictures:
        """Read the pictures and run the Keras model on them.

        Args:
            calibration: see `export_model`.
            network: a keras.Model of a fixed size with one output, the logits.
            labels: its classes.
            source: what the pictures are, as "given pictures"; the card adds their number.

        Raises:
            UserError: no pictures, a picture that cannot be read, pictures that all show nothing, a
                mask whose shape or labels do not fit, a model whose logits are not finite.
        """
        size = tuple(network.input.shape[1:3])
        said: list[str] = []
        pictures, source = read_pictures(calibration, size, source, said.append)
        for name, image, mask in pictures:
            if mask is not None:
                _check_mask(mask, image, len(labels), f"the mask of {name}")
        keras_predictor = Predictor(network.predict_on_batch, "logits", labels, size)
        expected = []
        for _, image, _ in pictures:
            logits = keras_predictor(resize_image(image, size)[None])
            if not np.isfinite(logits).all():
                raise UserError("the model's logits are not numbers; its training has diverged")
            expected.append(logits.argmax(-1))
        _, images, masks = map(list, zip(*pictures))
        faults = tuple(line.removeprefix("WARNING: ") for line in said)
        return cls(images, masks, expected, keras_predictor, source, faults)

    def calibration_inputs(self) -> Iterator[np.ndarray]:
        """Yield at most `RANGE_PICTURES` inputs of the model: uint8 (1, H, W, 3)."""
        return map(self._input, evenly_spaced(self.images, RANGE_PICTURES))

    def _input(self, image):
        return resize_image(image, self.keras_predictor.size)[None]

    def warnings(self) -> list[str]:
        """Return what makes comparisons on these pictures worth less, as lines of text."""
        first = self.expected[0].flat[0]
        if any((classes != first).any() for classes in self.expected):
            return list(self.faults)
        name = self.keras_predictor.labels.names[first]
        return [
            *self.faults,
            f"the Keras model predicts {name} alone on all {len(self.images)} pictures; agreement "
            "there proves little",
        ]

    def compare(self, predictor: Predictor, what: str, exact=False) -> dict:
        """Compare an exported file with the Keras model, in total and class by class.

        Args:
            predictor: the exported file.
            what: the file's name, for the progress.
            exact: True if the file computes what the Keras model does but for rounding. Without
                masks, about `EXACT_PICTURES` pictures then prove it.

        Returns:
            At the model's size, in 0..1: `agreement`, the share of equal pixels, and
            `agreement_by_class`: {name: of the pixels of that class in the Keras model's map, the
            share that the file's map gives it too; None without such pixels}. If every picture has
            a mask, at its size: `mIoU`: {"keras", "file"} and `IoU_by_class`: {name: {"keras",
            "file"}, None for an absent class}; else None. `agreement_on` says what the pictures
            are; `warnings` is a list of lines of text.
        """
        labels, scored = self.keras_predictor.labels, self._have_masks()
        chosen = self._few() if exact and not scored else range(len(self.images))
        matrix, truth = ConfusionMatrix(len(labels)), ConfusionMatrix(len(labels))
        predictor = _remembering(predictor)  # both comparisons run it on the same input
        for number in track(chosen, f"comparing {what}", len(chosen)):
            image = self.images[number]
            found = predictor(self._input(image))
            found = found if predictor.output == "classes" else found.argmax(-1)
            matrix.update(self.expected[number], found)
            if scored:
                truth.update(self.masks[number], segment(predictor, image))
        hits, pixels = np.diag(matrix.counts).tolist(), matrix.counts.sum(1).tolist()
        agreement = sum(hits) / sum(pixels)
        shares = [hit / count if count else None for hit, count in zip(hits, pixels)]
        by_class = dict(zip(labels.names, shares))
        few_of = f"{len(chosen)} of {self.source}"
        result = {
            "agreement": agreement,
            "agreement_by_class": by_class,
            "agreement_on": self.source if len(chosen) == len(self.images) else few_of,
            "mIoU": None,
            "IoU_by_class": None,
        }
        measure, change = "equal pixels", "{0} to {2:.1%}"
        pairs = {name: (1.0, share) for name, share in by_class.items()}
        if scored:
            keras, file = self._keras_scores, truth.scores(labels)
            result["mIoU"] = {"keras": keras["mIoU"], "file": file["mIoU"]}
            measure, change = "IoU", "{} {:.3f} -> {:.3f}"
            pairs = {name: (keras["classes"][name], file["classes"][name]) for name in labels.names}
            result["IoU_by_class"] = {
                name: dict(zip(("keras", "file"), values)) for name, values in pairs.items()
            }
        warnings = self.warnings()
        if agreement < WARN_BELOW:
            warnings.append(f"only {agreement:.4%} of the pixels equal the Keras model's")
        return {**result, "warnings": [*warnings, *_class_losses(pairs, measure, change)]}

    def _have_masks(self) -> bool:
        return all(mask is not None for mask in self.masks)

    def _few(self) -> list[int]:
        """Return the numbers of a few pictures on which the Keras model finds all its classes.

        They are `EXACT_PICTURES`, evenly spaced, and for each class that is missing there the
        picture with most of it.
        """
        count = len(self.keras_predictor.labels)
        pixels = np.array([np.bincount(x.ravel(), minlength=count) for x in self.expected])
        chosen = set(evenly_spaced(range(len(self.images)), EXACT_PICTURES))
        for of_class in pixels.T:
            if of_class.any() and not of_class[list(chosen)].any():
                chosen.add(int(of_class.argmax()))
        return sorted(chosen)

    @functools.cached_property
    def _keras_scores(self) -> dict:
        """The scores of the Keras model, the same for every file."""
        labels = self.keras_predictor.labels
        matrix = ConfusionMatrix(len(labels))
        for image, mask in zip(self.images, self.masks):
            matrix.update(mask, segment(self.keras_predictor, image))
        return matrix.scores(labels)


def _remembering(predictor: Predictor) -> Predictor:
    """Return a predictor that answers the same input twice with one run."""
    last = None

    def run(images):
        nonlocal last
        if last is None or not np.array_equal(images, last[0]):
            last = images.copy(), predictor.run(images)
        return last[1].copy()

    return dataclasses.replace(predictor, run=run)


def _class_losses(pairs: dict, what: str, change: str) -> list[str]:
    """Return a warning that names the classes which lose more than `CLASS_LOSS`, or nothing.

    Args:
        pairs: class name -> the Keras model's value and the file's; a value or None.
        what: the name of the values.
        change: format of a name and its two values.
    """
    lost = [
        (after - before, change.format(name, before, after))
        for name, (before, after) in pairs.items()
        if None not in (before, after) and after < before - CLASS_LOSS
    ]
    if not lost:
        return []
    named = shortened([text for _, text in sorted(lost)])  # the largest loss first
    count = f"{len(lost)} class{' loses' if len(lost) == 1 else 'es lose'}"
    return [f"{count} more than {100 * CLASS_LOSS:.0f} points of {what}: {named}"]


def _check_mask(mask, image, classes, name) -> None:
    mask = np.asarray(mask)
    if mask.shape != image.shape[:2]:
        raise UserError(f"{name}: its shape is {mask.shape}; expected {image.shape[:2]}")
    wrong = mask[(mask != default_void_label(classes)) & ((mask < 0) | (mask >= classes))]
    if wrong.size:
        raise UserError(f"{name}: label {wrong.flat[0]} is out of range; expected 0..{classes - 1}")
