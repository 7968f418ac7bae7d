"""Label sets: the name and colour of each class, and what the values of its masks mean."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np

from keras_pspnet.errors import UserError
from keras_pspnet.files import read_bytes

IGNORE = 255
"""The void label of every decoded mask (semseg config/*: ignore_label 255)."""


def default_void_label(num_classes: int) -> int:
    """Return the default void label: 255, or 65535 where 255 is a class id."""
    return IGNORE if num_classes <= IGNORE else 65535


def voc_palette(count: int) -> tuple[tuple[int, int, int], ...]:
    """Return the first `count` RGB colours of the VOC colour map after its black entry.

    The bits of index + 1 go in turn to R, G and B, to the highest bit of each first.
    """

    def value(index, channel):
        return sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8))

    return tuple(tuple(value(n, c) for c in range(3)) for n in range(1, count + 1))


def _color(color) -> tuple[int, int, int]:
    """Return a colour as (r, g, b).

    Raises:
        UserError: it is not three numbers in 0..255.
    """
    try:
        red, green, blue = () if isinstance(color, str) else map(int, color)
        if min(red, green, blue) >= 0 and max(red, green, blue) <= 255:
            return red, green, blue
    except (TypeError, ValueError, OverflowError):
        pass
    raise UserError(f"labels: the color {color!r:.40}; expected [r, g, b] with values in 0..255")


@dataclasses.dataclass(frozen=True)
class LabelSet:
    """Hold the names and RGB colours of the classes 0..n-1 and the meaning of mask values.

    Args:
        names: one name per class, each of one line.
        colors: one (r, g, b) in 0..255 per class; the VOC colour map if empty.
        ignore: the mask value of void pixels, which count neither in the loss nor in a score.
        ids: mask value -> class id or void label, for masks that do not hold class ids. A mask
            value that is neither a key of `ids` nor `ignore` is an error.

    Raises:
        UserError: no list of names, an empty or repeated name, a name of several lines, another
            number of colours, a value out of range.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...] = ()
    ignore: int = IGNORE
    ids: dict[int, int] | None = dataclasses.field(default=None, hash=False)  # a dict has no hash

    def __post_init__(self):
        names = () if isinstance(self.names, str) else tuple(str(name) for name in self.names)
        colors = tuple(map(_color, self.colors)) or voc_palette(len(names))
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "colors", colors)
        if not names:
            raise UserError("labels: no names; expected a list or tuple with one name per class")
        for name in names:
            if not name.strip() or name.splitlines() != [name]:
                raise UserError(f"labels: the name {name!r} is not one line of text; rename it")
            if any("\ud800" <= character <= "\udfff" for character in name):
                raise UserError(f"labels: the name {name!r} holds half a character; rename it")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"labels: the name {twice!r} appears twice; every class needs its own")
        if len(colors) != len(names):
            raise UserError(
                f"labels: {len(colors)} colors for {len(names)} names; expected the same number"
            )
        if not 0 <= self.ignore <= default_void_label(len(names)):
            raise UserError(f"labels: ignore {self.ignore} is not a possible mask value")
        if self.ids is None and self.ignore < len(names):
            raise UserError(
                f"labels: ignore {self.ignore} is also a class id (0..{len(names) - 1})"
            )
        if self.ids is not None and not isinstance(self.ids, dict):
            raise UserError(
                f"labels: ids is a {type(self.ids).__name__}; expected a table of mask value to "
                'class id, as {"7": 0, "200": 1}'
            )
        if self.ids is not None:
            ids = {int(raw): int(label) for raw, label in self.ids.items()}
            object.__setattr__(self, "ids", ids)
            for raw, label in ids.items():
                if not 0 <= raw <= 255 or raw == self.ignore:
                    raise UserError(f"labels: ids maps {raw}, which is void or not in 0..255")
                if not (0 <= label < len(names) or label in (IGNORE, self.ignore)):
                    raise UserError(f"labels: ids maps {raw} to {label}, which is not a class id")

    @classmethod
    def numbered(cls, count: int) -> LabelSet:
        """Return a label set of `count` classes named class_0, class_1, ..."""
        return cls(
            tuple(f"class_{index}" for index in range(count)), ignore=default_void_label(count)
        )

    @classmethod
    def from_config(cls, config: dict) -> LabelSet:
        """Build a label set from `to_config` or from the content of a labels.json.

        Only `names` is required. `uncovered` is left to the reader of polygons.

        Raises:
            UserError: no names, an unknown key, a value that `LabelSet` refuses.
        """
        if not isinstance(config, dict) or not isinstance(config.get("names"), (list, tuple)):
            raise UserError('labels: expected {"names": [...], ...}')
        known = [*(field.name for field in dataclasses.fields(cls)), "uncovered"]
        for key in config:
            if key not in known:
                raise UserError(f"labels: {key!r} is not known; expected {', '.join(known)}")
        try:
            return cls(
                names=tuple(config["names"]),
                colors=tuple(config.get("colors") or ()),
                ignore=int(config.get("ignore", default_void_label(len(config["names"])))),
                ids=config.get("ids"),
            )
        except UserError:
            raise
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            raise UserError(f"labels: {error}") from error

    def to_config(self) -> dict:
        """Return names, colours, void label and ids as lists and numbers, ready for JSON."""
        config = {
            "names": list(self.names),
            "colors": [list(color) for color in self.colors],
            "ignore": self.ignore,
        }
        if self.ids is not None:
            config["ids"] = {str(raw): label for raw, label in self.ids.items()}
        return config

    def __len__(self) -> int:
        """Return the number of classes."""
        return len(self.names)

    def decode(self, mask: np.ndarray) -> np.ndarray:
        """Map the values of a mask, (H, W) uint8, to class ids, (H, W) uint8 with void as 255.

        Raises:
            UserError: a value that is neither a class nor void.
        """
        table = dict(zip(range(256), range(len(self)))) if self.ids is None else self.ids
        table = {raw: label if label < len(self) else IGNORE for raw, label in table.items()}
        if self.ignore <= 255:
            table[self.ignore] = IGNORE
        values = mask.tobytes()
        if wrong := values.translate(None, delete=bytes(table)):
            known = f"0..{len(self) - 1}" if self.ids is None else f"one of {sorted(self.ids)}"
            raise UserError(
                f"label {wrong[0]} is out of range; expected {known} or {self.ignore} (void)"
            )
        # Faster than an index for each pixel.
        classes = values.translate(bytes(table.get(value, 0) for value in range(256)))
        return np.frombuffer(classes, np.uint8).reshape(mask.shape)

    def mask_values(self) -> np.ndarray:
        """Return the mask value of each class, (n,) uint8: what `decode` would turn into it.

        Raises:
            UserError: no `ids`; a class that no value stands for, or several.
        """
        if self.ids is None:
            raise UserError("the labels have no ids, which say what values masks hold")
        values = np.zeros(len(self), np.uint8)
        for label, name in enumerate(self.names):
            found = [raw for raw, meant in self.ids.items() if meant == label]
            if len(found) != 1:
                several = f"the values {', '.join(map(str, found))}" if found else "no value"
                raise UserError(f"the labels' ids give the class {name!r} {several}")
            values[label] = found[0]
        return values

    def palette(self) -> np.ndarray:
        """Return the colour of each class id, (256, 3) uint8; ids without a class are black."""
        table = np.zeros((256, 3), np.uint8)
        shown = min(len(self), 256)
        table[:shown] = self.colors[:shown]
        return table


NAMED = {
    name: LabelSet.from_config(config)
    for name, config in json.loads(read_bytes(Path(__file__).with_name("label_sets.json"))).items()
}
"""The label sets that `load_labels` knows by the name of their dataset."""

ADE20K = NAMED["ade20k"]
"""The 150 classes of ADE20K's scene parsing benchmark; its masks hold 1..150, 0 is void."""

CAMVID = NAMED["camvid"]
"""The 11 classes of the SegNet copy of CamVid; mask value 11 is void there."""

CITYSCAPES = NAMED["cityscapes"]
"""The 19 classes of Cityscapes in its labelTrainIds masks, which hold 0..18 and 255 for void."""

CITYSCAPES_RAW = NAMED.pop("cityscapes_label_ids")
"""The same classes in its labelIds masks: 0..33, and 34 or 255 for the license plate's -1."""

SCENES = NAMED["scenes"]
"""The 12 classes of the generated scenes: a street, a sea and a room (scenes/)."""

VOC2012 = NAMED["voc2012"]
"""The 21 classes of PASCAL VOC 2012; mask value 255 is the border of objects."""


def load_labels(name_or_file: str) -> LabelSet:
    """Return a label set by the name of its dataset, or read it from a labels.json.

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


def as_labels(labels) -> LabelSet:
    """Return labels as a LabelSet.

    Args:
        labels: a LabelSet, a list or tuple of names, the name of a dataset, or the path of a
            labels.json.

    Raises:
        UserError: no such labels, or names that `LabelSet` refuses.
    """
    if isinstance(labels, LabelSet):
        return labels
    if isinstance(labels, (str, os.PathLike)):
        return load_labels(os.fspath(labels))
    if isinstance(labels, (list, tuple)):
        return LabelSet(tuple(labels), ignore=default_void_label(len(labels)))
    raise UserError(f"labels: {labels!r}; expected a LabelSet, a list of names, a name or a file")
