"""Segment pictures of any size with any model."""

import dataclasses
import math
import numbers
import shutil
import tempfile

import numpy as np

from keras_pspnet.errors import UserError
from keras_pspnet.images import (
    IMAGENET_MEAN,
    as_picture,
    check_size,
    resize_image,
    resize_nearest,
)
from keras_pspnet.inference.enlarge import best_classes, mix, places, resize_scores, softmax
from keras_pspnet.inference.load import as_predictor
from keras_pspnet.inference.predictor import PIXEL_BYTES, Predictor
from keras_pspnet.inference.windows import probabilities_of, resized_blocks

WHOLE_BYTES = 2**31
"""Memory up to which a model of any size takes a picture whole; a larger one goes in windows."""

SCORE_BYTES = 9
"""Bytes that a PSPNet-50 needs for each class of a pixel, in addition to PIXEL_BYTES."""

WINDOWS = 473, 713
"""Sides of those windows, from and to: the authors' crops (semseg config/ade20k, cityscapes)."""

HELD_BYTES = 400_000_000
"""Memory that windows above the smallest side may hold beside the network."""

TOTAL_BYTES = 2**30
"""Bytes above which the probabilities of several scales are added up in a temporary file."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How a picture is fed to the network.

    Whole, or as sliding windows at several scales, optionally mirrored.

    Args:
        crop: (H, W) of the sliding window in pixels, as in the authors' test program (semseg
            tool/test.py); None feeds the whole picture.
        base: length in pixels of the picture's long side at scale 1; None keeps the picture's own.
            Needs `crop`.
        scales: factors of `base`; the probabilities of all scales are averaged. Needs `crop`.
        flip: average with the probabilities of the mirrored picture.

    Raises:
        UserError: a value is out of range, or `base` or `scales` lack `crop`.
    """

    crop: tuple[int, int] | None = None
    base: int | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self):
        check_size(self.crop, "crop")
        if self.crop is not None:
            object.__setattr__(self, "crop", tuple(map(int, self.crop)))
        scales = tuple(self.scales) if np.iterable(self.scales) else ()
        if not scales or not all(isinstance(s, numbers.Real) and 0 < s < 100 for s in scales):
            raise UserError(
                f"scales {self.scales!r}: expected positive numbers, one or several, as (0.5, 1)"
            )
        if len(set(scales)) < len(scales):
            raise UserError(f"scales {self.scales}: a scale appears twice")
        object.__setattr__(self, "scales", scales)
        if self.crop is None and (self.base is not None or scales != (1.0,)):
            raise UserError(
                "scales and base belong to the sliding window; give --crop H W too, in Python "
                "crop=(H, W)"
            )
        if self.base is not None and not (
            isinstance(self.base, numbers.Integral) and self.base >= 1
        ):
            raise UserError(f"base {self.base!r}: expected pixels, a whole number of at least 1")

    def check(self, predictor: Predictor, confidence=False) -> None:
        """Check that a model can be used with this protocol.

        Args:
            predictor: the model.
            confidence: True if probabilities are asked for, too.

        Raises:
            UserError: the model returns class ids instead of scores, or takes another size than
                the window's.
        """
        if predictor.output == "classes" and self != Protocol():
            raise UserError(
                "crop, scales and flip average probabilities, the model gives class ids alone; "
                "export it with --output logits, in Python output='logits'"
            )
        if predictor.output == "classes" and confidence:
            raise UserError(
                "confidence is the largest probability, the model gives class ids alone; export "
                "it with --output logits, in Python output='logits'"
            )
        if self.crop and predictor.size and tuple(self.crop) != tuple(predictor.size):
            height, width = predictor.size
            raise UserError(
                f"crop {self.crop[0]}x{self.crop[1]}: the model takes {height}x{width} alone; "
                f"expected --crop {height} {width}, in Python crop=({height}, {width})"
            )


