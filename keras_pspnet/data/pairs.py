"""Pair pictures with masks, decode and check them."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from keras_pspnet.errors import UserError, raise_first
from keras_pspnet.images import pictures_in, read_image, read_mask
from keras_pspnet.labels import IGNORE, LabelSet


@dataclasses.dataclass(frozen=True)
class Source:
    """The pairs of picture and mask of one split of a dataset, read by index.

    Args:
        names: the name of each picture, for messages and reports.
        labels: the classes of the masks that `read` returns.
        read: index -> (image (H, W, 3) uint8, mask (H, W) uint8: class ids, void 255). The arrays
            may be read-only. Raises UserError for a pair that cannot be used.
        unpaired: one error for each picture without a mask and each mask without a picture.
    """

    names: tuple[str, ...]
    labels: LabelSet
    read: Callable[[int], tuple[np.ndarray, np.ndarray]]
    unpaired: tuple[UserError, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def first(self, count: int | None) -> Source:
        """Return a source of the first `count` pairs; None keeps all."""
        return dataclasses.replace(self, names=self.names[:count])

    def paired(self) -> Source:
        """Return this source if every picture has a mask and every mask a picture.

        Raises:
            UserError: the first of `unpaired`, with the number of the others.
        """
        raise_first(self.unpaired)
        return self

    def examples(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Yield (name, image, mask) of each pair in order."""
        for index, name in enumerate(self.names):
            yield name, *self.read(index)

    def survey(self, progress: Callable = iter) -> Survey:
        """Read every pair once; count pixels, pictures and sizes, and collect errors.

        Args:
            progress: wraps the range of indices, to show how many pairs are done.
        """
        survey = Survey(errors=list(self.unpaired))
        for index in progress(range(len(self))):
            try:
                image, mask = self.read(index)
            except UserError as error:
                survey.errors.append(error)
                continue
            survey.good.append(index)
            pixels = np.bincount(mask.ravel(), minlength=256)
            survey.pixels += pixels
            survey.pictures += pixels > 0
            survey.sizes[image.shape[:2]] += 1
        return survey


@dataclasses.dataclass
class Survey:
    """The result of reading every pair of a source; bad pairs count in `errors` alone.

    Args:
        pixels: (256,) int64, pixels of each class id; 255 is void.
        pictures: (256,) int64, pictures in which each class id occurs.
        sizes: (H, W) -> number of pictures.
        good: indices of the pairs that can be used.
        errors: one for each pair, picture or mask that cannot be used.
    """

    pixels: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256, np.int64))
    pictures: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256, np.int64))
    sizes: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    good: list[int] = dataclasses.field(default_factory=list)
    errors: list[UserError] = dataclasses.field(default_factory=list)


def paired_files(images: Path, masks: Path, labels: LabelSet) -> Source:
    """Pair the pictures and masks of two folders by their names without extension.

    Raises:
        UserError: a folder is missing or holds no pictures.
    """
    unpaired: list[UserError] = []
    pictures_by_stem, masks_by_stem = _by_stem(images, unpaired), _by_stem(masks, unpaired)
    return paired(pictures_by_stem, masks_by_stem, labels, (images, masks), unpaired)


def paired(pictures, masks, labels: LabelSet, folders, unpaired=(), decode=None) -> Source:
    """Pair pictures and masks that have the same key.

    Args:
        pictures, masks: key -> path.
        labels: the dataset's labels.
        folders: (folder of the pictures, folder of the masks), for messages.
        unpaired: errors that are already known.
        decode: path of a mask -> the LabelSet that decodes it; None takes `labels` for all.
    """
    unpaired = list(unpaired)
    for ours, theirs, kind, folder in (
        (pictures, masks, "mask", folders[1]),
        (masks, pictures, "picture", folders[0]),
    ):
        unpaired += [
            UserError(f"{file}: no {kind} of this name in {folder}; add or remove one")
            for key, file in ours.items()
            if key not in theirs
        ]
    pairs = [(file, masks[key]) for key, file in pictures.items() if key in masks]

    def read(index):
        picture, mask = pairs[index]
        return read_pair(picture, mask, decode(mask) if decode else labels)

    return Source(tuple(str(picture) for picture, _ in pairs), labels, read, tuple(unpaired))


def _by_stem(folder: Path, errors: list[UserError]) -> dict[str, Path]:
    files = {}
    for file in pictures_in(folder):
        if file.stem in files:
            other = files[file.stem].name
            errors.append(UserError(f"{file}: {other} has the same name; remove one of them"))
        else:
            files[file.stem] = file
    return files


def read_pair(picture, mask, labels: LabelSet, names=None) -> tuple[np.ndarray, np.ndarray]:
    """Read a picture and its mask; decode the mask to class ids, void 255.

    Args:
        picture, mask: paths or binary files.
        names: (picture, mask) as messages name them; None takes the paths.

    Returns:
        Image (H, W, 3) uint8 RGB and mask (H, W) uint8.

    Raises:
        UserError: a file cannot be read, the sizes differ, a label is out of range.
    """
    picture_name, mask_name = names or (picture, mask)
    image, ids = read_image(picture, picture_name), read_mask(mask, mask_name)
    if image.shape[:2] != ids.shape:
        (height, width), (rows, columns) = image.shape[:2], ids.shape
        raise UserError(
            f"{mask_name}: is {columns}x{rows} pixels, its picture {width}x{height}; expected the "
            "same"
        )
    try:
        return image, labels.decode(ids)
    except UserError as error:
        raise UserError(f"{mask_name}: {error}") from error


def labels_in(masks, where) -> LabelSet:
    """Return a LabelSet in which each id found in the masks is a class; 255 is void.

    Args:
        masks: yields (path or binary file, name for messages). Masks that cannot be read are
            skipped; `Source.survey` reports them.
        where: names all of the masks in messages.

    Raises:
        UserError: no mask can be read, or all of them hold nothing but void or a single class.
    """
    found, errors = np.zeros(256, bool), []
    for mask, name in masks:
        try:
            found[read_mask(mask, name)] = True
        except UserError as error:
            errors.append(error)
    if not found.any():
        raise_first(errors)
    ids = [int(value) for value in np.flatnonzero(found) if value != IGNORE]
    if not ids:
        raise UserError(f"{where}: only void ({IGNORE}) in the masks; expected class ids")
    if len(ids) == 1:
        raise UserError(
            f"{where}: the masks hold {ids[0]}"
            + f" and void ({IGNORE})" * bool(found[IGNORE])
            + "; expected two classes or more. Where 255 is a class, give a labels.json such as "
            '{"names": ["background", "object"], "ids": {"0": 0, "255": 1}, "ignore": 254}'
        )
    names = tuple(f"class_{value}" for value in ids)
    return LabelSet(names, ids={value: index for index, value in enumerate(ids)})


def check_split(dataset: str, split: str, splits) -> None:
    """Raise a UserError if `split` is not one of the dataset's `splits`."""
    if split not in splits:
        raise UserError(f"{dataset}: no split {split!r}; expected one of {', '.join(splits)}")
