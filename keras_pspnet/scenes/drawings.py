"""Draw the generated scenes: a canvas, its background, and the things on it."""

import colorsys

import numpy as np
from PIL import Image, ImageDraw

from keras_pspnet.labels import SCENES

SKY, BUILDING, ROAD, CAR, POLE, WATER, BOAT, BUOY, WALL, FLOOR, BED, PILLOW = range(len(SCENES))

VOID = SCENES.ignore

SHADOW = (36, 36, 41)

_PILLOWS = ((), ((0, 0.45),), ((-0.5, 0.42), (0.5, 0.42)), ((-0.66, 0.28), (0, 0.28), (0.66, 0.28)))
"""Arrangements of pillows: (centre, half width) of each, in half widths of the bed."""


class Canvas:
    """A picture and its mask, drawn together; lengths in pixels, `unit` is the shorter side."""

    def __init__(self, rng, size, backdrop, surface):
        self.rng = rng
        self.height, self.width = size
        self.unit = min(size)
        self.horizon = rng.uniform(0.25, 0.38) * self.height
        self.picture = Image.fromarray(ground(rng, size, round(self.horizon)))
        mask = np.full(size, backdrop, np.uint8)
        mask[round(self.horizon) :] = surface
        self.mask = Image.fromarray(mask)
        self._drawings = ImageDraw.Draw(self.picture), ImageDraw.Draw(self.mask)

    def _fill(self, shape, points, color, label):
        for drawing, fill in zip(self._drawings, (color, label)):
            if fill is not None:
                getattr(drawing, shape)(points, fill=fill)

    def polygon(self, points, color, label=None):
        """Fill a polygon of (x, y) points; without a label the mask stays as it is."""
        self._fill("polygon", [(float(x), float(y)) for x, y in points], color, label)

    def box(self, left, top, right, bottom, color, label=None):
        """Fill a rectangle."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], color, label)

    def disc(self, x, y, rx, ry, color, label=None):
        """Fill an ellipse around (x, y)."""
        self._fill("ellipse", (x - rx, y - ry, x + rx, y + ry), color, label)


def random_color(rng, value=(0.35, 0.95), saturation=(0.1, 0.7)) -> tuple[int, int, int]:
    """Return a random RGB colour of any hue, 0..255; `value` and `saturation` are HSV ranges."""
    rgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return tuple(int(255 * v) for v in rgb)


def shaded(color, factor) -> tuple[int, int, int]:
    """Multiply a colour by a factor, up to 255."""
    return tuple(min(255, int(v * factor)) for v in color)


def ground(rng, size, first) -> np.ndarray:
    """Paint backdrop above row `first` and surface in perspective below, (H, W, 3) uint8."""
    height, width = size
    backdrop = np.array(random_color(rng, (0.5, 0.95), (0.03, 0.3)), np.float32)
    surface = np.array(random_color(rng, (0.3, 0.8), (0.03, 0.3)), np.float32)

    # Soft blotches, stretched sideways: clouds in the sky, light from a window on the wall.
    above = _ramp(rng.uniform(0.75, 1.1), rng.uniform(0.9, 1.15), first)
    above = above + rng.uniform(0.02, 0.1) * _noise(rng, (4, 4), (first, width))

    # Rows of a noise plane, closer together towards the horizon: swell, asphalt patches, boards.
    # The fine plane adds grain.
    depth = _ramp(0, 1, height - first)
    rows = (31 * np.log1p(12 * depth[:, 0]) / np.log(13)).astype(int)
    below = _ramp(rng.uniform(0.9, 1.2), rng.uniform(0.7, 1.0), height - first)
    below = below + rng.uniform(0.05, 0.12) * _noise(rng, (32, 7), (32, width))[rows]
    fine = _noise(rng, ((height - first) // 2, width // 6), (height - first, width))
    below += rng.uniform(0.03, 0.1) * fine

    # One bright broken path: lane marks, the sun's reflection, a lamp on polished boards.
    centre = rng.uniform(0.1, 0.9) + rng.uniform(-0.5, 0.5) * depth
    reach = 0.01 + rng.uniform(0.02, 0.08) * depth
    beside = (np.linspace(0, 1, width, dtype=np.float32) - centre) / reach
    dashes = np.sin(rng.uniform(8, 20) * np.log(depth + 0.1) + rng.uniform(0, 6)) > 0
    below += rng.uniform(0.1, 0.5) * np.exp(-(beside**2)) * dashes

    return to_bytes(np.concatenate([above[..., None] * backdrop, below[..., None] * surface]))


def _ramp(start, stop, rows) -> np.ndarray:
    """Return values from start to stop as a column, (rows, 1) float32."""
    return np.linspace(start, stop, rows, dtype=np.float32)[:, None]


def to_bytes(values) -> np.ndarray:
    """Clip floats to 0..255, in place, and return them as uint8."""
    return np.clip(values, 0, 255, out=values).astype(np.uint8)


def _noise(rng, cells, size) -> np.ndarray:
    """Return smooth noise (H, W), about -2..2, with `cells` (rows, columns) of random values."""
    plane = Image.fromarray(rng.standard_normal(cells, np.float32))
    return np.asarray(plane.resize(size[::-1], Image.Resampling.BICUBIC))


def vehicle(canvas, x, y, length, label):
    """Draw a hull with a cabin, windows and two dark discs: wheels on land, fenders at sea."""
    rng = canvas.rng
    way = rng.choice([-1, 1])
    body, cabin, pane = (
        random_color(rng),
        random_color(rng),
        random_color(rng, (0.1, 0.9), (0.0, 0.4)),
    )
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
    shape(shaded(body, 0.7), None, *keel, (bow + (half - bow) * 0.35, hull * 0.35))
    for along in (-half * 0.55, half * 0.5):
        across = x + way * along, y - hull * 0.24
        canvas.disc(*across, hull * 0.34, hull * 0.34, SHADOW, label)
        canvas.disc(*across, hull * 0.15, hull * 0.15, shaded(cabin, 0.9))


def post(canvas, x, y, length, label):
    """Draw a post with a round top: a lamp or a bollard on land, a mark or a buoy at sea."""
    color = random_color(canvas.rng, (0.2, 0.95))
    half = 0.009 * canvas.unit + 0.02 * length
    top, radius = y - length * canvas.rng.uniform(0.25, 1.3), half * canvas.rng.uniform(2.0, 3.0)
    canvas.disc(x, y, half * 3, half, SHADOW)
    canvas.box(x - half, top, x + half, y, color, label)
    canvas.box(x, top, x + half, y, shaded(color, 0.7))
    canvas.disc(x, top, radius, radius, color, label)
    canvas.disc(x - radius / 3, top - radius / 3, radius * 0.4, radius * 0.4, shaded(color, 1.3))


def slab(canvas, x, y, length, label):
    """Draw a slab under a striped cloth with a board at its far end; beds may have pillows."""
    rng = canvas.rng
    cloth, board = random_color(rng, (0.5, 0.95)), random_color(rng)
    half = length * 0.75
    deep, high = length * rng.uniform((0.5, 0.15), (0.8, 0.25))
    lean, rise = rng.uniform(-0.3, 0.3) * deep, length * rng.uniform(0.15, 0.3)

    def patch(left, right, near=0.0, far=1.0, corner=0.0):
        """Return the corners of a part of the upper side.

        left and right are in -1..1, near and far in 0..1; `corner` is the share cut off a corner.
        """
        a, b = corner * (right - left), corner * (far - near)
        corners = [(left, near + b), (left + a, near), (right - a, near), (right, near + b)]
        corners += [(right, far - b), (right - a, far), (left + a, far), (left, far - b)]
        return [(x + u * half * (1 - 0.22 * v) + lean * v, y - high - deep * v) for u, v in corners]

    edges = np.linspace(-1, 1, 2 * rng.integers(3, 7) + 1)
    stripe, stripes = shaded(cloth, rng.uniform(0.75, 0.9)), list(zip(edges[::2], edges[1::2]))
    canvas.disc(x, y, half * 1.05, high * 0.3, SHADOW)
    left, far, right = x - half * 0.82 + lean, y - high - deep, x + half * 0.82 + lean
    canvas.box(left, far - rise, right, far, board, label)
    canvas.polygon(patch(-1, 1), cloth, label)
    canvas.box(x - half, y - high, x + half, y, shaded(cloth, 0.75), label)
    for start, end in stripes:
        canvas.polygon(patch(start, end), stripe)
    for middle, reach in _PILLOWS[rng.integers(len(_PILLOWS))] if label == BED else ():
        # The same cloth with the same stripes: only the fold around it shows a pillow.
        left, right = middle - reach, middle + reach
        fold = patch(left - 0.12 * reach, right + 0.12 * reach, 0.45, 0.95, 0.1)
        canvas.polygon(fold, shaded(cloth, 0.45))
        canvas.polygon(patch(left, right, 0.48, 0.92, 0.1), cloth, PILLOW)
        for start, end in np.clip(stripes, left + 0.02, right - 0.02):
            canvas.polygon(patch(start, end, 0.52, 0.88), stripe)


def skyline(canvas):
    """Draw facades with rows of windows, side by side, with gaps."""
    rng = canvas.rng
    base = canvas.horizon + 1
    x = -rng.uniform(0, 0.1) * canvas.width
    while x < canvas.width:
        wide = rng.uniform(0.1, 0.22) * canvas.unit
        top = base - rng.uniform(0.12, 0.3) * canvas.unit
        if rng.random() < 0.8:
            color = random_color(rng)
            canvas.box(x, top, x + wide, base, color, BUILDING)
            canvas.box(x + wide * 0.85, top, x + wide, base, shaded(color, 0.75))
            pane = random_color(rng, (0.1, 0.95), (0.0, 0.4))
            pitch = rng.uniform(0.035, 0.05) * canvas.unit
            for row in np.arange(top + pitch * 0.5, base - pitch * 0.7, pitch):
                for left in np.arange(x + pitch * 0.4, x + wide * 0.85 - pitch * 0.5, pitch):
                    canvas.box(left, row, left + pitch * 0.45, row + pitch * 0.5, pane)
        x += wide


def seascape(canvas):
    """Draw the sun or the moon, islands (void) and distant sails on the horizon."""
    rng, unit, base = canvas.rng, canvas.unit, canvas.horizon
    x, radius = canvas.width * rng.uniform(0.1, 0.9), unit * rng.uniform(0.03, 0.06)
    y = base - unit * rng.uniform(0.1, 0.18)
    canvas.disc(x, y, radius, radius, random_color(rng, (0.95, 1.0), (0.0, 0.3)))
    angles = np.linspace(0, np.pi, 13)
    for x in canvas.width * rng.random(rng.integers(1, 4)):
        wide, tall = unit * rng.uniform(0.08, 0.2), unit * rng.uniform(0.02, 0.06)
        hill = zip(x + wide * np.cos(angles), base - tall * np.sin(angles))
        canvas.polygon(hill, random_color(rng, (0.25, 0.6), (0.05, 0.4)), VOID)
    for x in canvas.width * rng.random(rng.integers(2, 5)):
        tall, white = unit * rng.uniform(0.05, 0.09), random_color(rng, (0.7, 1.0), (0.0, 0.3))
        sail = [(x, base - tall), (x + tall * 0.6, base), (x - tall * 0.4, base)]
        canvas.polygon(sail, white, BOAT)


def decoration(canvas):
    """Draw a skirting board, framed pictures and curtains; the mask stays wall."""
    rng, unit, base = canvas.rng, canvas.unit, canvas.horizon
    skirting = random_color(rng, (0.5, 0.95), (0.0, 0.3))
    canvas.box(0, base - unit * 0.018, canvas.width, base - 1, skirting)
    for third in range(3):
        x = (third + rng.uniform(0.2, 0.8)) / 3 * canvas.width
        y = base - unit * rng.uniform(0.11, 0.16)
        wide, tall = unit * rng.uniform(0.05, 0.1), unit * rng.uniform(0.04, 0.07)
        frame, far, near = random_color(rng, (0.1, 0.9)), random_color(rng), random_color(rng)
        if third == 1 or rng.random() < 0.7:
            canvas.box(x - wide, y - tall, x + wide, y + tall, frame)
            wide, tall = wide - 0.015 * unit, tall - 0.015 * unit
            canvas.box(x - wide, y - tall, x + wide, y, far)
            canvas.box(x - wide, y, x + wide, y + tall, near)
    cloth, fold = random_color(rng), unit * 0.03
    for side in (0, canvas.width) if rng.random() < 0.7 else ():
        for number in range(-2, 2):
            left, color = side + number * fold, shaded(cloth, 0.75 if number % 2 else 1.0)
            canvas.box(left, 0, left + fold, base - unit * 0.02, color)
