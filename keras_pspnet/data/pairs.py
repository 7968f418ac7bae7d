"""Pair pictures with masks, decode and check them."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from keras_pspnet.data.masks import decode
from keras_pspnet.data.survey import DARK, Seen, Survey
from keras_pspnet.errors import UserError, raise_first
from keras_pspnet.files import composed, is_picture, pictures_in, unread_pictures
from keras_pspnet.images import orientation, read_image, read_mask
from keras_pspnet.labels import LabelSet
from keras_pspnet.machine import cores


@dataclasses.dataclass(frozen=True)
class Source:
    """The pairs of picture and mask of one split of a dataset, read by index.

    Args:
        names: the name of each picture, for messages and reports.
        labels: the classes of the masks that `read` returns.
        read: index -> (image (H, W, 3) uint8, mask (H, W) uint8: class ids, void 255). The arrays
            may be read-only. Raises UserError for a pair that cannot be used.
        unpaired: one error for each picture without a mask and each mask without a picture.
        turned: index -> True if EXIF turns the picture and not the mask, or the reverse. The mask
            was then drawn on the stored pixels or on the turned ones: nobody can tell.
        notes: what a user should know, as how the reader made the splits.
        named: False if nobody has named the classes.
        files: index -> the files that `read` reads, the picture first; none where there are none.
        uncovered: what pixels in no polygon are, "background" or "void"; None without polygons.
    """

    names: tuple[str, ...]
    labels: LabelSet
    read: Callable[[int], tuple[np.ndarray, np.ndarray]]
    unpaired: tuple[UserError, ...] = ()
    turned: Callable[[int], bool] = lambda index: False
    notes: tuple[str, ...] = ()
    named: bool = True
    files: Callable[[int], tuple[Path, ...]] = lambda index: ()
    uncovered: str | None = None

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
        with self.looks() as looks:
            for index, seen in zip(progress(range(len(self))), looks):
                survey.add(index, self.names[index], seen)
        return survey

    @contextlib.contextmanager
    def looks(self) -> Iterator[Iterator[Seen | UserError]]:
        """Read every pair on all cores; give an iterator of what is seen of each, in order."""
        with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
            try:
                yield pool.map(self._look, range(len(self)))
            finally:
                pool.shutdown(cancel_futures=True)

    def _look(self, index) -> Seen | UserError:
        try:
            image, mask = self.read(index)
        except UserError as error:
            return error
        pixels = np.bincount(mask.ravel(), minlength=256)
        return Seen(pixels, image.shape[:2], self.turned(index), bool(image.max() <= DARK))


@dataclasses.dataclass(frozen=True)
class Pair:
    """A picture and a way to its mask.

    Args:
        picture: the picture's file.
        mask: (H, W) of the upright picture -> (H, W) uint8 class ids, void 255.
        annotation: the file that the mask comes from, for messages.
        pixels: True if that file is a picture of its own, with an EXIF orientation of its own.
        size: the (H, W) that the annotations say they are for.
        more: further files that the mask comes from.
    """

    picture: Path
    mask: Callable[[tuple[int, int]], np.ndarray]
    annotation: Path
    pixels: bool = False
    size: tuple[int, int] | None = None
    more: tuple[Path, ...] = ()

    def turned(self) -> bool:
        """Return whether EXIF turns the picture and nothing says that it turns the mask too."""
        turn = orientation(self.picture)
        if self.pixels:
            return turn != orientation(self.annotation)
        told = turn in (5, 6, 7, 8) and self.size is not None and self.size[0] != self.size[1]
        return turn != 1 and not told


def source(pairs: dict[str, Pair], labels: LabelSet, unpaired=(), **about) -> Source:
    """Make a source of pairs.

    Args:
        pairs: key -> pair.
        labels: the dataset's labels.
        unpaired: one error for each picture without a mask and each mask without a picture.
        about: further fields of `Source`.
    """
    ordered = list(pairs.values())

    def read(index):
        image = read_image(ordered[index].picture)
        return image, ordered[index].mask(image.shape[:2])

    def turned(index):
        return ordered[index].turned()

    def files(index):
        pair = ordered[index]
        return pair.picture, pair.annotation, *pair.more

    names = tuple(str(pair.picture) for pair in ordered)
    return Source(names, labels, read, tuple(unpaired), turned, files=files, **about)


def paired_files(images: Path, masks: Path, labels: LabelSet) -> Source:
    """Pair the pictures and masks of two folders by their names without extension.

    Raises:
        UserError: a folder is missing or holds no pictures.
    """
    unpaired: list[UserError] = []
    by_stem = [by_stems(files, unpaired) for files in (pictures_in(images), masks_in(masks))]
    pairs, more = paired(*by_stem, (images, masks), lambda _: labels)
    return source(pairs, labels, (*unpaired, *more))


def masks_in(folder: Path) -> list[Path]:
    """Return the masks of a folder, sorted by name.

    Raises:
        UserError: no such folder, or no mask in it.
    """
    files = folder.iterdir() if folder.is_dir() and not unread_pictures(folder) else None
    if files is not None and not any(map(is_picture, files)):
        raise UserError(f"{folder}: no masks in this folder; expected a PNG for each picture")
    return pictures_in(folder, "masks")


def paired(pictures, masks, folders, labels, table=None):
    """Pair pictures and masks that have the same key.

    Args:
        pictures, masks: key -> path.
        folders: (folder of the pictures, folder of the masks), for messages.
        labels: path of a mask -> the LabelSet of its values.
        table: the labels' colours, see `masks.color_table`.

    Returns:
        (key -> Pair, one error for each file without a partner).
    """
    errors = []
    for ours, theirs, kind, folder in (
        (pictures, masks, "mask", folders[1]),
        (masks, pictures, "picture", folders[0]),
    ):
        lost = {key: file for key, file in ours.items() if key not in theirs}
        unread = {composed(file.stem): file for file in unread_pictures(folder)} if lost else {}
        for key, file in lost.items():
            if (other := unread.get(key)) is not None:
                ending = other.suffix.lower()
                errors.append(
                    UserError(
                        f"{file}: {other.name} is there, but {ending} is not read here; convert "
                        "it to JPEG or PNG"
                    )
                )
            else:
                errors.append(
                    UserError(f"{file}: no {kind} of this name in {folder}; add or remove one")
                )
    pairs = {
        key: Pair(file, _from_file(masks[key], file, labels(masks[key]), table), masks[key], True)
        for key, file in pictures.items()
        if key in masks
    }
    return pairs, errors


def _from_file(file, picture, labels, table):
    def mask(size):
        values, palette = read_mask(file)
        check_sizes(values.shape[:2], size, file, picture)
        return decode(values, palette, labels, table, file)

    return mask


def check_sizes(mask, picture, mask_name, picture_name) -> None:
    """Check that a mask is as large as its picture.

    Raises:
        UserError: they differ; it says so if EXIF turns one of them alone.
    """
    if tuple(mask) == tuple(picture):
        return
    (height, width), (rows, columns) = picture, mask
    exif = ""
    if tuple(mask) == tuple(picture)[::-1] and isinstance(picture_name, Path):
        names = ("its picture", picture_name), ("it", mask_name)
        turned = [what for what, name in names if orientation(name) in (5, 6, 7, 8)]
        exif = f" ({turned[0]} is turned by its EXIF alone)" if len(turned) == 1 else ""
    raise UserError(
        f"{mask_name}: is {columns}x{rows} pixels, its picture {width}x{height}{exif}; expected "
        "the same"
    )


def by_stems(files, errors: list[UserError]) -> dict[str, Path]:
    """Return files by their names without extension; add an error for each name that is taken.

    Keys are in Unicode's composed form: archives of macOS decompose the names of some files.
    """
    stems: dict[str, Path] = {}
    for file in files:
        stem = composed(file.stem)
        if stem in stems:
            other = stems[stem].name
            errors.append(UserError(f"{file}: {other} has the same name; remove one of them"))
        else:
            stems[stem] = file
    return stems


def read_pair(picture, mask, labels: LabelSet, names) -> tuple[np.ndarray, np.ndarray]:
    """Read an encoded picture and its mask; decode the mask to class ids, void 255.

    Args:
        picture, mask: binary files.
        names: (picture, mask) as messages name them.

    Returns:
        Image (H, W, 3) uint8 RGB and mask (H, W) uint8.

    Raises:
        UserError: a file cannot be read, the sizes differ, a label is out of range.
    """
    image, (values, palette) = read_image(picture, names[0]), read_mask(mask, names[1])
    check_sizes(values.shape[:2], image.shape[:2], names[1], names[0])
    return image, decode(values, palette, labels, None, names[1])


def check_split(dataset: str, split: str, splits) -> None:
    """Raise a UserError if `split` is not one of the dataset's `splits`."""
    if split not in splits:
        raise UserError(f"{dataset}: no split {split!r}; expected one of {', '.join(splits)}")
