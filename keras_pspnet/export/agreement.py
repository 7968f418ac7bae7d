"""Compare the classes of an exported file with the Keras model's, pixel by pixel."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from keras_pspnet import scenes
from keras_pspnet.errors import UserError
from keras_pspnet.export.formats import CALIBRATION_PICTURES
from keras_pspnet.files import evenly_spaced
from keras_pspnet.images import as_picture, list_images, resize_image
from keras_pspnet.inference.predictor import Predictor
from keras_pspnet.inference.segment import segment
from keras_pspnet.labels import LabelSet, default_void_label
from keras_pspnet.scoring.metrics import ConfusionMatrix

DEFAULT_SCENES = 8


@dataclasses.dataclass
class ComparisonPictures:
    """The pictures on which files are calibrated and compared, and the Keras model's classes.

    Args:
        images: uint8 (H, W, 3), of any sizes.
        masks: class ids (H, W), or None, for each image.
        expected: the Keras model's class ids (1, H, W) for each image, at the model's size.
        keras_predictor: the Keras model.
        source: what the pictures are, for the card.
    """

    images: list[np.ndarray]
    masks: list[np.ndarray | None]
    expected: list[np.ndarray]
    keras_predictor: Predictor
    source: str

    @classmethod
    def read(cls, calibration, network, source) -> ComparisonPictures:
        """Read the pictures and run the Keras model on them.

        Args:
            calibration: see `export_model`.
            network: a keras.Model of a fixed size with one output, the logits.
            source: what the pictures are, as "given pictures"; the card adds their number.

        Raises:
            UserError: no pictures, a picture that cannot be read, a mask whose shape or labels do
                not fit, a model whose logits are not finite.
        """
        size = tuple(network.input.shape[1:3])
        if calibration is None:
            drawn = tuple(max(side, 65) for side in size)
            pictures = [scenes.scene(i, split="val", size=drawn)[0] for i in range(DEFAULT_SCENES)]
            source = "generated scenes"
        elif isinstance(calibration, (str, Path)):
            pictures = list_images(calibration)
        else:
            pictures = list(calibration)
        if not pictures:
            raise UserError("no pictures to compare on; give at least one, or leave them out")
        pairs = [item if isinstance(item, (tuple, list)) else (item, None) for item in pictures]
        source = f"{len(pairs)} {source}"
        if len(pairs) > CALIBRATION_PICTURES and any(mask is None for _, mask in pairs):
            pairs = evenly_spaced(pairs, CALIBRATION_PICTURES)
            source = f"{CALIBRATION_PICTURES} of {source}"
        images = [as_picture(image) for image, _ in pairs]
        masks = [mask for _, mask in pairs]
        labels = LabelSet.numbered(network.output.shape[-1])
        for number, (image, mask) in enumerate(zip(images, masks)):
            if mask is not None:
                _check_mask(mask, image, len(labels), f"the mask of picture {number}")
        keras_predictor = Predictor(network.predict_on_batch, "logits", labels, size)
        expected = []
        for image in images:
            logits = keras_predictor(resize_image(image, size)[None])
            if not np.isfinite(logits).all():
                raise UserError("the model's logits are not numbers; its training has diverged")
            expected.append(logits.argmax(-1))
        return cls(images, masks, expected, keras_predictor, source)

    def calibration_inputs(self) -> Iterator[np.ndarray]:
        """Yield at most `CALIBRATION_PICTURES` inputs of the model: uint8 (1, H, W, 3)."""
        return map(self._input, evenly_spaced(self.images, CALIBRATION_PICTURES))

    def _input(self, image):
        return resize_image(image, self.keras_predictor.size)[None]

    def compare(self, predictor: Predictor) -> dict:
        """Return the share of equal pixels, and the mIoU of both if every picture has a mask.

        Args:
            predictor: the exported file.

        Returns:
            `agreement` in 0..1 at the model's size, `agreement_on`, and `mIoU`: {"keras", "file"},
            at the size of the masks, or None.
        """
        equal = pixels = 0
        for image, expected in zip(self.images, self.expected):
            found = predictor(self._input(image))
            found = found if predictor.output == "classes" else found.argmax(-1)
            equal += int((found == expected).sum())
            pixels += expected.size
        result = {"agreement": equal / pixels, "agreement_on": self.source, "mIoU": None}
        if all(mask is not None for mask in self.masks):
            result["mIoU"] = {
                "keras": self._miou(self.keras_predictor),
                "file": self._miou(predictor),
            }
        return result

    def _miou(self, predictor) -> float:
        matrix = ConfusionMatrix(len(self.keras_predictor.labels))
        for image, mask in zip(self.images, self.masks):
            matrix.update(mask, segment(predictor, image))
        return matrix.scores()["mIoU"]


def _check_mask(mask, image, classes, name) -> None:
    mask = np.asarray(mask)
    if mask.shape != image.shape[:2]:
        raise UserError(f"{name}: its shape is {mask.shape}; expected {image.shape[:2]}")
    wrong = mask[(mask != default_void_label(classes)) & ((mask < 0) | (mask >= classes))]
    if wrong.size:
        raise UserError(f"{name}: label {wrong.flat[0]} is out of range; expected 0..{classes - 1}")
