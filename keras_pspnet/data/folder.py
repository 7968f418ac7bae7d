"""One's own folder: recognise how it is laid out and annotated."""

import contextlib
import dataclasses
import functools
import hashlib
import os
from pathlib import Path

from keras_pspnet.data import splitting
from keras_pspnet.data.annotated import Given, Layout, counted, folders_below
from keras_pspnet.data.coco import coco
from keras_pspnet.data.label_studio import label_studio
from keras_pspnet.data.labelme import labelme
from keras_pspnet.data.layouts import in_order
from keras_pspnet.data.mask_folders import camvid_original, cvat, plain
from keras_pspnet.data.mask_labels import check_classes
from keras_pspnet.data.pairs import Source, check_split, source
from keras_pspnet.data.roboflow_masks import roboflow_masks
from keras_pspnet.data.yolo import elsewhere, yolo
from keras_pspnet.errors import UserError
from keras_pspnet.files import is_picture, write_json
from keras_pspnet.labels import LabelSet

EXPECTED = (
    "images/train/ and masks/train/, images/ and masks/, or what CVAT, Roboflow, LabelMe, YOLO or "
    "Label Studio export"
)
OF_DATASETS = {
    "trainannot": "camvid",
    "annotations/training": "ade20k",
    "gtFine": "cityscapes",
}
"""A folder -> the dataset of `layouts` that has it."""
DEPTH = 3
"""How deep in a data set's folder annotations lie: images/train/camera/."""


def folder(path: Path, split: str, labels: LabelSet | None = None) -> Source:
    """Open a split of a user's folder, see `read_layout`."""
    return open_split(path, read_layout(path, labels=labels), split)


def folder_splits(path: Path) -> list[str]:
    """Return the splits of a user's folder, "train" first."""
    return in_order(read_layout(path).splits)


def open_split(path: Path, layout: Layout, split: str) -> Source:
    """Return a split of a layout.

    Raises:
        UserError: there is no such split.
    """
    check_split(str(path), split, layout.splits)
    return source(
        layout.splits[split],
        layout.labels,
        layout.errors.get(split, ()),
        notes=(f"{path}: {layout.what}", *layout.notes),
        named=layout.named,
        uncovered=layout.uncovered,
    )


def read_layout(path: Path, uncovered: str | None = None, labels: LabelSet | None = None) -> Layout:
    """Recognise a folder's layout and list its pictures and annotations.

    A folder that has not changed since is not read again.

    Args:
        path: the data set's folder.
        uncovered: what pixels in no polygon are, "background" or "void"; labels.json says it by
            default.
        labels: the classes of masks that nobody has named; found in the masks by default.

    Returns:
        The layout with the splits "train" and "val"; the reader makes them where there is no val.

    Raises:
        UserError: nothing that is known, a file that is not of its form, one class or more than
            255, `uncovered` for masks.
    """
    path = Path(path)
    given = Given.read(path, uncovered)
    layout = _read_layout(path, _stamp(path, *elsewhere(path)), given, labels)
    if given.said and layout.uncovered is None:
        raise UserError(
            f"{given.said}: {path} holds masks, which have a value for every pixel; leave it out"
        )
    return layout


def write_labels(file: Path, layout: Layout) -> None:
    """Write the labels.json of a layout, with which it reads the same.

    Raises:
        UserError: it cannot be written.
    """
    config = layout.labels.to_config()
    if layout.labels.ids == {label: label for label in range(len(layout.labels))}:
        del config["ids"]
    if layout.uncovered == "void":
        config["uncovered"] = "void"
    write_json(file, config)


@functools.lru_cache(maxsize=4)
def _read_layout(path: Path, stamp: str, given: Given, labels: LabelSet | None) -> Layout:
    layout = _recognised(path, given, labels)
    check_classes(layout.labels, path)
    return _with_val(layout, path)


def _recognised(path: Path, given: Given, labels: LabelSet | None) -> Layout:
    for place, name in OF_DATASETS.items():
        if (path / place).is_dir() and not (path / "masks").is_dir():
            raise UserError(f"{path}: holds {place}/, as the dataset {name}; use --dataset {name}")
    layout = _known(path, given, labels)
    if layout is not None:
        return layout
    expected = EXPECTED
    for below in folders_below(path):
        with contextlib.suppress(UserError):
            if _known(below, Given(), labels) is not None:
                expected = f"a folder such as {below}"
    raise UserError(f"{path}: no data set that is known; expected {expected}")


def _known(path: Path, given: Given, labels: LabelSet | None) -> Layout | None:
    """Return the layout of a folder; None if it is none that is known."""
    places = ("masks/*", "masks/*/*", "*/masks/*")
    masks = any(is_picture(f) for place in places for f in path.glob(place))
    for read in (
        lambda: label_studio(path, given),
        lambda: plain(path, given, labels) if masks else None,
        lambda: cvat(path, given, labels),
        lambda: camvid_original(path, given, labels),
        lambda: roboflow_masks(path, given),
        lambda: coco(path, given),
        lambda: yolo(path, given),
        lambda: labelme(path, given),
        lambda: plain(path, given, labels),  # says what is missing beside images/
    ):
        layout = read()
        if layout is not None:
            return layout
    return None


def _stamp(*paths: Path) -> str:
    """Return what changes when a file of a data set is added, removed or written."""
    lines = []

    def visit(folder, depth):
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    if depth:
                        visit(entry.path, depth - 1)
                    continue
                with contextlib.suppress(OSError):  # a link to nothing
                    about = entry.stat()
                    lines.append(f"{entry.path} {about.st_mtime_ns} {about.st_size}")

    for path in paths:
        visit(path, DEPTH)
    return hashlib.sha256(os.fsencode("\n".join(sorted(lines)))).hexdigest()


def _with_val(layout: Layout, path: Path) -> Layout:
    """Split what has no val split into train and val."""
    splits, errors = dict(layout.splits), dict(layout.errors)
    notes = list(layout.notes)
    if "" in splits and len(splits) > 1:
        if splits[""]:
            outside = counted(len(splits[""]), "picture")
            notes.append(f"left out, as they lie outside of the splits: {outside}")
        splits.pop("")
        errors.pop("", None)
    source = "" if "" in splits else "train"
    if "val" not in splits and splits.get(source):
        whole = splits.pop(source)
        parts, what = splitting.split({key: pair.picture.stem for key, pair in whole.items()})
        splits |= {split: {key: whole[key] for key in keys} for split, keys in parts.items()}
        errors |= {"train": errors.pop(source, []), "val": []}
        notes.append(
            f"no val split in {path}: {len(parts['val'])} of {len(whole)} pictures are val, chosen "
            f"by the SHA-256 of {what}"
        )
    elif "" in splits:
        splits["train"], errors["train"] = splits.pop(""), errors.pop("", [])
    return dataclasses.replace(layout, splits=splits, errors=errors, notes=tuple(notes))
