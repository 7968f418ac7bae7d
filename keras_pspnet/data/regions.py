"""Draw annotated regions, polygons and run-length encodings, into a mask of class ids."""

import dataclasses

import numpy as np

from keras_pspnet.errors import UserError


@dataclasses.dataclass(frozen=True)
class Region:
    """A part of a picture that belongs to one class.

    Args:
        label: the class id.
        polygons: (N, 2) x, y in pixels each; the region is all of them together. (0, 0) is the
            outer corner of the first pixel, whose centre is (0.5, 0.5), as in COCO.
        rle: COCO's run lengths, in place of polygons.
        inside: (H, W) bool, in place of both.
    """

    label: int
    polygons: tuple = ()
    rle: list[int] | None = None
    inside: np.ndarray | None = None

    def area(self) -> float:
        """Return about how many pixels the region has."""
        if self.inside is not None:
            return float(np.count_nonzero(self.inside))
        if self.rle is not None:
            return float(sum(self.rle[1::2]))
        total = 0.0
        for points in self.polygons:
            x, y = np.asarray(points, np.float64).T
            total += abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
        return total

    def draw(self, mask) -> None:
        """Write the class id into a mask (H, W)."""
        if self.inside is not None:
            mask[self.inside] = self.label
        elif self.rle is not None:
            mask[decode_rle(self.rle, mask.shape)] = self.label
        for points in self.polygons:
            fill_polygon(mask, points, self.label)


def polygon(points) -> list[tuple[float, float]]:
    """Return a polygon's points as floats.

    Raises:
        UserError: fewer than 3 points, or coordinates that are no numbers.
    """
    try:
        points = [(float(x), float(y)) for x, y in points]
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError("a polygon is not a list of x and y") from error
    if len(points) < 3:
        raise UserError(f"a polygon of {len(points)} points; expected 3 or more")
    if not np.isfinite(points).all() or np.abs(points).max() > 1e6:
        raise UserError("a polygon with coordinates that are no numbers of pixels")
    return points


def paint(regions, size, uncovered: int) -> np.ndarray:
    """Paint regions into a mask, small ones over large ones.

    Args:
        regions: the regions; of equal area, a later one lies over an earlier one.
        size: (H, W).
        uncovered: the value of pixels in no region.

    Returns:
        (H, W) uint8 class ids.
    """
    mask = np.full(size, uncovered, np.uint8)
    for region in sorted(regions, key=lambda region: -region.area()):
        region.draw(mask)
    return mask


def fill_polygon(mask, points, value) -> None:
    """Fill a polygon in a mask (H, W): pixels whose centre is inside by the even-odd rule."""
    height, width = mask.shape
    points = np.asarray(points, np.float64)
    x, y = points.T
    next_x, next_y = np.roll(points, -1, axis=0).T
    first = np.clip(np.ceil(np.minimum(y, next_y) - 0.5), 0, height).astype(int)
    last = np.clip(np.ceil(np.maximum(y, next_y) - 0.5), 0, height).astype(int)
    top, bottom = first.min(), last.max()
    # How often the row of pixel centres has crossed an edge before each pixel.
    crossings = np.zeros((bottom - top, width + 1), np.int32)
    for edge in np.flatnonzero(last > first):
        rows = np.arange(first[edge], last[edge])
        share = (rows + 0.5 - y[edge]) / (next_y[edge] - y[edge])
        at = x[edge] + share * (next_x[edge] - x[edge])
        columns = np.clip(np.ceil(at - 0.5), 0, width).astype(int)
        crossings[rows - top, columns] += 1
    mask[top:bottom][np.cumsum(crossings[:, :-1], axis=1) % 2 == 1] = value


def decode_rle(counts, size) -> np.ndarray:
    """Decode run lengths: runs of 0 and 1 in turn, column by column.

    Args:
        counts: see `run_lengths`.
        size: (H, W).

    Returns:
        (H, W) bool.

    Raises:
        UserError: the runs do not fill the picture.
    """
    height, width = size
    if sum(counts) != height * width:
        raise UserError(f"its run lengths do not fill {width}x{height} pixels")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T


def run_lengths(counts) -> list[int]:
    """Return COCO's run lengths as a list, also of its compressed string (maskApi.c, rleFrString).

    In the string, each number is written in groups of 5 bits, lowest first, as characters from "0"
    on; bit 5 says that another group follows. From the fourth on, a number is the difference to the
    one before the last.

    Raises:
        UserError: neither a list of numbers from 0 on nor such a string.
    """
    if isinstance(counts, str):
        counts = _uncompressed(counts)
    if not isinstance(counts, list) or not all(isinstance(n, int) and n >= 0 for n in counts):
        raise UserError("its run lengths are no numbers from 0 on")
    return counts


def _uncompressed(text) -> list[int]:
    counts: list[int] = []
    value = shift = 0
    for byte in text.encode("ascii", "replace"):
        group = byte - 48
        if not 0 <= group < 64 or shift > 60:
            raise UserError("its run lengths are not COCO's compressed form")
        value |= (group & 31) << shift
        shift += 5
        if not group & 32:
            if group & 16:  # the sign
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts
