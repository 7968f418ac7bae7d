"""Generate scenes, streets, seas and rooms, in which context decides the label.

The three kinds share palette, textures and drawings. A hull with a cabin is a car on a road and a
boat on water; a post is a pole on land and a buoy at sea; a slab under a striped cloth is a bed in
a room and a car or boat elsewhere. The lower part is road, water or floor, drawn alike; behind it
is sky or wall, drawn alike. What differs is along and above the horizon, in the upper third:
facades with windows; the sun, islands and sails; pictures and curtains. So the context that
decides a pixel is often half a picture away.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from keras_pspnet import labels, visualize
from keras_pspnet.errors import UserError
from keras_pspnet.files import write_bytes, write_json
from keras_pspnet.images import check_size
from keras_pspnet.scenes import drawings
from keras_pspnet.scenes.drawings import Canvas, post, slab, vehicle

LABELS = labels.SCENES

_THINGS = (drawings.CAR, drawings.POLE, drawings.BOAT, drawings.BUOY, drawings.PILLOW)

_MIN_DEPTH = {vehicle: 0.1, post: 0.2, slab: 0.4}
"""How near to the horizon a thing may stand: 0 is on it, 1 at the lower edge."""

SPLITS = {"train": 0, "val": 1}


def scene(index: int, *, split: str = "train", size: tuple[int, int] = (185, 185)):
    """Draw one scene; the same arguments always give the same scene.

    Args:
        index: 0 or more, without limit; index % 3 is 0 for a street, 1 for a sea, 2 for a room.
        split: "train" or "val": two independent sequences of scenes.
        size: height and width in pixels.

    Returns:
        The picture, (H, W, 3) uint8 RGB, and its mask, (H, W) uint8: class ids of LABELS or 255.

    Raises:
        UserError: an unknown split, an invalid size.
    """
    check_size(size)
    if split not in SPLITS:
        raise UserError(f"scenes: no split {split!r}; expected one of {', '.join(SPLITS)}")
    rng = np.random.default_rng((SPLITS[split], index))
    canvas = (_street, _sea, _room)[index % 3](rng, size)
    if rng.random() < 0.3:
        # The vehicle that carries the camera, at the lower edge: void, as in Cityscapes.
        x, rx = canvas.width * rng.uniform((0.2, 0.15), (0.8, 0.4))
        ry = canvas.height * rng.uniform(0.05, 0.12)
        canvas.disc(x, canvas.height, rx, ry, drawings.random_color(rng), drawings.VOID)
    picture = canvas.picture.filter(ImageFilter.BoxBlur(rng.uniform(0.15, 0.5)))
    grain = rng.standard_normal((*size, 1), np.float32) * rng.uniform(1, 5)
    return drawings.to_bytes(np.asarray(picture) + grain), _void_rim(np.asarray(canvas.mask))


def scenes(count: int, *, split: str = "train", size: tuple[int, int] = (185, 185)):
    """Return the first `count` scenes of a split: images (N, H, W, 3), masks (N, H, W), uint8."""
    images = np.empty((count, *size, 3), np.uint8)
    masks = np.empty((count, *size), np.uint8)
    for index in range(count):
        images[index], masks[index] = scene(index, split=split, size=size)
    return images, masks


def write_folder(path, *, train: int, val: int, size: tuple[int, int] = (240, 320)) -> None:
    """Write scenes as a dataset in the `folder` layout, with its labels.json.

    Args:
        path: the folder; files of the same names are replaced.
        train, val: number of scenes of each split.
        size: height and width in pixels.

    Raises:
        UserError: an invalid size, or a file that cannot be written.
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
    canvas = Canvas(rng, size, drawings.SKY, drawings.ROAD)
    drawings.skyline(canvas)
    _traffic(canvas, drawings.CAR, drawings.POLE)
    return canvas


def _sea(rng, size) -> Canvas:
    canvas = Canvas(rng, size, drawings.SKY, drawings.WATER)
    drawings.seascape(canvas)
    _traffic(canvas, drawings.BOAT, drawings.BUOY)
    return canvas


def _room(rng, size) -> Canvas:
    canvas = Canvas(rng, size, drawings.WALL, drawings.FLOOR)
    drawings.decoration(canvas)
    beds = [(slab, drawings.BED)] * rng.integers(1, 3)
    _things(canvas, beds + [(post, drawings.POLE)] * rng.integers(0, 3))
    return canvas


def _traffic(canvas, moving, fixed):
    """Draw vehicles, slabs and posts: the same at sea and in the street but for the labels."""
    vehicles, posts = canvas.rng.integers((2, 1), (5, 5))
    slabs = int(canvas.rng.random() < 0.25)
    things = [(slab, moving)] * slabs + [(vehicle, moving)] * vehicles + [(post, fixed)] * posts
    _things(canvas, things)


def _things(canvas, things):
    """Draw (function, label) pairs on the surface: far ones first and small, near ones large."""
    depths = np.sort(canvas.rng.uniform(0.1, 0.95, len(things)))
    for depth, number in zip(depths, canvas.rng.permutation(len(things))):
        draw, label = things[number]
        depth = max(depth, _MIN_DEPTH[draw])
        x = canvas.rng.uniform(0.05, 0.95) * canvas.width
        y = canvas.horizon + depth * (canvas.height - canvas.horizon)
        length = canvas.unit * (0.1 + 0.38 * depth) * canvas.rng.uniform(0.85, 1.2)
        draw(canvas, x, y, length, label)


def _void_rim(mask) -> np.ndarray:
    """Make the pixels just outside a thing void, as annotators do."""
    thing = np.isin(mask, _THINGS).astype(np.uint8)
    near = Image.fromarray(thing).filter(ImageFilter.MaxFilter(3))
    return np.where(np.asarray(near) > thing, np.uint8(drawings.VOID), mask)
