"""Find the pictures of a YOLO data set: where data.yaml says, or in the folders beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from keras_pspnet.data.annotated import SPLITS, by_split, folders_below, pictures_below
from keras_pspnet.errors import UserError
from keras_pspnet.files import existing, is_picture, read_bytes

EXPECTED = "images/train/ and labels/train/, or train/images/ and train/labels/"


class _Nowhere(UserError):
    """What data.yaml names is not there."""


def pictures_of_splits(file: Path, content: dict, errors: dict) -> tuple[dict, list[str]]:
    """List the pictures of each split.

    data.yaml names a folder, a .txt list of pictures, or several of them for a split, relative to
    its `path` or to itself. What is not there is looked for in these two folders by the end of its
    name: archives are unpacked elsewhere, and Roboflow writes `../train/images` for a folder that
    lies beside data.yaml. Where that fails too, and for splits without a name, images/SPLIT or
    SPLIT/images serves.

    Args:
        file: data.yaml.
        content: what it holds.
        errors: split -> errors; gets one for each picture that a list names in vain.

    Returns:
        {split: pictures}, and what a user should know.

    Raises:
        UserError: no pictures, or none where data.yaml says (for test it is a note).
    """
    splits: dict[str, list[Path]] = {}
    nowhere: dict[str, _Nowhere] = {}
    base, notes = _base(file, content), []
    for key, split, values in _named(file, content):
        found = errors.setdefault(split, [])
        try:
            places = [_place(file, key, value, base) for value in values]
        except _Nowhere as error:
            nowhere[split] = error
            continue
        pictures = (picture for place in places for picture in _pictures(file, place, base, found))
        splits[split] = list(dict.fromkeys(pictures))
    folders = ((name, folder) for name, folder in _folders(file.parent))
    beside = by_split(one for one in folders if SPLITS.get(one[0].lower(), one[0]) not in splits)
    known = SPLITS.values() if splits else beside
    for split, error in nowhere.items():
        if split in beside:
            notes.append(f"{error}; {beside[split].relative_to(file.parent)} is taken")
        elif split == "test":
            notes.append(f"{error}; there is no test split")
        elif not splits and not beside:
            raise UserError(f"{error}, and no pictures beside it; expected {EXPECTED}") from error
        else:
            without = ", or take it out: then a part of train is val" * (split == "val")
            raise UserError(f"{error}; correct it{without}") from error
    splits |= {split: _below(folder) for split, folder in beside.items() if split in known}
    if not splits:
        raise UserError(f"{file}: no pictures beside it; expected {EXPECTED}")
    if both := set(splits.get("train", ())) & set(splits.get("val", ())):
        notes.append(
            f"warning: {len(both)} of {len(splits['val'])} pictures of val are in train too"
        )
    return splits, notes


def labels_folder(pictures: Path) -> Path:
    """Return where the text files of a folder's pictures lie.

    The last "images" of its path is "labels" there; without such a folder they lie beside the
    pictures.
    """
    return next((folder for folder in labels_places(pictures) if folder.is_dir()), pictures)


def labels_places(pictures: Path) -> list[Path]:
    """List where the text files of a folder's pictures may lie, the likeliest first."""
    parts = pictures.parts
    named = [index for index in reversed(range(len(parts))) if parts[index] == "images"]
    return [Path(*parts[:index], "labels", *parts[index + 1 :]) for index in named]


def folders_outside(file: Path, content: dict) -> list[Path]:
    """List the folders of pictures and texts that data.yaml names and that do not lie beside it."""
    found: list[Path] = []
    with contextlib.suppress(UserError):  # whoever reads the data set tells
        base = _base(file, content)
        for key, _, values in _named(file, content):
            places = (_place(file, key, value, base) for value in values)
            found += (place if place.is_dir() else place.parent for place in places)
    beside = file.parent.resolve()
    found = [place for place in found if not place.resolve().is_relative_to(beside)]
    return [*found, *map(labels_folder, found)]


