"""A first look at a dataset: is every pair usable, what is in it, what does it look like."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from keras_pspnet import visualize
from keras_pspnet.data.datasets import open_source, splits_of
from keras_pspnet.data.pairs import Source, Survey
from keras_pspnet.errors import UserError
from keras_pspnet.images import resize_image, resize_nearest
from keras_pspnet.labels import IGNORE, LabelSet
from keras_pspnet.progress import track

SAMPLES = 8

TILE = 185, 400  # (H, W) at most


def inspect_dataset(dataset: str, data_dir=None, out=None) -> None:
    """Checks every pair of all splits, prints what they hold, and draws samples.

    Args:
        dataset, data_dir: see `datasets.open_source`.
        out: a folder for `samples_SPLIT.png`; None draws nothing.

    Raises:
        UserError: no such dataset; or, after all is printed, how many pairs cannot be used.
    """
    surveys: dict[str, Survey] = {}
    labels, errors = None, []
    for split in splits_of(dataset, data_dir):
        try:
            source = open_source(dataset, data_dir, split=split)
        except UserError as error:  # the other splits may tell more, or the same
            known = {str(one) for one in errors}
            errors += [one for one in error.errors or [error] if str(one) not in known]
            continue
        labels = source.labels
        what = f"{split}: checking pictures and masks"
        watch = functools.partial(track, what=what, total=len(source))
        survey = surveys[split] = source.survey(watch)
        errors += survey.errors
        if survey.good and not survey.pixels[: len(labels)].any():
            errors.append(UserError(f"{split}: all masks are void; expected class ids"))
        print(f"{split}: {pairs(len(survey.good), 'good')}{sizes(survey)}")
        if out is not None and survey.good:
            file = Path(out) / f"samples_{split}.png"
            visualize.save_png(file, sheet(f"{dataset}, {split}", source, survey.good))
            print(f"{file}: samples")
    if labels is not None:
        print(table(labels, surveys))
    elif len(errors) == 1:
        raise errors[0]
    for error in errors:
        print(f"bad: {error}")
    for split in ("train", "val"):
        if split not in surveys and not errors:
            print(f"note: there is no split {split!r}; `train` needs train and val")
    if errors:
        raise UserError(
            f"{data_dir or dataset}: {pairs(len(errors), 'bad')}, named above; mend or remove them"
        )


def pairs(count: int, kind: str) -> str:
    return f"{count} {kind} pair{'' if count == 1 else 's'}"


def sizes(survey: Survey) -> str:
    """The sizes of pictures in words, width first."""
    if len(survey.sizes) <= 1:
        return "".join(f", {width}x{height} pixels" for height, width in survey.sizes)
    heights, widths = zip(*survey.sizes)
    return (
        f", {len(survey.sizes)} sizes, {min(widths)} to {max(widths)} pixels wide, "
        f"{min(heights)} to {max(heights)} high"
    )


def table(labels: LabelSet, surveys: dict[str, Survey]) -> str:
    """A line for each class and for void: share of the pixels, and pictures, split by split."""
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
    """Up to 8 of the good pairs, spread over the split, two a row, with the legend."""
    places = np.linspace(0, len(good) - 1, min(SAMPLES, len(good))).astype(int)
    tiles = []
    for place in places:
        image, mask = small(*source.read(good[place]))
        tiles += [framed(image), framed(visualize.overlay(image, mask, source.labels, 0.7))]
    columns = min(len(tiles), 4)
    missing = -len(tiles) % columns
    tiles += [np.full((1, 1, 3), 255, np.uint8)] * missing
    table = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    titles = ["picture", "mask"] * (columns // 2)
    return visualize.rows(table, titles, heading=title, labels=source.labels, tile=TILE[0])


def small(image, mask):
    """Both within a tile, a photograph as well as a strip of one row."""
    scale = min(side / length for side, length in zip(TILE, mask.shape))
    size = tuple(max(round(length * scale), 1) for length in mask.shape)
    return resize_image(image, size), resize_nearest(mask, size)


def framed(picture):
    """White below a picture that is not as high as a tile."""
    return np.pad(picture, ((0, TILE[0] - len(picture)), (0, 0), (0, 0)), constant_values=255)
