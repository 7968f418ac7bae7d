"""From a picture of any size to its class ids, around any network."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from keras_pspnet.errors import UserError
from keras_pspnet.images import IMAGENET_MEAN, as_picture, resize_image, resize_nearest
from keras_pspnet.inference.load import as_predictor
from keras_pspnet.inference.predictor import Predictor

STRIDE = 2 / 3
"""Of the sliding window, as a share of its side; semseg tool/test.py."""

TILE_BYTES = 2**27
"""What the scores of the tiles that are computed at once may hold."""

TILE_PIXELS = 2 * 713**2
"""How many pixels they may have: inside a PSPNet50 a pixel takes about 600 bytes."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How a network looks at a picture; the defaults look once, at all of it.

    Args:
        crop: (H, W) of a window that slides over the picture, as in the authors' test program
            (semseg tool/test.py); None for the whole picture.
        base: the picture's long side at scale 1, with `crop`; None for its own.
        scales: of the picture, with `crop`; the probabilities are averaged.
        flip: with the mirrored picture, too; the probabilities are averaged.

    Raises:
        UserError: values that make no sense, or not together.
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
            raise UserError(f"--scales {self.scales}: one stands twice")

    def check(self, network: Predictor) -> None:
        """Whether a network can be looked through like this.

        Raises:
            UserError: it gives class ids alone, or has another size than the window.
        """
        if network.output == "classes" and self != Protocol():
            raise UserError(
                "--crop, --scales and --flip average probabilities, the model gives class ids "
                "alone; export it with --output logits"
            )
        if self.crop and network.size and tuple(self.crop) != tuple(network.size):
            height, width = network.size
            raise UserError(
                f"--crop {self.crop[0]} {self.crop[1]}: the model takes {height}x{width} alone; "
                f"expected --crop {height} {width}"
            )


def segment(model, image, protocol: Protocol | None = None) -> np.ndarray:
    """Segment a picture of any size into class ids.

    The picture is resized to the network's size and the probabilities back to the picture's; a
    network of any size takes the picture as it is, padded to n * stride + 1.

    Args:
        model: anything `load_model` returns.
        image: (H, W, 3) RGB in 0..255, or the path of a picture.
        protocol: a sliding window, scales, the mirrored picture; the whole picture by default.

    Returns:
        (H, W) class ids, uint8, or int32 beyond 256 classes.

    Raises:
        UserError: a path that is no readable picture, an array of another shape, another model.
    """
    network, image = as_predictor(model), as_picture(image)
    height, width = image.shape[:2]
    dtype = np.uint8 if len(network.labels) <= 256 else np.int32
    if protocol is not None and protocol != Protocol():
        return probabilities(network, image, protocol).argmax(-1).astype(dtype)
    if network.size is None:
        result = network(pad_to_stride(image, network.stride)[None])[0, :height, :width]
    else:
        result = network(resize_image(image, network.size)[None])[0]
    if network.output == "classes":
        return resize_nearest(result, (height, width)).astype(dtype)
    if result.shape[:2] != (height, width):
        scores = softmax(result) if network.output == "logits" else result
        result = resize_scores(scores, (height, width))
    return result.argmax(-1).astype(dtype)


