"""What every annotation format is turned into: pictures by split, each with a way to its mask."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from keras_pspnet.data.pairs import Pair
from keras_pspnet.errors import UserError
from keras_pspnet.files import is_picture, read_bytes
from keras_pspnet.images import orientation, turned_upright
from keras_pspnet.labels import IGNORE, LabelSet, default_void_label, voc_palette

BACKGROUND = "background"
BACKGROUND_NAMES = ("background", "_background_")  # the second is LabelMe's
VOID_NAMES = ("void", "__ignore__")  # CamVid's and LabelMe's
UNCOVERED = (BACKGROUND, "void")

SPLITS = {"train": "train", "val": "val", "test": "test", "training": "train", "testing": "test"}
SPLITS |= {"valid": "val", "validation": "val"}
"""Names of splits, in lower case, -> ours."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """A data set as it lies on disk.

    Args:
        what: the layout's name, for people.
        labels: names and colours of the classes.
        splits: split -> key -> pair; the split is "" where the layout names none.
        errors: split -> what cannot be used.
        notes: what a user should know.
        named: False if nobody has named the classes.
        uncovered: what pixels in no polygon are, "background" or "void"; None without polygons.
    """

    what: str
    labels: LabelSet
    splits: dict[str, dict[str, Pair]]
    errors: dict[str, list[UserError]] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    named: bool = True
    uncovered: str | None = None


@dataclasses.dataclass(frozen=True)
class Given:
    """What labels.json and the command line say of a data set.

    Args:
        labels: of labels.json; None without one.
        colors: True if labels.json gives colours.
        uncovered: what pixels in no polygon are: "background" or "void".
        said: the option or file that says so, for messages; "" if nothing does.
    """

    labels: LabelSet | None = None
    colors: bool = False
    uncovered: str = BACKGROUND
    said: str = ""

    @classmethod
    def read(cls, folder: Path, uncovered: str | None = None) -> Given:
        """Read labels.json of a folder, if there is one.

        Args:
            folder: the data set's folder.
            uncovered: what goes before `uncovered` of labels.json.

        Raises:
            UserError: it is no labels file.
        """
        file, where = folder / "labels.json", f"--uncovered {uncovered}" if uncovered else ""
        if not file.is_file():
            return cls(uncovered=uncovered or BACKGROUND, said=where)
        try:
            config = json.loads(read_bytes(file))
            labels = LabelSet.from_config(config)
            said = config.get("uncovered", BACKGROUND)
            if said not in UNCOVERED:
                raise UserError(f"uncovered is {said!r}; expected background or void")
        except (ValueError, RecursionError) as error:  # UserError is a ValueError
            reason = str(error).removeprefix(f"{file}: ")
            raise UserError(f"{file}: not a labels file: {reason}") from error
        if "uncovered" in config and not where:
            where = f"{file}, uncovered"
        return cls(labels, bool(config.get("colors")), uncovered or said, where)


class Classes:
    """Map names of polygons to class ids; hold the value of pixels in no polygon.

    Args:
        names: list of the names that are used, in order.
        given: labels.json, whose names and order go first.
        where: the file, for messages.

    Raises:
        UserError: no class is used; labels.json lacks one, or the background.
    """

    def __init__(self, names, given: Given, where):
        self.where = where
        void = given.uncovered == "void"
        if given.labels is None:
            objects = [n for n in names if n.lower() not in (*BACKGROUND_NAMES, *VOID_NAMES)]
            if not objects:
                used = f"no class but {names[0]!r} is used" if names else "no class is used"
                raise UserError(
                    f"{where}: {used}; annotate objects of a class of their own, as what is in no "
                    "region is background already"
                )
            with_background = not void or any(n.lower() in BACKGROUND_NAMES for n in names)
            objects = [BACKGROUND] * with_background + objects
            colors = ((0, 0, 0),) * with_background + voc_palette(len(objects))
            try:
                void_label = default_void_label(len(objects))
                self.labels = LabelSet(objects, colors[: len(objects)], void_label)
            except UserError as error:
                raise UserError(f"{where}: {error}") from error
        else:
            self.labels = given.labels
        self._ids = {name: index for index, name in enumerate(self.labels.names)}
        background = [i for name, i in self._ids.items() if name.lower() in BACKGROUND_NAMES]
        if not void and not background:
            raise UserError(
                f"{where}: labels.json names no background for the pixels in no region; add it to "
                'names, or "uncovered": "void"'
            )
        self.background = background[0] if background else None
        self.uncovered = IGNORE if void else self.background
        for name in names:
            self[name]

    def __getitem__(self, name: str) -> int:
        """Return the class id of a name, 255 for void.

        Raises:
            UserError: labels.json does not have it.
        """
        if name in self._ids:
            return self._ids[name]
        if name.lower() in VOID_NAMES:
            return IGNORE
        if name.lower() in BACKGROUND_NAMES and self.background is not None:
            return self.background
        raise UserError(f"{self.where}: the class {name!r} is not in labels.json; add or rename it")


def counted(number: int, what: str) -> str:
    """Return "1 picture", "2 pictures" and so on."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def read_json(file: Path):
    """Read a JSON file.

    Raises:
        UserError: it cannot be read or is no JSON.
    """
    data = read_bytes(file)
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not a JSON file ({' '.join(str(error).split())})") from error


