"""YOLO segmentation: a text file of polygons for each picture, and data.yaml with the names."""

import itertools
from pathlib import Path

import yaml

from keras_pspnet.data.annotated import (
    Classes,
    Given,
    Layout,
    by_split,
    counted,
    drawn_pair,
    folders_below,
    pictures_below,
    visible,
)
from keras_pspnet.data.pairs import by_stems
from keras_pspnet.data.regions import Region, paint
from keras_pspnet.errors import UserError
from keras_pspnet.files import read_bytes

NAMES = ("data.yaml", "data.yml", "dataset.yaml")


def yolo(path: Path, given: Given) -> Layout | None:
    """Read data.yaml with images/SPLIT and labels/SPLIT, or SPLIT/images and SPLIT/labels.

    Classes are the names of data.yaml behind "background". A picture without a text file, or with
    an empty one, holds no object.

    Args:
        path: the data set's folder.
        given: what labels.json says.

    Returns:
        The layout, or None if the folder is not in YOLO's layout.

    Raises:
        UserError: a file that is not of this form.
    """
    file = next((path / name for name in NAMES if (path / name).is_file()), None)
    if file is None:
        texts = itertools.chain(path.glob("labels/*/*.txt"), path.glob("*/labels/*.txt"))
        if not (path / "masks").is_dir() and next(texts, None):
            raise UserError(f"{path}: YOLO's labels/*.txt, but no data.yaml with the names; add it")
        return None
    names = _names(file)
    folders = by_split(_folders(path))
    if not folders:
        raise UserError(
            f"{file}: no pictures beside it; expected images/train/ and labels/train/, or "
            "train/images/ and train/labels/"
        )
    found, errors, bare = {}, {}, 0
    for split, images in folders.items():
        labels = _labels_of(images, path)
        errors[split] = []
        pictures = by_stems(pictures_below(images), errors[split])
        texts = {f.stem: f for f in visible(labels, "*.txt") if f.name != "classes.txt"}
        errors[split] += [
            UserError(f"{text}: no picture of this name in {images}; add or remove one")
            for stem, text in texts.items()
            if stem not in pictures
        ]
        found[split] = {}
        for stem, picture in pictures.items():
            bare += stem not in texts
            text = texts.get(stem, labels / f"{stem}.txt")
            try:
                regions = _regions(text, names) if stem in texts else []
                found[split][stem] = picture, text, regions
            except UserError as error:
                errors[split].append(error)
    if given.labels is not None:  # need not have what no picture shows
        shown = {label for items in found.values() for *_, regions in items.values()
                 for label, _ in regions}  # fmt: skip
        names = {index: name for index, name in names.items() if index in shown}
    classes = Classes(list(names.values()), given, file)
    ids = {index: classes[name] for index, name in names.items()}
    splits = {
        split: {stem: _pair(*item, ids, classes.uncovered) for stem, item in items.items()}
        for split, items in found.items()
    }
    notes = (
        (f"without a text file, so without an object: {counted(bare, 'picture')}",) if bare else ()
    )
    return Layout(
        "YOLO segmentation text", classes.labels, splits, errors, notes, uncovered=given.uncovered
    )


def _folders(path: Path):
    """Yield (split, folder of pictures) where a folder of labels stands beside it."""
    places = [(f.name, f) for f in folders_below(path / "images")]
    places += [(f.name, f / "images") for f in folders_below(path)]
    places = [(split, images) for split, images in places if _labels_of(images, path).is_dir()]
    flat = path / "images"
    if not places and flat.is_dir() and (path / "labels").is_dir():
        places = [("", flat)]
    yield from places


def _labels_of(images: Path, path: Path) -> Path:
    """Return labels/SPLIT of images/SPLIT, SPLIT/labels of SPLIT/images, labels of images."""
    if images.parent == path / "images":
        return path / "labels" / images.name
    return images.parent / "labels"


def _pair(picture, text, regions, ids, uncovered):
    def draw(size):
        height, width = size
        scaled = [
            Region(ids[index], ([(x * width, y * height) for x, y in points],))
            for index, points in regions
        ]
        return paint(scaled, size, uncovered)

    return drawn_pair(picture, text, None, draw)


def _names(file: Path) -> dict[int, str]:
    expected = "expected names: [leaf, bug, ...]"
    try:
        names = yaml.safe_load(read_bytes(file).decode("utf-8-sig"))["names"]
        if not isinstance(names, (list, dict)):
            raise TypeError(f"names is {names!r}")
        names = names if isinstance(names, dict) else dict(enumerate(names))
        # Nested lists could name each other until their text fills the memory.
        if any(isinstance(name, (list, dict)) for name in names.values()):
            raise TypeError("a name is a list")
        names = {int(key): str(name).strip() for key, name in names.items()}
    except UserError:
        raise
    except (yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{file}: no names of classes in it ({reason}); {expected}") from error
    if not names:
        raise UserError(f"{file}: no names of classes in it; {expected}")
    return dict(sorted(names.items()))


def _regions(text: Path, names) -> list:
    """Return (class index, [(x, y), ...] in shares of the picture) of each line."""
    regions = []
    for number, line in enumerate(read_bytes(text).decode(errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{text}, line {number}"
        try:
            index, *values = line.split()
            index, values = int(index), [float(value) for value in values]
        except ValueError as error:
            raise UserError(
                f"{where}: not numbers; expected CLASS x1 y1 x2 y2 x3 y3 ..."
            ) from error
        if len(values) == 4:
            raise UserError(f"{where}: a box, no polygon; export the data set for segmentation")
        if len(values) < 6 or len(values) % 2:
            raise UserError(f"{where}: {len(values)} numbers; expected x y of 3 points or more")
        if not all(-1 <= value <= 2 for value in values):  # a little outside is usual; no NaN
            raise UserError(f"{where}: coordinates in pixels; expected shares of the picture, 0..1")
        if index not in names:
            raise UserError(f"{where}: class {index} is not in data.yaml; expected 0..{max(names)}")
        regions.append((index, [*zip(values[::2], values[1::2])]))
    return regions
