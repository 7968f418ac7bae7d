"""Segment pictures of any size with any model."""

import dataclasses
import math

import numpy as np

from keras_pspnet.errors import UserError
from keras_pspnet.images import IMAGENET_MEAN, as_picture, resize_image, resize_nearest
from keras_pspnet.inference.load import as_predictor
from keras_pspnet.inference.predictor import Predictor

STRIDE = 2 / 3
"""Stride of the sliding window as a share of its side (semseg tool/test.py)."""

TILE_BYTES = 2**27
"""Maximum bytes of the scores of one batch of windows."""

TILE_PIXELS = 2 * 713**2
"""Maximum pixels of one batch of windows: a PSPNet-50 needs about 600 bytes for each."""


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
        if self.crop is None and (self.base is not None or tuple(self.scales) != (1.0,)):
            raise UserError("--scales and --base belong to the sliding window; give --crop H W too")
        if self.crop is not None and min(self.crop) < 1:
            raise UserError(f"--crop {' '.join(map(str, self.crop))}: expected pixels, at least 1")
        if self.base is not None and self.base < 1:
            raise UserError(f"--base {self.base}: expected pixels, at least 1")
        if not self.scales or not all(0 < scale < 100 for scale in self.scales):
            raise UserError(f"--scales {self.scales}: expected positive numbers, as 0.5,1,1.5")
        if len(set(self.scales)) < len(self.scales):
            raise UserError(f"--scales {self.scales}: a scale appears twice")

    def check(self, predictor: Predictor) -> None:
        """Check that a model can be used with this protocol.

        Raises:
            UserError: the model returns class ids instead of scores, or takes another size than
                the window's.
        """
        if predictor.output == "classes" and self != Protocol():
            raise UserError(
                "--crop, --scales and --flip average probabilities, the model gives class ids "
                "alone; export it with --output logits"
            )
        if self.crop and predictor.size and tuple(self.crop) != tuple(predictor.size):
            height, width = predictor.size
            raise UserError(
                f"--crop {self.crop[0]} {self.crop[1]}: the model takes {height}x{width} alone; "
                f"expected --crop {height} {width}"
            )


