"""Resize scores bilinearly, and find the best class of each pixel without resizing all scores."""

from typing import NamedTuple

import numpy as np

AT_ONCE = 2**22
"""Maximum scores that are resized at once; a step holds about six times as many floats."""

NEAR = 1e-6
"""Scores that differ by a smaller share may change their order when they are mixed in float32."""


class Places(NamedTuple):
    """Where the pixels of a resized axis lie between those of the old one.

    Args:
        low, high: int (n,), indices of the old pixels around each new one.
        share: float (n,) in 0..1, the weight of `high`.
    """

    low: np.ndarray
    high: np.ndarray
    share: np.ndarray

    def part(self, where: slice, first: int = 0) -> "Places":
        """Return the places of a slice of the new pixels, in old pixels counted from `first`."""
        return Places(self.low[where] - first, self.high[where] - first, self.share[where])


def places(old: int, new: int) -> Places:
    """Return the places of `new` pixels among `old` ones, half-pixel centres (cv2.INTER_LINEAR)."""
    if old == new:
        return Places(np.arange(new), np.arange(new), np.zeros(new))
    source = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    low = np.floor(source).astype(int)
    return Places(low, np.minimum(low + 1, old - 1), source - low)


def resize_scores(scores, size):
    """Resize scores (h, w, C) to (H, W, C): bilinear, without antialiasing."""
    return mix(scores, *map(places, scores.shape, size))


def mix(scores, rows: Places, columns: Places):
    """Return the bilinear mixtures of an array (h, w, C) at some places, (H, W, C)."""
    for axis, (low, high, share) in enumerate((rows, columns)):
        if not share.any():
            scores = scores.take(low, axis)
            continue
        share = share.astype(np.result_type(scores, np.float32))
        share = np.expand_dims(share, (1, 2) if axis == 0 else (0, 2))
        scores = scores.take(low, axis) * (1 - share) + scores.take(high, axis) * share
    return scores


def best_classes(scores, rows: Places, columns: Places, confidence=False):
    """Return the class with the largest mixture at each place: that of `mix(...).argmax(-1)`.

    Where one class wins at all four corners of a cell it wins everywhere inside, since mixing
    keeps the order. All other cells are mixed pixel by pixel.

    Args:
        scores: (h, w, C) floats, at least 0.
        rows, columns: H and W places among the h rows and the w columns.
        confidence: True also returns the largest mixtures.

    Returns:
        (H, W) uint8, or int32 beyond 256 classes; and (H, W) floats or None.
    """
    best, clear = _winners(scores, rows.share.any() or columns.share.any())
    inside, corners = _one_winner(best, clear, rows, columns)
    size = len(rows.low), len(columns.low)
    classes = np.empty(size, best.dtype)
    largest = np.take_along_axis(scores, best[..., None].astype(int), -1) if confidence else None
    values = np.empty(size, scores.dtype) if confidence else None
    at_once = _rows_at_once(scores.shape, size)
    for top in range(0, size[0], at_once):
        strip = slice(top, top + at_once)
        part = rows.part(strip)
        classes[strip] = best.take(part.low, 0).take(columns.low, 1)
        if confidence:
            values[strip] = mix(largest, part, columns)[..., 0]
        y, x = np.nonzero(~inside.take(part.low, 0).take(columns.low, 1))
        if len(y):
            found, value = _compare(scores, part, columns, y, x, corners)
            classes[strip][y, x] = found
            if confidence:
                values[strip][y, x] = value
    return classes, values


