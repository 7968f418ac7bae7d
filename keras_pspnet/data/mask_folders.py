"""Pictures beside masks: the plain layout, CVAT's folders, CamVid as its authors hand it out."""

import dataclasses
import functools
import itertools
from pathlib import Path

from keras_pspnet.data.annotated import (
    SPLITS,
    Given,
    Layout,
    by_split,
    counted,
    folders_below,
    pictures_below,
    visible,
)
from keras_pspnet.data.mask_labels import Values, label_colors_txt, labelmap_txt, values_in
from keras_pspnet.data.masks import color_table
from keras_pspnet.data.pairs import by_stems, masks_in, paired
from keras_pspnet.errors import UserError, raise_first
from keras_pspnet.files import composed, evenly_spaced, pictures_in, read_bytes
from keras_pspnet.labels import IGNORE, LabelSet
from keras_pspnet.progress import track

COLOR_FILES = {"labelmap.txt": labelmap_txt, "label_colors.txt": label_colors_txt}

LONG = 5000
"""Number of masks above which reading them all shows its progress."""


def plain(path: Path, given: Given, labels: LabelSet | None) -> Layout | None:
    """Read images/SPLIT and masks/SPLIT, SPLIT/images and SPLIT/masks, or images/ and masks/.

    Args:
        path: the data set's folder.
        given: what labels.json says.
        labels: the classes of masks that nobody has named; found in the masks by default.

    Returns:
        The layout, or None if there is neither of the two folders.

    Raises:
        UserError: masks without usable labels.
    """
    images, masks = path / "images", path / "masks"
    if not images.is_dir() and not masks.is_dir():
        places = split_first(path)
        return (
            _layout("pictures and masks", path, path, places, given, labels, []) if places else None
        )
    below = [{f.name for f in folders_below(folder)} for folder in (images, masks)]
    names, notes = below[0] | below[1], []
    flat = bool(pictures_below(images) or pictures_below(masks))
    if flat and (alone := below[0] ^ below[1]):
        notes.append(f"left out, as images/ and masks/ do not share them: {_list(alone)}")
        names &= below[0] & below[1]
    folders = by_split((name, Path(name)) for name in sorted(names))
    if flat or not names:
        folders[""] = Path()
    places = {split: (images / name, masks / name) for split, name in folders.items()}
    what = "pictures and masks" + " without splits" * (not names)
    return _layout(what, path, masks, places, given, labels, notes)


def split_first(path: Path) -> dict[str, tuple[Path, Path]]:
    """Return split -> (SPLIT/images, SPLIT/masks); nothing if no folder is called as a split."""
    places = by_split((f.name, f) for f in folders_below(path) if (f / "masks").is_dir())
    if not set(places) & set(SPLITS.values()):
        return {}
    return {split: (f / "images", f / "masks") for split, f in places.items()}


def cvat(path: Path, given: Given, labels: LabelSet | None) -> Layout | None:
    """Read JPEGImages/ and SegmentationClass/, with ImageSets/Segmentation/*.txt; see `plain`.

    CVAT writes labelmap.txt beside them.
    """
    images, masks = path / "JPEGImages", path / "SegmentationClass"
    described = (path / "labelmap.txt").is_file() and not (path / "images").is_dir()
    if not (images.is_dir() and masks.is_dir()):
        if not described:
            return None
        pictures_in(images)
        masks_in(masks)
    what = "CVAT's JPEGImages and SegmentationClass"
    layout = _layout(what, path, masks, {"": (images, masks)}, given, labels, [])
    pairs = layout.splits[""]
    lists = [(f.stem, f) for f in visible(path / "ImageSets" / "Segmentation", "*.txt")]
    files = by_split((name, file) for name, file in lists if name != "default")  # everything
    if not files:
        return layout
    splits, errors = {}, {}
    for split, file in files.items():
        splits[split], errors[split] = {}, []
        for line in read_bytes(file).decode("utf-8-sig", "replace").splitlines():
            if not line.strip():
                continue
            first = line.split()[0]
            written = (line.strip(), first, Path(line.strip()).stem, Path(first).stem)
            stem = next((name for name in map(composed, written) if name in pairs), None)
            if stem is None:
                message = f"{file}: {first} has no picture and mask; add them or unlist it"
                errors[split].append(UserError(message))
            else:
                splits[split][stem] = pairs[stem]
    listed = set().union(*splits.values())
    notes = layout.notes
    if len(listed) < len(pairs):
        lost = counted(len(pairs) - len(listed), "picture")
        notes += (f"left out, as no list has them: {lost}",)
    return dataclasses.replace(layout, splits=splits, errors=errors, notes=notes)