def _folders(path: Path) -> list[tuple[str, Path]]:
    """Return (split, folder of pictures) for each such folder that has a folder of labels."""
    places = [(f.name, f) for f in folders_below(path / "images")]
    places += [(f.name, f / "images") for f in folders_below(path)]
    places = [(split, images) for split, images in places if labels_folder(images) != images]
    flat = path / "images"
    if not places and flat.is_dir() and (path / "labels").is_dir():
        places = [("", flat)]
    return places


def _named(file: Path, content: dict) -> Iterator[tuple[str, str, list[str]]]:
    """Yield (key, split, values) for each split that data.yaml names."""
    given = {key: value for key, value in content.items() if value and isinstance(key, str)}
    given = {key: value for key, value in given.items() if key.lower() in SPLITS}
    by_split((key, Path(f"{file}: {key}")) for key in given)
    for key, value in given.items():
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(one, str) for one in values):
            raise UserError(f"{file}: {key}: expected a folder, a .txt list, or several of them")
        yield key, SPLITS[key.lower()], [one.strip().replace("\\", "/") for one in values]


def _base(file: Path, content: dict) -> Path:
    """Return the folder that the names are relative to."""
    path = content.get("path") or "."
    if not isinstance(path, str):
        raise UserError(f"{file}: path: expected a folder")
    base = file.parent / path.strip().replace("\\", "/")
    return base if _is_there(base) else file.parent


def _place(file: Path, key: str, value: str, base: Path) -> Path:
    """Return the folder or the list that a split names.

    Raises:
        _Nowhere: it is not there.
        UserError: it is there twice, and nobody can tell which is meant.
    """
    literal = base / value
    found = [place for place in _by_ends(value, base, file.parent) if _is_there(place)]
    if not _is_there(literal):
        if not found:
            raise _Nowhere(f"{file}: {key}: {value} is not there")
        return found[0]
    if value.startswith("..") and base == file.parent and found and not found[0].samefile(literal):
        raise UserError(
            f"{file}: {key}: {value} is there, and {found[0].relative_to(base)} beside data.yaml "
            "too; write the one that is meant"
        )
    return literal


def _by_ends(name: str, *folders: Path) -> Iterator[Path]:
    """Yield folders with ends of a name, of two parts or more, the longest first."""
    parts = [part for part in PurePosixPath(name).parts if part not in ("/", "..")]
    for folder in dict.fromkeys(folders):
        for start in range(max(len(parts) - 1, 1)):
            yield folder.joinpath(*parts[start:])


def _pictures(file: Path, place: Path, base: Path, errors: list) -> list[Path]:
    """Return the pictures of a folder, also of folders in it, or of a .txt list."""
    if place.is_dir():
        pictures = _below(place)
        if not pictures:
            raise UserError(f"{file}: no pictures in {place}; add some, or correct it")
        return pictures
    if place.suffix.lower() != ".txt":
        raise UserError(f"{file}: {place} is neither a folder nor a .txt list; correct it")
    found = []
    for number, line in enumerate(read_bytes(place).decode("utf-8-sig", "replace").splitlines(), 1):
        if not (name := line.strip().replace("\\", "/")):
            continue
        choices = (place.parent / name, base / name, *_by_ends(name, base, file.parent))
        picture = next(filter(None, map(existing, choices)), None)
        if picture is None or not is_picture(picture):
            what = "is not there" if picture is None else "is no picture"
            errors.append(UserError(f"{place}, line {number}: {name} {what}; correct it"))
        else:
            found.append(picture)
    return found


def _below(folder: Path) -> list[Path]:
    """List the pictures in a folder and in the folders in it, in order."""
    folders = (one for one in sorted(folder.glob("**/")) if not _hidden(one.relative_to(folder)))
    return [file for one in folders for file in pictures_below(one)]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or with a zero byte
        return False
