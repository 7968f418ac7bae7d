"""The generated scenes: streets, seas and rooms in which only the whole picture tells what is what.

The three worlds share palette, textures and drawings. A hull with a cabin is a car on a road and a
boat on water; a post is a pole on land and a buoy at sea; a slab under a striped cloth is a bed in
a room and a load elsewhere. The surface in the lower part is road, water or floor, the backdrop sky
or wall, of the same make. What tells the worlds apart stands along and above the horizon, in the
upper third: facades with windows; the sun, islands and sails; pictures and curtains. So the cue is
often half a picture away from the pixel that needs it.
"""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from keras_pspnet import labels
from keras_pspnet.files import UserError

LABELS = labels.SCENES
VOID = LABELS.ignore
SKY, BUILDING, ROAD, CAR, POLE, WATER, BOAT, BUOY, WALL, FLOOR, BED, PILLOW = range(len(LABELS))
_IS_THING = np.isin(np.arange(256), (CAR, POLE, BOAT, BUOY, PILLOW)).astype(np.uint8)
SHADOW = (36, 36, 41)
SPLITS = {"train": 0, "val": 1}


class _Canvas:
    """A picture and its mask, painted together; lengths in pixels, `unit` is the shorter side."""

    def __init__(self, rng, size, backdrop, surface):
        self.rng = rng
        self.height, self.width = size
        self.unit = min(size)
        self.horizon = rng.uniform(0.25, 0.38) * self.height
        self.picture = Image.fromarray(_ground(rng, size, round(self.horizon)))
        mask = np.full(size, backdrop, np.uint8)
        mask[round(self.horizon) :] = surface
        self.mask = Image.fromarray(mask)
        self._drawings = ImageDraw.Draw(self.picture), ImageDraw.Draw(self.mask)

    def _fill(self, shape, points, color, label):
        for drawing, fill in zip(self._drawings, (color, label)):
            if fill is not None:
                getattr(drawing, shape)(points, fill=fill)

    def polygon(self, points, color, label=None):
        """A filled polygon of (x, y) points; without a label the mask stays as it is."""
        self._fill("polygon", [(float(x), float(y)) for x, y in points], color, label)

    def box(self, left, top, right, bottom, color, label=None):
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], color, label)

    def disc(self, x, y, rx, ry, color, label=None):
        self._fill("ellipse", (x - rx, y - ry, x + rx, y + ry), color, label)


def scene(index: int, *, split: str = "train", size: tuple[int, int] = (185, 185)):
    """One scene, the same each time for the same arguments; every third index is the same world.

    Args:
        index: 0 or more; there is no last one.
        split: "train" or "val": two streams of scenes that have nothing in common.
        size: height and width in pixels.

    Returns:
        The picture, (H, W, 3) uint8 RGB, and its mask, (H, W) uint8: class ids of LABELS or 255.

    Raises:
        UserError: no such split.
    """
    if split not in SPLITS:
        raise UserError(f"scenes: no split {split!r}; expected one of {', '.join(SPLITS)}")
    rng = np.random.default_rng((SPLITS[split], index))
    canvas = (_street, _sea, _room)[index % 3](rng, size)
    if rng.random() < 0.3:
        # What carries the camera, at the lower edge: it belongs to no class.
        x, rx = canvas.width * rng.uniform((0.2, 0.15), (0.8, 0.4))
        canvas.disc(
            x, canvas.height, rx, canvas.height * rng.uniform(0.05, 0.12), _color(rng), VOID
        )
    picture = canvas.picture.filter(ImageFilter.BoxBlur(rng.uniform(0.15, 0.5)))
    grain = rng.standard_normal((*size, 1), np.float32) * rng.uniform(1, 5)
    return _to_bytes(np.asarray(picture) + grain), _void_rim(np.asarray(canvas.mask))


def scenes(count: int, *, split: str = "train", size: tuple[int, int] = (185, 185)):
    """The first `count` scenes of a split: images (N, H, W, 3) and masks (N, H, W), uint8."""
    images = np.empty((count, *size, 3), np.uint8)
    masks = np.empty((count, *size), np.uint8)
    for index in range(count):
        images[index], masks[index] = scene(index, split=split, size=size)
    return images, masks


# ---- The three worlds: a backdrop of their own, then the things they share, from far to near.


def _street(rng, size) -> _Canvas:
    canvas = _Canvas(rng, size, SKY, ROAD)
    _skyline(canvas)
    _traffic(canvas, CAR, POLE)
    return canvas


def _sea(rng, size) -> _Canvas:
    canvas = _Canvas(rng, size, SKY, WATER)
    _seascape(canvas)
    _traffic(canvas, BOAT, BUOY)
    return canvas


