"""From a trained model to files for devices, each compared with it before it is handed over."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from keras_pspnet.errors import UserError
from keras_pspnet.export.agreement import Pictures, compiled_agreement
from keras_pspnet.export.card import describe
from keras_pspnet.export.converters import Converter, write_saved_model
from keras_pspnet.export.formats import COMPILED_AGREEMENT, FORMATS, MIN_AGREEMENT, check_request
from keras_pspnet.export.tflite_file import add_metadata
from keras_pspnet.files import writable_folder, write_bytes, write_json
from keras_pspnet.inference.load import load_model
from keras_pspnet.labels import LabelSet
from keras_pspnet.network.main_head import check_ours, labels_of, main_network

SAVED_MODEL = {"saved_model.pb", "fingerprint.pb", "variables", "assets", "assets.extra"}

PARTIAL = ".pspnet.partial"  # in the target folder, so that files are moved within one file system


def export_model(
    model,
    out,
    *,
    formats=("saved_model", "float32"),
    size=None,
    output="classes",
    calibration=None,
    calibration_name="given pictures",
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
        out: the folder; files of the same names are replaced, and a SavedModel as a whole.
        formats: "saved_model"; "float32", "float16" (weights), "dynamic" (int8 weights), "int8",
            "int16" (activations, int8 weights), each a `.tflite`; "onnx". The last two need the
            extra `mobile`.
        size: (H, W); needed where the model takes any, else its own by default.
        output: "classes", "logits" or "probabilities".
        calibration: pictures as the device will see them, from which int8 and int16 take the ranges
            of their activations, and on which every file is compared: a folder, or a list of
            paths, of (H, W, 3) uint8 arrays, or of (image, mask) pairs, which also give both
            models' mIoU. Ranges are taken from at most 32, spread over those given, and without
            masks these are compared. By default 8 generated scenes: good enough to compare on, not
            to calibrate a model of real pictures.
        calibration_name: what the card calls them; those a model was trained on it knows better
            than others.
        labels: a LabelSet in place of the model's own.
        min_agreement: least share of equal pixels; never lower than the format's own: 0.999 for
            float32, saved_model and onnx, 0.99 for float16, else 0.5.
        say: gets a line when something is done.

    Returns:
        The files by format.

    Raises:
        UserError: a request that cannot be met, pictures that cannot be read, a file that differs
            from the Keras model.
    """
    if isinstance(formats, str) or formats is None:
        raise UserError(f"formats={formats!r}; expected several names, as ('float32',)")
    formats = tuple(dict.fromkeys(formats))
    check_request(formats, output, size, min_agreement)
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            f"export does not work under Keras's backend {keras.backend.backend()}; save the model "
            "as a .keras file and export that with KERAS_BACKEND=tensorflow"
        )
    check_ours(model, "model")
    out = writable_folder(out)
    labels = labels or labels_of(model)
    if not isinstance(labels, LabelSet):
        raise UserError(f"labels: a {type(labels).__name__}; expected a LabelSet")
    network = fixed(main_network(model), size)
    if len(labels) != network.output.shape[-1]:
        raise UserError(f"{len(labels)} labels for a model of {network.output.shape[-1]} classes")
    size = tuple(network.input.shape[1:3])
    pictures = Pictures.read(calibration, network, calibration_name)
    _check_targets(out, formats)
    say(f"comparing on {pictures.source}, at {size[0]}x{size[1]}")

    new_folders = [folder for folder in (out, *out.parents) if not folder.exists()]
    partial = out / PARTIAL
    try:
        _remove(partial)
        scratch = partial / "scratch"
        scratch.mkdir(parents=True)
        converter = Converter(network, scratch, output, labels, pictures.calibration)
        for number, name in enumerate(formats, start=1):
            file, start = partial / FORMATS[name], time.perf_counter()
            say(f"{number}/{len(formats)} {file.name}")
            if name == "saved_model":
                write_saved_model(network, file, output, labels)
            elif name == "onnx":
                write_bytes(file, converter.convert(name))
            else:
                write_bytes(file, add_metadata(converter.convert(name), labels, output))
            card = describe(file, name, output, labels, size)
            if file.suffix == ".tflite":
                card["long_convolutions"] = converter.changes(name)
            card |= _proof(file, pictures, max(MIN_AGREEMENT[name], min_agreement or 0.0))
            write_json(partial / _card_name(name), card)
            miou = "; mIoU {keras:.4f} -> {file:.4f}".format(**card["mIoU"]) if card["mIoU"] else ""
            say(
                f"    {card['agreement']:.4%} of the pixels equal the Keras model's{miou}; "
                f"{card['bytes'] / 1e6:.1f} MB; {time.perf_counter() - start:.0f} s"
            )
        for name in formats:
            for file in (FORMATS[name], _card_name(name)):
                _replace(partial / file, out / file)
    except BrokenPipeError:  # who read what is said has stopped
        raise
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror or error}") from error
    except tf.errors.OpError as error:
        raise UserError(f"{out}: {_reason(error.message)}") from error
    finally:
        _remove(partial)
        for folder in new_folders:
            with contextlib.suppress(OSError):
                folder.rmdir()
    return {name: out / FORMATS[name] for name in formats}


