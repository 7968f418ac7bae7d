"""The card beside an exported file: what a device team wants to know of it."""

from __future__ import annotations

import hashlib
import shlex
import sys
from pathlib import Path

import keras
import tensorflow as tf

import keras_pspnet
from keras_pspnet.device_contract import INPUT
from keras_pspnet.export.delegate import delegation, operators
from keras_pspnet.labels import LabelSet


def describe(file: Path, name, output, labels: LabelSet, size) -> dict:
    """The card of a file, but for its proof.

    Args:
        file: a file or, of a SavedModel, a folder.
        name: the format.
        size: (H, W).
    """
    height, width = size
    card = {
        "file": file.name,
        "format": name,
        "input": {"name": INPUT, "dtype": "uint8", "shape": [1, height, width, 3]},
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
