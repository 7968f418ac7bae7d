"""Open a dataset by its name: the generated scenes, layouts on disk, TensorFlow Datasets."""

import functools
from pathlib import Path

from keras_pspnet import scenes
from keras_pspnet.data import folder, layouts, tfds_source
from keras_pspnet.data.pairs import Source, check_split
from keras_pspnet.errors import UserError
from keras_pspnet.images import check_size
from keras_pspnet.labels import LabelSet

LAYOUTS = {  # name -> (path, split -> Source; path -> splits; what the folder must hold)
    "camvid": (layouts.camvid, layouts.camvid_splits, "train/ and trainannot/"),
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
    "folder": (folder.folder, folder.folder_splits, "images/train/"),
}

SCENES = {"train": 1200, "val": 100}
"""Number of generated pictures of each split."""

CACHE_BYTES = 256 * 2**20
"""Memory for the drawn scenes of one source; the 1200 of 185x185 pixels need 157 MiB."""

BASES = {"ade20k": 512, "voc2012": 512, "cityscapes": 2048}
"""Long side in pixels of pictures at scale 1 in the authors' test (semseg config/*: base_size)."""


def open_source(
    name: str, path=None, *, split: str, size=None, download=True, labels: LabelSet | None = None
) -> Source:
    """Open one split of a dataset.

    Args:
        name: "scenes" (generated), "camvid", "ade20k", "cityscapes", "voc2012", "folder" (the
            functions of these names in `layouts` describe the files; for "folder" see
            `folder.read_layout`), or "tfds:BUILDER" (see `tfds_source.open_builder`).
        path: the dataset's folder. "scenes" takes none; for TFDS it is the data_dir.
        split: "train", "val" or another split that the dataset has, see `splits_of`.
        size: (H, W) of the generated pictures, 185x185 by default; other datasets ignore it.
        download: whether a TFDS dataset that is not prepared yet may be downloaded.
        labels: a model's labels, whose `ids` say what the masks of a folder mean whose classes
            nobody has named; other datasets ignore it.

    Raises:
        UserError: no such dataset, folder or split. A picture without a mask raises only in
            `Source.paired`.
    """
    if name.startswith(tfds_source.PREFIX):
        return tfds_source.open_builder(name, path, split, download)
    path = check_folder(name, path)
    if name == "scenes":
        return _scenes(split, size)
    if name == "folder":
        return folder.folder(path, split, labels)
    return LAYOUTS[name][0](path, split)


def splits_of(name: str, path=None) -> list[str]:
    """Return the splits that a dataset has, "train" first; arguments as in `open_source`.

    Raises:
        UserError: no such dataset or folder, or no split in it.
    """
    if name.startswith(tfds_source.PREFIX):
        return tfds_source.splits_of(name, path)
    path = check_folder(name, path)
    if name == "scenes":
        return list(SCENES)
    _, splits, expected = LAYOUTS[name]
    found = splits(path)
    if not found:
        raise UserError(f"{path}: no split in it; expected {expected}")
    return found


def check_folder(name: str, path) -> Path | None:
    """Return the dataset's folder, or None for the scenes.

    Raises:
        UserError: no such dataset, or no folder.
    """
    if name == "scenes":
        if path is not None:
            raise UserError("the scenes are generated, not read; leave --data-dir out")
        return None
    if name not in LAYOUTS:
        raise UserError(
            f"dataset {name!r} is not known; expected one of scenes, {', '.join(LAYOUTS)}, "
            f"{tfds_source.PREFIX}BUILDER"
        )
    if path is None:
        raise UserError(f"dataset {name} needs its folder; give --data-dir")
    if Path(path).is_file():
        raise UserError(f"{path}: is a file; give the folder that holds it")
    if not Path(path).is_dir():
        raise UserError(f"{path}: no such folder; expected the {name} dataset")
    return Path(path)


def _scenes(split, size) -> Source:
    check_split("scenes", split, SCENES)
    check_size(size)
    height, width = size or (185, 185)

    # Drawing is slow; a picture and its mask take 3 + 1 bytes a pixel.
    @functools.lru_cache(maxsize=CACHE_BYTES // (4 * height * width))
    def read(index):
        image, mask = scenes.scene(index, split=split, size=(height, width))
        for array in (image, mask):
            array.setflags(write=False)  # every caller gets the same arrays
        return image, mask

    names = tuple(f"{split}_{index:04d}" for index in range(SCENES[split]))
    return Source(names, scenes.LABELS, read)
