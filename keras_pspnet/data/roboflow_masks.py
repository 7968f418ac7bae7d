"""Roboflow's semantic segmentation masks: NAME_mask.png beside NAME.jpg, and _classes.csv."""

import dataclasses
from pathlib import Path

from keras_pspnet.data.annotated import (
    BACKGROUND_NAMES,
    VOID_NAMES,
    Given,
    Layout,
    by_split,
    folders_below,
    pictures_below,
)
from keras_pspnet.data.pairs import by_stems, paired
from keras_pspnet.errors import UserError
from keras_pspnet.files import composed, read_bytes
from keras_pspnet.labels import IGNORE, LabelSet, voc_palette

CLASSES = "_classes.csv"
ENDING = "_mask"


def roboflow_masks(path: Path, given: Given) -> Layout | None:
    """Read SPLIT/NAME.jpg, SPLIT/NAME_mask.png and SPLIT/_classes.csv, or one folder of these.

    Args:
        path: the data set's folder.
        given: what labels.json says.

    Returns:
        The layout, or None if no _classes.csv lies beside such masks; Roboflow's classification
        export has a file of that name too.

    Raises:
        UserError: a _classes.csv that is not of this form, or another one in another split.
    """
    files = {folder: pictures_below(folder) for folder in (path, *folders_below(path))}
    masks = {folder: [f for f in found if _is_mask(f)] for folder, found in files.items()}
    tables = [folder / CLASSES for folder in files if (folder / CLASSES).is_file()]
    if not any(masks[table.parent] for table in tables):
        return None
    values = _values(tables[0])
    for table in tables[1:]:
        if _values(table) != values:
            raise UserError(f"{table}: other classes than {tables[0]}; expected the same")
    labels = _labels(tables[0], values, given)
    used = [folder for folder in files if masks[folder] or folder / CLASSES in tables]
    splits, errors = {}, {}
    for split, folder in by_split(("" if f == path else f.name, f) for f in used).items():
        wrong: list[UserError] = []
        pictures = by_stems([f for f in files[folder] if not _is_mask(f)], wrong)
        by_name = {composed(mask.stem.removesuffix(ENDING)): mask for mask in masks[folder]}
        splits[split], more = paired(pictures, by_name, (folder, folder), lambda _: labels)
        errors[split] = wrong + more
    return Layout(f"Roboflow's masks, names of {CLASSES}", labels, splits, errors)


def _is_mask(file: Path) -> bool:
    return file.stem.endswith(ENDING) and file.suffix.lower() == ".png"


def _values(file: Path) -> dict[int, str]:
    """Return the name of each value of the masks."""
    lines = read_bytes(file).decode("utf-8-sig", "replace").splitlines()
    values: dict[int, str] = {}
    for number, line in enumerate(lines, start=1):
        value, _, name = (part.strip() for part in line.partition(","))
        if number == 1 or not line.strip():  # the first names the columns
            continue
        if not value.isdecimal() or int(value) > 255 or int(value) in values or not name:
            raise UserError(
                f"{file}, line {number}: {line.strip()!r}; expected Pixel Value, Class, with "
                "values of 0..255, each once"
            )
        values[int(value)] = name
    if not values:
        raise UserError(f"{file}: no classes; expected lines of Pixel Value, Class")
    return dict(sorted(values.items()))


def _labels(file: Path, values: dict[int, str], given: Given) -> LabelSet:
    """Return the labels of the values; labels.json has the last word on names and their order."""
    if given.labels is not None and given.labels.ids is not None:
        return given.labels
    void = next(value for value in range(IGNORE, -2, -1) if value not in values)
    names = [name for name in values.values() if name.lower() not in VOID_NAMES]
    try:
        if void < 0:
            raise UserError("256 values; expected one that is free for void")
        labels = given.labels or LabelSet(names, _colors(names), void, {})
        ids = {name: index for index, name in enumerate(labels.names)}
        for name in names:
            if name not in ids:
                raise UserError(f"the class {name!r} is not in labels.json; add or rename it")
        of_values = {value: ids.get(name, IGNORE) for value, name in values.items()}
        return dataclasses.replace(labels, ignore=void, ids=of_values)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error


def _colors(names) -> list:
    """Return the VOC colours, and black for the background."""
    palette = voc_palette(len(names))
    black = (name.lower() in BACKGROUND_NAMES for name in names)
    return [(0, 0, 0) if is_black else color for color, is_black in zip(palette, black)]