def segment(
    model, image, *, crop=None, base=None, scales=(1.0,), flip=False, confidence=False
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Segment a picture of any size into class ids.

    By default the picture is resized to the model's size and the probabilities are resized back,
    bilinearly. Of a file of class ids (the default of an export) the ids are resized, by nearest
    neighbour, so its outlines are coarser. A model of any size takes the picture as it is, padded
    to n * stride + 1.

    Args:
        model: anything that `load_model` returns.
        image: (H, W, 3) RGB in 0..255, or the path of a picture.
        crop, base, scales, flip: sliding window, scales and mirroring, see `Protocol`.
        confidence: True also returns the largest probability of each pixel.

    Returns:
        (H, W) class ids, uint8, or int32 beyond 256 classes. With `confidence` a pair: the class
        ids, and (H, W) float32 probabilities in 0..1.

    Raises:
        UserError: the picture cannot be read, the array has another shape or range, the model is
            not one of this package, or does not fit the other arguments.
    """
    protocol = Protocol(crop, base, tuple(scales), flip)
    return segment_with(as_predictor(model), image, protocol, confidence)


def segment_with(
    predictor: Predictor, image, protocol: Protocol, confidence=False
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Segment a picture as a `Protocol` says; else as `segment`."""
    protocol.check(predictor)
    image = as_picture(image)
    size = image.shape[:2]
    dtype = np.uint8 if len(predictor.labels) <= 256 else np.int32
    if protocol != Protocol():
        return probabilities(predictor, image, protocol).argmax(-1).astype(dtype)
    result = _without_padding(predictor, predictor(_whole(predictor, image))[0], size)
    if predictor.output == "classes":
        return resize_nearest(result, size).astype(dtype)
    if result.shape[:2] != size:
        scores = softmax(result) if predictor.output == "logits" else result
        result = resize_scores(scores, size)
    return result.argmax(-1).astype(dtype)


def probabilities(predictor: Predictor, image: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Return the class probabilities of a picture at its own size.

    With `crop`, as in semseg tool/test.py: for each scale the picture is resized so that its long
    side is scale * base, and padded with the mean on both sides up to the window. The window
    slides over it with a stride of two thirds of its side; the last position is moved back inside.
    Probabilities of overlapping windows are averaged, then the padding is cut off and the rest is
    resized to the picture.

    Args:
        predictor: the model.
        image: (H, W, 3) uint8 RGB.
        protocol: how to feed the picture.

    Returns:
        (H, W, C) float32; the classes of a pixel sum to 1.

    Raises:
        UserError: the protocol does not fit the model.
    """
    protocol.check(predictor)
    height, width = size = image.shape[:2]
    if protocol.crop is None:
        scores = _scores(predictor, _whole(predictor, image), protocol.flip)[0]
        return resize_scores(_without_padding(predictor, scores, size), size)
    total = np.zeros((height, width, len(predictor.labels)), np.float32)
    for scale in protocol.scales:
        long = round(scale * (protocol.base or max(size)))
        scaled = [max(round(long / max(size) * side), 1) for side in size]
        picture = resize_scores(image.astype(np.float32), scaled)
        if not predictor.floats:
            picture = np.rint(picture).astype(np.uint8)
        scores = _through_windows(predictor, picture, protocol)
        for top in range(0, height, 64):  # in strips: a resized copy of all scores is large
            rows = slice(top, min(top + 64, height))
            total[rows] += resize_scores(scores, size, rows)
    total /= len(protocol.scales)
    return total


def _whole(predictor, image) -> np.ndarray:
    """Return the batch (1, h, w, 3) that feeds a whole picture: resized, or padded for any size."""
    if predictor.size is None:
        return pad_to_stride(image, predictor.stride)[None]
    return resize_image(image, predictor.size)[None]


def _without_padding(predictor, result, size) -> np.ndarray:
    """Cut off what `_whole` padded."""
    return result[: size[0], : size[1]] if predictor.size is None else result


def _through_windows(predictor, picture, protocol) -> np.ndarray:
    """Return the probabilities (h, w, C) of a picture (h, w, 3), averaged over all windows."""
    size, crop = picture.shape[:2], protocol.crop
    missing = [max(window - side, 0) for window, side in zip(crop, size)]
    before = [count // 2 for count in missing]
    if any(missing):
        padded = np.empty((size[0] + missing[0], size[1] + missing[1], 3), picture.dtype)
        padded[:] = IMAGENET_MEAN if predictor.floats else np.rint(IMAGENET_MEAN)
        padded[before[0] : before[0] + size[0], before[1] : before[1] + size[1]] = picture
        picture = padded
    starts = [_starts(side, window) for side, window in zip(picture.shape, crop)]
    windows = [
        (slice(top, top + crop[0]), slice(left, left + crop[1]))
        for top in starts[0]
        for left in starts[1]
    ]
    total = np.zeros((*picture.shape[:2], len(predictor.labels)), np.float32)
    views = 2 if protocol.flip else 1
    pixels = crop[0] * crop[1] * views
    at_once = max(min(TILE_BYTES // (pixels * total.shape[2] * 4), TILE_PIXELS // pixels), 1)
    for first in range(0, len(windows), at_once):
        batch = windows[first : first + at_once]
        scores = _scores(predictor, np.stack([picture[window] for window in batch]), protocol.flip)
        for window, tile in zip(batch, scores):
            total[window] += tile
    counts = [
        np.bincount(np.ravel([np.arange(n, n + window) for n in places]))
        for places, window in zip(starts, crop)
    ]
    total /= (counts[0][:, None] * counts[1])[..., None].astype(np.float32)
    return total[before[0] : before[0] + size[0], before[1] : before[1] + size[1]]


def _starts(side, window) -> list[int]:
    """Return the first pixel of each window along a side that is at least as long as a window."""
    stride = math.ceil(window * STRIDE)
    count = math.ceil((side - window) / stride) + 1
    return [min(index * stride, side - window) for index in range(count)]


def _scores(predictor, batch, flip) -> np.ndarray:
    """Return the probabilities of a batch; with `flip` averaged with those of its mirror image."""
    if flip:
        batch = np.concatenate([batch, batch[:, :, ::-1]])
    scores = predictor(batch)
    if predictor.output == "logits":
        scores = softmax(scores)
    if not flip:
        return scores
    straight, mirrored = np.split(scores, 2)
    return (straight + mirrored[:, :, ::-1]) / 2


def pad_to_stride(image, stride):
    """Pad a uint8 picture at the bottom and the right with ImageNet's mean to n * stride + 1."""
    rows, columns = (-(side - 1) % stride for side in image.shape[:2])
    padded = np.empty((image.shape[0] + rows, image.shape[1] + columns, 3), np.uint8)
    padded[:] = np.rint(IMAGENET_MEAN)
    padded[: image.shape[0], : image.shape[1]] = image
    return padded


def resize_scores(scores, size, rows=slice(None)):
    """Resize scores (h, w, C) to (H, W, C): bilinear with half-pixel centres, as cv2.INTER_LINEAR.

    Args:
        scores: floats (h, w, C).
        size: (H, W).
        rows: a slice of the H rows to return.
    """
    if tuple(size) == scores.shape[:2]:
        return scores[rows]
    for axis, new in enumerate(size):
        old = scores.shape[axis]
        source = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(source).astype(int)
        high = np.minimum(low + 1, old - 1)
        share = (source - low).astype(scores.dtype)
        if axis == 0:
            low, high, share = low[rows], high[rows], share[rows]
        share = np.expand_dims(share, (1, 2) if axis == 0 else (0, 2))
        scores = scores.take(low, axis) * (1 - share) + scores.take(high, axis) * share
    return scores


def softmax(logits):
    """Turn logits into probabilities along the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)
