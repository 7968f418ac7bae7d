"""Check a dataset, count its classes and show samples (the command `look`)."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from keras_pspnet import visualize
from keras_pspnet.data import folder, splitting
from keras_pspnet.data.annotated import counted
from keras_pspnet.data.datasets import check_folder, open_source, splits_of
from keras_pspnet.data.layouts import in_order
from keras_pspnet.data.pairs import Source
from keras_pspnet.data.survey import Survey, almost_black, turned_by_exif
from keras_pspnet.errors import UserError
from keras_pspnet.files import evenly_spaced
from keras_pspnet.images import resize_image, resize_nearest
from keras_pspnet.labels import IGNORE, LabelSet
from keras_pspnet.progress import track

SAMPLES = 8

SHOWN = 5
"""Errors that are printed; the others are counted."""

TILE = 185, 400
"""Greatest height and width of a sample in pixels."""


STRIPES = 150
"""Grey of the stripes across void pixels."""


def inspect_dataset(
    dataset: str, data_dir=None, out=None, *, write_labels: bool = False, uncovered=None
) -> None:
    """Check every pair of all splits, print what they hold, and draw samples.

    It prints what a user's folder was recognised as, the number and the sizes of the good pairs of
    each split, a table of the classes (share of the pixels, number of pictures), and "bad: ..." for
    the first errors.

    Args:
        dataset, data_dir: name and folder, see `datasets.open_source`.
        out: folder for `samples_SPLIT.png`, written if nothing is bad; None draws nothing.
        write_labels: True writes labels.json into a user's folder, if nothing is bad.
        uncovered: what pixels in no polygon of a user's folder are: "background" or "void"; None
            leaves it to labels.json.

    Raises:
        UserError: no such dataset; or, after all is printed, the number of bad pairs.
    """
    own = dataset == "folder"
    if not own and (write_labels or uncovered):
        option = "--write-labels" if write_labels else "--uncovered"
        raise UserError(f"{option} is for --dataset folder, not for {dataset}; leave it out")
    labels_file = Path(data_dir or "", "labels.json")
    if write_labels and labels_file.exists():
        raise UserError(f"{labels_file}: is there already; edit it, or leave --write-labels out")
    sources: dict[str, Source] = {}
    surveys: dict[str, Survey] = {}
    sheets: dict[str, np.ndarray] = {}
    labels, errors, notes = None, [], set()
    for split, open_split in _splits(dataset, data_dir, uncovered, errors).items():
        try:
            source = open_split()
        except UserError as error:  # go on: the other splits may have other errors
            known = {str(one) for one in errors}
            errors += [one for one in error.errors or [error] if str(one) not in known]
            continue
        labels, sources[split] = source.labels, source
        for note in source.notes:
            if note not in notes:
                notes.add(note)
                print(note)
        what = f"{split}: checking pictures and masks"
        survey = source.survey(functools.partial(track, what=what, total=len(source)))
        surveys[split] = survey
        errors += survey.errors
        if survey.good and not survey.pixels[: len(labels)].any():
            errors.append(UserError(f"{split}: all masks are void; expected class ids"))
        print(f"{split}: {pairs(len(survey.good), 'good')}{sizes(survey)}")
        if out is not None and survey.good:
            sheets[split] = sheet(f"{dataset}, {split}", source, survey.good)
    if labels is not None:
        print(table(labels, surveys))
    elif len(errors) == 1:
        raise errors[0]
    for error in errors[:SHOWN]:
        print("bad:", *str(error).splitlines())
    if len(errors) > SHOWN:
        print(f"and {len(errors) - SHOWN} more")
    for line in _warnings(sources, surveys, own):
        print(line)
    for split in ("train", "val"):
        if split not in surveys and not errors:
            print(f"note: there is no split {split!r}; `train` needs train and val")
        elif split in surveys and not sources[split] and not errors:
            print(f"note: {split} holds no pictures; `train` needs train and val: add some")
    if errors:
        raise UserError(
            f"{data_dir or dataset}: {pairs(len(errors), 'bad')}, named above; fix or remove them"
        )
    for split, drawn in sheets.items():
        file = Path(out) / f"samples_{split}.png"
        visualize.save_png(file, drawn)
        print(f"{file}: samples")
    if write_labels:
        folder.write_labels(labels_file, folder.read_layout(data_dir, uncovered))
        print(f"{labels_file}: the {len(labels)} classes; edit their names and colours there")


def _splits(dataset, data_dir, uncovered, errors) -> dict[str, Callable[[], Source]]:
    """Return split -> what opens it; add to `errors` why there is none.

    Raises:
        UserError: no such dataset; a single reason why there is no split.
    """
    try:
        if dataset == "folder":
            path = check_folder(dataset, data_dir)
            layout = folder.read_layout(path, uncovered)
            return {
                split: functools.partial(folder.open_split, path, layout, split)
                for split in in_order(layout.splits)
            }
        return {
            split: functools.partial(open_source, dataset, data_dir, split=split)
            for split in splits_of(dataset, data_dir)
        }
    except UserError as error:
        if not error.errors:
            raise
        errors += error.errors
        return {}


def _warnings(sources, surveys, own: bool) -> list[str]:
    """Return what may be wrong with good pairs; `own` is True for a user's folder."""
    turned = sum(survey.turned for survey in surveys.values())
    drawn = any(source.uncovered is not None for source in sources.values())
    lines = [*turned_by_exif(turned, drawn), *almost_black(surveys.values())]
    if own and {"train", "val"} <= set(sources):
        lines += splitting.in_both(sources["train"], sources["val"])
    return lines


