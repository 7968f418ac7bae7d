"""The device contract: what exported files are called, take and give."""

from __future__ import annotations

from keras_pspnet.files import UserError

SIGNATURE = "serving_default"
INPUT = "image"
OUTPUTS = ("classes", "logits", "probabilities")
FORMATS = {"saved_model": "saved_model", "float32": "pspnet_float32.tflite"}
MIN_AGREEMENT = {"saved_model": 0.999, "float32": 0.999}
"""The least share of pixels that must equal the Keras model's."""

LABELS_FILE = "labels.json"
"""In a SavedModel's assets.extra, and attached to a .tflite file."""


def check_request(formats, output="classes", size=None, min_agreement=None) -> None:
    """What can be refused before a model is loaded.

    Raises:
        UserError: an unknown format or output, a size or a bar that makes no sense.
    """
    if not formats:
        raise UserError(f"no formats; expected some of {', '.join(FORMATS)}")
    for name in formats:
        if name not in FORMATS:
            raise UserError(f"format {name!r} is not known; expected some of {', '.join(FORMATS)}")
    if output not in OUTPUTS:
        raise UserError(f"output {output!r} is not known; expected one of {', '.join(OUTPUTS)}")
    check_size(size)
    if min_agreement is not None and not 0 <= min_agreement <= 1:
        raise UserError(f"min_agreement {min_agreement} is not a share of pixels in 0..1")


def check_size(size) -> None:
    """Whether a size is one, or None.

    Raises:
        UserError: it is not.
    """
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise UserError(f"size {tuple(size)} is not H W in pixels, both at least 1")