def camvid_original(path: Path, given: Given, labels: LabelSet | None) -> Layout | None:
    """Read 701_StillsRaw_full/ and LabeledApproved_full/*_L.png with label_colors.txt."""
    images, masks = path / "701_StillsRaw_full", path / "LabeledApproved_full"
    if not (images.is_dir() and masks.is_dir()):
        return None
    file = path / "label_colors.txt"
    if not file.is_file() and given.labels is None:
        raise UserError(f"{file}: no such file; it comes with CamVid and names the colours")
    what = "CamVid as its authors hand it out"
    return _layout(what, path, masks, {"": (images, masks)}, given, labels, [])


def _layout(what, path, masks, places, given, labels, notes) -> Layout:
    """Pair the pictures and masks of each place.

    Args:
        what: see `Layout`.
        path: the data set's folder.
        masks: the folder of all masks, for messages.
        places: split -> (folder of pictures, folder of masks).
        given, labels: see `plain`.
        notes: what is known already.
    """
    splits, errors, files = {}, {}, []
    for split, folders in places.items():
        splits[split], errors[split] = {}, []
        for folder, files_in in zip(folders, (pictures_in, masks_in)):
            try:
                files_in(folder)
            except UserError as error:
                errors[split].append(error)
        files += pictures_below(folders[1])
    described = next((name for name in COLOR_FILES if (path / name).is_file()), None)
    table, named = None, True
    if described is not None:
        what += f", colours of {described}"
        labels, table = _described(path / described, given)
    elif given.labels is not None:
        labels = _meant_by_grey(masks, files, given) if given.colors else given.labels
        _refuse_binary(masks, files, labels)
        table = color_table(labels) if given.colors else None
    else:
        named = False
        try:
            labels, how = _labels(masks, files, labels)
        except UserError as error:
            missing = [one for wrong in errors.values() for one in wrong]
            raise_first([*missing, *(error.errors or [error] * bool(files))])
        notes = [*notes, how]
    for split, folders in places.items():
        if not errors[split]:
            splits[split], errors[split] = pair(folders, labels, table)
    return Layout(what, labels, splits, errors, tuple(notes), named)


def _described(file: Path, given: Given):
    """Return the labels and the colours of labelmap.txt or label_colors.txt.

    labels.json, if there, has the last word on names, their order, and colours.
    """
    labels, void = COLOR_FILES[file.name](file)
    table = color_table(labels, void)
    if given.labels is None:
        return labels, table
    if given.colors:
        return given.labels, color_table(given.labels, void)
    ids = {name: index for index, name in enumerate(given.labels.names)}
    for name in labels.names:
        if name not in ids:
            raise UserError(f"{file}: the class {name!r} is not in labels.json; add or rename it")
    named = {index: ids[name] for index, name in enumerate(labels.names)}
    return given.labels, {color: named.get(label, label) for color, label in table.items()}


def _refuse_binary(folder, files, labels: LabelSet) -> None:
    """Refuse masks of 0 and 255 where two classes are named and 255 would be void.

    Raises:
        UserError: the masks hold 0 and 255 alone; a sample is looked at.
    """
    if len(labels) != 2 or labels.ids is not None or labels.ignore != IGNORE:
        return
    try:
        values = _values(folder, evenly_spaced(files, 20))
    except UserError:  # the survey tells of masks that cannot be read
        return
    values.refuse_two_kinds()
    if values.held() == [0, IGNORE]:
        ids = '"ids": {"0": 0, "255": 1}, "ignore": 254'
        raise UserError(
            f"{folder}: the masks hold 0 and 255, and 255 would be void; add {ids} to labels.json"
        )