def _rows_at_once(old, new) -> int:
    """Return how many new rows to compute at once, so that the arrays stay small."""
    cells = AT_ONCE // (min(old[1], new[1]) * old[2])
    return max(int(min(AT_ONCE // 16 // new[1], cells * max(new[0] / old[0], 1))), 1)


def _winners(scores, mixed):
    """Return the best class (h, w), and where no class before it is nearly as good.

    A class after it may be equal: of equal scores the first class wins, before and after mixing.
    Without `mixed` every pixel is clear.
    """
    best = np.empty(scores.shape[:2], np.uint8 if scores.shape[2] <= 256 else np.int32)
    clear = np.ones(best.shape, bool)
    at_once = max(AT_ONCE // scores[0].size, 1)
    for top in range(0, len(scores), at_once):
        strip = scores[top : top + at_once]
        winner = strip.argmax(-1)
        best[top : top + at_once] = winner
        if mixed:
            value = np.take_along_axis(strip, winner[..., None], -1)
            clear[top : top + at_once] = (strip >= value * (1 - NEAR)).argmax(-1) == winner
    return best, clear


def _one_winner(best, clear, rows, columns):
    """Return where one class wins a whole cell, (h, w) by its first corner, and the last corners.

    The last corners are the row below each row and the column beside each column; the same row or
    column, where the axis is not resized.
    """
    beyond = [
        np.minimum(np.arange(count) + bool((axis.high != axis.low).any()), count - 1)
        for count, axis in zip(best.shape, (rows, columns))
    ]
    inside = clear
    for axis, last in enumerate(beyond):
        inside = inside & inside.take(last, axis)
        inside &= best == best.take(last, axis)
    return inside, beyond


def _compare(scores, rows, columns, y, x, beyond):
    """Return the best class, and its mixture, at the pixels (y, x) of some rows and columns.

    Only classes are mixed that can win: a class whose largest corner is under the smallest corner
    of another cannot. The pixels are in the order of `np.nonzero`.
    """
    count = scores.shape[2]
    # Pixels of one row and one cell are neighbours, so their two rows are mixed only once.
    key = y * scores.shape[1] + columns.low[x]
    begins = np.diff(key, prepend=-1) != 0
    run, first = np.cumsum(begins) - 1, np.flatnonzero(begins)
    y, left = y[first], columns.low[x[first]]
    cells, cell = np.unique(rows.low[y] * scores.shape[1] + left, return_inverse=True)
    top, left = np.divmod(cells, scores.shape[1])
    below, beside = beyond[0][top], beyond[1][left]
    corners = np.stack([scores[a, b] for a in (top, below) for b in (left, beside)])
    floor = corners.min(0).max(-1, keepdims=True) * (1 - NEAR)
    hopeless = corners.max(0) < floor
    hopeful = count - hopeless.sum(-1)
    classes, values = np.empty(len(x), int), np.empty(len(x), scores.dtype)
    down, right = rows.share.astype(scores.dtype)[y], columns.share.astype(scores.dtype)[x]
    fewer = 0
    for most in sorted({min(number, count) for number in (2, 4, 16, count)}):
        chosen = (hopeful > fewer) & (hopeful <= most)
        fewer = most
        # In the order of the classes, then some that cannot win: of equals the first is taken.
        names = np.argsort(hopeless[chosen], axis=-1, kind="stable")[:, :most]
        few = np.take_along_axis(corners[:, chosen], names[None], -1)
        asked = chosen[cell]  # the runs of these cells, and their pixels
        place = (np.cumsum(chosen) - 1)[cell[asked]]
        s = down[asked, None]
        a, b, c, d = few
        start = a[place] * (1 - s) + c[place] * s
        end = b[place] * (1 - s) + d[place] * s
        pixels = np.flatnonzero(asked[run])
        where = (np.cumsum(asked) - 1)[run[pixels]]
        for i in range(0, len(pixels), AT_ONCE // most + 1):
            some = pixels[i : i + AT_ONCE // most + 1]
            at = where[i : i + AT_ONCE // most + 1]
            t = right[some, None]
            mixed = start[at] * (1 - t) + end[at] * t
            winner = mixed.argmax(-1)
            classes[some] = names[place[at], winner]
            values[some] = np.take_along_axis(mixed, winner[:, None], -1)[:, 0]
    return classes, values


def softmax(logits):
    """Turn logits into probabilities along the last axis, in the same array if it can be written.

    A copy would be the largest array of all. Where that is not possible a new array is returned.
    """
    powers = np.require(logits, requirements="W")
    powers -= powers.max(-1, keepdims=True)
    np.exp(powers, out=powers)
    powers /= powers.sum(-1, keepdims=True)
    return powers
