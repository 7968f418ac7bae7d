"""YOLO segmentation: a text file of polygons for each picture, and data.yaml with the names."""

import contextlib
import itertools
from pathlib import Path

import yaml

from keras_pspnet.data.annotated import (
    Classes,
    Given,
    Layout,
    counted,
    drawn_pair,
    pictures_below,
    visible,
)
from keras_pspnet.data.regions import Region, paint
from keras_pspnet.data.yolo_splits import (
    folders_outside,
    labels_folder,
    labels_places,
    pictures_of_splits,
)
from keras_pspnet.errors import UserError
from keras_pspnet.files import composed, existing, read_bytes

NAMES = ("data.yaml", "data.yml", "dataset.yaml")
NAMED = "expected names: [leaf, bug, ...]"


def yolo(path: Path, given: Given) -> Layout | None:
    """Read data.yaml, the pictures that it names, and the text file of each.

    Without names, they lie in images/SPLIT and labels/SPLIT, or SPLIT/images and SPLIT/labels.
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
    file = _file(path)
    if file is None:
        if not (path / "masks").is_dir() and _has_texts(path):
            raise UserError(
                f"{path}: YOLO's labels/*.txt, but no data.yaml with the names; add one with "
                "names: [leaf, bug, ...]"
            )
        return None
    content = _content(file)
    names, errors = _names(file, content), {}
    listed, notes = pictures_of_splits(file, content, errors)
    found, bare = {}, 0
    for split, pictures in listed.items():
        wrong, found[split] = errors.setdefault(split, []), {}
        folders = {folder: labels_folder(folder) for folder in {f.parent for f in pictures}}
        without = 0
        for picture in pictures:
            text = folders[picture.parent] / f"{picture.stem}.txt"
            text = existing(text) or text
            if (other := found[split].get(text)) is not None:
                message = f"{picture}: {other[0].name} has the same name; remove one of them"
                wrong.append(UserError(message))
                continue
            try:
                there = text.is_file()
                without += not there
                found[split][text] = picture, text, _regions(text, names) if there else []
            except UserError as error:
                wrong.append(error)
        if found[split] and without == len(found[split]) == len(pictures):
            place = next(iter(labels_places(picture.parent)), picture.parent)
            message = (
                f"{place / text.name}: no such file, nor one for another picture of "
                f"{split or 'it'}; add them"
            )
            wrong.append(UserError(message))
        wrong += _texts_alone(folders)
        bare += without
    if given.labels is not None:  # need not have what no picture shows
        shown = {label for items in found.values() for *_, regions in items.values()
                 for label, _ in regions}  # fmt: skip
        names = {index: name for index, name in names.items() if index in shown}
    classes = Classes(list(names.values()), given, file)
    ids = {index: classes[name] for index, name in names.items()}
    splits = {
        split: {str(item[0]): _pair(*item, ids, classes.uncovered) for item in items.values()}
        for split, items in found.items()
    }
    seen = {picture for pictures in listed.values() for picture in pictures}
    beside = {f for folder in {f.parent for f in seen} for f in pictures_below(folder)} - seen
    if beside:
        notes.append(
            f"left out, as {file.name} lists none of them: {counted(len(beside), 'picture')}"
        )
    if bare:
        notes.append(f"without a text file, so without an object: {counted(bare, 'picture')}")
    return Layout(
        "YOLO segmentation text",
        classes.labels,
        splits,
        errors,
        tuple(notes),
        uncovered=given.uncovered,
    )


def elsewhere(path: Path) -> list[Path]:
    """List the folders outside of a data set's folder that its data.yaml names."""
    with contextlib.suppress(UserError):  # whoever reads the data set tells
        if (file := _file(path)) is not None:
            return folders_outside(file, _content(file))
    return []


def _file(path: Path) -> Path | None:
    """Return data.yaml, or the one .yaml file of another name that names classes beside texts.

    Raises:
        UserError: several do.
    """
    for name in NAMES:
        if (path / name).is_file():
            return path / name
    others = [*visible(path, "*.yaml"), *visible(path, "*.yml")]
    if not others or not _has_texts(path):
        return None
    named = []
    for file in others:
        with contextlib.suppress(UserError):
            if _content(file).get("names"):
                named.append(file)
    if len(named) > 1:
        names = ", ".join(file.name for file in named)
        raise UserError(
            f"{path}: {names} have names of classes; call the one that is meant data.yaml"
        )
    return named[0] if named else None


def _has_texts(path: Path) -> bool:
    texts = map(path.glob, ("labels/*.txt", "labels/*/*.txt", "*/labels/*.txt"))
    return next(itertools.chain.from_iterable(texts), None) is not None


def _texts_alone(folders: dict[Path, Path]) -> list[UserError]:
    """Return an error for each text file without a picture.

    Args:
        folders: folder of pictures -> folder of its texts.
    """
    return [
        UserError(f"{text}: no picture of this name in {images}; add or remove one")
        for images, labels in folders.items()
        if images != labels  # beside pictures lie other texts
        for stems in [{composed(picture.stem) for picture in pictures_below(images)}]
        for text in visible(labels, "*.txt")
        if composed(text.stem) not in stems and text.name != "classes.txt"
    ]


def _pair(picture, text, regions, ids, uncovered):
    def draw(size):
        height, width = size
        scaled = [
            Region(ids[index], ([(x * width, y * height) for x, y in points],))
            for index, points in regions
        ]
        return paint(scaled, size, uncovered)

    return drawn_pair(picture, text, None, draw)


def _content(file: Path) -> dict:
    try:
        content = yaml.safe_load(read_bytes(file).decode("utf-8-sig"))
        if not isinstance(content, dict):
            raise TypeError("it holds no keys")
    except UserError:
        raise
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{file}: not read as YAML ({reason}); {NAMED}") from error
    return content


def _names(file: Path, content: dict) -> dict[int, str]:
    try:
        names = content["names"]
        if not isinstance(names, (list, dict)):
            raise TypeError(f"names is {names!r}")
        names = names if isinstance(names, dict) else dict(enumerate(names))
        # Nested lists could name each other until their text fills the memory.
        if any(isinstance(name, (list, dict)) for name in names.values()):
            raise TypeError("a name is a list")
        names = {int(key): str(name).strip() for key, name in names.items()}
    except (KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{file}: no names of classes in it ({reason}); {NAMED}") from error
    if not names:
        raise UserError(f"{file}: no names of classes in it; {NAMED}")
    return dict(sorted(names.items()))


def _regions(text: Path, names) -> list:
    """Return (class index, [(x, y), ...] in shares of the picture) of each line."""
    regions = []
    for number, line in enumerate(read_bytes(text).decode(errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{text}, line {number}"
        try:
            first, *values = line.split()
            index, *values = (float(value) for value in (first, *values))
        except ValueError as error:
            raise UserError(
                f"{where}: not numbers; expected CLASS x1 y1 x2 y2 x3 y3 ..."
            ) from error
        if not index.is_integer():
            raise UserError(f"{where}: the class is {first}; it must be an integer")
        if len(values) == 4:
            raise UserError(f"{where}: a box, no polygon; export the data set for segmentation")
        if len(values) < 6 or len(values) % 2:
            raise UserError(f"{where}: {len(values)} numbers; expected x y of 3 points or more")
        if not all(-1 <= value <= 2 for value in values):  # a little outside is usual; no NaN
            raise UserError(f"{where}: coordinates in pixels; expected shares of the picture, 0..1")
        if index not in names:
            raise UserError(f"{where}: class {first} is not in data.yaml; expected 0..{max(names)}")
        regions.append((int(index), [*zip(values[::2], values[1::2])]))
    return regions