def _labels(folder, files, labels: LabelSet | None) -> tuple[LabelSet, str]:
    """Return the labels of masks that nobody has named: those given, or those found; and a note.

    Masks of the very classes of the given labels keep their own values: of two folders of binary
    masks, one may hold {0, 1} and one {0, 255}.
    """
    if labels is None:
        values = _values(folder, files)
        values.refuse_two_kinds()
        return values.labels(folder), values.meaning()
    given = labels, f"nobody has named the classes: they are the model's {len(labels)}"
    try:
        values = _values(folder, files)
        found = values.labels(folder)
    except UserError:  # masks that are only scored may hold a single class
        return given
    if not {1, IGNORE} <= set(labels.ids or ()):
        values.refuse_two_kinds()
    return (found, values.meaning()) if found.names == labels.names else given


def _meant_by_grey(folder, files, given: Given) -> LabelSet:
    """Return the labels of labels.json, with `ids` if the masks hold the classes' grey values.

    Masks of 0, 128 and 255 are meant by colours of (0, 0, 0), (128, 128, 128) and (255, 255, 255).
    They are not if a value is another class's id, or if 255 alone is no id, as it is void.
    """
    labels, classes = given.labels, len(given.labels)
    grey = [(color[0], label) for label, color in enumerate(labels.colors) if len(set(color)) == 1]
    ids = dict(grey)
    if labels.ids is not None or len(ids) < len(grey) or max(ids, default=0) < classes:
        return labels
    for sample in (evenly_spaced(files, 5), files):  # masks in colours are not all read for this
        try:
            held = _values(folder, sample).held()
        except UserError:  # the survey tells
            return labels
        held = [value for value in held if value in ids or value != labels.ignore]
        if not all(value in ids and (ids[value] == value or value >= classes) for value in held):
            return labels
    told = any(value >= classes and value != labels.ignore for value in held)
    if not told and set(held) != set(ids):
        return labels
    void = next(v for v in (labels.ignore, *range(IGNORE, -1, -1)) if v not in ids)
    return dataclasses.replace(labels, ids=ids, ignore=void)


def _values(folder: Path, files) -> Values:
    """Count what masks hold; those of files that have not changed since are not read again."""
    return _counted(folder, tuple((file, file.stat().st_mtime_ns) for file in files))


@functools.lru_cache(maxsize=8)  # a command opens several splits, and one split several times
def _counted(folder: Path, files) -> Values:
    masks = ((file, file) for file, _ in files)
    if len(files) > LONG:
        masks = track(masks, "reading masks", len(files))
    return values_in(masks, folder)


def pair(folders, labels: LabelSet, table) -> tuple[dict, list[UserError]]:
    """Pair pictures with masks of the same name, or of names that differ by one ending everywhere.

    Args:
        folders: (folder of the pictures, folder of the masks).
        labels, table: see `masks.decode`.

    Returns:
        (stem -> Pair, one error for each file without a partner).
    """
    errors: list[UserError] = []
    pictures, masks = (by_stems(pictures_below(folder), errors) for folder in folders)
    if not set(pictures) & set(masks):
        choices = [
            [{stem.removesuffix(ending): file for stem, file in files.items()}
             for ending in _endings(files)]
            for files in (pictures, masks)
        ]  # fmt: skip
        shared, best = max(
            ((len(set(one) & set(two)), (one, two)) for one, two in itertools.product(*choices)),
            key=lambda choice: choice[0],
        )
        if not shared:
            first, other = (next(iter(files.values())).name for files in (pictures, masks))
            message = (
                f"{folders[1]}: no mask has the name of a picture: {first} beside {other}; masks "
                "need the pictures' names, with one ending such as _mask at most"
            )
            return {}, [*errors, UserError(message)]
        pictures, masks = best
    pairs, missing = paired(pictures, masks, folders, lambda _: labels, table)
    return pairs, errors + missing


def _endings(stems) -> list[str]:
    """Return the endings that all names share, each from a separator on; "" is the first."""
    first = next(iter(stems), "")
    endings = (first[i:] for i, letter in enumerate(first) if letter in "_-. ")
    return ["", *(ending for ending in endings if all(stem.endswith(ending) for stem in stems))]


def _list(names) -> str:
    names = sorted(names)
    return ", ".join(names[:5]) + ", ..." * (len(names) > 5)