def segment(
    model, image, *, crop=None, base=None, scales=(1.0,), flip=False, confidence=False
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Segment a picture of any size into class ids.

    By default the picture is resized to the model's size and the probabilities are resized back,
    bilinearly. Of a file of class ids (the default of an export) the ids are resized, by nearest
    neighbour, so its outlines are coarser. A model of any size takes the picture as it is, padded
    to n * stride + 1; above `largest_whole` pixels in windows of up to 713x713.

    Args:
        model: anything that `load_model` returns.
        image: (H, W, 3) RGB in 0..255, or the path of a picture; see `as_picture`.
        crop, base, scales, flip: sliding window, scales and mirroring, see `Protocol`.
        confidence: True also returns the largest probability of each pixel.

    Returns:
        (H, W) class ids, uint8, or int32 beyond 256 classes. With `confidence` a pair: the class
        ids, and (H, W) float32 probabilities in 0..1.

    Raises:
        UserError: the picture cannot be read, the array has another shape or range, the model is
            not one of this package, or does not fit the other arguments.
    """
    protocol = Protocol(crop, base, scales, flip)
    return segment_with(as_predictor(model), image, protocol, confidence)


def segment_with(
    predictor: Predictor, image, protocol: Protocol, confidence=False
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Segment a picture as a `Protocol` says; else as `segment`."""
    protocol.check(predictor, confidence)
    image = as_picture(image)
    protocol = within_memory(predictor, protocol, image.shape[:2])
    if protocol.crop is None:
        found = _from_whole(predictor, image, protocol.flip, confidence)
    elif len(protocol.scales) == 1:
        found = _from_one_scale(predictor, image, protocol, confidence)
    else:
        found = _from_scales(predictor, image, protocol, confidence)
    dtype = np.uint8 if len(predictor.labels) <= 256 else np.int32
    classes = found[0].astype(dtype, copy=False)
    return (classes, found[1].astype(np.float32, copy=False)) if confidence else classes


def largest_whole(predictor: Predictor) -> int:
    """Return how many pixels a model of any size takes at once: as many as 2 GiB hold."""
    return WHOLE_BYTES // (PIXEL_BYTES + SCORE_BYTES * len(predictor.labels))


def within_memory(predictor: Predictor, protocol: Protocol, size) -> Protocol:
    """Return the protocol, with windows for a picture (H, W) that is too large to be taken whole.

    Their side is the largest of `WINDOWS` for which the pixels that two windows share fit into
    memory, since these are held.
    """
    if protocol.crop or predictor.size or predictor.output == "classes":
        return protocol
    sides = [side + -(side - 1) % predictor.stride for side in size]
    if math.prod(sides) <= largest_whole(predictor):
        return protocol
    # A line of windows shares a third of its pixels with the next, the last often half: 0.45 *
    # window * (shorter side + window) pixels are held. This is solved for the window.
    held = HELD_BYTES / (0.45 * 4 * len(predictor.labels))
    window = int((math.sqrt(min(size) ** 2 + 4 * held) - min(size)) / 2)
    least, most = WINDOWS
    window = min(max(window, least), most, math.isqrt(largest_whole(predictor)))
    window -= (window - 1) % predictor.stride
    crop = tuple(min(side, max(window, 1)) for side in sides)
    return dataclasses.replace(protocol, crop=crop)


def _from_whole(predictor, image, flip, confidence):
    """Return classes, and with `confidence` their probabilities, from the picture as a whole."""
    size = image.shape[:2]
    batch = _whole(predictor, image)
    if flip:
        scores = _without_padding(predictor, probabilities_of(predictor, batch, flip)[0], size)
    else:
        scores = _without_padding(predictor, predictor(batch)[0], size)
        if predictor.output == "classes":
            return resize_nearest(scores, size), None
        if scores.shape[:2] == size and not confidence:
            return scores.argmax(-1), None
        if predictor.output == "logits":
            scores = softmax(scores)
    return best_classes(scores, *map(places, scores.shape, size), confidence)


def _from_one_scale(predictor, image, protocol, confidence):
    """Return classes, and with `confidence` their probabilities, from windows at one scale."""
    classes = np.empty(image.shape[:2], np.int32 if len(predictor.labels) > 256 else np.uint8)
    values = np.empty(image.shape[:2], np.float32) if confidence else None
    (scale,) = protocol.scales
    for rows, columns, *block in resized_blocks(predictor, image, scale, protocol):
        found, value = best_classes(*block, confidence)
        classes[rows, columns] = found
        if confidence:
            values[rows, columns] = value
        del block  # not to be held while the network runs
    return classes, values


def _from_scales(predictor, image, protocol, confidence):
    """Return classes, and with `confidence` their probabilities, from windows at several scales."""
    total = probabilities(predictor, image, protocol)
    classes = np.empty(image.shape[:2], np.int32)
    values = np.empty(image.shape[:2], np.float32) if confidence else None
    for row, scores in enumerate(total):
        classes[row] = scores.argmax(-1)
        if confidence:
            values[row] = scores.max(-1)
    return classes, values


def probabilities(predictor: Predictor, image: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Return the class probabilities of a picture at its own size.

    Args:
        predictor: the model.
        image: (H, W, 3) uint8 RGB.
        protocol: how to feed the picture.

    Returns:
        (H, W, C) float32; the classes of a pixel sum to 1. From several scales and above 1 GiB it
        is a `numpy.memmap` of a temporary file.

    Raises:
        UserError: the protocol does not fit the model; no room for the temporary file.
    """
    protocol.check(predictor)
    size = image.shape[:2]
    if protocol.crop is None:
        scores = probabilities_of(predictor, _whole(predictor, image), protocol.flip)[0]
        return resize_scores(_without_padding(predictor, scores, size), size)
    total = _zeros((*size, len(predictor.labels)))
    for scale in protocol.scales:
        for rows, columns, *block in resized_blocks(predictor, image, scale, protocol):
            total[rows, columns] += mix(*block) / np.float32(len(protocol.scales))
            del block
    return total


def _zeros(shape) -> np.ndarray:
    """Return zeros, float32; in a temporary file, if there are many."""
    needed = math.prod(shape) * 4
    if needed <= TOTAL_BYTES:
        return np.zeros(shape, np.float32)
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free < needed:  # looked at before: a full disk kills a process that writes to a mapped file
        raise UserError(
            f"{folder}: the probabilities of this picture at several scales take "
            f"{needed / 1e9:.0f} GB on the disk, {free / 1e9:.0f} GB are free; free some, set "
            "TMPDIR to another folder, or give one scale"
        )
    return np.memmap(tempfile.TemporaryFile(), np.float32, "w+", shape=shape)


def _whole(predictor, image) -> np.ndarray:
    """Return the batch (1, h, w, 3) that feeds a whole picture: resized, or padded for any size."""
    if predictor.size is None:
        return pad_to_stride(image, predictor.stride)[None]
    return resize_image(image, predictor.size)[None]


def _without_padding(predictor, result, size) -> np.ndarray:
    """Cut off what `_whole` padded."""
    return result[: size[0], : size[1]] if predictor.size is None else result


def pad_to_stride(image, stride):
    """Pad a uint8 picture at the bottom and the right with ImageNet's mean to n * stride + 1."""
    rows, columns = (-(side - 1) % stride for side in image.shape[:2])
    padded = np.empty((image.shape[0] + rows, image.shape[1] + columns, 3), np.uint8)
    padded[:] = np.rint(IMAGENET_MEAN)
    padded[: image.shape[0], : image.shape[1]] = image
    return padded
