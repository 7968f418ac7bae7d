"""COCO JSON: polygons, run lengths and crowd regions, in COCO's own folders or Roboflow's."""

import collections
import re
from pathlib import Path

from keras_pspnet.data.annotated import (
    SPLITS,
    Classes,
    Given,
    Layout,
    by_split,
    counted,
    drawn_pair,
    picture_size,
    pictures_below,
    read_json,
    visible,
)
from keras_pspnet.data.regions import Region, paint, polygon, run_lengths
from keras_pspnet.errors import UserError
from keras_pspnet.files import existing

ROBOFLOW = "_annotations.coco.json"
KEYS = {"images", "annotations", "categories"}


def coco(path: Path, given: Given) -> Layout | None:
    """Read SPLIT/_annotations.coco.json (Roboflow), or annotations/*.json (COCO, CVAT).

    One file beside the pictures, or beside images/, holds a data set without splits. Classes are
    the categories that occur, by id, behind "background". Crowd regions count as their class.

    Args:
        path: the data set's folder.
        given: what labels.json says.

    Returns:
        The layout, or None if there is no such file.

    Raises:
        UserError: a file that is not COCO's form.
    """
    what, files = _files(path)
    if not files:
        return None
    contents = {split: _checked(file, content) for split, (file, content) in files.items()}
    categories: dict = {}
    for split, (_, _, named) in contents.items():
        for key, name in named.items():
            if categories.setdefault(key, name) != name:
                raise UserError(
                    f"{files[split][0]}: category {key!r} is {name!r}, in another split "
                    f"{categories[key]!r}; expected the same"
                )
    used = {one["category_id"] for _, regions, _ in contents.values() for one in regions}
    # Numbers before texts, as JSON allows both.
    order = sorted(used, key=lambda key: (isinstance(key, str), key))
    where = next(iter(files.values()))[0] if len(files) == 1 else path
    classes = Classes(list(dict.fromkeys(categories[key] for key in order)), given, where)
    splits, errors, found = {}, {}, set()
    for split, (images, annotations, _) in contents.items():
        file, pictures = files[split][0], _Pictures(files[split][0], path, split)
        by_image = collections.defaultdict(list)
        for one in annotations:
            by_image[one["image_id"]].append(one)
        pairs, wrong = {}, []
        for image in images:
            its = by_image.pop(image["id"], ())
            try:
                picture = pictures.find(image["file_name"])
                pairs[str(picture)] = _pair(picture, file, image, its, classes, categories)
            except UserError as error:
                name = " ".join(image["file_name"].split())
                wrong.append(UserError(f"{file}: {name}: {error}"))
        if by_image:
            wrong.append(
                UserError(
                    f"{file}: {sum(map(len, by_image.values()))} regions are of pictures that are "
                    f"not listed, such as image_id {next(iter(by_image))!r}; add them to images"
                )
            )
        splits[split], errors[split] = pairs, wrong
        found |= pictures.found
    beside = {f for folder in {f.parent for f in found} for f in pictures_below(folder)} - found
    notes = (
        (f"left out, as no file lists them: {counted(len(beside), 'picture')}",) if beside else ()
    )
    return Layout(what, classes.labels, splits, errors, notes, uncovered=given.uncovered)


def _files(path: Path) -> tuple[str, dict]:
    """Return the layout's name, and split -> (file, content)."""
    what = "COCO JSON in Roboflow's folders"
    files = [(f.parent.name, f) for f in visible(path, f"*/{ROBOFLOW}")]
    if not files and (path / ROBOFLOW).is_file():
        files = [("", path / ROBOFLOW)]
    if files:
        return what, {split: (f, read_json(f)) for split, f in by_split(files).items()}
    for folder in (path / "annotations", path):
        files = visible(folder, "*.json")
        # COCO's own folder also holds captions, key points and panoptic segments.
        files = [f for f in files if f.name.startswith("instances")] or files
        contents = {f: content for f in files if set(content := _object(f)) >= KEYS}
        if contents:
            named = by_split((_split_of(file), file) for file in contents)
            return "COCO JSON", {split: (f, contents[f]) for split, f in named.items()}
    return "", {}


