"""Empirical receptive fields: how a patch of noise somewhere changes a unit, or one pixel's class.

what_it_sees.py calls it.
"""

import keras
import numpy as np
import tensorflow as tf
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy import ndimage

from keras_pspnet.inference.enlarge import softmax

LAYERS = {"stage 2": "layer2_0_relu3", "stage 3": "layer3_0_relu3", "stage 4": "layer4_0_relu3"}
LAYERS |= {"main head": "cls_2"}
SIZE, STEP = 185, 8
"""Side of a scene, and pixels from one place to the next: one step of these layers' maps."""
PLACES = SIZE // STEP + 1
PATCH = 9
"""Side of the patch of noise; Zhou et al. lay 11x11 over 227x227."""
BEST = 6
"""Number of pictures that are averaged for a unit."""


def receptive_fields(model, images) -> dict:
    """Measure the receptive fields of all units of LAYERS.

    Args:
        model: a network of one block a stage, with output stride 8.
        images: (N, SIZE, SIZE, 3) uint8.

    Returns:
        layer -> "map": shares of the change by the patch's offset from the unit, averaged over
        units, (2 * PLACES - 1, 2 * PLACES - 1); "sizes": what they come to, in pixels.
    """
    outputs = [model.get_layer(name).output for name in LAYERS.values()]
    units = keras.Model(model.input, keras.layers.Concatenate()(outputs))
    changes, tops, places = map(np.stack, zip(*(responses(units, image) for image in images)))
    fields = [
        field(changes[..., unit], tops[:, unit], places[:, unit]) for unit in range(tops.shape[1])
    ]
    found, first = {}, 0
    for (layer, name), output in zip(LAYERS.items(), outputs):
        of_layer = fields[first : first + output.shape[-1]]
        first += output.shape[-1]
        alive = [of_unit for of_unit in of_layer if of_unit is not None]
        total, within = (np.mean(values, 0) for values in zip(*alive))
        sides = 2 * STEP * np.arange(PLACES) + PATCH
        sizes = {
            "units": len(alive),
            "theoretical_side": theoretical_side(model, name),
            "side_with_half": round(float(np.interp(0.5, within, sides))),
            "side_with_nine_tenths": round(float(np.interp(0.9, within, sides))),
            "share_within_side": {int(s): round(float(w), 4) for s, w in zip(sides, within)},
        }
        found[layer] = {"map": total, "sizes": sizes}
    return found


def responses(units, image):
    """Measure how a patch at each place changes each unit where it responds most.

    Returns:
        changes (PLACES, PLACES, units); the responses without a patch and their places in the
        flattened map, both (units,).
    """
    flat = units.predict_on_batch(image[None]).reshape(PLACES**2, -1)
    places, each = flat.argmax(0), np.arange(flat.shape[1])
    top, rows = flat[places, each], []
    for copies in occluded(image):
        seen = units.predict_on_batch(copies).reshape(len(copies), *flat.shape)
        rows.append(np.abs(seen[:, places, each] - top))
    return np.stack(rows), top, places


def occluded(image):
    """Yield a row of copies of a picture after the other, each with noise at another place."""
    rng, half = np.random.default_rng(0), PATCH // 2
    for row in range(PLACES):
        copies = np.repeat(image[None], PLACES, 0)
        for column, copy in enumerate(copies):
            y, x = STEP * row, STEP * column
            patch = copy[max(y - half, 0) : y + half + 1, max(x - half, 0) : x + half + 1]
            patch[:] = rng.integers(0, 256, patch.shape)
        yield copies


