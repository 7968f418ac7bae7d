"""The generated scenes: streets, seas and rooms in which only the whole picture tells what is what.

The three worlds share palette, textures and drawings. A hull with a cabin is a car on a road and a
boat on water; a post is a pole on land and a buoy at sea; a slab under a striped cloth is a bed in
a room and a load elsewhere. The surface in the lower part is road, water or floor, the backdrop sky
or wall, of the same make. What tells the worlds apart stands along and above the horizon, in the
upper third: facades with windows; the sun, islands and sails; pictures and curtains. So the cue is
often half a picture away from the pixel that needs it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from keras_pspnet import labels, visualize
from keras_pspnet.errors import UserError
from keras_pspnet.files import write_bytes, write_json
from keras_pspnet.images import check_size
from keras_pspnet.scenes.drawings import (
    BED,
    BOAT,
    BUOY,
    CAR,
    FLOOR,
    PILLOW,
    POLE,
    ROAD,
    SKY,
    VOID,
    WALL,
    WATER,
    Canvas,
    decoration,
    post,
    random_color,
    seascape,
    skyline,
    slab,
    to_bytes,
    vehicle,
)

LABELS = labels.SCENES

_IS_THING = np.isin(np.arange(256), (CAR, POLE, BOAT, BUOY, PILLOW)).astype(np.uint8)

NEAREST_TO_HORIZON = {vehicle: 0.1, post: 0.2, slab: 0.4}

SPLITS = {"train": 0, "val": 1}


def scene(index: int, *, split: str = "train", size: tuple[int, int] = (185, 185)):
    """One scene, the same each time for the same arguments; every third index is the same world.

    Args:
        index: 0 or more; there is no last one.
        split: "train" or "val": two streams of scenes that have nothing in common.
        size: height and width in pixels.

    Returns:
        The picture, (H, W, 3) uint8 RGB, and its mask, (H, W) uint8: class ids of LABELS or 255.

    Raises:
        UserError: no such split, no size.
    """
    check_size(size)
    if split not in SPLITS:
        raise UserError(f"scenes: no split {split!r}; expected one of {', '.join(SPLITS)}")
    rng = np.random.default_rng((SPLITS[split], index))
    canvas = (_street, _sea, _room)[index % 3](rng, size)
    if rng.random() < 0.3:
        # What carries the camera, at the lower edge: it belongs to no class.
        x, rx = canvas.width * rng.uniform((0.2, 0.15), (0.8, 0.4))
        canvas.disc(
            x, canvas.height, rx, canvas.height * rng.uniform(0.05, 0.12), random_color(rng), VOID
        )
    picture = canvas.picture.filter(ImageFilter.BoxBlur(rng.uniform(0.15, 0.5)))
    grain = rng.standard_normal((*size, 1), np.float32) * rng.uniform(1, 5)
    return to_bytes(np.asarray(picture) + grain), _void_rim(np.asarray(canvas.mask))


def scenes(count: int, *, split: str = "train", size: tuple[int, int] = (185, 185)):
    """The first `count` scenes of a split: images (N, H, W, 3) and masks (N, H, W), uint8."""
    images = np.empty((count, *size, 3), np.uint8)
    masks = np.empty((count, *size), np.uint8)
    for index in range(count):
        images[index], masks[index] = scene(index, split=split, size=size)
    return images, masks


def write_folder(path, *, train: int, val: int, size: tuple[int, int] = (240, 320)) -> None:
    """Scenes as a dataset on disk, in the `folder` layout with its labels.json.

    Args:
        path: the folder; what it holds of the same names is replaced.
        train, val: how many of each split.
        size: height and width in pixels.
    """
    path = Path(path)
    for split, count in {"train": train, "val": val}.items():
        for index in range(count):
            image, mask = scene(index, split=split, size=size)
            name = f"{split}_{index:04d}.png"
            visualize.save_png(path / "images" / split / name, image)
            write_bytes(path / "masks" / split / name, visualize.class_png(mask, LABELS))
    write_json(path / "labels.json", LABELS.to_config())


def _street(rng, size) -> Canvas:
    canvas = Canvas(rng, size, SKY, ROAD)
    skyline(canvas)
    _traffic(canvas, CAR, POLE)
    return canvas


def _sea(rng, size) -> Canvas:
    canvas = Canvas(rng, size, SKY, WATER)
    seascape(canvas)
    _traffic(canvas, BOAT, BUOY)
    return canvas


def _room(rng, size) -> Canvas:
    canvas = Canvas(rng, size, WALL, FLOOR)
    decoration(canvas)
    _things(canvas, [(slab, BED)] * rng.integers(1, 3) + [(post, POLE)] * rng.integers(0, 3))
    return canvas


def _traffic(canvas, moving, fixed):
    """What drives and floats alike, at sea and in the street; only the labels differ."""
    vehicles, posts = canvas.rng.integers((2, 1), (5, 5))
    slabs = int(canvas.rng.random() < 0.25)
    drawings = [(slab, moving)] * slabs + [(vehicle, moving)] * vehicles
    _things(canvas, drawings + [(post, fixed)] * posts)


def _things(canvas, drawings):
    """Puts the things on the surface, the far ones first and small, the near ones large."""
    depths = np.sort(canvas.rng.uniform(0.1, 0.95, len(drawings)))
    for depth, number in zip(depths, canvas.rng.permutation(len(drawings))):
        draw, label = drawings[number]
        depth = max(depth, NEAREST_TO_HORIZON[draw])
        x = canvas.rng.uniform(0.05, 0.95) * canvas.width
        y = canvas.horizon + depth * (canvas.height - canvas.horizon)
        length = canvas.unit * (0.1 + 0.38 * depth) * canvas.rng.uniform(0.85, 1.2)
        draw(canvas, x, y, length, label)


def _void_rim(mask) -> np.ndarray:
    """Makes the pixels just outside a thing void, as annotators do."""
    thing = _IS_THING[mask]
    near = Image.fromarray(thing).filter(ImageFilter.MaxFilter(3))
    return np.where(np.asarray(near) > thing, np.uint8(VOID), mask)