def _room(rng, size) -> _Canvas:
    canvas = _Canvas(rng, size, WALL, FLOOR)
    _decoration(canvas)
    _things(canvas, [(_slab, BED)] * rng.integers(1, 3) + [(_post, POLE)] * rng.integers(0, 3))
    return canvas


def _traffic(canvas, moving, fixed):
    """What drives and floats alike, at sea and in the street; only the labels differ."""
    vehicles, posts = canvas.rng.integers((2, 1), (5, 5))
    slabs = int(canvas.rng.random() < 0.25)
    drawings = [(_slab, moving)] * slabs + [(_vehicle, moving)] * vehicles
    _things(canvas, drawings + [(_post, fixed)] * posts)


def _things(canvas, drawings):
    """Puts the things on the surface, the far ones first and small, the near ones large."""
    depths = np.sort(canvas.rng.uniform(0.1, 0.95, len(drawings)))
    for depth, number in zip(depths, canvas.rng.permutation(len(drawings))):
        draw, label = drawings[number]
        depth = max(depth, _NEAREST_TO_HORIZON[draw])
        x = canvas.rng.uniform(0.05, 0.95) * canvas.width
        y = canvas.horizon + depth * (canvas.height - canvas.horizon)
        length = canvas.unit * (0.1 + 0.38 * depth) * canvas.rng.uniform(0.85, 1.2)
        draw(canvas, x, y, length, label)


# ---- What the worlds share.


def _color(rng, value=(0.35, 0.95), saturation=(0.1, 0.7)) -> tuple[int, int, int]:
    """A random RGB colour of any hue."""
    rgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return tuple(int(255 * v) for v in rgb)


def _shade(color, factor) -> tuple[int, int, int]:
    return tuple(min(255, int(v * factor)) for v in color)


