"""From a trained model to files for devices, each compared with it before it is handed over."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import keras_pspnet
from keras_pspnet import predict, scenes
from keras_pspnet.contract import (
    FORMATS,
    INPUT,
    LABELS_FILE,
    MIN_AGREEMENT,
    SIGNATURE,
    check_request,
)
from keras_pspnet.files import (
    UserError,
    list_images,
    write_bytes,
    write_json,
)
from keras_pspnet.labels import LabelSet
from keras_pspnet.metrics import ConfusionMatrix
from keras_pspnet.model import labels_of, main_network
from keras_pspnet.runners import load_model
from keras_pspnet.tflite_metadata import add_metadata, delegation, operators

SCENES = 8
PARTIAL = ".partial"  # in the target folder, so that files are moved within one file system


def export_model(
    model,
    out,
    *,
    formats=("saved_model", "float32"),
    size=None,
    output="classes",
    calibration=None,
    labels=None,
    min_agreement=None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Path]:
    """Writes a model's main head for devices; the auxiliary head is left out.

    Every file takes `image`, uint8 RGB (1, H, W, 3), and gives `classes` uint8 (1, H, W) (int32
    beyond 256 classes), or `logits` or `probabilities` float32 (1, H, W, C), under the signature
    `serving_default`. Beside each stands its card. A file is run on pictures and compared with the
    Keras model before it is handed over; one that differs is not left behind.

    Args:
        model: a keras.Model of `build_pspnet`.
        out: the folder; files of the same names are replaced.
        formats: "saved_model" and "float32" (`pspnet_float32.tflite`).
        size: (H, W); needed where the model takes any, else its own by default.
        output: "classes", "logits" or "probabilities".
        calibration: the pictures to compare on: a folder, or a list of paths, of (H, W, 3) uint8
            arrays, or of (image, mask) pairs, which also give both models' mIoU; by default 8
            generated scenes.
        labels: a LabelSet in place of the model's own.
        min_agreement: least share of equal pixels; never lower than the format's own (0.999).
        say: gets a line when something is done.

    Returns:
        The files by format.

    Raises:
        UserError: a request that cannot be met, pictures that cannot be read, a file that differs
            from the Keras model.
    """
    if isinstance(formats, str):
        raise UserError(f"formats={formats!r}; expected several names, as ({formats!r},)")
    formats = tuple(formats)
    check_request(formats, output, size, min_agreement)
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            f"export does not work under Keras's backend {keras.backend.backend()}; save the model "
            "as a .keras file and export that with KERAS_BACKEND=tensorflow"
        )
    if not isinstance(model, keras.Model):
        raise UserError(f"a {type(model).__name__} cannot be exported; expected a keras.Model")
    out = Path(out)
    labels = labels or labels_of(model)
    network = _fixed(main_network(model), size)
    if len(labels) != network.output.shape[-1]:
        raise UserError(f"{len(labels)} labels for a model of {network.output.shape[-1]} classes")
    pictures = _Pictures.read(calibration, network)
    _check_targets(out, formats)

    new_folders = [folder for folder in (out, *out.parents) if not folder.exists()]
    partial = out / PARTIAL
    try:
        _remove(partial)
        partial.mkdir(parents=True)
        saved_model = partial / FORMATS["saved_model"]
        _write_saved_model(network, saved_model, output, labels)
        for number, name in enumerate(formats, start=1):
            file = partial / FORMATS[name]
            say(f"{number}/{len(formats)} {file.name}")
            if name == "float32":
                data = _convert(saved_model)
                write_bytes(file, add_metadata(data, labels, output))
            card = _card(file, name, output, labels, network)
            card |= pictures.compare(load_model(file))
            _judge(file.name, card["agreement"], max(MIN_AGREEMENT[name], min_agreement or 0.0))
            write_json(partial / _card_name(name), card)
            say(f"    {card['agreement']:.4%} of the pixels equal the Keras model's")
        for name in formats:
            for file in (FORMATS[name], _card_name(name)):
                if (out / file).is_dir():  # only a file can be replaced at once
                    _remove(out / file)
                os.replace(partial / file, out / file)
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror or error}") from error
    except tf.errors.OpError as error:
        raise UserError(f"{out}: cannot be written: {error.message.splitlines()[0]}") from error
    finally:
        _remove(partial)
        for folder in new_folders:
            with contextlib.suppress(OSError):
                folder.rmdir()
    return {name: out / FORMATS[name] for name in formats}


def _card_name(name) -> str:
    return f"{Path(FORMATS[name]).stem}.card.json"


def _check_targets(out: Path, formats) -> None:
    """Whether something of another kind stands where the files go."""
    for name in formats:
        for file in (FORMATS[name], _card_name(name)):
            target = out / file
            folder = not Path(file).suffix
            if target.exists() and target.is_dir() != folder:
                raise UserError(f"{target}: is in the way; remove it or choose another --out")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _fixed(network, size):
    """The network with a fixed input size, and in float32 whatever it was trained in."""
    size = tuple(size or network.input.shape[1:3])
    if None in size:
        raise UserError("the model takes any size, a file for devices has one; give --size H W")
    image = keras.Input((*size, 3), name="image", dtype="float32")
    clone = keras.models.clone_model(
        network,
        input_tensors=image,
        clone_function=lambda layer: type(layer).from_config(
            {**layer.get_config(), "dtype": "float32"}
        ),
    )
    clone.set_weights(network.get_weights())
    return clone


def _write_saved_model(network, folder: Path, output: str, labels: LabelSet) -> None:
    """A SavedModel by the device contract. Its static signature is what lets TFLite fuse."""

    def serve(image):
        # The cast stands inside: a float signature would be quantised to the calibration's range.
        logits = network(tf.cast(image, tf.float32), training=False)
        if output == "logits":
            return {"logits": logits}
        if output == "probabilities":
            return {"probabilities": tf.nn.softmax(logits)}
        # tf.argmax: keras.ops.argmax has operators that TFLite lacks.
        classes = tf.argmax(logits, -1, output_type=tf.int32)
        return {"classes": tf.cast(classes, tf.uint8) if len(labels) <= 256 else classes}

    archive = keras.export.ExportArchive()
    archive.track(network)
    image = tf.TensorSpec((1, *network.input.shape[1:]), tf.uint8, name=INPUT)
    archive.add_endpoint(SIGNATURE, serve, input_signature=[image])
    archive.write_out(str(folder), verbose=False)
    write_json(folder / "assets.extra" / LABELS_FILE, labels.to_config())


def _convert(saved_model: Path) -> bytes:
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(saved_model), signature_keys=[SIGNATURE]
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]  # no Flex
    try:
        return converter.convert()
    except Exception as error:  # the converter's own class is not public
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(f"TFLite cannot hold this network: {reason}") from error


@dataclasses.dataclass
class _Pictures:
    """The pictures that files are compared on, and what the Keras model says of them."""

    images: list[np.ndarray]
    masks: list[np.ndarray | None]
    expected: list[np.ndarray]  # class ids at the network's size
    network: predict.Network
    source: str

    @classmethod
    def read(cls, calibration, network) -> _Pictures:
        size = tuple(network.input.shape[1:3])
        if calibration is None:
            drawn = tuple(max(side, 65) for side in size)
            given = [scenes.scene(i, split="val", size=drawn)[0] for i in range(SCENES)]
            source = f"{SCENES} generated scenes"
        else:
            if isinstance(calibration, (str, Path)):
                calibration = list_images(calibration)
            given = list(calibration)
            source = f"{len(given)} given pictures"
        if not given:
            raise UserError("no pictures to compare on; give at least one, or leave them out")
        pairs = [item if isinstance(item, (tuple, list)) else (item, None) for item in given]
        images = [predict.as_picture(image) for image, _ in pairs]
        keras_network = predict.Network(
            network.predict_on_batch, "logits", LabelSet.numbered(network.output.shape[-1]), size
        )
        expected = []
        for image in images:
            logits = keras_network(predict.resize_image(image, size)[None])
            if not np.isfinite(logits).all():
                raise UserError("the model's logits are not numbers; its training has diverged")
            expected.append(logits.argmax(-1))
        return cls(images, [mask for _, mask in pairs], expected, keras_network, source)

    def compare(self, file: predict.Network) -> dict:
        """The share of equal pixels, and both mIoU where there are masks."""
        equal = pixels = 0
        for image, expected in zip(self.images, self.expected):
            found = _classes(file, predict.resize_image(image, file.size)[None])
            equal += int((found == expected).sum())
            pixels += expected.size
        result = {"agreement": equal / pixels, "agreement_on": self.source, "mIoU": None}
        if all(mask is not None for mask in self.masks):
            result["mIoU"] = {"keras": self._miou(self.network), "file": self._miou(file)}
        return result

    def _miou(self, network) -> float:
        matrix = ConfusionMatrix(len(self.network.labels))
        for image, mask in zip(self.images, self.masks):
            matrix.update(mask, predict.segment(network, image))
        return matrix.scores()["mIoU"]


def _classes(network, batch):
    result = network(batch)
    return result if network.output == "classes" else result.argmax(-1)


def _judge(name, agreement, least) -> None:
    if agreement < least:
        raise UserError(
            f"{name}: only {agreement:.4%} of the pixels equal the Keras model's; expected at "
            f"least {least:.2%}; the file was not kept"
        )


def _card(file: Path, name, output, labels, network) -> dict:
    """What a device team wants to know of a file."""
    height, width = network.input.shape[1:3]
    card = {
        "file": file.name,
        "format": name,
        "input": {"name": "image", "dtype": "uint8", "shape": [1, height, width, 3]},
        "output": {"name": output, **_output_form(output, height, width, len(labels))},
        "labels": list(labels.names),
        "colors": [list(color) for color in labels.colors],
        "bytes": sum(len(data) for data in _contents(file)),
        "sha256": _sha256(file),
    }
    if file.suffix == ".tflite":
        partitions, outside = delegation(file)
        card["operators"] = operators(file)
        card["delegate"] = {"name": "XNNPACK", "partitions": partitions, "outside": outside}
    return card | {
        "keras_pspnet": keras_pspnet.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _output_form(output, height, width, classes) -> dict:
    if output != "classes":
        return {"dtype": "float32", "shape": [1, height, width, classes]}
    return {"dtype": "uint8" if classes <= 256 else "int32", "shape": [1, height, width]}


def _contents(file: Path) -> list[bytes]:
    files = [file] if file.is_file() else sorted(p for p in file.rglob("*") if p.is_file())
    return [path.read_bytes() for path in files]


def _sha256(file: Path) -> str:
    """Of a file, or of the files of a folder one after the other in the order of their paths."""
    digest = hashlib.sha256()
    for data in _contents(file):
        digest.update(data)
    return digest.hexdigest()
