"""Open the pictures of a recipe, and recognise them when a run is resumed."""

import hashlib
from pathlib import Path

from keras_pspnet.data.datasets import open_source
from keras_pspnet.data.pairs import Source, Survey
from keras_pspnet.errors import UserError
from keras_pspnet.train.recipe_fields import Recipe


def open_splits(recipe: Recipe, data_dir=None) -> tuple[Source, Source]:
    """Open the pictures that a recipe trains on and those that it validates on.

    Raises:
        UserError: no such dataset, folder or split, or fewer pictures than a batch.
    """
    train = open_source(recipe.dataset, data_dir, split=recipe.train_split, size=recipe.crop)
    val = open_source(recipe.dataset, data_dir, split=recipe.val_split, size=recipe.crop)
    train, val = train.first(recipe.train_images), val.first(recipe.val_images)
    if len(train) < recipe.batch_size and not train.unpaired:
        raise UserError(
            f"batch_size={recipe.batch_size}: there are only {len(train)} training pictures"
        )
    return train, val


def exceeds(survey: Survey, crop) -> bool:
    """Return whether a picture is higher or wider than a crop (H, W)."""
    return any(side > limit for size in survey.sizes for side, limit in zip(size, crop))


def about(recipe: Recipe, surveys: list[Survey], crops: bool) -> list[str]:
    """Return what a user should know of the pictures before they are trained on.

    Args:
        surveys: of the training and of the validation pictures.
        crops: whether the validation sees crops of larger pictures.
    """
    lines = []
    turned = sum(survey.turned for survey in surveys)
    if turned:
        whose = "pictures are turned by their EXIF, their masks have none"
        if turned == 1:
            whose = "picture is turned by its EXIF, its mask has none"
        lines.append(f"warning: {turned} {whose}: look at the samples of `keras-pspnet look`")
    if crops:
        lines.append(
            "validation on centre crops of {0}x{1} of larger pictures; `evaluate --crop {0} {1}` "
            "sees whole pictures at the same scale".format(*recipe.crop)
        )
    return lines


def fingerprint(train: Source, val: Source, data_dir=None) -> dict:
    """Return what a checkpoint keeps of its data, as JSON values.

    The names of the pictures count relative to the dataset's folder: where it lies does not matter.

    Returns:
        {"labels": config of the LabelSet, "train": {"pictures": number, "sha256": of the names},
        "val": the same}.
    """
    splits = {"train": train, "val": val}
    counted = {
        split: {"pictures": len(source), "sha256": _digest(source.names, data_dir)}
        for split, source in splits.items()
    }
    return {"labels": train.labels.to_config(), **counted}


def _digest(names, folder) -> str:
    """Return the SHA-256 of names in their order, those of files relative to their folder."""
    digest = hashlib.sha256()
    for name in map(Path, names):
        if folder is not None and name.is_relative_to(folder):
            name = name.relative_to(folder)
        digest.update(name.as_posix().encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def check_same_data(out, before: dict, now: dict) -> None:
    """Check that a run is resumed with the data that it began with.

    Args:
        out: the run folder, for the message.
        before, now: fingerprints of the data.

    Raises:
        UserError: other classes, or another number or other names of pictures.
    """
    for difference in _differences(before, now):
        raise UserError(
            f"{out}: {difference}; resume with the data that the run began with, or train anew "
            "with another --out"
        )


def _differences(before, now):
    """Yield what has changed, as the beginning of a sentence."""
    old, new = before["labels"], now["labels"]
    if len(old["names"]) != len(new["names"]):
        yield f"its run has {len(old['names'])} classes, the data now {len(new['names'])}"
    for number, (one, other) in enumerate(zip(old["names"], new["names"])):
        if one != other:
            yield f"class {number} of its run is {one!r}, of the data now {other!r}"
    for key in ("ids", "ignore", "colors"):
        if old.get(key) != new.get(key):
            yield f"the labels of its run have other `{key}` than the data now"
    for split in ("train", "val"):
        count, current = before[split]["pictures"], now[split]["pictures"]
        if count != current:
            yield f"its run has {count} pictures in {split}, the data now {current}"
        elif before[split] != now[split]:
            yield f"the pictures in {split} have other names than those of its run"