def field(changes, tops, places):
    """Centre one unit's changes on the unit, and add up those of its best pictures.

    Args:
        changes: (N, PLACES, PLACES), by picture and place of the patch.
        tops, places: (N,) the unit's largest response to each picture, and where.

    Returns:
        The mean change by offset, its sum 1; the share of the change within each number of steps,
        (PLACES,). None for a unit that nothing changes.
    """
    total, seen = np.zeros((2, 2 * PLACES - 1, 2 * PLACES - 1))
    for picture in np.argsort(-tops)[:BEST]:
        row, column = divmod(places[picture], PLACES)
        window = np.ix_(*(np.arange(PLACES) + PLACES - 1 - n for n in (row, column)))
        total[window] += changes[picture]
        seen[window] += 1
    if not total.any():
        return None
    offsets = np.abs(np.arange(2 * PLACES - 1) - (PLACES - 1))
    steps = np.maximum(offsets[:, None], offsets)
    within = np.cumsum(np.bincount(steps.ravel(), total.ravel())) / total.sum()
    mean = total / np.maximum(seen, 1)
    return mean / mean.sum(), within


def theoretical_side(model, name: str) -> int:
    """Return the side in pixels of what a layer's middle unit depends on, by its gradient."""
    network = keras.Model(model.input, model.get_layer(name).output)
    images = tf.random.stateless_uniform((8, SIZE, SIZE, 3), (0, 0), 0, 255)
    with tf.GradientTape() as tape:
        tape.watch(images)
        middle = network(images)[:, PLACES // 2, PLACES // 2]
    rows = np.flatnonzero(np.any(tape.gradient(middle, images), axis=(0, 2, 3)))
    return int(rows[-1] - rows[0] + 1)


def draw_fields(fields) -> Figure:
    """Draw the fields of several networks, one layer a column."""
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    panels = figure.subplots(len(fields), len(LAYERS))
    reach = STEP * (PLACES - 0.5)
    for row, (variant, layers) in zip(panels, fields.items()):
        for panel, (layer, found) in zip(row, layers.items()):
            image = panel.imshow(
                100 * found["map"],
                norm=LogNorm(1e-3, 10, clip=True),
                cmap="magma",
                extent=(-reach, reach, reach, -reach),
            )
            for key, style in (("theoretical_side", "--"), ("side_with_nine_tenths", "-")):
                side = found["sizes"][key]
                corner = (-side / 2, -side / 2)
                panel.add_patch(Rectangle(corner, side, side, fill=False, ec="w", ls=style))
            panel.set(title=layer, xticks=(-92, 0, 92), yticks=(-92, 0, 92))
        row[0].set_ylabel(variant)
    figure.colorbar(image, ax=panels, label="share of the change, percent", shrink=0.7)
    figure.suptitle(
        "What changes a unit, by pixels from it. Solid box: 90 % of the change; dashed: the "
        "theoretical receptive field"
    )
    return figure


def draw_pixels(models, pixels) -> Figure:
    """Draw how a patch at each place changes the true class's probability at one pixel.

    Args:
        models: title -> network.
        pixels: (image, mask, class id, name) for each row: the pixel deepest inside of this class.
    """
    figure = Figure(figsize=(10, 3.2 * len(pixels)), layout="constrained")
    panels = figure.subplots(len(pixels), 1 + len(models))
    for row, (image, mask, label, name) in zip(panels, pixels):
        depth = ndimage.distance_transform_edt(np.pad(mask == label, 1))[1:-1, 1:-1]
        y, x = np.unravel_index(depth.argmax(), mask.shape)
        row[0].imshow(image)
        row[0].set_title(f"{name} at the cross")
        for panel, (variant, model) in zip(row[1:], models.items()):
            before, *after = (
                softmax(model.predict_on_batch(batch)["main"][:, y, x])[:, label]
                for batch in (image[None], *occluded(image))
            )
            panel.imshow(image.mean(-1), cmap="gray", vmin=-200, vmax=400)
            edge = -STEP / 2, SIZE - 1 + STEP / 2
            drawn = panel.imshow(
                np.abs(np.stack(after) - before),
                norm=LogNorm(1e-4, 1, clip=True),
                cmap="magma",
                alpha=0.75,
                extent=(*edge, *reversed(edge)),
            )
            panel.set_title(f"{variant}: {before[0]:.0%} {name}")
        for panel in row:
            panel.plot(x, y, "+", color="w", ms=14, mew=2)
            panel.set(xlim=(0, SIZE), ylim=(SIZE, 0))
            panel.axis("off")
    figure.colorbar(drawn, ax=panels, label="change of that probability", shrink=0.6)
    return figure
