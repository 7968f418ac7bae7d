"""Whether an exported file says what the Keras model says, pixel by pixel."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from keras_pspnet import scenes
from keras_pspnet.device_contract import SIGNATURE
from keras_pspnet.errors import UserError
from keras_pspnet.export.formats import CALIBRATION
from keras_pspnet.files import evenly_spaced
from keras_pspnet.images import as_picture, list_images, resize_image
from keras_pspnet.inference.predictor import Predictor
from keras_pspnet.inference.segment import segment
from keras_pspnet.labels import LabelSet, default_void_label
from keras_pspnet.scoring.metrics import ConfusionMatrix

SCENES = 8


@dataclasses.dataclass
class Pictures:
    """The pictures that files are calibrated and compared on, and what the Keras model says."""

    images: list[np.ndarray]
    masks: list[np.ndarray | None]
    expected: list[np.ndarray]  # class ids at the network's size
    network: Predictor
    source: str

    @classmethod
    def read(cls, calibration, network, name) -> Pictures:
        """
        Args:
            calibration, name: see `export.export_model`.
            network: the Keras network, of a fixed size.

        Raises:
            UserError: no pictures, one that cannot be read, a mask that does not fit its picture
                or the classes, a model that has diverged.
        """
        size = tuple(network.input.shape[1:3])
        if calibration is None:
            drawn = tuple(max(side, 65) for side in size)
            given = [scenes.scene(i, split="val", size=drawn)[0] for i in range(SCENES)]
            source = f"{SCENES} generated scenes"
        else:
            if isinstance(calibration, (str, Path)):
                calibration = list_images(calibration)
            given = list(calibration)
            source = f"{len(given)} {name}"
        if not given:
            raise UserError("no pictures to compare on; give at least one, or leave them out")
        pairs = [item if isinstance(item, (tuple, list)) else (item, None) for item in given]
        if len(pairs) > CALIBRATION and any(mask is None for _, mask in pairs):
            pairs = evenly_spaced(pairs, CALIBRATION)
            source = f"{CALIBRATION} of {source}"
        images = [as_picture(image) for image, _ in pairs]
        masks = [mask for _, mask in pairs]
        classes = network.output.shape[-1]
        for number, (image, mask) in enumerate(zip(images, masks)):
            if mask is not None:
                _check_mask(mask, image, classes, f"the mask of picture {number}")
        keras_network = Predictor(
            network.predict_on_batch, "logits", LabelSet.numbered(classes), size
        )
        expected = []
        for image in images:
            logits = keras_network(resize_image(image, size)[None])
            if not np.isfinite(logits).all():
                raise UserError("the model's logits are not numbers; its training has diverged")
            expected.append(logits.argmax(-1))
        return cls(images, masks, expected, keras_network, source)

    def calibration(self) -> Iterator[np.ndarray]:
        """Pictures to take ranges from, as a file takes them: uint8 (1, H, W, 3)."""
        return map(self._batch, evenly_spaced(self.images, CALIBRATION))

    def _batch(self, image):
        return resize_image(image, self.network.size)[None]

    def compare(self, file: Predictor) -> dict:
        """The share of equal pixels, and both mIoU where there are masks."""
        equal = pixels = 0
        for image, expected in zip(self.images, self.expected):
            found = file(self._batch(image))
            found = found if file.output == "classes" else found.argmax(-1)
            equal += int((found == expected).sum())
            pixels += expected.size
        result = {"agreement": equal / pixels, "agreement_on": self.source, "mIoU": None}
        if all(mask is not None for mask in self.masks):
            result["mIoU"] = {"keras": self._miou(self.network), "file": self._miou(file)}
        return result

    def _miou(self, network) -> float:
        matrix = ConfusionMatrix(len(self.network.labels))
        for image, mask in zip(self.images, self.masks):
            matrix.update(mask, segment(network, image))
        return matrix.scores()["mIoU"]


def _check_mask(mask, image, classes, name) -> None:
    mask = np.asarray(mask)
    if mask.shape != image.shape[:2]:
        raise UserError(f"{name}: its shape is {mask.shape}; expected {image.shape[:2]}")
    wrong = mask[(mask != default_void_label(classes)) & ((mask < 0) | (mask >= classes))]
    if wrong.size:
        raise UserError(f"{name}: label {wrong.flat[0]} is out of range; expected 0..{classes - 1}")


def compiled_agreement(path: Path, batch: np.ndarray, network: Predictor) -> float:
    """The share of pixels in which LiteRT's CompiledModel and its Interpreter agree.

    In a process of its own: it looks for accelerators' libraries and is loud about it.

    Args:
        batch: uint8 (1, H, W, 3).
        network: the file in the Interpreter.

    Raises:
        UserError: it cannot run the file.
    """
    expected = network(batch)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        image, result = Path(folder) / "image.npy", Path(folder) / "result.npy"
        np.save(image, batch)
        done = subprocess.run(
            [sys.executable, "-c", _RUN, str(path), str(image), str(result)],
            capture_output=True,
            text=True,
        )
        if done.returncode or not result.is_file():
            said = [x for x in done.stderr.splitlines() if not x.startswith(("INFO", "WARNING"))]
            reason = (said or ["no message"])[-1][:160]
            raise UserError(f"{path.name}: LiteRT's CompiledModel cannot run it ({reason})")
        found = np.load(result).reshape(expected.shape)
    if network.output != "classes":
        found, expected = found.argmax(-1), expected.argmax(-1)
    return float((found == expected).mean())


_RUN = f"""
import sys
import numpy as np
from ai_edge_litert.compiled_model import CompiledModel
from ai_edge_litert.hardware_accelerator import HardwareAccelerator
path, image, result = sys.argv[1:]
model = CompiledModel.from_file(path, hardware_accel=HardwareAccelerator.CPU)
((name, spec),) = model.get_output_tensor_details("{SIGNATURE}").items()
inputs, outputs = model.create_input_buffers(0), model.create_output_buffers(0)
inputs[0].write(np.load(image).reshape(-1))
model.run_by_index(0, inputs, outputs)
values = outputs[0].read(int(np.prod(spec["shape"])), np.dtype(spec["dtype"]).type)
np.save(result, values)
"""
