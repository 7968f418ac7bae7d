"""The export formats: file names, tolerances, and the checks of a request."""

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
"""Format -> the name of its file; of a SavedModel, of its folder."""

COMMAND_FORMATS = ("saved_model", "float32", "float16", "dynamic", "int8")
"""Formats that `keras-pspnet export` makes if none are named."""

CALIBRATED = ("int8", "int16")
"""Formats that take the ranges of their activations from pictures."""

NEEDS = {"int16": ("ai_edge_quantizer",), "onnx": ("tf2onnx", "onnxruntime")}
"""Format -> the packages it needs; the extra `mobile` installs them."""

MIN_AGREEMENT = {
    "saved_model": 0.999,
    "float32": 0.999,
    "float16": 0.99,
    "dynamic": 0.5,
    "int8": 0.5,
    "int16": 0.5,
    "onnx": 0.999,
}
"""Tolerance of each format: minimum share of pixels whose class equals the Keras model's. Under 0.5
the graph is broken."""

WARN_BELOW = 0.95
"""Share of equal pixels under which a file is handed over with a warning."""

CLASS_LOSS = 0.03
"""Loss of a single class above which the card warns, in IoU, or without masks in its share of equal
pixels: a rare class can vanish while 99 % of all pixels are equal."""

COMPARED_PICTURES = 32
"""Maximum number of pictures that files are compared on where masks are missing."""

RANGE_PICTURES = 16
"""Maximum number of pictures that int8 and int16 take their ranges from. Files that took them from
4, 16, 32 and 100 street scenes have the same mIoU (benchmarks/results/calibration.json), and each
picture takes TensorFlow's calibrator 3 seconds for a PSPNet-50."""


EXACT = ("saved_model", "float32", "float16", "onnx")
"""Formats that compute what the Keras model does, but for rounding. What a wrong graph changes is
wrong on every picture, so few are enough; what int8 loses differs from picture to picture."""

EXACT_PICTURES = 8
"""Pictures that files of `EXACT` are compared on where masks are missing, and a few more where
classes would be missing."""


def available_formats() -> tuple[str, ...]:
    """Return the formats that `export_model` can write with the packages installed here."""
    return tuple(name for name in FORMATS if not _missing(name))


def _missing(name) -> list[str]:
    return [package for package in NEEDS.get(name, ()) if not importlib.util.find_spec(package)]


def check_request(formats, output="classes", size=None, min_agreement=None) -> None:
    """Check the arguments of an export before a model is loaded.

    Raises:
        UserError: an unknown format or output, a format whose packages are not installed, a size
            that is not (H, W) in pixels, a min_agreement outside 0..1.
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
