"""LabelMe: a JSON file of shapes beside each picture."""

import base64
import binascii
import io
import math
from pathlib import Path

import numpy as np

from keras_pspnet.data.annotated import (
    Classes,
    Given,
    Layout,
    by_split,
    counted,
    drawn_pair,
    folders_below,
    picture_size,
    pictures_below,
    read_json,
    visible,
)
from keras_pspnet.data.pairs import by_stems
from keras_pspnet.data.regions import Region, paint, polygon
from keras_pspnet.errors import UserError, raise_first
from keras_pspnet.files import composed
from keras_pspnet.images import read_mask

AREAS = ("polygon", "rectangle", "circle", "mask")
NO_AREAS = ("point", "points", "line", "linestrip")
CIRCLE_POINTS = 360


def labelme(path: Path, given: Given) -> Layout | None:
    """Read NAME.json beside NAME.jpg, in one folder or in SPLIT/, there or in images/.

    Classes are the labels that occur, in alphabetical order, behind "background". Points and lines
    have no area and are left out.

    Args:
        path: the data set's folder.
        given: what labels.json says.

    Returns:
        The layout, or None if there is no such file.

    Raises:
        UserError: a file that is not LabelMe's form.
    """
    contents = {folder: _contents(folder) for folder in _folders(path)}
    folders = by_split(
        ("" if folder in (path, path / "images") else folder.name, folder)
        for folder, found in contents.items()
        if found
    )
    if not folders:
        return None
    found, errors, names, passed = {}, {}, set(), 0
    for split, folder in folders.items():
        errors[split] = []
        pictures = by_stems(pictures_below(folder), errors[split])
        json_files = {composed(f.stem) for f in visible(folder, "*.json")}
        found[split] = {}
        errors[split] += [
            UserError(f"{file}: no {stem}.json beside it; add or remove one")
            for stem, file in pictures.items()
            if stem not in json_files
        ]
        for file, content in contents[folder].items():
            stem = composed(file.stem)
            if stem not in pictures:
                message = f"{file}: no picture of this name beside it; add or remove one"
                errors[split].append(UserError(message))
                continue
            try:
                shapes, size = _shapes(content)
            except UserError as error:
                errors[split].append(UserError(f"{file}: {error}"))
                continue
            passed += len(content["shapes"]) - len(shapes)
            names |= {name for name, _ in shapes}
            found[split][stem] = pictures[stem], file, shapes, size
    if not any(found.values()):
        raise_first([error for wrong in errors.values() for error in wrong])
    classes = Classes(sorted(names), given, path)
    splits = {
        split: {stem: _pair(*item, classes) for stem, item in items.items()}
        for split, items in found.items()
    }
    notes = (
        (f"left out, as points and lines have no area: {counted(passed, 'shape')}",)
        if passed
        else ()
    )
    return Layout("LabelMe JSON", classes.labels, splits, errors, notes, uncovered=given.uncovered)


def _folders(path: Path) -> list[Path]:
    """List where the pictures may lie."""
    return [path, *folders_below(path), *folders_below(path / "images")]


def _contents(folder: Path) -> dict[Path, dict]:
    """Return the content of each file in LabelMe's form."""
    contents = {file: read_json(file) for file in visible(folder, "*.json")}
    return {
        file: {key: content.get(key) for key in ("shapes", "imageHeight", "imageWidth")}
        for file, content in contents.items()
        if isinstance(content, dict) and isinstance(content.get("shapes"), list)
    }


def _pair(picture, file, shapes, size, classes):
    def draw(size):
        regions = [region(classes[name], size) for name, region in shapes]
        return paint(regions, size, classes.uncovered)

    return drawn_pair(picture, file, size, draw)


def _shapes(content):
    """Return [(label, (class id, size) -> Region)] and the (H, W) of the picture, or None."""
    shapes = []
    try:
        for one in content["shapes"]:
            kind = one.get("shape_type") or "polygon"
            if kind in AREAS:
                shapes.append((str(one["label"]).strip(), _region(kind, one)))
            elif kind not in NO_AREAS:
                raise UserError(f"a shape of type {kind!r}; expected {', '.join(AREAS)}")
        return shapes, picture_size(content["imageHeight"], content["imageWidth"])
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"not LabelMe's form ({type(error).__name__} {error})") from error


def _region(kind, one):
    points = one["points"]
    if kind == "polygon" or (kind == "rectangle" and len(points) == 4):  # newer programs turn it
        points = polygon(points)
    elif len(points) != 2:
        raise UserError(f"a {kind} of {len(points)} points; expected 2")
    elif kind == "rectangle":
        (left, top), (right, bottom) = points
        points = polygon([(left, top), (right, top), (right, bottom), (left, bottom)])
    elif kind == "circle":
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        if not math.isfinite(radius):
            raise UserError("a circle with coordinates that are no numbers of pixels")
        angles = 2 * np.pi * np.arange(CIRCLE_POINTS) / CIRCLE_POINTS
        points = polygon(zip(x + radius * np.cos(angles), y + radius * np.sin(angles)))
    else:
        return _pixels(points[0], one["mask"])
    return lambda label, size: Region(label, (points,))


def _pixels(corner, encoded):
    """Return the region of a PNG, base64, whose first pixel lies at a corner (x, y)."""
    try:
        values, _ = read_mask(io.BytesIO(base64.b64decode(encoded)), "its mask")
    except binascii.Error as error:
        raise UserError(f"its mask: no base64 ({error})") from error
    inside = values > 0 if values.ndim == 2 else values.any(-1)
    left, top = (round(value) for value in corner)

    def region(label, size):
        whole = np.zeros(size, bool)
        rows, columns = whole[max(top, 0) :, max(left, 0) :].shape
        part = inside[max(-top, 0) :, max(-left, 0) :][:rows, :columns]
        whole[
            max(top, 0) : max(top, 0) + part.shape[0], max(left, 0) : max(left, 0) + part.shape[1]
        ] = part
        return Region(label, inside=whole)

    return region