def _ground(rng, size, first) -> np.ndarray:
    """Backdrop above row `first`, surface in perspective below: (H, W, 3) uint8."""
    height, width = size
    backdrop = np.array(_color(rng, (0.5, 0.95), (0.03, 0.3)), np.float32)
    surface = np.array(_color(rng, (0.3, 0.8), (0.03, 0.3)), np.float32)

    # Clouds over the sea, light through a window on the wall: soft blotches, stretched sideways.
    above = _ramp(rng.uniform(0.75, 1.1), rng.uniform(0.9, 1.15), first)
    above = above + rng.uniform(0.02, 0.1) * _noise(rng, (4, 4), (first, width))

    # Rows of one noise plane, closer together the nearer they are to the horizon: swell, asphalt
    # patches, boards. The fine plane adds what glitters.
    depth = _ramp(0, 1, height - first)
    rows = (31 * np.log1p(12 * depth[:, 0]) / np.log(13)).astype(int)
    below = _ramp(rng.uniform(0.9, 1.2), rng.uniform(0.7, 1.0), height - first)
    below = below + rng.uniform(0.05, 0.12) * _noise(rng, (32, 7), (32, width))[rows]
    fine = _noise(rng, ((height - first) // 2, width // 6), (height - first, width))
    below += rng.uniform(0.03, 0.1) * fine

    # Lane marks, the glitter under the sun, a lamp on polished boards: one bright broken path.
    centre = rng.uniform(0.1, 0.9) + rng.uniform(-0.5, 0.5) * depth
    reach = 0.01 + rng.uniform(0.02, 0.08) * depth
    beside = (np.linspace(0, 1, width, dtype=np.float32) - centre) / reach
    dashes = np.sin(rng.uniform(8, 20) * np.log(depth + 0.1) + rng.uniform(0, 6)) > 0
    below += rng.uniform(0.1, 0.5) * np.exp(-(beside**2)) * dashes

    return _to_bytes(np.concatenate([above[..., None] * backdrop, below[..., None] * surface]))


def _ramp(start, stop, rows) -> np.ndarray:
    return np.linspace(start, stop, rows, dtype=np.float32)[:, None]


def _to_bytes(values) -> np.ndarray:
    return np.clip(values, 0, 255, out=values).astype(np.uint8)


def _noise(rng, cells, size) -> np.ndarray:
    """Smooth noise (H, W), about -2..2, with so many cells down and across."""
    plane = Image.fromarray(rng.standard_normal(cells, np.float32))
    return np.asarray(plane.resize(size[::-1], Image.Resampling.BICUBIC))


def _vehicle(canvas, x, y, length, label):
    """A hull with a cabin, windows and two dark rounds: wheels on land, fenders at sea."""
    rng = canvas.rng
    way = rng.choice([-1, 1])
    body, cabin, pane = _color(rng), _color(rng), _color(rng, (0.1, 0.9), (0.0, 0.4))
    half = length / 2
    hull, roof = length * rng.uniform(0.17, 0.26, 2)
    bow, stern = half - length * rng.uniform(0.04, 0.16), -half + length * rng.uniform(0.0, 0.06)
    front, back, slant = half * rng.uniform(0.3, 0.5), -half * rng.uniform(0.55, 0.8), roof * 0.5

    def shape(color, label, *corners):
        canvas.polygon([(x + way * along, y - up) for along, up in corners], color, label)

    canvas.disc(x, y, half * 0.95, hull * 0.22, SHADOW)
    low, high = hull + roof * 0.2, hull + roof * 0.75
    top = (back + slant * 0.4, hull + roof), (front - slant, hull + roof)
    shape(cabin, label, (back, hull), *top, (front, hull))
    edges = np.linspace(back + slant * 0.5, front - slant * 0.9, rng.integers(3, 5))
    for left, right in zip(edges, edges[1:] - 0.12 * (edges[1] - edges[0])):
        shape(pane, None, (left, low), (left, high), (right, high), (right, low))
    shape(body, label, (-half, hull), (half, hull), (bow, 0), (stern, 0))
    keel = (bow, 0), (stern, 0), (stern * 0.96, hull * 0.35)
    shape(_shade(body, 0.7), None, *keel, (bow + (half - bow) * 0.35, hull * 0.35))
    for along in (-half * 0.55, half * 0.5):
        across = x + way * along, y - hull * 0.24
        canvas.disc(*across, hull * 0.34, hull * 0.34, SHADOW, label)
        canvas.disc(*across, hull * 0.15, hull * 0.15, _shade(cabin, 0.9))


def _post(canvas, x, y, length, label):
    """A stem with a round top: a lamp or a bollard on land, a mark or a buoy at sea."""
    color = _color(canvas.rng, (0.2, 0.95))
    half = 0.009 * canvas.unit + 0.02 * length
    top, radius = y - length * canvas.rng.uniform(0.25, 1.3), half * canvas.rng.uniform(2.0, 3.0)
    canvas.disc(x, y, half * 3, half, SHADOW)
    canvas.box(x - half, top, x + half, y, color, label)
    canvas.box(x, top, x + half, y, _shade(color, 0.7))
    canvas.disc(x, top, radius, radius, color, label)
    canvas.disc(x - radius / 3, top - radius / 3, radius * 0.4, radius * 0.4, _shade(color, 1.3))


def _slab(canvas, x, y, length, label):
    """A slab under a striped cloth, a board at its far end; beds may have pillows of it."""
    rng = canvas.rng
    cloth, board = _color(rng, (0.5, 0.95)), _color(rng)
    half = length * 0.75
    deep, high = length * rng.uniform((0.5, 0.15), (0.8, 0.25))
    lean, rise = rng.uniform(-0.3, 0.3) * deep, length * rng.uniform(0.15, 0.3)

    def patch(left, right, near=0.0, far=1.0, corner=0.0):
        """Part of the upper side: across -1..1, away 0 (near) .. 1 (far), corners cut if asked."""
        a, b = corner * (right - left), corner * (far - near)
        corners = [(left, near + b), (left + a, near), (right - a, near), (right, near + b)]
        corners += [(right, far - b), (right - a, far), (left + a, far), (left, far - b)]
        return [(x + u * half * (1 - 0.22 * v) + lean * v, y - high - deep * v) for u, v in corners]

    edges = np.linspace(-1, 1, 2 * rng.integers(3, 7) + 1)
    stripe, stripes = _shade(cloth, rng.uniform(0.75, 0.9)), list(zip(edges[::2], edges[1::2]))
    canvas.disc(x, y, half * 1.05, high * 0.3, SHADOW)
    left, far, right = x - half * 0.82 + lean, y - high - deep, x + half * 0.82 + lean
    canvas.box(left, far - rise, right, far, board, label)
    canvas.polygon(patch(-1, 1), cloth, label)
    canvas.box(x - half, y - high, x + half, y, _shade(cloth, 0.75), label)
    for start, end in stripes:
        canvas.polygon(patch(start, end), stripe)
    for middle, reach in _PILLOWS[rng.integers(len(_PILLOWS))] if label == BED else ():
        # The same cloth with the same stripes: only the fold around a pillow gives it away.
        left, right = middle - reach, middle + reach
        fold = patch(left - 0.12 * reach, right + 0.12 * reach, 0.45, 0.95, 0.1)
        canvas.polygon(fold, _shade(cloth, 0.45))
        canvas.polygon(patch(left, right, 0.48, 0.92, 0.1), cloth, PILLOW)
        for start, end in np.clip(stripes, left + 0.02, right - 0.02):
            canvas.polygon(patch(start, end, 0.52, 0.88), stripe)


_NEAREST_TO_HORIZON = {_vehicle: 0.1, _post: 0.2, _slab: 0.4}
_PILLOWS = ((), ((0, 0.45),), ((-0.5, 0.42), (0.5, 0.42)), ((-0.66, 0.28), (0, 0.28), (0.66, 0.28)))
"""Sets of pillows: the middle and half width of each, in half widths of the bed."""


def _void_rim(mask) -> np.ndarray:
    """Makes the pixels just outside a thing void, as annotators do."""
    thing = _IS_THING[mask]
    near = Image.fromarray(thing).filter(ImageFilter.MaxFilter(3))
    return np.where(np.asarray(near) > thing, np.uint8(VOID), mask)


# ---- What tells them apart: only here, along and above the horizon.


def _skyline(canvas):
    """Facades with rows of windows, side by side, with gaps."""
    rng = canvas.rng
    base = canvas.horizon + 1
    x = -rng.uniform(0, 0.1) * canvas.width
    while x < canvas.width:
        wide = rng.uniform(0.1, 0.22) * canvas.unit
        top = base - rng.uniform(0.12, 0.3) * canvas.unit
        if rng.random() < 0.8:
            color = _color(rng)
            canvas.box(x, top, x + wide, base, color, BUILDING)
            canvas.box(x + wide * 0.85, top, x + wide, base, _shade(color, 0.75))
            pane = _color(rng, (0.1, 0.95), (0.0, 0.4))
            pitch = rng.uniform(0.035, 0.05) * canvas.unit
            for row in np.arange(top + pitch * 0.5, base - pitch * 0.7, pitch):
                for left in np.arange(x + pitch * 0.4, x + wide * 0.85 - pitch * 0.5, pitch):
                    canvas.box(left, row, left + pitch * 0.45, row + pitch * 0.5, pane)
        x += wide


def _seascape(canvas):
    """The sun or the moon, islands (of no class) and far sails on a free horizon."""
    rng, unit, base = canvas.rng, canvas.unit, canvas.horizon
    x, radius = canvas.width * rng.uniform(0.1, 0.9), unit * rng.uniform(0.03, 0.06)
    y = base - unit * rng.uniform(0.1, 0.18)
    canvas.disc(x, y, radius, radius, _color(rng, (0.95, 1.0), (0.0, 0.3)))
    angles = np.linspace(0, np.pi, 13)
    for x in canvas.width * rng.random(rng.integers(1, 4)):
        wide, tall = unit * rng.uniform(0.08, 0.2), unit * rng.uniform(0.02, 0.06)
        hill = zip(x + wide * np.cos(angles), base - tall * np.sin(angles))
        canvas.polygon(hill, _color(rng, (0.25, 0.6), (0.05, 0.4)), VOID)
    for x in canvas.width * rng.random(rng.integers(2, 5)):
        tall, white = unit * rng.uniform(0.05, 0.09), _color(rng, (0.7, 1.0), (0.0, 0.3))
        sail = [(x, base - tall), (x + tall * 0.6, base), (x - tall * 0.4, base)]
        canvas.polygon(sail, white, BOAT)


def _decoration(canvas):
    """A skirting board, framed pictures and curtains: all of it wall."""
    rng, unit, base = canvas.rng, canvas.unit, canvas.horizon
    skirting = _color(rng, (0.5, 0.95), (0.0, 0.3))
    canvas.box(0, base - unit * 0.018, canvas.width, base - 1, skirting)
    for third in range(3):
        x = (third + rng.uniform(0.2, 0.8)) / 3 * canvas.width
        y = base - unit * rng.uniform(0.11, 0.16)
        wide, tall = unit * rng.uniform(0.05, 0.1), unit * rng.uniform(0.04, 0.07)
        frame, far, near = _color(rng, (0.1, 0.9)), _color(rng), _color(rng)
        if third == 1 or rng.random() < 0.7:
            canvas.box(x - wide, y - tall, x + wide, y + tall, frame)
            wide, tall = wide - 0.015 * unit, tall - 0.015 * unit
            canvas.box(x - wide, y - tall, x + wide, y, far)
            canvas.box(x - wide, y, x + wide, y + tall, near)
    cloth, fold = _color(rng), unit * 0.03
    for side in (0, canvas.width) if rng.random() < 0.7 else ():
        for number in range(-2, 2):
            left, color = side + number * fold, _shade(cloth, 0.75 if number % 2 else 1.0)
            canvas.box(left, 0, left + fold, base - unit * 0.02, color)