def probabilities(network: Predictor, image: np.ndarray, protocol: Protocol) -> np.ndarray:
    """The probabilities of one picture's classes, at its own size.

    With `crop`, for each scale (semseg tool/test.py): the picture is resized so that its long side
    is scale * base, padded with the mean on both sides up to the window, and seen through windows
    a stride of two thirds apart, the last one moved back inside. Where windows overlap their
    probabilities are averaged, the padding is cut off, and what is left is resized to the picture.

    Args:
        image: (H, W, 3) uint8 RGB.

    Returns:
        (H, W, C) float32, sums of 1.
    """
    protocol.check(network)
    height, width = image.shape[:2]
    if protocol.crop is None:
        if network.size is None:
            padded = pad_to_stride(image, network.stride)[None]
            return _scores(network, padded, protocol.flip)[0, :height, :width]
        scores = _scores(network, resize_image(image, network.size)[None], protocol.flip)[0]
        return resize_scores(scores, (height, width))
    total = np.zeros((height, width, len(network.labels)), np.float32)
    for scale in protocol.scales:
        long = round(scale * (protocol.base or max(height, width)))
        size = [max(round(long / max(height, width) * side), 1) for side in (height, width)]
        picture = resize_scores(image.astype(np.float32), size)
        if not network.floats:
            picture = np.rint(picture).astype(np.uint8)
        scores = _through_windows(network, picture, protocol)
        for top in range(0, height, 64):  # in strips: whole copies would take most of the memory
            rows = slice(top, min(top + 64, height))
            total[rows] += resize_scores(scores, (height, width), rows)
    total /= len(protocol.scales)
    return total


def _through_windows(network, picture, protocol) -> np.ndarray:
    """The probabilities (h, w, C) of a picture of any size, window by window."""
    size, crop = picture.shape[:2], protocol.crop
    missing = [max(window - side, 0) for window, side in zip(crop, size)]
    before = [count // 2 for count in missing]
    if any(missing):
        padded = np.empty((size[0] + missing[0], size[1] + missing[1], 3), picture.dtype)
        padded[:] = IMAGENET_MEAN if network.floats else np.rint(IMAGENET_MEAN)
        padded[before[0] : before[0] + size[0], before[1] : before[1] + size[1]] = picture
        picture = padded
    starts = [_starts(side, window) for side, window in zip(picture.shape, crop)]
    windows = [
        (slice(top, top + crop[0]), slice(left, left + crop[1]))
        for top in starts[0]
        for left in starts[1]
    ]
    total = np.zeros((*picture.shape[:2], len(network.labels)), np.float32)
    views = 2 if protocol.flip else 1
    pixels = crop[0] * crop[1] * views
    at_once = max(min(TILE_BYTES // (pixels * total.shape[2] * 4), TILE_PIXELS // pixels), 1)
    for first in range(0, len(windows), at_once):
        batch = windows[first : first + at_once]
        scores = _scores(network, np.stack([picture[window] for window in batch]), protocol.flip)
        for window, tile in zip(batch, scores):
            total[window] += tile
    counts = [
        np.bincount(np.ravel([np.arange(n, n + window) for n in places]))
        for places, window in zip(starts, crop)
    ]
    total /= (counts[0][:, None] * counts[1])[..., None].astype(np.float32)
    return total[before[0] : before[0] + size[0], before[1] : before[1] + size[1]]


def _starts(side, window) -> list[int]:
    """Where windows begin along a side that is no shorter than they are."""
    stride = math.ceil(window * STRIDE)
    count = math.ceil((side - window) / stride) + 1
    return [min(index * stride, side - window) for index in range(count)]


def _scores(network, batch, flip) -> np.ndarray:
    """The probabilities of a batch, averaged with those of its mirror image."""
    if flip:
        batch = np.concatenate([batch, batch[:, :, ::-1]])
    scores = network(batch)
    if network.output == "logits":
        scores = softmax(scores)
    if not flip:
        return scores
    straight, mirrored = np.split(scores, 2)
    return (straight + mirrored[:, :, ::-1]) / 2


def pad_to_stride(image, stride):
    """Pads a picture at the bottom and the right with the mean, to n * stride + 1 each way."""
    rows, columns = (-(side - 1) % stride for side in image.shape[:2])
    padded = np.empty((image.shape[0] + rows, image.shape[1] + columns, 3), np.uint8)
    padded[:] = np.rint(IMAGENET_MEAN)
    padded[: image.shape[0], : image.shape[1]] = image
    return padded


def resize_scores(scores, size, rows=slice(None)):
    """(h, w, C) floats resized to (H, W, C): bilinear, half-pixel, as cv2.INTER_LINEAR.

    Args:
        rows: which of the H rows to give.
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
    """Probabilities along the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)
