"""Describe an exported file in its card, a JSON file beside it."""

import shlex
from pathlib import Path

import keras
import tensorflow as tf

import keras_pspnet
from keras_pspnet.device_contract import INPUT
from keras_pspnet.export.delegate import delegation, operators
from keras_pspnet.inference.first_run import contents_sha256
from keras_pspnet.labels import LabelSet


def describe(file: Path, name, output, labels: LabelSet, size, command) -> dict:
    """Return the card of a file, without what its comparison with the Keras model adds.

    `deliver` adds `long_convolutions` and what `agreement` returns.

    `sha256` of a SavedModel is that of its files' contents, joined in the order of their paths.

    Args:
        file: the exported file; of a SavedModel, its folder.
        name: the format.
        output: "classes", "logits" or "probabilities".
        size: (H, W).
        command: the command or call that made the file.
    """
    inside = [file] if file.is_file() else file.rglob("*")
    shape = [1, *size]
    if output == "classes":
        form = {"dtype": "uint8" if len(labels) <= 256 else "int32", "shape": shape}
    else:
        form = {"dtype": "float32", "shape": [*shape, len(labels)]}
    card = {
        "file": file.name,
        "format": name,
        "input": {"name": INPUT, "dtype": "uint8", "shape": [*shape, 3]},
        "output": {"name": output, **form},
        "labels": list(labels.names),
        "colors": [list(color) for color in labels.colors],
        "bytes": sum(path.stat().st_size for path in inside if path.is_file()),
        "sha256": contents_sha256(file),
    }
    if file.suffix == ".tflite":
        partitions, outside = delegation(file)
        card["operators"] = operators(file)
        card["delegate"] = {"name": "XNNPACK", "partitions": partitions, "outside": outside}
    return card | {
        "keras_pspnet": keras_pspnet.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "command": command,
    }


def without_folders(command: str) -> str:
    """Return a shell command with every path reduced to its last component.

    A card goes to other people: it must not tell folder or user names. In `--option=PATH` the path
    is reduced too.
    """
    words = []
    for word in shlex.split(command):
        option, equals, path = word.partition("=") if word.startswith("--") else ("", "", word)
        words.append(option + equals + (Path(path).name or path))
    return shlex.join(words)