def by_split(places) -> dict[str, Path]:
    """Return pairs of (split, path) by our names of the splits; "valid" is "val".

    Raises:
        UserError: two of them are the same split.
    """
    splits: dict[str, Path] = {}
    for name, path in places:
        name = SPLITS.get(name.lower(), name)
        if name in splits:
            which = f"split {name!r}" if name else "data set"
            raise UserError(f"{path}: {splits[name]} is the {which} too; keep one of them")
        splits[name] = path
    return splits


def visible(folder: Path, pattern: str = "*") -> list[Path]:
    """List what matches in a folder, in order, without hidden files (macOS's ._a.json)."""
    return sorted(f for f in folder.glob(pattern) if not f.name.startswith("."))


def pictures_below(folder: Path) -> list[Path]:
    """List the pictures directly in a folder, in order; none if it is not there."""
    return [f for f in visible(folder) if is_picture(f) and f.is_file()]


def folders_below(folder: Path) -> list[Path]:
    """List the folders in a folder, in order; none if it is not there."""
    return [f for f in visible(folder) if f.is_dir()]


def drawn_pair(picture: Path, annotation: Path, size, draw, more=()) -> Pair:
    """Return a pair whose mask is drawn at the size that its annotations are for.

    Annotation tools that ignore EXIF store coordinates of the unturned picture: such a mask is
    turned as the picture is.

    Args:
        picture: the picture's file.
        annotation: the annotations' file.
        size: (H, W) that the annotations are for; None if they do not say.
        draw: (H, W) -> (H, W) uint8 mask.
        more: further files of annotations.
    """

    def mask(upright):
        try:
            if size is None or size == upright:
                return draw(upright)
            turn = orientation(picture)
            if size == upright[::-1] and turn in (5, 6, 7, 8):
                return turned_upright(draw(size), turn)
        except UserError as error:
            raise UserError(f"{annotation}: {picture.name}: {error}") from error
        raise UserError(
            f"{annotation}: its regions are for {size[1]}x{size[0]} pixels, {picture.name} has "
            f"{upright[1]}x{upright[0]}; expected the same"
        )

    return Pair(picture, mask, annotation, size=size, more=tuple(more))


def picture_size(height, width) -> tuple[int, int] | None:
    """Return (H, W) as annotations say it; None if they do not.

    Raises:
        UserError: they are no numbers of pixels.
    """
    if not height or not width:
        return None
    try:
        size = int(height), int(width)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError("its height and width are no numbers") from error
    if min(size) < 1:
        raise UserError(f"its height and width are {size[0]} and {size[1]}")
    return size
