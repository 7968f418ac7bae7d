"""Read the pictures of an export, and refuse those that no file can be calibrated on."""

import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from keras_pspnet import scenes
from keras_pspnet.errors import UserError
from keras_pspnet.export.formats import CALIBRATED, COMPARED_PICTURES
from keras_pspnet.files import evenly_spaced, is_picture, list_images
from keras_pspnet.images import as_picture

SCENES = "scenes"
"""The word that asks for generated scenes; a folder of this name is given as ./scenes."""

DEFAULT_SCENES = 8

MASKS = ("mask", "annotation", "label", "segmentation", "gt")
"""How folders of masks are called."""

BLACK = 3
"""Pictures without a higher value are black."""


def check_calibration(formats, calibration, why="") -> None:
    """Check that formats that need calibration pictures have some.

    Args:
        formats: names of formats.
        calibration: see `export_model`.
        why: what else is missing, for the message, as "no training data".

    Raises:
        UserError: int8 or int16 without pictures.
    """
    needed = [name for name in CALIBRATED if name in formats]
    if calibration is None and needed:
        need = f"{needed[0]} needs" if len(needed) == 1 else f"{' and '.join(needed)} need"
        missing = f", and there is {why}" if why else ""
        raise UserError(
            f"{need} calibration pictures{missing}: give calibration=FOLDER or a list (command "
            "line: --calibration DIR), or calibration='scenes' for generated ones (--calibration "
            "scenes)"
        )


def pictures_of(folder) -> list[Path]:
    """List the pictures of a calibration folder.

    Raises:
        UserError: no such folder, or no pictures in it; where there are some in folders below, as
            in a data set, the message says which folder to give.
    """
    try:
        return list_images(folder)
    except UserError as error:
        if (below := _pictures_below(Path(folder))) is None:
            raise
        raise UserError(
            f"{folder}: no pictures in this folder, but below it; as calibration give a folder of "
            f"pictures, such as {below}"
        ) from error


def _pictures_below(folder: Path) -> Path | None:
    """Return the folder that most likely holds a data set's pictures to train on."""
    found = []
    for depth in range(1, 4):
        for place in sorted(folder.glob("*/" * depth)):
            names = [part.lower() for part in place.relative_to(folder).parts]
            if any(part.startswith((".", *MASKS)) or part.endswith("annot") for part in names):
                continue
            if any(is_picture(file) for file in place.iterdir()):
                found.append(("train" not in names, depth, place))
    return min(found)[-1] if found else None


def read_pictures(calibration, size, source: str, say: Callable) -> tuple[list[tuple], str]:
    """Read the pictures on which files are calibrated and compared.

    Args:
        calibration: see `export_model`.
        size: (H, W) of the network, for generated scenes.
        source: what the pictures are, as "given pictures".
        say: called with a warning, a line of text, if some of the pictures show nothing.

    Returns:
        (name, image uint8 (H, W, 3), mask or None) of each, without masks of at most
        `COMPARED_PICTURES`; and `source` with their number.

    Raises:
        UserError: no pictures, a picture that cannot be read, an array that `as_picture` refuses,
            pictures that all show nothing.
    """
    if calibration is None or (isinstance(calibration, str) and calibration == SCENES):
        drawn = tuple(max(side, 65) for side in size)
        pictures = [scenes.scene(i, split="val", size=drawn)[0] for i in range(DEFAULT_SCENES)]
        source = "generated scenes"
    elif isinstance(calibration, (str, Path)):
        pictures = pictures_of(calibration)
    else:
        pictures = list(calibration)
    if not pictures:
        raise UserError("no pictures to compare on; give at least one, or leave them out")
    pairs = [item if isinstance(item, (tuple, list)) else (item, None) for item in pictures]
    source = f"{len(pairs)} {source}"
    chosen = list(enumerate(pairs))
    if len(pairs) > COMPARED_PICTURES and any(mask is None for _, mask in pairs):
        chosen = evenly_spaced(chosen, COMPARED_PICTURES)
        source = f"{COMPARED_PICTURES} of {source}"
    read, numbers = [], []
    for number, (given, mask) in chosen:
        is_path = isinstance(given, (str, os.PathLike))
        name = str(given) if is_path else f"picture {number}"
        image = as_picture(given, f"calibration: {name}")
        read.append((name, image, mask))
        numbers.append((name, image if is_path else given))  # before it is rounded to uint8
    faults = check_pictures(numbers)
    if faults:
        few = f"{len(faults)} of {len(read)}"
        say(f"WARNING: {few} calibration pictures show nothing: {shortened(faults)}")
    return read, source


def check_pictures(pictures: Iterable[tuple[str, np.ndarray]]) -> list[str]:
    """Check that calibration pictures show something.

    Black pictures and those of one colour give int8 ranges that are too narrow for real pictures,
    and a comparison on the same pictures does not show it.

    Args:
        pictures: the name and the numbers, (H, W, 3), of each.

    Returns:
        What is wrong with single ones, as "picture 3 is one colour (0 0 0)".

    Raises:
        UserError: all are of one colour or black, as pictures in 0..1 are.
    """
    checked = [_fault(name, picture) for name, picture in pictures]
    faults = [fault for fault in checked if fault]
    if faults and len(faults) == len(checked):
        others = {1: "", 2: ", and the other is no better"}.get(
            len(faults), f", and the other {len(faults) - 1} are no better"
        )
        raise UserError(
            f"calibration: {faults[0]}{others}; expected pictures as the device will see them, RGB "
            "in 0..255"
        )
    return faults


def _fault(name, picture) -> str | None:
    flat = np.asarray(picture).reshape(-1, 3)
    low, high = flat.min(0), flat.max(0)
    if (low == high).all():
        return f"{name} is one colour ({' '.join(f'{value:.3g}' for value in low)})"
    if high.max() <= BLACK:
        return f"{name} has values in {math.floor(low.min())}..{math.ceil(high.max())}"
    return None


def shortened(items: list[str], most=5) -> str:
    """Join the first items of a list by commas, and count the others."""
    more = len(items) - most
    return ", ".join(items[:most]) + (f" and {more} more" if more > 0 else "")
