"""Datasets as pictures and masks by number, read with Pillow."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from keras_pspnet import scenes
from keras_pspnet.files import PICTURES, UserError, pictures_in, read_bytes, read_image, read_mask
from keras_pspnet.labels import CAMVID, IGNORE, LabelSet

NAMES = ("scenes", "camvid", "folder")
SCENES = {"train": 1200, "val": 100}


@dataclasses.dataclass(frozen=True)
class Source:
    """One split of a dataset.

    Args:
        names: what each picture is called.
        labels: the dataset's LabelSet.
        read: number -> (image (H, W, 3) uint8, mask (H, W) uint8: class ids or 255). It raises
            UserError for a pair that cannot be used.
    """

    names: tuple[str, ...]
    labels: LabelSet
    read: Callable[[int], tuple[np.ndarray, np.ndarray]]

    def __len__(self) -> int:
        return len(self.names)

    def first(self, count: int | None) -> Source:
        """The same source with only its first `count` pictures; None leaves it whole."""
        return dataclasses.replace(self, names=self.names[:count])

    def examples(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """(name, image, mask), one after the other."""
        for index, name in enumerate(self.names):
            yield name, *self.read(index)

    def check(self, watch: Callable = iter) -> np.ndarray:
        """Reads every pair once.

        Args:
            watch: passes the numbers of the pairs on; it may show how far it is.

        Returns:
            The number of pixels of each class; void pixels are not counted.

        Raises:
            UserError: the first pair that cannot be used, and how many more there are.
        """
        counts, errors = np.zeros(256, np.int64), []
        for index in watch(range(len(self))):
            try:
                counts += np.bincount(self.read(index)[1].ravel(), minlength=256)
            except UserError as error:
                errors.append(error)
        if errors:
            more = f" (and {len(errors) - 1} more bad pairs)" if len(errors) > 1 else ""
            raise UserError(f"{errors[0]}{more}") from errors[0]
        return counts[: len(self.labels)]


def open_source(name: str, path=None, *, split: str, size=None) -> Source:
    """One split of a dataset by the dataset's name.

    Args:
        name: "scenes", generated; "camvid", the SegNet layout SPLIT/ and SPLITannot/; "folder",
            images/SPLIT/*.{jpg,png} beside masks/SPLIT/*.png, with an optional labels.json.
        path: the dataset's folder; the scenes have none.
        split: "train", "val" or what the folder has.
        size: (H, W) of generated pictures, 185x185 by default.

    Raises:
        UserError: no such dataset, folder or split; a picture without a mask or the reverse.
    """
    if name not in NAMES:
        raise UserError(f"dataset {name!r} is not known; expected one of {', '.join(NAMES)}")
    if name == "scenes":
        if path is not None:
            raise UserError("the scenes are drawn, not read; leave --data-dir out")
        return _scenes(split, size)
    if path is None:
        raise UserError(f"dataset {name} needs its folder; give --data-dir")
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; expected the {name} dataset")
    if name == "camvid":
        return _paired(path / split, path / f"{split}annot", CAMVID)
    images, masks = path / "images" / split, path / "masks" / split
    pictures_in(masks)  # before all masks are read for their ids
    return _paired(images, masks, _folder_labels(path))


def _scenes(split, size) -> Source:
    if split not in SCENES:
        raise UserError(f"scenes: no split {split!r}; expected one of {', '.join(SCENES)}")
    read = functools.partial(scenes.scene, split=split, size=tuple(size or (185, 185)))
    names = tuple(f"{split}_{index:04d}" for index in range(SCENES[split]))
    # Kept once drawn: an epoch of 185x185 scenes is about 150 MB.
    return Source(names, scenes.LABELS, functools.cache(read))


def _paired(images: Path, masks: Path, labels: LabelSet) -> Source:
    """Pictures and masks of the same stem in two folders."""
    pictures_by_stem, masks_by_stem = _by_stem(images), _by_stem(masks)
    for stem, file in pictures_by_stem.items():
        if stem not in masks_by_stem:
            raise UserError(f"{file}: no mask of this name in {masks}; add or remove one")
    for stem, file in masks_by_stem.items():
        if stem not in pictures_by_stem:
            raise UserError(f"{file}: no picture of this name in {images}; add or remove one")
    pairs = [(file, masks_by_stem[stem]) for stem, file in pictures_by_stem.items()]

    def read(index):
        return read_pair(*pairs[index], labels)

    return Source(tuple(str(picture) for picture, _ in pairs), labels, read)


def _by_stem(folder: Path) -> dict[str, Path]:
    files = {}
    for file in pictures_in(folder):
        if file.stem in files:
            raise UserError(
                f"{file}: {files[file.stem].name} has the same name; remove one of them"
            )
        files[file.stem] = file
    return files


def read_pair(picture: Path, mask: Path, labels: LabelSet) -> tuple[np.ndarray, np.ndarray]:
    """A picture and its mask as class ids, void as 255.

    Raises:
        UserError: a file that cannot be read, sizes that differ, a label out of range.
    """
    image, ids = read_image(picture), read_mask(mask)
    if image.shape[:2] != ids.shape:
        (height, width), (rows, columns) = image.shape[:2], ids.shape
        raise UserError(
            f"{mask}: is {columns}x{rows} pixels, its picture {width}x{height}; expected the same"
        )
    try:
        return image, labels.decode(ids)
    except UserError as error:
        raise UserError(f"{mask}: {error}") from error


def _folder_labels(path: Path) -> LabelSet:
    """From labels.json, or the ids found in the masks of all splits, each a class."""
    file = path / "labels.json"
    if file.is_file():
        try:
            return LabelSet.from_config(json.loads(read_bytes(file)))
        except ValueError as error:
            raise UserError(f"{file}: not a labels file: {error}") from error
    found = np.zeros(256, bool)
    for mask in sorted((path / "masks").glob("*/*")):
        if mask.suffix.lower() in PICTURES:
            found |= np.bincount(read_mask(mask).ravel(), minlength=256) > 0
    ids = [int(value) for value in np.flatnonzero(found) if value != IGNORE]
    if not ids:
        raise UserError(f"{path / 'masks'}: only void ({IGNORE}) in the masks; expected class ids")
    names = tuple(f"class_{value}" for value in ids)
    return LabelSet(names, ids={value: index for index, value in enumerate(ids)})
