"""The command `predict`: segment pictures, write class ids, overlays and confidences."""

import collections
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from keras_pspnet import visualize
from keras_pspnet.cli import quiet
from keras_pspnet.cli.evaluation import protocol_of
from keras_pspnet.cli.video import check_video, is_video, write_drawn
from keras_pspnet.data.survey import DARK
from keras_pspnet.errors import UserError
from keras_pspnet.files import (
    list_images,
    passed_over,
    unique_stems,
    unread_pictures,
    writable_folder,
    write_together,
)
from keras_pspnet.images import check_picture, is_deep, opened_picture, read_image
from keras_pspnet.inference.load import check_model
from keras_pspnet.inference.model_facts import describe, known_labels, named_predictor
from keras_pspnet.inference.predictor import Predictor
from keras_pspnet.inference.segment import Protocol, segment_with
from keras_pspnet.labels import LabelSet
from keras_pspnet.progress import track

LISTED = 5
"""Number of lines about pictures that cannot be segmented; further ones are counted."""

ENDS = ("_classes.png", "_overlay.png", "_overlay.jpg", "_confidence.png")
"""Ends of the names of what is written of a picture."""

JPEG_QUALITY = 90
"""Pillow's quality of an overlay with --jpeg."""


def run(options) -> None:
    """Segment the pictures and videos that can be read; name those that cannot.

    Raises:
        UserError: a wrong argument, before anything is written; files that cannot be segmented,
            after all others are written.
    """
    kind = check_model(options.model)
    protocol = protocol_of(options)
    files, errors, own = _given(options.images, options.out)
    videos = [file for file in files if is_video(file)]
    refused = ["no_overlay"] + ["confidence", "ids"] * (len(videos) == len(files))
    for option in refused if videos else ():
        if getattr(options, option):
            option = option.replace("_", "-")
            raise UserError(f"{videos[0]}: of a video an overlay is written; leave --{option} out")
    labels = known_labels(options.model, options.labels)
    if labels:
        _values(labels, options.ids)
    out = writable_folder(options.out)
    count = len(files) + len(errors)
    readable, unread = _readable(list(zip(files, unique_stems(files))))
    errors += unread
    if not readable:
        _raise(errors, count, out)
    if kind in ("keras", "saved_model"):
        quiet.quiet_tensorflow()
    predictor = named_predictor(options.model, options.labels)
    drawing = Drawing(predictor, protocol, options)
    print(describe(predictor, protocol), flush=True)
    if errors:
        print(f"{len(errors)} of {count} files cannot be read; see the end", flush=True)

    written, dark = collections.Counter(), []
    pictures = [(file, stem) for file, stem in readable if not is_video(file)]
    for file, stem, image in track(_read_ahead(pictures), "predicting", len(pictures)):
        try:
            contents = drawing.contents(image.result())
            dark += [file] * _of_12_bits(file, image.result())
        except UserError as error:
            errors.append(error if str(file) in str(error) else UserError(f"{file}: {error}"))
        else:
            write_together({out / f"{stem}{ending}": data for ending, data in contents.items()})
            written["picture"] += 1
    for file, stem in readable:
        if is_video(file):
            try:
                drawn = write_drawn(file, out / f"{stem}_overlay.mp4", drawing.overlay)
                written["video"] += 1
                if drawn is not None:
                    note = f"the file is cut off; {stem}_overlay.mp4 shows the {drawn} frames in it"
                    errors.append(UserError(f"{file}: {note}"))
            except UserError as error:
                errors.append(error)
    if dark:
        others = f" and {len(dark) - 1} more" * (len(dark) > 1)
        print(
            f"note: {dark[0]}{others}: 16 bits a channel and no value above 4095, which is almost "
            "black; if they are of a camera of 12 bits, multiply them by 16"
        )
    if written:
        print("\n".join(_summary(options, written, predictor.labels, own)), flush=True)
    if errors:
        _raise(errors, count, out)


class Drawing:
    """A model, and what `predict` draws with it.

    Args:
        predictor: the model.
        protocol: how to feed the pictures.
        options: the options of `predict`.

    Raises:
        UserError: the protocol or --confidence does not fit the model, nor --ids its labels.
    """

    def __init__(self, predictor: Predictor, protocol: Protocol, options):
        protocol.check(predictor, options.confidence)
        self.predictor, self.protocol, self.options = predictor, protocol, options
        self.values = _values(predictor.labels, options.ids)

    def contents(self, image) -> dict[str, bytes]:
        """Segment a picture; return ending -> content of each file that the options ask for."""
        labels, confidence = self.predictor.labels, None
        if self.options.confidence:
            classes, confidence = segment_with(self.predictor, image, self.protocol, True)
        else:
            classes = segment_with(self.predictor, image, self.protocol)
        contents = {"_classes.png": visualize.class_png(classes, labels, self.values)}
        if not self.options.no_overlay:
            sheet = visualize.overlay_with_legend(image, classes, labels)
            if self.options.jpeg:
                contents["_overlay.jpg"] = visualize.jpeg(sheet, JPEG_QUALITY)
            else:
                contents["_overlay.png"] = visualize.png(sheet)
        if confidence is not None:
            contents["_confidence.png"] = visualize.png(np.rint(255 * confidence).astype(np.uint8))
        return contents

    def overlay(self, frame) -> np.ndarray:
        """Segment a frame of a video; return its overlay, (H, W, 3) uint8."""
        classes = segment_with(self.predictor, frame, self.protocol)
        return visualize.overlay(frame, classes, self.predictor.labels)


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


