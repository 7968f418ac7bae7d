"""Export a trained model: convert it, compare the files with it, move into the output folder."""

import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import tensorflow as tf

from keras_pspnet.errors import UserError, reason_of
from keras_pspnet.export.agreement import ComparisonPictures
from keras_pspnet.export.calibration import check_calibration
from keras_pspnet.export.card import describe
from keras_pspnet.export.converters import Converter, write_saved_model
from keras_pspnet.export.formats import EXACT, FORMATS, MIN_AGREEMENT, check_request
from keras_pspnet.export.tflite_file import add_metadata
from keras_pspnet.files import (
    flock,
    folder_or_nothing,
    plain_path,
    writable_folder,
    write_bytes,
    write_json,
)
from keras_pspnet.inference.exported import open_exported
from keras_pspnet.inference.load import check_model
from keras_pspnet.labels import LabelSet
from keras_pspnet.machine import scratch_in
from keras_pspnet.network.main_head import check_ours, labels_of, main_network

SAVED_MODEL = {"saved_model.pb", "fingerprint.pb", "variables", "assets", "assets.extra"}
"""What a SavedModel folder may hold."""


def warn(line: str) -> None:
    """Print a line to standard error if it is a warning."""
    if line.startswith("WARNING"):
        print(line, file=sys.stderr, flush=True)


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
    say: Callable[[str], None] = warn,
) -> dict[str, Path]:
    """Export a model's main head to files for devices, without the auxiliary head.

    Every file takes `image`, uint8 RGB (1, H, W, 3), and returns `classes` uint8 (1, H, W) (int32
    beyond 256 classes), or `logits` or `probabilities` float32 (1, H, W, C), under the signature
    `serving_default`. Each file is run on pictures and compared with the Keras model. If one
    differs by more than its tolerance, no file is written; one that differs in more than 5 % of the
    pixels, or in which a class loses more than 3 points, is written with a warning. Beside each
    file stands its card, a JSON file with its sizes, labels, operators, checksum, agreement class
    by class, and warnings.

    Args:
        model: a keras.Model of `build_pspnet`.
        out: the target folder. Files of the same names are replaced; a SavedModel as a whole.
        formats: "saved_model"; "float32", "float16" (weights), "dynamic" (int8 weights), "int8",
            "int16" (activations, int8 weights), each a `.tflite` file; "onnx". "int16" and "onnx"
            need the extra `mobile`.
        size: (H, W) of the exported network. Required if the model takes any size; by default the
            model's own.
        output: "classes", "logits" or "probabilities".
        calibration: pictures like those the device will see. int8 and int16 take the ranges of
            their activations from them, and every file is compared on them. A folder, or a list of
            paths, of uint8 arrays (H, W, 3), or of (image, mask) pairs; with masks the card also
            has the IoU of the file and of the Keras model. Ranges are taken from at most 16
            pictures, evenly spaced; without masks at most 32 are compared. "scenes": 8 generated
            scenes, enough to compare on, but not to calibrate a model of real pictures. Required
            for int8 and int16; the other formats are compared on "scenes" by default.
        labels: a LabelSet that replaces the model's own.
        min_agreement: minimum share of pixels, 0..1, whose class must equal the Keras model's. It
            can only raise the format's own: 0.999 for float32, saved_model and onnx, 0.99 for
            float16, else 0.5.
        say: called with a line of text after each step, and for each warning ("WARNING: ..."). By
            default only warnings are printed, to standard error.

    Returns:
        Format -> file.

    Raises:
        UserError: an impossible request, int8 or int16 without pictures, pictures that are all of
            one colour, black or in 0..1, a picture or mask that cannot be used, a folder that
            cannot be written, a file that differs from the Keras model.
    """
    if isinstance(formats, str) or formats is None:
        raise UserError(f"formats={formats!r}; expected several names, as ('float32',)")
    formats = tuple(formats)
    call = f"keras_pspnet.export_model(model, out, {formats=}, {size=}, {output=})"
    return export_files(
        model,
        out,
        formats=formats,
        size=size,
        output=output,
        calibration=calibration,
        source="given pictures",
        labels=labels,
        min_agreement=min_agreement,
        command=call,
        say=say,
    )


