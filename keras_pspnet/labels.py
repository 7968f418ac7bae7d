"""Label sets: what a class id is called, how it is painted, which id means "do not count"."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from keras_pspnet.files import UserError, read_bytes

IGNORE = 255
"""Void in every mask this package hands on (semseg config/*: ignore_label 255)."""


def void_of(num_classes: int) -> int:
    """The void label where none is given: 255, or 65535 where 255 is a class id."""
    return IGNORE if num_classes <= IGNORE else 65535


def voc_palette(count: int) -> tuple[tuple[int, int, int], ...]:
    """The VOC colour map without its black entry: the bits of id + 1 over R, G and B."""
    colors = []
    for index in range(1, count + 1):
        rgb = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                rgb[channel] |= ((index >> (3 * bit + channel)) & 1) << (7 - bit)
        colors.append(tuple(rgb))
    return tuple(colors)


@dataclasses.dataclass(frozen=True)
class LabelSet:
    """Names and RGB colours of the classes 0..n-1, and what the values of their masks mean.

    Args:
        names: one name a class.
        colors: one (r, g, b) in 0..255 a class; the VOC colour map if empty.
        ignore: the mask value of void pixels; they never count, in the loss or in a score.
        ids: mask value -> class id, or the void label, where masks do not hold class ids; a
            mask value that is in neither `ids` nor `ignore` is an error.

    Raises:
        UserError: no names, a name twice, another number of colours, a value out of range.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...] = ()
    ignore: int = IGNORE
    ids: dict[int, int] | None = None

    def __post_init__(self):
        names = tuple(str(name) for name in self.names)
        colors = tuple(tuple(int(v) for v in c) for c in self.colors) or voc_palette(len(names))
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "colors", colors)
        if not names:
            raise UserError("labels: no names; expected one name a class")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"labels: the name {twice!r} stands twice; every class needs its own")
        if len(colors) != len(names):
            raise UserError(
                f"labels: {len(colors)} colors for {len(names)} names; expected as many"
            )
        if any(len(c) != 3 or min(c) < 0 or max(c) > 255 for c in colors):
            raise UserError("labels: a color is not [r, g, b] with values in 0..255")
        if not 0 <= self.ignore <= void_of(len(names)):
            raise UserError(f"labels: ignore {self.ignore} is no value of a mask")
        if self.ids is None and self.ignore < len(names):
            raise UserError(
                f"labels: ignore {self.ignore} is also a class id (0..{len(names) - 1})"
            )
        if self.ids is not None:
            ids = {int(raw): int(label) for raw, label in self.ids.items()}
            object.__setattr__(self, "ids", ids)
            for raw, label in ids.items():
                if not 0 <= raw <= 255 or raw == self.ignore:
                    raise UserError(f"labels: ids maps {raw}, which is void or no 8-bit value")
                if not (0 <= label < len(names) or label in (IGNORE, self.ignore)):
                    raise UserError(f"labels: ids maps {raw} to {label}, which is no class id")

    @classmethod
    def numbered(cls, count: int) -> LabelSet:
        """`count` classes that nobody has named: class_0, class_1, ..."""
        return cls(tuple(f"class_{index}" for index in range(count)), ignore=void_of(count))

    @classmethod
    def from_config(cls, config: dict) -> LabelSet:
        """The inverse of `to_config`; also reads a labels.json, where only `names` is required."""
        if not isinstance(config, dict) or not isinstance(config.get("names"), (list, tuple)):
            raise UserError('labels: expected {"names": [...], ...}')
        try:
            return cls(
                names=tuple(config["names"]),
                colors=tuple(config.get("colors") or ()),
                ignore=int(config.get("ignore", void_of(len(config["names"])))),
                ids=config.get("ids"),
            )
        except UserError:
            raise
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            raise UserError(f"labels: {error}") from error

    def to_config(self) -> dict:
        """Plain lists and numbers, ready for JSON."""
        config = {
            "names": list(self.names),
            "colors": [list(color) for color in self.colors],
            "ignore": self.ignore,
        }
        if self.ids is not None:
            config["ids"] = {str(raw): label for raw, label in self.ids.items()}
        return config

    def __len__(self) -> int:
        return len(self.names)

    def decode(self, mask: np.ndarray) -> np.ndarray:
        """Raw mask ids (H, W) uint8 -> class ids, void as 255.

        Raises:
            UserError: a value that is no class and not void.
        """
        table = np.full(256, -1)
        if self.ids is None:
            table[: len(self)] = np.arange(min(len(self), 256))
        else:
            for raw, label in self.ids.items():
                table[raw] = label if label < len(self) else IGNORE
        if self.ignore <= 255:
            table[self.ignore] = IGNORE
        classes = table[mask]
        if classes.min(initial=0) < 0:
            wrong = int(mask[classes < 0][0])
            known = f"0..{len(self) - 1}" if self.ids is None else f"one of {sorted(self.ids)}"
            raise UserError(
                f"label {wrong} is out of range; expected {known} or {self.ignore} (void)"
            )
        return classes.astype(np.uint8)

    def palette(self) -> np.ndarray:
        """(256, 3) uint8: the colour of every 8-bit mask value; void and unknown ids are black."""
        table = np.zeros((256, 3), np.uint8)
        shown = min(len(self), 256)
        table[:shown] = self.colors[:shown]
        return table


CAMVID = LabelSet(
    names=("Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car")
    + ("Pedestrian", "Bicyclist"),
    colors=((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222))
    + ((128, 128, 0), (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192)),
    ignore=11,
)
"""The 11 classes of the SegNet copy of CamVid; mask value 11 is void there."""

SCENES = LabelSet(
    names=("sky", "building", "road", "car", "pole", "water", "boat", "buoy", "wall", "floor")
    + ("bed", "pillow"),
    colors=((135, 190, 235), (150, 105, 85), (95, 95, 105), (205, 45, 50), (250, 205, 60))
    + ((40, 95, 160), (240, 240, 235), (255, 120, 20), (205, 185, 160), (125, 90, 60))
    + ((115, 75, 155), (235, 150, 195)),
)
"""The generated scenes: a street, a sea and a room (scenes.py)."""

NAMED = {"camvid": CAMVID, "scenes": SCENES}


def load_labels(name_or_file: str) -> LabelSet:
    """A label set by the name of its dataset or from a labels.json.

    Raises:
        UserError: neither a known name nor a readable labels file.
    """
    if name_or_file in NAMED:
        return NAMED[name_or_file]
    path = Path(name_or_file)
    if not path.is_file():
        raise UserError(f"labels: {name_or_file} is neither a file nor one of {', '.join(NAMED)}")
    try:
        return LabelSet.from_config(json.loads(read_bytes(path)))
    except (UserError, ValueError) as error:
        raise UserError(f"{path}: not a labels file: {error}") from error
