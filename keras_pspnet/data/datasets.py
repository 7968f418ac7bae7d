"""The datasets by name: the generated scenes, layouts on disk, TFDS."""

from __future__ import annotations

import functools
import json
from pathlib import Path

from keras_pspnet import scenes
from keras_pspnet.data import layouts, tfds_source
from keras_pspnet.data.pairs import Source, labels_in, paired_files
from keras_pspnet.errors import UserError
from keras_pspnet.files import read_bytes
from keras_pspnet.images import is_picture, pictures_in
from keras_pspnet.labels import CAMVID, LabelSet

LAYOUTS = {  # name -> (a split, the splits, what stands in its folder)
    "ade20k": (
        layouts.ade20k,
        layouts.ade20k_splits,
        "images/training/ and annotations/training/",
    ),
    "cityscapes": (
        layouts.cityscapes,
        layouts.cityscapes_splits,
        "leftImg8bit/train/CITY/ and gtFine/train/CITY/",
    ),
    "voc2012": (
        layouts.voc2012,
        layouts.voc2012_splits,
        "JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/train.txt",
    ),
}

NAMES = ("scenes", "camvid", *LAYOUTS, "folder")

SCENES = {"train": 1200, "val": 100}

BASES = {"ade20k": 512, "voc2012": 512, "cityscapes": 2048}
"""The long side of pictures at scale 1 in the authors' protocol (semseg config/*: base_size)."""


def open_source(name: str, path=None, *, split: str, size=None) -> Source:
    """One split of a dataset by the dataset's name.

    Args:
        name: "scenes", generated; "camvid", the SegNet layout SPLIT/ and SPLITannot/; "ade20k",
            "cityscapes", "voc2012" as their authors hand them out, see `layouts`; "folder",
            images/SPLIT/*.{jpg,png} beside masks/SPLIT/*.png, with an optional labels.json;
            "tfds:BUILDER", see `tfds_source.open_builder`.
        path: the dataset's folder; the scenes have none, TFDS has its own.
        split: "train", "val" or what the dataset has.
        size: (H, W) of generated pictures, 185x185 by default.

    Raises:
        UserError: no such dataset, folder or split. A picture without a mask is no error yet:
            see `Source.paired` and `Source.check`.
    """
    if name.startswith(tfds_source.PREFIX):
        return tfds_source.open_builder(name, path, split)
    path = _folder_of(name, path)
    if name == "scenes":
        return _scenes(split, size)
    if name in LAYOUTS:
        return LAYOUTS[name][0](path, split)
    if name == "camvid":
        return paired_files(path / split, path / f"{split}annot", CAMVID)
    images, masks = path / "images" / split, path / "masks" / split
    pictures_in(masks)  # before all masks are read for their ids
    return paired_files(images, masks, _folder_labels(path))


def splits_of(name: str, path=None) -> list[str]:
    """The splits that a dataset has, "train" first.

    Raises:
        UserError: no such dataset or folder, or no split in it.
    """
    if name.startswith(tfds_source.PREFIX):
        return tfds_source.splits_of(name, path)
    path = _folder_of(name, path)
    if name == "scenes":
        return list(SCENES)
    if name in LAYOUTS:
        found = LAYOUTS[name][1](path)
        if not found:
            raise UserError(f"{path}: no split in it; expected {LAYOUTS[name][2]}")
        return found
    if name == "camvid":
        found = _folders(path)
        found = {split for split in found if f"{split}annot" in found}
    else:  # a split of masks alone is shown too, as one that lacks its pictures
        found = _folders(path / "images") | _folders(path / "masks")
    if not found:
        expected = "train/ and trainannot/" if name == "camvid" else "images/train/"
        raise UserError(f"{path}: no split in it; expected {expected}")
    return sorted(found, key=lambda split: (split != "train", split != "val", split))


def _folders(path: Path) -> set[str]:
    folders = path.iterdir() if path.is_dir() else ()
    return {f.name for f in folders if f.is_dir() and not f.name.startswith(".")}


def _folder_of(name, path) -> Path | None:
    if name not in NAMES:
        raise UserError(
            f"dataset {name!r} is not known; expected one of {', '.join(NAMES)}, "
            f"{tfds_source.PREFIX}BUILDER"
        )
    if name == "scenes":
        if path is not None:
            raise UserError("the scenes are drawn, not read; leave --data-dir out")
        return None
    if path is None:
        raise UserError(f"dataset {name} needs its folder; give --data-dir")
    if not Path(path).is_dir():
        raise UserError(f"{path}: no such folder; expected the {name} dataset")
    return Path(path)


def _scenes(split, size) -> Source:
    if split not in SCENES:
        raise UserError(f"scenes: no split {split!r}; expected one of {', '.join(SCENES)}")
    read = functools.partial(scenes.scene, split=split, size=tuple(size or (185, 185)))
    names = tuple(f"{split}_{index:04d}" for index in range(SCENES[split]))
    # Kept once drawn: an epoch of 185x185 scenes is about 150 MB.
    return Source(names, scenes.LABELS, functools.cache(read))


def _folder_labels(path: Path) -> LabelSet:
    """From labels.json, or the ids found in the masks of all splits, each a class."""
    file = path / "labels.json"
    if file.is_file():
        try:
            return LabelSet.from_config(json.loads(read_bytes(file)))
        except ValueError as error:
            raise UserError(f"{file}: not a labels file: {error}") from error
    files = [f for f in sorted(path.glob("masks/*/*")) if is_picture(f)]
    return _ids_as_labels(path / "masks", tuple((file, file.stat().st_mtime_ns) for file in files))


@functools.lru_cache(maxsize=8)  # a command opens several splits, and one split several times
def _ids_as_labels(folder: Path, files) -> LabelSet:
    return labels_in(((file, file) for file, _ in files), folder)