def _object(file: Path) -> dict:
    content = read_json(file)
    return content if isinstance(content, dict) else {}


def _split_of(file: Path) -> str:
    """Return the split that a file is named after: instances_val2017.json -> val."""
    word = r"(?<![a-z])(train|valid|validation|val|test)(?![a-z])"
    found = re.search(word, file.stem.lower())
    return found[1] if found else ""


def _checked(file: Path, content):
    """Return (images, annotations, {category id: name}) of a file, its form checked."""
    try:
        images = [
            {"id": one["id"], "file_name": str(one["file_name"]), "size": _size(file, one)}
            for one in content["images"]
        ]
        categories, annotations = content["categories"], content["annotations"]
        for what, ids in (
            ("image", [one["id"] for one in images]),
            ("category", [one["id"] for one in categories]),
            ("file", [one["file_name"] for one in images]),
        ):
            for key, count in collections.Counter(ids).most_common(1):
                if count > 1:
                    raise UserError(f"{file}: {what} {key!r} is there {count} times; keep one")
        named = {one["id"]: str(one["name"]).strip() for one in categories}
        if not all(isinstance(key, (int, str)) for key in named):
            raise UserError(f"{file}: a category's id is neither a number nor a text")
        for one in annotations:
            hash(one["image_id"])
            if one["category_id"] not in named:
                key = one["category_id"]
                raise UserError(f"{file}: category {key!r} is used and has no name; add it")
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__} {error}"
        raise UserError(
            f"{file}: not COCO's form ({reason}); expected images, annotations, categories"
        ) from error
    return images, annotations, named


def _size(file, one):
    try:
        return picture_size(one.get("height"), one.get("width"))
    except UserError as error:
        raise UserError(f"{file}: {str(one['file_name'])!r}: {error}") from error


class _Pictures:
    """Find the pictures that a file lists: beside it, or in a folder of the split."""

    def __init__(self, file: Path, root: Path, split: str):
        year = re.search(r"(?:train|val|test)\d{4}", file.stem)
        self.folders = [file.parent]
        called = [name for name, ours in SPLITS.items() if ours == split]
        for folder in (year[0] if year else "", *called, "default", file.parent.name):
            if folder:
                self.folders += [root / folder, root / "images" / folder]
        self.folders += [root / "images", root]
        self.found: set[Path] = set()

    def find(self, name: str) -> Path:
        """Return the file of a name, also where other folders stand before it.

        Raises:
            UserError: it is not there, or found before.
        """
        name = name.replace("\\", "/")
        candidates = [f / n for n in (name, Path(name).name) for f in self.folders if n]
        file = next((f for f in map(existing, candidates) if f and f.is_file()), None)
        if file is None:
            raise UserError("the picture is not there; add it")
        if file in self.found:
            raise UserError(f"its picture, {file}, is another's too; expected one for each")
        self.found.add(file)
        return file


def _pair(picture, file, image, annotations, classes, categories):
    regions, size = [], image["size"]
    for one in annotations:
        region, said = _region(one, classes[categories[one["category_id"]]])
        size = size or said
        if said and said != size:
            raise UserError(
                f"run lengths for {said[1]}x{said[0]} pixels in a picture of {size[1]}x{size[0]}"
            )
        regions.append(region)

    def draw(size):
        return paint(regions, size, classes.uncovered)

    return drawn_pair(picture, file, size, draw)


def _region(one, label: int):
    """Return the region of an annotation, and the (H, W) that it says, if it does."""
    shape = one.get("segmentation")
    if isinstance(shape, dict):
        size = shape.get("size") or (None, None)
        if not isinstance(size, (list, tuple)) or len(size) != 2:
            raise UserError(f"run lengths of size {size!r}; expected [height, width]")
        return Region(label, rle=run_lengths(shape.get("counts"))), picture_size(*size)
    try:
        polygons = tuple(polygon(zip(p[::2], p[1::2], strict=True)) for p in shape or ())
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError("a polygon is not [x1, y1, x2, y2, x3, y3, ...]") from error
    if not polygons:
        raise UserError("a box without a polygon; export it as instance segmentation")
    return Region(label, polygons), None
