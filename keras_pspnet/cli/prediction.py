"""The command `predict`: segment pictures, write class ids, overlays and confidences."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from keras_pspnet import visualize
from keras_pspnet.cli import quiet
from keras_pspnet.cli.evaluation import protocol_of
from keras_pspnet.errors import UserError
from keras_pspnet.files import unique_stems, writable_folder, write_together
from keras_pspnet.images import (
    check_picture,
    list_images,
    passed_over,
    read_image,
    unread_pictures,
)
from keras_pspnet.inference.load import check_model
from keras_pspnet.inference.model_facts import (
    Sizes,
    crop_notes,
    describe,
    known_labels,
    named_predictor,
)
from keras_pspnet.inference.segment import segment_with
from keras_pspnet.labels import LabelSet
from keras_pspnet.progress import track

LISTED = 5
"""Number of lines about pictures that cannot be segmented; further ones are counted."""

JPEG_QUALITY = 90
"""Pillow's quality of an overlay with --jpeg."""


def run(options) -> None:
    """Segment the pictures that can be read; name those that cannot.

    Raises:
        UserError: a wrong argument, before anything is written; pictures that cannot be segmented,
            after all others are written.
    """
    kind = check_model(options.model)
    protocol = protocol_of(options)
    named = list_images(*options.images)
    labels = known_labels(options.model, options.labels)
    if labels:
        _values(labels, options.ids)
    out = writable_folder(options.out)
    pictures, errors = _readable(list(zip(named, unique_stems(named))))
    if not pictures:
        _raise(errors, len(named), out)
    if kind in ("keras", "saved_model"):
        quiet.quiet_tensorflow()
    predictor = named_predictor(options.model, options.labels)
    protocol.check(predictor)
    values = _values(predictor.labels, options.ids)
    print(describe(predictor, protocol), flush=True)
    if errors:
        print(f"{len(errors)} of {len(named)} pictures cannot be read; they are named at the end")
    sizes = Sizes()
    for path, stem, image in track(_read_ahead(pictures), "predicting", len(pictures)):
        try:
            if isinstance(image, UserError):
                raise image
            contents = _contents(predictor, image, protocol, values, options)
        except UserError as error:
            named_here = str(path) in str(error)
            errors.append(error if named_here else UserError(f"{path}: {error}"))
            continue
        sizes.add(path, image)
        write_together({out / f"{stem}{ending}": data for ending, data in contents.items()})
    for note in crop_notes(options.model, predictor, protocol, sizes):
        print(note)
    written = len(named) - len(errors)
    if written:
        for line in _summary(options, written, predictor.labels):
            print(line)
    if errors:
        sys.stdout.flush()
        _raise(errors, len(named), out)


def _contents(predictor, image, protocol, values, options) -> dict[str, bytes]:
    """Segment a picture and encode what the options ask for: ending of the file -> content."""
    result = segment_with(predictor, image, protocol, options.confidence)
    classes, confidence = result if options.confidence else (result, None)
    contents = {"_classes.png": visualize.class_png(classes, predictor.labels, values)}
    if not options.no_overlay:
        sheet = visualize.overlay_with_legend(image, classes, predictor.labels)
        if options.jpeg:
            contents["_overlay.jpg"] = visualize.jpeg(sheet, JPEG_QUALITY)
        else:
            contents["_overlay.png"] = visualize.png(sheet)
    if options.confidence:
        contents["_confidence.png"] = visualize.png(np.rint(255 * confidence).astype(np.uint8))
    return contents


def _values(labels: LabelSet, ids: str | None) -> np.ndarray | None:
    """Return the pixel value of each class that --ids asks for, (n,) uint8; None for 0..n-1."""
    if ids is None:
        return None
    try:
        return labels.mask_values()
    except UserError as error:
        raise UserError(
            f"--ids mask: {error}; leave it out (pixels are then 0..{len(labels) - 1} in the order "
            "of the names), or give --labels FILE with ids"
        ) from error


def _readable(pictures) -> tuple[list, list[UserError]]:
    """Look at the beginning of each file: return the pictures, and an error for each of the others.

    Args:
        pictures: (path, stem) of each.
    """
    good, errors = [], []
    for path, stem in track(pictures, "checking", len(pictures)):
        try:
            check_picture(path)
            good.append((path, stem))
        except UserError as error:
            errors.append(error)
    return good, errors


def _read_ahead(pictures) -> Iterator[tuple[Path, str, np.ndarray | UserError]]:
    """Yield (path, stem, picture or error) of each; the next is read while one is used."""

    def read(path):
        try:
            return read_image(path)
        except UserError as error:  # a file that is cut off further down
            return error

    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(read, pictures[0][0])
        for index, (path, stem) in enumerate(pictures):
            image = coming.result()
            if index + 1 < len(pictures):
                coming = thread.submit(read, pictures[index + 1][0])
            yield path, stem, image


def _raise(errors: list[UserError], count: int, out: Path) -> None:
    """Raise the errors of `count` pictures as one; of several, five lines come first."""
    good = count - len(errors)
    others = f"; the other {good} are in {out}" if good > 1 else f"; the other is in {out}" * good
    if len(errors) == 1:
        raise UserError(f"{errors[0]}{others}") from errors[0]
    for error in errors[:LISTED]:
        print(" ".join(str(error).split()), file=sys.stderr)
    if len(errors) > LISTED:
        print(f"and {len(errors) - LISTED} more", file=sys.stderr)
    raise UserError(f"{len(errors)} of {count} pictures cannot be segmented{others}")


def _summary(options, count: int, labels: LabelSet) -> list[str]:
    """Return what was written, and what the pixels mean."""
    kinds = ["_classes.png"]
    if not options.no_overlay:
        kinds.append("_overlay.jpg" if options.jpeg else "_overlay.png")
    if options.confidence:
        kinds.append("_confidence.png (255 is probability 1)")
    text = " and ".join([", ".join(kinds[:-1]), kinds[-1]] if len(kinds) > 1 else kinds)
    pictures = f"{count} picture{'' if count == 1 else 's'}"
    if options.ids:
        meaning = "the values that the masks of the data set hold"
    else:
        meaning = f"0..{len(labels) - 1} in the order of the names"
        if labels.ids is not None and labels.ids != {n: n for n in range(len(labels))}:
            meaning += ", not the masks' own values: --ids mask writes these"
    return [
        f"{options.out}: {pictures}, as {text}{_others(options.images)}",
        f"pixels of _classes.png are {meaning}",
    ]


def _others(paths) -> str:
    """Return how many files of the folders are not read, as the end of a sentence."""
    folders = [path for path in map(Path, paths) if path.is_dir()]
    count = sum(map(passed_over, folders))
    files = "1 file that is no picture" if count == 1 else f"{count} files that are no pictures"
    unread = [file.name for folder in folders for file in unread_pictures(folder)]
    if unread:
        files = "1 file" if count == 1 else f"{count} files"
        files += f" that are not read (as {unread[0]}: convert it to JPEG or PNG)"
    return f"; {files} passed over" if count else ""
