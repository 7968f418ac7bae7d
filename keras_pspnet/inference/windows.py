"""Slide windows over a picture; average their probabilities without holding those of all pixels."""

import math
from itertools import pairwise

import numpy as np

from keras_pspnet.images import IMAGENET_MEAN
from keras_pspnet.inference.enlarge import mix, places, softmax

STRIDE = 2 / 3
"""Stride of the sliding window as a share of its side (semseg tool/test.py)."""

TILE_BYTES = 2**27
"""Maximum bytes of the scores of one batch of windows."""

TILE_PIXELS = 2 * 713**2
"""Maximum pixels of one batch of windows: a PSPNet-50 needs about 600 bytes for each."""


def probabilities_of(predictor, batch, flip=False) -> np.ndarray:
    """Return the probabilities of a batch; with `flip` averaged with those of its mirror image."""
    scores = predictor(batch)
    scores = softmax(scores) if predictor.output == "logits" else np.require(scores, None, "W")
    if flip:
        scores += probabilities_of(predictor, batch[:, :, ::-1])[:, :, ::-1]
        scores /= 2
    return scores


def resized_blocks(predictor, image, scale, protocol):
    """Yield the probabilities of a picture at one scale, block by block, as windows finish them.

    As in semseg tool/test.py: the picture is resized so that its long side is scale * base, and
    padded with the mean on both sides up to the window. The window slides over it with a stride of
    two thirds of its side; the last position is moved back inside. Probabilities of overlapping
    windows are averaged.

    Args:
        predictor: the model.
        image: (H, W, 3) uint8 RGB.
        scale: one of the protocol's scales.
        protocol: a `Protocol` with `crop`.

    Yields:
        Two slices, the rows and columns of the picture that a block decides; its probabilities
        (h, w, C); and the `Places` of those rows and columns in it.
    """
    size = image.shape[:2]
    long = round(scale * (protocol.base or max(size)))
    scaled = tuple(max(round(long / max(size) * side), 1) for side in size)
    back = [places(old, new) for old, new in zip(scaled, size)]
    for ends, block in _blocks(predictor, image, scaled, protocol):
        given = []
        for (start, stop), length, axis in zip(ends, block.shape, back):
            # A pixel belongs to the block that holds the second of the two that it lies between.
            where = slice(*np.searchsorted(axis.high, (start, stop)))
            given.append((where, axis.part(where, stop - length)))
        (rows, row_places), (columns, column_places) = given
        if rows.start < rows.stop and columns.start < columns.stop:
            yield rows, columns, block, row_places, column_places
        del block


def _blocks(predictor, image, scaled, protocol):
    """Yield the probabilities of a picture at its scaled size, block by block.

    Beside one batch of windows only those pixels are held that later windows touch. The windows
    go in lines across the shorter side, so that these are few.

    Yields:
        ((top, bottom), (left, right)), the pixels of the block, and their probabilities (h, w, C).
        Where the picture is resized the block also has the row above and the column to the left.
    """
    crop = protocol.crop
    padded = [max(side, window) for side, window in zip(scaled, crop)]
    starts = [_starts(side, window) for side, window in zip(padded, crop)]
    counts = [
        np.bincount(np.ravel([np.arange(n, n + window) for n in firsts])).astype(np.float32)
        for firsts, window in zip(starts, crop)
    ]
    # A line of windows is a row of them in a high picture, in a wide one a column, turned.
    along, across = (0, 1) if scaled[0] >= scaled[1] else (1, 0)
    lines, firsts, window = starts[along], starts[across], crop[along]
    corners = [(line, first) for line in lines for first in firsts]
    corners = corners if along == 0 else [corner[::-1] for corner in corners]
    tiles = _tiles(predictor, image, scaled, protocol, corners)
    overlap = max((line + window - after for line, after in pairwise(lines)), default=0)
    below = np.empty((overlap, padded[across], len(predictor.labels)), np.float32)
    margin = _Margin() if tuple(scaled) != image.shape[:2] else None
    touched = 0  # pixels of a line that the lines before touched too
    for line, end in zip(lines, [*lines[1:], padded[along]]):
        beside = below[:0, :0]
        for first, last in zip(firsts, [*firsts[1:], padded[across]]):
            tile = next(tiles)
            tile = tile if along == 0 else tile.swapaxes(0, 1)
            if beside.size:
                tile[:, : beside.shape[1]] += beside
            beside = tile[:, last - first :].copy()
            done = tile[:, : last - first]
            done[:touched] += below[:touched, first:last]
            below[: window - (end - line), first:last] = done[end - line :]
            done = done[: end - line]
            done /= (counts[along][line:end, None] * counts[across][first:last])[..., None]
            where, ends = [], []
            for axis, start, stop in ((along, line, end), (across, first, last)):
                before = (padded[axis] - scaled[axis]) // 2
                inside = max(start, before), min(stop, before + scaled[axis])
                where.append(slice(inside[0] - start, inside[1] - start))
                ends.append((inside[0] - before, inside[1] - before))
            done = done[tuple(where)]
            if margin:
                done = margin.added(done, ends)
            yield (ends, done) if along == 0 else (ends[::-1], done.swapaxes(0, 1))
            del tile, done  # hundreds of megabytes, not to be held while the network runs
        touched = window - (end - line)


class _Margin:
    """The last pixels of the blocks before, which the next ones need to be resized."""

    def __init__(self):
        self.above, self.beside = {}, None

    def added(self, block, ends):
        """Return a block with the row above and the column to the left, where there are any."""
        (top, _), columns = ends
        if top:
            block = np.concatenate([self.above[columns], block])
        self.above[columns] = block[-1:].copy()
        last = block[:, -1:].copy()
        if columns[0]:
            block = np.concatenate([self.beside, block], axis=1)
        self.beside = last
        return block


def _tiles(predictor, image, scaled, protocol, corners):
    """Yield the probabilities (h, w, C) of the windows at some corners, in order."""
    pixels = math.prod(protocol.crop)
    bytes_of_one = pixels * len(predictor.labels) * 4
    at_once = max(min(TILE_BYTES // bytes_of_one, TILE_PIXELS // pixels), 1)
    for first in range(0, len(corners), at_once):
        some = corners[first : first + at_once]
        batch = np.stack([_window(image, scaled, protocol.crop, corner) for corner in some])
        if not predictor.floats:
            batch = np.rint(batch).astype(np.uint8)
        yield from probabilities_of(predictor, batch, protocol.flip)


def _window(image, scaled, crop, corner) -> np.ndarray:
    """Return the window (h, w, 3) at a corner of the resized and padded picture, float32."""
    window = np.empty((*crop, 3), np.float32)
    window[:] = IMAGENET_MEAN
    into, given, read = [], [], []
    for old, new, side, start in zip(image.shape, scaled, crop, corner):
        before = max(side - new, 0) // 2
        axis = places(old, new).part(slice(start, start + side))
        into.append(slice(before, before + len(axis.low)))
        read.append(slice(axis.low[0], axis.high[-1] + 1))
        given.append(axis.part(slice(None), axis.low[0]))
    window[tuple(into)] = mix(image[tuple(read)], *given)
    return window


def _starts(side, window) -> list[int]:
    """Return the first pixel of each window along a side that is at least as long as a window."""
    stride = math.ceil(window * STRIDE)
    count = math.ceil((side - window) / stride) + 1
    return [min(index * stride, side - window) for index in range(count)]
