"""Pictures and masks by number, wherever they come from."""

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
    """One split of a dataset.

    Args:
        names: what each picture is called.
        labels: the dataset's LabelSet.
        read: number -> (image (H, W, 3) uint8, mask (H, W) uint8: class ids or 255). It raises
            UserError for a pair that cannot be used.
        unpaired: one error for each picture without a mask and each mask without a picture.
    """

    names: tuple[str, ...]
    labels: LabelSet
    read: Callable[[int], tuple[np.ndarray, np.ndarray]]
    unpaired: tuple[UserError, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def first(self, count: int | None) -> Source:
        """The same source with only its first `count` pictures; None leaves it whole."""
        return dataclasses.replace(self, names=self.names[:count])

    def paired(self) -> Source:
        """The source itself.

        Raises:
            UserError: a picture has no mask or the reverse; the first, and how many more.
        """
        raise_first(self.unpaired)
        return self

    def examples(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """(name, image, mask), one after the other."""
        for index, name in enumerate(self.names):
            yield name, *self.read(index)

    def survey(self, watch: Callable = iter) -> Survey:
        """Reads every pair once and counts.

        Args:
            watch: passes the numbers of the pairs on; it may show how far it is.
        """
        survey = Survey(errors=list(self.unpaired))
        for index in watch(range(len(self))):
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

    def check(self, watch: Callable = iter) -> np.ndarray:
        """Reads every pair once.

        Args:
            watch: see `survey`.

        Returns:
            The number of pixels of each class; void pixels are not counted.

        Raises:
            UserError: the first pair that cannot be used, and how many more there are.
        """
        survey = self.survey(watch)
        raise_first(survey.errors)
        return survey.pixels[: len(self.labels)]


@dataclasses.dataclass
class Survey:
    """What reading every pair of a split has shown.

    Args:
        pixels, pictures: by class id, 255 for void: how many pixels, in how many pictures.
        sizes: (H, W) -> how many pictures.
        good: the numbers of the pairs that can be used.
        errors: one for each pair, or half of one, that cannot be used.
    """

    pixels: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256, np.int64))
    pictures: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256, np.int64))
    sizes: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    good: list[int] = dataclasses.field(default_factory=list)
    errors: list[UserError] = dataclasses.field(default_factory=list)


def paired_files(images: Path, masks: Path, labels: LabelSet) -> Source:
    """Pictures and masks of the same stem in two folders.

    Raises:
        UserError: a folder that is not there, or holds no pictures.
    """
    unpaired: list[UserError] = []
    pictures_by_stem, masks_by_stem = _by_stem(images, unpaired), _by_stem(masks, unpaired)
    return paired(pictures_by_stem, masks_by_stem, labels, (images, masks), unpaired)


def paired(pictures, masks, labels: LabelSet, folders, unpaired=(), decode=None) -> Source:
    """Pictures and masks of the same keys.

    Args:
        pictures, masks: key -> file.
        labels: the dataset's.
        folders: where pictures and masks were looked for; for messages.
        unpaired: what is already known to be wrong.
        decode: file of a mask -> the LabelSet of its values; `labels` by default.
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
    """A picture and its mask as class ids, void as 255.

    Args:
        picture, mask: paths, or binary files.
        names: what messages call them; their paths by default.

    Raises:
        UserError: a file that cannot be read, sizes that differ, a label out of range.
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
    """Labels from what masks hold, where nobody has named them: each id is a class.

    Args:
        masks: yields a path, or a binary file, and what messages call it. Those that cannot be
            read are left to `Source.check`.
        where: what a message calls all of them.

    Raises:
        UserError: none that can be read; nothing but void, or one class alone.
    """
    found, errors = np.zeros(256, bool), []
    for mask, name in masks:
        try:
            found |= np.bincount(read_mask(mask, name).ravel(), minlength=256) > 0
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
