"""The device contract: what exported files are called, take and give."""

from __future__ import annotations

import importlib.util
import numbers

from keras_pspnet.device_contract import OUTPUTS
from keras_pspnet.errors import UserError
from keras_pspnet.images import check_size

FORMATS = {
    "saved_model": "saved_model",
    "float32": "pspnet_float32.tflite",
    "float16": "pspnet_float16.tflite",
    "dynamic": "pspnet_dynamic.tflite",
    "int8": "pspnet_int8.tflite",
    "int16": "pspnet_int16.tflite",
    "onnx": "pspnet.onnx",
}

NEEDS = {"int16": ("ai_edge_quantizer",), "onnx": ("tf2onnx", "onnxruntime")}
"""Packages of the extra `mobile`, by the format that needs them."""

MIN_AGREEMENT = {
    "saved_model": 0.999,
    "float32": 0.999,
    "float16": 0.99,
    "dynamic": 0.5,
    "int8": 0.5,
    "int16": 0.5,
    "onnx": 0.999,
}
"""The least share of pixels that must equal the Keras model's; a half is a broken graph."""

COMPILED_AGREEMENT = 0.99
"""The least share of pixels LiteRT's two runtimes must agree on: their kernels are the same."""

CALIBRATION = 32
"""Pictures that ranges are taken from, and that files are compared on where there are no masks. 16,
32 and 100 street scenes give int8 files of one score (benchmarks/results/calibration.json)."""


def available_formats() -> tuple[str, ...]:
    """The formats whose packages are installed."""
    return tuple(name for name in FORMATS if not _missing(name))


def _missing(name) -> list[str]:
    return [package for package in NEEDS.get(name, ()) if not importlib.util.find_spec(package)]


def check_request(formats, output="classes", size=None, min_agreement=None) -> None:
    """What can be refused before a model is loaded.

    Raises:
        UserError: an unknown format or output, one that needs a package that is not installed, a
            size or a bar that makes no sense.
    """
    if not formats:
        raise UserError(f"no formats; expected some of {', '.join(FORMATS)}")
    for name in formats:
        if name not in FORMATS:
            raise UserError(f"format {name!r} is not known; expected some of {', '.join(FORMATS)}")
        if _missing(name):
            raise UserError(
                f"format {name} needs {' and '.join(_missing(name))}; run: "
                "pip install 'keras-pspnet[mobile]'"
            )
    if output not in OUTPUTS:
        raise UserError(f"output {output!r} is not known; expected one of {', '.join(OUTPUTS)}")
    check_size(size)
    number = isinstance(min_agreement, numbers.Real)
    if min_agreement is not None and not (number and 0 <= min_agreement <= 1):
        raise UserError(f"min_agreement {min_agreement!r} is not a share of pixels in 0..1")