def _given(paths, out) -> tuple[list[Path], list[UserError], int]:
    """Return the files to segment, an error for each path that gives none, and what it left out.

    In the folder `out` earlier outputs of the pictures that are there are left out and counted.
    """
    files, errors, own = [], [], 0
    for path in map(Path, paths):
        try:
            found = list_images(path)
        except UserError as error:
            videos = sorted(filter(is_video, path.iterdir())) if path.is_dir() else ()
            text = f"{path}: no pictures in this folder; name its videos, as {(*videos, '')[0]}"
            errors.append(UserError(text) if videos else error)
            continue
        if path.is_dir() and path.resolve() == Path(out).resolve():
            names = {
                name + end for file in found for name in (file.stem, file.name) for end in ENDS
            }
            others = [file for file in found if file.name not in names]
            own += len(found) - len(others)
            found = others
        files += found
    return files, errors, own


def _readable(items) -> tuple[list[tuple[Path, str]], list[UserError]]:
    """Read the beginning of each file; return those that can be read, and the others' errors.

    Args:
        items: (file, stem of what is written of it).
    """
    good, errors = [], []
    for file, stem in track(items, "checking", len(items)):
        try:
            (check_video if is_video(file) else check_picture)(file)
            good.append((file, stem))
        except UserError as error:
            errors.append(error)
    return good, errors


def _read_ahead(pictures) -> Iterator[tuple[Path, str, Future]]:
    """Yield each (file, stem) and its picture to come; the next is read while one is segmented."""
    with ThreadPoolExecutor(1) as thread:
        coming = [thread.submit(read_image, file) for file, _ in pictures[:1]]
        for index, (file, stem) in enumerate(pictures, 1):
            image = coming.pop()
            coming += [thread.submit(read_image, after) for after, _ in pictures[index : index + 1]]
            yield file, stem, image


def _of_12_bits(path, image) -> bool:
    """Return whether a file has 16 bits a channel and values of 12 at most: it is almost black."""
    if not 0 < image.max() <= DARK:
        return False
    with opened_picture(path, path) as opened:
        return is_deep(opened)


def _raise(errors: list[UserError], count: int, out: Path) -> None:
    """Raise the errors of `count` files as one; of several, five lines come first."""
    good = count - len(errors)
    others = f"; the other {good} are in {out}" if good > 1 else f"; the other is in {out}" * good
    if len(errors) == 1:
        raise UserError(f"{errors[0]}{others}") from errors[0]
    for error in errors[:LISTED]:
        print(" ".join(str(error).split()), file=sys.stderr)
    if len(errors) > LISTED:
        print(f"and {len(errors) - LISTED} more", file=sys.stderr)
    raise UserError(f"{len(errors)} of {count} files cannot be segmented{others}")


def _summary(options, written: collections.Counter, labels: LabelSet, own: int) -> list[str]:
    """Return what was written of how many pictures and videos, and what the pixels mean."""
    kinds = ["_classes.png"]
    if not options.no_overlay:
        kinds.append("_overlay.jpg" if options.jpeg else "_overlay.png")
    if options.confidence:
        kinds.append("_confidence.png (255 is probability 1)")
    endings = {"picture": [", ".join(kinds[:-1])] * (len(kinds) > 1) + kinds[-1:]}
    endings["video"] = ["_overlay.mp4"]
    parts = [
        f"{count} {kind}{'s' * (count > 1)}, as {' and '.join(endings[kind])}"
        for kind, count in written.items()
    ]
    lines = [f"{options.out}: {'; '.join(parts)}{_others(options.images, own)}"]
    if written["picture"]:
        meaning = f"0..{len(labels) - 1} in the order of the names"
        if options.ids:
            meaning = "the values that the data set's masks hold"
        elif labels.ids is not None and labels.ids != {n: n for n in range(len(labels))}:
            meaning += "; --ids mask writes the values that the data set's masks hold"
        lines.append(f"pixels of _classes.png are {meaning}")
    return lines


def _others(paths, own: int) -> str:
    """Return how many files of the folders are not read, as the end of a sentence.

    Args:
        own: how many of them are earlier outputs.
    """
    folders = [path for path in map(Path, paths) if path.is_dir()]
    count = sum(map(passed_over, folders))
    files = "1 file that is no picture" if count == 1 else f"{count} files that are no pictures"
    unread = [file.name for folder in folders for file in unread_pictures(folder)]
    if unread:
        files = "1 file" if count == 1 else f"{count} files"
        files += f" that are not read (as {unread[0]}: convert it to JPEG or PNG)"
    left_out = [files] * bool(count) + [f"{own} of an earlier `predict`"] * bool(own)
    return f"; {' and '.join(left_out)} passed over" if left_out else ""