def pairs(count: int, kind: str) -> str:
    """Return "1 good pair", "2 good pairs" and so on."""
    return counted(count, f"{kind} pair")


def sizes(survey: Survey) -> str:
    """Return the pictures' sizes as text that follows their number, width first."""
    if len(survey.sizes) <= 1:
        return "".join(f", {width}x{height} pixels" for height, width in survey.sizes)
    heights, widths = zip(*survey.sizes)
    return (
        f", {len(survey.sizes)} sizes, {min(widths)} to {max(widths)} pixels wide, "
        f"{min(heights)} to {max(heights)} high"
    )


def table(labels: LabelSet, surveys: dict[str, Survey]) -> str:
    """Return a table: for each class and void, share of the pixels and pictures of each split."""
    rows = [*enumerate(labels.names), (IGNORE, "void")]
    width = max(len(name) for _, name in rows) + 5
    lines = [f"{'class':<{width}}" + "".join(f"{split:>10}{'pictures':>10}" for split in surveys)]
    for index, name in rows:
        line = f"{'' if index == IGNORE else index:>3} {name:<{width - 4}}"
        for survey in surveys.values():
            share = survey.pixels[index] / max(survey.pixels.sum(), 1)
            line += f"{share:>9.2%}".replace("%", " %") + f"{survey.pictures[index]:>10}"
        absent = [
            split for split, survey in surveys.items() if survey.good and not survey.pictures[index]
        ]
        if absent and index != IGNORE:
            line += f"  never in {', '.join(absent)}"
        lines.append(line)
    return "\n".join(lines)


def sheet(title: str, source: Source, good: list[int]) -> np.ndarray:
    """Draw up to 8 pairs, evenly spaced over the split, two a row, above the legend.

    Args:
        title: heading of the sheet.
        source: the split.
        good: indices of the pairs to choose from.

    Returns:
        (H, W, 3) uint8.
    """
    tiles = []
    for index in evenly_spaced(good, SAMPLES):
        tiles += fit_tile(*source.read(index), source.labels)
    columns = min(len(tiles), 4)
    tiles += [np.full((1, 1, 3), 255, np.uint8)] * (-len(tiles) % columns)
    table = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    titles = ["picture", "mask"] * (columns // 2)
    legend = {"labels": source.labels, "void": "void (striped)"}
    return visualize.rows(table, titles, heading=title, tile=TILE[0], **legend)


def fit_tile(image, mask, labels: LabelSet) -> list[np.ndarray]:
    """Resize a pair to fit TILE; return picture and overlay, padded with white to its height.

    Void is striped: it is as dark as a class in black, which background often is.
    """
    scale = min(side / length for side, length in zip(TILE, mask.shape))
    size = tuple(max(round(length * scale), 1) for length in mask.shape)
    image, mask = resize_image(image, size), resize_nearest(mask, size)
    overlay = visualize.overlay(image, mask, labels, 0.7)
    rows, columns = np.indices(size)
    overlay[(mask == IGNORE) & ((rows + columns) % 8 < 2)] = STRIPES
    shown = image, overlay
    below = (0, TILE[0] - size[0]), (0, 0), (0, 0)
    return [np.pad(picture, below, constant_values=255) for picture in shown]
