"""Open the pictures of a recipe, and recognise them when a run is resumed."""

import base64
import functools
import hashlib
import itertools
from pathlib import Path

from keras_pspnet.data.datasets import open_source
from keras_pspnet.data.pairs import Source
from keras_pspnet.data.splitting import in_both
from keras_pspnet.data.survey import Survey, almost_black, turned_by_exif
from keras_pspnet.errors import UserError
from keras_pspnet.train.recipe_fields import Recipe

MARK = 4
"""Letters of base64, 6 bits each, that a checkpoint keeps of a file: 0.4 MB for 50,000 pairs."""

COMPRESSED = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".avif")
TAIL = 4096
"""Bytes at the end of a compressed picture that its mark depends on."""


def open_splits(recipe: Recipe, data_dir=None) -> tuple[Source, Source]:
    """Open the pictures that a recipe trains on and those that it validates on.

    Raises:
        UserError: no such dataset, folder or split, or fewer pictures than a batch.
    """
    train = open_source(recipe.dataset, data_dir, split=recipe.train_split, size=recipe.crop)
    val = open_source(recipe.dataset, data_dir, split=recipe.val_split, size=recipe.crop)
    train, val = train.first(recipe.train_images), val.first(recipe.val_images)
    if not val and not val.unpaired:
        raise UserError(
            f"{data_dir or recipe.dataset}: no pictures to validate on, {len(train)} to train on; "
            "add pictures"
        )
    if len(train) < recipe.step_size and not train.unpaired:
        parts = f" accumulate={recipe.accumulate}" if recipe.accumulate > 1 else ""
        raise UserError(
            f"batch_size={recipe.batch_size}{parts}: there are only {len(train)} training "
            f"pictures; add some, or give a smaller batch_size{' or accumulate' * bool(parts)}"
        )
    return train, val


def exceeds(survey: Survey, crop) -> bool:
    """Return whether a picture is higher or wider than a crop (H, W)."""
    return any(side > limit for size in survey.sizes for side, limit in zip(size, crop))


def sees_crops(recipe: Recipe, survey: Survey) -> bool:
    """Return whether a validation sees crops of larger pictures; `survey` is of its pictures."""
    return not recipe.resize_to_crop and exceeds(survey, recipe.crop)


def about(recipe: Recipe, sources, surveys: list[Survey]) -> list[str]:
    """Return what a user should know of the pictures that are trained on.

    Args:
        sources, surveys: of the training and of the validation pictures.

    Raises:
        UserError: nothing but void to train on.
    """
    if not surveys[0].pixels[: len(sources[0].labels)].any():
        raise UserError(f"{recipe.dataset}: all masks to train on are void; expected class ids")
    turned = sum(survey.turned for survey in surveys)
    lines = turned_by_exif(turned, sources[0].uncovered is not None) + almost_black(surveys)
    if recipe.dataset == "folder":
        lines += in_both(*sources)
    if sees_crops(recipe, surveys[1]):
        lines.append(
            "validation on centre crops of {0}x{1} of larger pictures; `evaluate --crop {0} {1}` "
            "sees whole pictures at the same scale".format(*recipe.crop)
        )
    return lines


class Fingerprint(dict):
    """What a checkpoint keeps of its data, as JSON values; `files` are what its marks stand for.

    Args:
        files: split -> files, in the order of the marks. They are not kept.
    """

    def __init__(self, values, files: dict[str, list[Path]]):
        super().__init__(values)
        self.files = files


def fingerprint(train: Source, val: Source, data_dir=None) -> Fingerprint:
    """Return what a checkpoint keeps of its data.

    The names of the pictures count relative to the dataset's folder: where it lies does not matter.
    Of files, their bytes count, not their times, so that a copy on another machine is the same.

    Returns:
        {"labels": config of the LabelSet, "uncovered": see `Source`, "train": {"pictures": number,
        "sha256": of the names, "marks": see `_mark`, of each picture's files in order}, "val": the
        same}.
    """
    splits, values, files = {"train": train, "val": val}, {}, {}
    mark = functools.cache(_mark)  # one file may hold the annotations of all pictures
    for split, source in splits.items():
        files[split] = [file for index in range(len(source)) for file in source.files(index)]
        values[split] = {
            "pictures": len(source),
            "sha256": _digest(source.names, data_dir),
            "marks": "".join(map(mark, files[split])),
        }
    about = {"labels": train.labels.to_config(), "uncovered": train.uncovered}
    return Fingerprint({**about, **values}, files)


def _digest(names, folder) -> str:
    """Return the SHA-256 of names in their order, those of files relative to their folder."""
    digest = hashlib.sha256()
    for name in map(Path, names):
        if folder is not None and name.is_relative_to(folder):
            name = name.relative_to(folder)
        digest.update(name.as_posix().encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def _mark(file: Path) -> str:
    """Return MARK letters that change with a file.

    Of compressed pictures, which are large, the size and the end count: other pixels compress to
    another size, and PNG's checksum of all pixels is at the end. Other files count as a whole.
    """
    try:
        size = file.stat().st_size
        with open(file, "rb") as stream:
            stream.seek(max(size - TAIL, 0) if file.suffix.lower() in COMPRESSED else 0)
            content = stream.read()
    except OSError:  # the survey tells; YOLO's pictures without objects need no text
        return "." * MARK
    digest = hashlib.sha256(b"%d " % size + content).digest()
    return base64.b64encode(digest)[:MARK].decode()


def check_same_data(out, before: dict, now: Fingerprint) -> None:
    """Check that a run is resumed with the data that it began with.

    Args:
        out: the run folder, for the message.
        before: the fingerprint of a checkpoint.
        now: that of the data.

    Raises:
        UserError: other classes, another number or other names of pictures, a changed file; no
            fingerprint.
    """
    try:
        difference = next(_differences(before, now), None)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{out}: last.keras does not say what its run was trained on") from error
    if difference:
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
    kinds = [one.get("uncovered") for one in (before, now)]
    if None not in kinds and kinds[0] != kinds[1]:
        yield "what is in no polygon is {} in its run, {} in the data now".format(*kinds)
    for split in ("train", "val"):
        count, current = before[split]["pictures"], now[split]["pictures"]
        if count != current:
            yield f"its run has {count} pictures in {split}, the data now {current}"
        elif before[split]["sha256"] != now[split]["sha256"]:
            yield f"the pictures in {split} have other names than those of its run"
        yield from _changed(before[split].get("marks"), now[split]["marks"], now.files[split])


def _changed(before: str | None, now: str, files):
    """Yield which files have changed; `before` is None in earlier checkpoints."""
    if before is None or before == now:
        return
    if len(before) != len(now):
        yield "its run has other files than the data now"
        return
    starts = range(0, len(now), MARK)
    differ = [before[start : start + MARK] != now[start : start + MARK] for start in starts]
    changed = list(dict.fromkeys(itertools.compress(files, differ)))
    others = f" and {len(changed) - 1} more have" if len(changed) > 1 else " has"
    yield f"{changed[0]}{others} changed since its run began"
