"""Find the labels of masks: in what they hold, in labelmap.txt or in label_colors.txt."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np

from keras_pspnet.data.masks import packed, unpacked
from keras_pspnet.errors import UserError, raise_first
from keras_pspnet.files import read_bytes
from keras_pspnet.images import read_mask
from keras_pspnet.labels import IGNORE, LabelSet, default_void_label
from keras_pspnet.machine import cores

TINY = 0.002
MANY = 16
"""A folder of more than MANY ids, most of which have a share of pixels under TINY and lie along
edges, holds masks that were resized with smoothing or saved lossily."""
SHOWN = 10
"""Values that a message lists."""

AT_ONCE = 512
"""Masks that are handed to the threads at once: datasets yield them from memory."""


@dataclasses.dataclass
class Values:
    """What the masks of a folder hold.

    Args:
        pixels: (256,) how many pixels each value has.
        inner: (256,) how many of them have the same value on the right and below.
        palette: (256, 3) of the first palette mask.
        colors: colours of masks in colour, as numbers, with how many pixels they have.
        masks: how many masks hold values, and how many hold colours.
        binary: 1 or 255 -> the first mask that holds 0 and that value alone.
        both: True if a mask holds 1 and 255.
    """

    pixels: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256, np.int64))
    inner: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256, np.int64))
    palette: np.ndarray | None = None
    colors: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    masks: list[int] = dataclasses.field(default_factory=lambda: [0, 0])
    binary: dict[int, object] = dataclasses.field(default_factory=dict)
    both: bool = False

    def add(self, mask, palette, name) -> None:
        """Count one mask of a name: (H, W) values or (H, W, 3) colours."""
        colored = mask.ndim == 3 and not (mask == mask[..., :1]).all()
        self.masks[colored] += 1
        if colored:
            found, counts = np.unique(packed(mask), return_counts=True)
            self.colors.update(dict(zip(found.tolist(), counts.tolist())))
            return
        if mask.ndim == 3:
            mask = mask[..., 0]
        if palette is not None and self.palette is None:
            self.palette = palette
        pixels = np.bincount(mask.ravel(), minlength=256)
        found = np.flatnonzero(pixels).tolist()
        if found in ([1], [0, 1], [0, IGNORE]):
            self.binary.setdefault(found[-1], name)
        self.both |= bool(pixels[1] and pixels[IGNORE])
        self.pixels += pixels
        edge = np.ones(mask.shape, bool)  # few pixels: counting these is faster than the inner ones
        edge[:-1, :-1] = (mask[:-1, :-1] != mask[1:, :-1]) | (mask[:-1, :-1] != mask[:-1, 1:])
        self.inner += pixels - np.bincount(mask[edge], minlength=256)

    def merge(self, other: Values) -> None:
        """Add what later masks hold."""
        self.pixels += other.pixels
        self.inner += other.inner
        self.palette = other.palette if self.palette is None else self.palette
        self.colors.update(other.colors)
        self.masks = [mine + its for mine, its in zip(self.masks, other.masks)]
        self.binary = other.binary | self.binary
        self.both |= other.both

    def held(self) -> list[int]:
        """Return the values that masks hold, in order."""
        return np.flatnonzero(self.pixels).tolist()

    def refuse_two_kinds(self) -> None:
        """Refuse binary masks of {0, 1} beside some of {0, 255}: is 255 the object, or void?

        Raises:
            UserError: there are both, and no mask in which 255 lies beside 1.
        """
        if self.held() not in ([0, 1, IGNORE], [1, IGNORE]) or self.both or len(self.binary) < 2:
            return
        either = {"ids": {0: 0, 1: 1, IGNORE: 1}, "ignore": 254}, {"ids": {0: 0, 1: 1}}
        objects, void = (json.dumps(config)[1:-1] for config in either)
        raise UserError(
            f"{self.binary[IGNORE]}: holds 0 and 255 alone, {self.binary[1]} 0 and 1; write a "
            f'labels.json with "names": ["background", "object"] and {objects}, or with {void} '
            "where 255 is void"
        )

    def labels(self, where) -> LabelSet:
        """Derive labels: each value but 255 is a class, in the palette's colours if there is one.

        Masks of exactly {0, 1} or {0, 255} are background and object.

        Raises:
            UserError: one class alone; blended masks; `where` is what a message calls them.
        """
        found = self.held()
        if found in ([0, 1], [0, 255]):
            ids = {0: 0, found[1]: 1}
            void = 254 if found[1] == 255 else IGNORE
            return LabelSet(("background", "object"), ((0, 0, 0), (220, 60, 60)), void, ids)
        ids = [value for value in found if value != IGNORE]
        if len(ids) < 2:
            raise UserError(f"{where}: {_one_class(ids, IGNORE in found)}")
        _refuse_blended(self, ids, where)
        names = tuple(f"class_{value}" for value in ids)
        colors = _shown_colors(self.palette, ids)
        return LabelSet(names, colors, ids={value: index for index, value in enumerate(ids)})

    def meaning(self) -> str:
        """Return what was taken for what, as a line of text."""
        found = self.held()
        if found in ([0, 1], [0, 255]):
            return f"the masks hold 0 and {found[1]} alone: background and object"
        ids = [value for value in found if value != IGNORE]
        if IGNORE not in found:
            return f"nobody has named the {len(ids)} classes: they are the values of the masks"
        values = f"{', '.join(map(str, ids[:SHOWN]))}{', ...' * (len(ids) > SHOWN)}"
        return (
            f"nobody has named the {len(ids)} classes: values {values} are classes, {IGNORE} is "
            f"void; name them in labels.json if {IGNORE} is a class"
        )


def _values_of(mask) -> Values | UserError:
    """Count what one mask holds, given with its name."""
    values = Values()
    try:
        values.add(*read_mask(*mask), mask[1])
    except UserError as error:
        return error
    return values


def values_in(masks, where) -> Values:
    """Count what masks hold.

    Args:
        masks: yields a path, or a binary file, and what messages call it. Those that cannot be
            read, and a few in colours among many of values, are left to `Source.survey`.
        where: what a message calls all of them.

    Raises:
        UserError: none that can be read; most are in colours.
    """
    values, errors, masks = Values(), [], iter(masks)
    with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
        while some := list(itertools.islice(masks, AT_ONCE)):
            for found in pool.map(_values_of, some):
                if isinstance(found, UserError):
                    errors.append(found)
                else:
                    values.merge(found)
    if values.masks == [0, 0]:
        raise_first(errors or [UserError(f"{where}: no masks; expected PNGs")])
    if values.masks[1] >= values.masks[0]:
        raise UserError(f"{where}: {_in_colors(values.colors)}")
    return values


def _shown_colors(palette, ids) -> tuple:
    """Return the colours of a palette; none if it shows nothing: one colour, or grey steps."""
    if palette is None or (palette[ids] == np.array(ids)[:, None]).all():
        return ()
    colors = tuple(map(tuple, palette[ids].tolist()))
    return colors if len(set(colors)) == len(colors) else ()


def _in_colors(colors) -> str:
    """Return how to name the colours of masks."""
    most = ", ".join(str(unpacked(color)) for color, _ in colors.most_common(6))
    pixels = colors.total()
    tiny = sum(count < TINY * pixels for count in colors.values())
    if len(colors) > 2 * MANY and tiny > 0.6 * len(colors):
        return (
            f"masks in {len(colors)} colours, {tiny} of them with under {TINY:.1%} of the pixels "
            f"each: resized with smoothing or saved lossily? the commonest are {most}; export "
            "them again as PNG, resized to nearest"
        )
    return (
        f"masks in {len(colors)} colours ({most}{', ...' * (len(colors) > 6)}); name them in "
        'labels.json: {"names": [...], "colors": [[r, g, b], ...]}'
    )


def _one_class(ids, void: bool) -> str:
    """Return the remedy for masks that hold one value beside void at most."""
    if not ids:
        return f"only void ({IGNORE}) in the masks; expected class ids"
    remedy = f"What is not the object is a class too: give it a value of its own, not {IGNORE}"
    if void:
        config = {"names": ["background", "object"], "ids": {ids[0]: 0, IGNORE: 1}, "ignore": 254}
        remedy = f"Where {IGNORE} is a class, give a labels.json such as {json.dumps(config)}"
    held = f"{ids[0]}{f' and void ({IGNORE})' * void}"
    return f"the masks hold {held} alone; expected two classes or more. {remedy}"


def check_classes(labels: LabelSet, where) -> None:
    """Check that a data set has as many classes as can be trained, and as 8-bit masks hold.

    Raises:
        UserError: one class, or more than 255.
    """
    if len(labels) > IGNORE:
        raise UserError(
            f"{where}: {len(labels)} classes; expected {IGNORE} at most: masks of 8 bits hold the "
            f"class ids 0..{IGNORE - 1}, and {IGNORE} for void"
        )
    if len(labels) < 2:
        raise UserError(
            f"{where}: one class, {labels.names[0]!r}; expected two or more. What is not "
            f"{labels.names[0]} is a class too: name it, as background, and give it a value of "
            "its own"
        )


def _refuse_blended(values: Values, ids, where) -> None:
    shares = values.pixels[ids] / values.pixels.sum()
    thin = values.inner[ids] < 0.25 * values.pixels[ids]
    tiny = int(((shares < TINY) & thin).sum())
    if len(ids) > MANY and tiny > 0.6 * len(ids):
        raise UserError(
            f"{where}: {len(ids)} classes, {tiny} of them with under {TINY:.1%} of the pixels each "
            "along edges: masks that were resized with smoothing or saved lossily? class ids must "
            "not be blended; export them again as PNG, resized to nearest"
        )


def labelmap_txt(file: Path) -> tuple[LabelSet, tuple]:
    """Read CVAT's labelmap.txt: `name:r,g,b:parts:actions` a line.

    Returns:
        The classes, and the colours of void.

    Raises:
        UserError: a line that is not of this form.
    """
    return _named_colors(file, "name:r,g,b::", _cvat_line)


def label_colors_txt(file: Path) -> tuple[LabelSet, tuple]:
    """Read CamVid's label_colors.txt: `r g b name` a line. See `labelmap_txt`."""
    return _named_colors(file, "r g b name", _camvid_line)


def _cvat_line(line):
    name, color, *_ = line.rsplit(":", 3) if line.count(":") >= 3 else line.split(":")
    return name.strip(), tuple(int(value) for value in color.split(","))


def _camvid_line(line):
    red, green, blue, name = line.split(None, 3)
    return name.strip(), (int(red), int(green), int(blue))


def _named_colors(file, form, read) -> tuple[LabelSet, tuple]:
    names, colors, void = [], [], []
    for number, line in enumerate(read_bytes(file).decode("utf-8-sig", "replace").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            name, color = read(line)
            if len(color) != 3 or not all(0 <= value <= 255 for value in color):
                raise ValueError(color)
        except ValueError as error:
            raise UserError(f"{file}, line {number}: {line.strip()!r}; expected {form}") from error
        if name.lower() == "void":
            void.append(color)
        else:
            names.append(name)
            colors.append(color)
    try:
        return LabelSet(names, colors, default_void_label(len(names))), tuple(void)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
