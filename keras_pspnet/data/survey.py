"""What reading every pair shows: counts, errors, and what a user should know of the pictures."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np

from keras_pspnet.errors import UserError

DARK = 16
"""Largest 8-bit value of a picture of 12 bits in a 16-bit file: 4095 / 257, rounded up."""


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a survey keeps of a good pair; see `Survey`.

    Args:
        pixels: (256,) pixels of each class id.
        size: (H, W).
        turned: whether EXIF turns one side alone.
        dark: whether no value of the picture is above DARK.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    turned: bool
    dark: bool


@dataclasses.dataclass
class Survey:
    """The result of reading every pair of a source; bad pairs count in `errors` alone.

    Args:
        pixels: (256,) int64, pixels of each class id; 255 is void.
        pictures: (256,) int64, pictures in which each class id occurs.
        sizes: (H, W) -> number of pictures.
        good: indices of the pairs that can be used.
        turned: number of pairs of which EXIF turns one side alone.
        dark: names of the pictures without a value above DARK.
        errors: one for each pair, picture or mask that cannot be used.
    """

    pixels: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256, np.int64))
    pictures: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256, np.int64))
    sizes: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    good: list[int] = dataclasses.field(default_factory=list)
    turned: int = 0
    dark: list[str] = dataclasses.field(default_factory=list)
    errors: list[UserError] = dataclasses.field(default_factory=list)

    def add(self, index: int, name: str, seen: Seen | UserError) -> None:
        """Count what was seen of a pair, or the error of one that cannot be used."""
        if isinstance(seen, UserError):
            self.errors.append(seen)
            return
        self.good.append(index)
        self.pixels += seen.pixels
        self.pictures += seen.pixels > 0
        self.sizes[seen.size] += 1
        self.turned += seen.turned
        if seen.dark:
            self.dark.append(name)

    def to_config(self) -> dict:
        """Return the survey as JSON values."""
        values = dataclasses.asdict(self)
        values |= {name: values[name].tolist() for name in ("pixels", "pictures")}
        values["sizes"] = [[*size, number] for size, number in self.sizes.items()]
        return {**values, "errors": [str(error) for error in self.errors]}

    @classmethod
    def from_config(cls, values: dict) -> Survey:
        """Return the survey of `to_config`."""
        values = dict(values)
        values |= {name: np.array(values[name], np.int64) for name in ("pixels", "pictures")}
        values["sizes"] = collections.Counter({(h, w): number for h, w, number in values["sizes"]})
        return cls(**{**values, "errors": [UserError(error) for error in values["errors"]]})


def turned_by_exif(count: int, drawn: bool) -> list[str]:
    """Return a warning of pictures that EXIF turns and whose masks may lie otherwise, or nothing.

    Args:
        count: the number of such pictures.
        drawn: True for masks that are drawn from annotations, False for masks that are pictures.
    """
    if not count:
        return []
    its, what = ("its", "1 picture is") if count == 1 else ("their", f"{count} pictures are")
    side = f"{its} mask{'s have' if count > 1 else ' has'} none"
    if drawn:
        side = f"{its} annotation{'s do' if count > 1 else ' does'} not say which way up"
    where = "look at the samples of `keras-pspnet look`"
    return [f"warning: {what} turned by {its} EXIF, {side}: {where}"]


def almost_black(surveys) -> list[str]:
    """Return a warning of pictures that show almost nothing, or nothing."""
    dark = [name for survey in surveys for name in survey.dark]
    if not dark:
        return []
    what = "1 picture is" if len(dark) == 1 else f"{len(dark)} pictures are"
    return [
        f"warning: {what} almost black (no value above {DARK} of 255), such as {dark[0]}: 12 bits "
        "in 16-bit files? multiply their values by 16"
    ]