def _replace(new: Path, target: Path) -> None:
    """At once for a file; a folder, which cannot be replaced so, comes back if this fails."""
    old = new.with_name(f"old_{new.name}")
    try:
        if target.is_dir():
            os.replace(target, old)
        os.replace(new, target)
    except BaseException:
        if old.exists() and not target.exists():
            os.replace(old, target)
        raise


def _card_name(name) -> str:
    return f"{Path(FORMATS[name]).stem}.card.json"


def _check_targets(out: Path, formats) -> None:
    """Whether something of another kind stands where the files go."""
    for name in formats:
        for file in (FORMATS[name], _card_name(name)):
            target = out / file
            folder = not Path(file).suffix
            if target.exists() and target.is_dir() != folder:
                raise UserError(f"{target}: is in the way; remove it or choose another folder")
            foreign = {f.name for f in target.iterdir()} - SAVED_MODEL if target.is_dir() else ()
            if foreign:
                raise UserError(
                    f"{target / min(foreign)}: is no part of a SavedModel, which would replace the "
                    "folder; move it or choose another folder"
                )


def _reason(message: str) -> str:
    """What is wrong, out of a TensorFlow message of many words; mostly it is the disk."""
    for number in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        if os.strerror(number) in message:
            return f"cannot be written: {os.strerror(number)}"
    return f"the export failed: {message.splitlines()[0][-160:]}"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def fixed(network, size):
    """The network with a fixed input size, and in float32 whatever it was trained in."""
    size = tuple(size or network.input.shape[1:3])
    if None in size:
        raise UserError("the model takes any size, a file for devices has one; give --size H W")
    image = keras.Input((*size, 3), name="image", dtype="float32")
    try:
        clone = keras.models.clone_model(
            network,
            input_tensors=image,
            clone_function=lambda layer: type(layer).from_config(
                {**layer.get_config(), "dtype": "float32"}
            ),
        )
    except ValueError as error:  # a layer of a foreign backbone that is made for one size
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"the model cannot take {size[0]}x{size[1]}: {reason}") from error
    clone.set_weights(network.get_weights())
    return clone


def _proof(file: Path, pictures: Pictures, least: float) -> dict:
    """What running a file shows, for its card.

    Raises:
        UserError: less than `least` of its pixels equal the Keras model's, or it cannot be run.
    """
    exported = load_model(file)
    shown = pictures.compare(exported)
    _judge(file.name, shown["agreement"], least, "the Keras model's")
    if file.suffix == ".tflite":
        agreement = compiled_agreement(file, next(pictures.calibration()), exported)
        there = f"{file.name} in LiteRT's CompiledModel"
        _judge(there, agreement, COMPILED_AGREEMENT, "its Interpreter's")
        shown["compiled_model_agreement"] = agreement
    return shown


def _judge(name, agreement, least, whose) -> None:
    if agreement < least:
        raise UserError(
            f"{name}: only {agreement:.4%} of the pixels equal {whose}; expected at least "
            f"{least:.2%}; the file was not kept"
        )