def export_files(
    model, out, *, formats, size, output, calibration, source, labels, min_agreement, command, say
) -> dict[str, Path]:
    """Do what `export_model` says, with two texts for the cards.

    Args:
        source: what the calibration pictures are, as "given pictures".
        command: the command or call that exports.
    """
    formats = tuple(dict.fromkeys(formats))
    check_request(formats, output, size, min_agreement)
    check_calibration(formats, calibration)
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
    network = with_fixed_size(main_network(model), size)
    if len(labels) != network.output.shape[-1]:
        raise UserError(f"{len(labels)} labels for a model of {network.output.shape[-1]} classes")
    size = tuple(network.input.shape[1:3])
    pictures = ComparisonPictures.read(calibration, network, labels, source)
    _check_targets(out, formats)
    say(f"comparing on {pictures.source}, at {size[0]}x{size[1]}")
    for warning in pictures.warnings():
        say(f"WARNING: {warning}")

    try:
        with (
            folder_or_nothing(out),
            scratch_in(out, "pspnet") as own,
            plain_path(own) as partial,
        ):
            scratch = partial / "scratch"
            scratch.mkdir()
            converter = Converter(network, scratch, output, labels, pictures.calibration_inputs)
            for number, name in enumerate(formats, start=1):
                say(f"{number}/{len(formats)} {FORMATS[name]}")
                start = time.perf_counter()
                least = max(MIN_AGREEMENT[name], min_agreement or 0.0)
                card = _export(name, partial, converter, pictures, least, command)
                say(f"    {_summary(card)}; {time.perf_counter() - start:.0f} s")
                for warning in card["warnings"]:
                    if warning not in pictures.warnings():  # said once, above
                        say(f"WARNING: {FORMATS[name]}: {warning}")
            with _other_exports_waiting(out):
                for name in formats:
                    for file in (FORMATS[name], _card_name(name)):
                        _replace(partial / file, out / file)
    except BrokenPipeError:  # from `say`: whoever read the lines has stopped
        raise
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror or error}") from error
    except tf.errors.OpError as error:
        raise UserError(f"{out}: {_reason(error.message)}") from error
    return {name: out / FORMATS[name] for name in formats}


def _export(name, folder: Path, converter: Converter, pictures, least, command) -> dict:
    """Write the file of one format and its card into a folder, and return the card.

    Raises:
        UserError: less than `least` of its pixels equal the Keras model's, or it cannot be run.
    """
    network, output, labels = converter.network, converter.output, converter.labels
    file = folder / FORMATS[name]
    if name == "saved_model":
        write_saved_model(network, file, output, labels)
    elif name == "onnx":
        write_bytes(file, converter.convert(name))
    else:
        write_bytes(file, add_metadata(converter.convert(name), labels, output))
    card = describe(file, name, output, labels, network.input.shape[1:3], command)
    if file.suffix == ".tflite":
        card["long_convolutions"] = converter.changes(name)
    predictor = open_exported(file, check_model(file))
    card |= pictures.compare(predictor, file.name, exact=name in EXACT)
    if card["agreement"] < least:
        raise UserError(
            f"{file.name}: only {card['agreement']:.4%} of the pixels equal the Keras model's; "
            f"expected at least {least:.2%}; the file was not kept"
        )
    write_json(folder / _card_name(name), card)
    return card


def _summary(card) -> str:
    miou = "; mIoU {keras:.4f} -> {file:.4f}".format(**card["mIoU"]) if card["mIoU"] else ""
    equal = f"{card['agreement']:.4%} of the pixels equal the Keras model's{miou}"
    return f"{equal}; {card['bytes'] / 1e6:.1f} MB"


@contextlib.contextmanager
def _other_exports_waiting(out: Path) -> Iterator[None]:
    """Hold a lock on a folder, so that another export does not mix its files and cards in."""
    try:
        folder = os.open(out, os.O_RDONLY)
    except OSError:  # Windows opens no folder
        yield
        return
    try:
        while flock(folder) is False:
            time.sleep(0.05)
        yield
    finally:
        os.close(folder)


def _replace(new: Path, target: Path) -> None:
    """Move a file or folder to its target, atomically if it is a file.

    A folder cannot replace another one atomically: the old one is moved away first, and moved back
    if the new one cannot be moved.
    """
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
    """Refuse targets that exist but are not what an earlier export wrote."""
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
    """Return the reason of a TensorFlow error in one line; usually the disk is full."""
    for number in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        if os.strerror(number) in message:
            return f"cannot be written: {os.strerror(number)}"
    return f"the export failed: {message.splitlines()[0][-160:]}"


def with_fixed_size(network, size):
    """Copy a network with a fixed input size and in float32, whatever it was trained in.

    Args:
        network: a functional keras.Model.
        size: (H, W), or None for the network's own.

    Raises:
        UserError: no size is known, or a layer cannot take it.
    """
    size = tuple(size or network.input.shape[1:3])
    if None in size:
        raise UserError("the model takes any size, an exported file has one; give --size H W")
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
        raise UserError(f"the model cannot take {size[0]}x{size[1]}: {reason_of(error)}") from error
    clone.set_weights(network.get_weights())
    return clone
