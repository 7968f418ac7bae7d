"""Turn masks as pictures into class ids: values, grey RGB, palettes, colours."""

import numpy as np

from keras_pspnet.errors import UserError
from keras_pspnet.labels import IGNORE, LabelSet

TWICE = -1
"""In a table of colours: several classes have the colour."""

MANY = 16
"""Number of unknown colours in a mask from which on it was smoothed, or saved with losses."""


def color_table(labels: LabelSet, void=()) -> dict[tuple[int, int, int], int]:
    """Return (r, g, b) -> class id, 255 for the colours of void, TWICE for a colour of several."""
    table: dict = {}
    for index, color in [*enumerate(labels.colors), *((IGNORE, color) for color in void)]:
        table[color] = TWICE if color in table else index
    return table


def decode(mask, palette, labels: LabelSet, table, where) -> np.ndarray:
    """Turn a mask's values or colours into class ids.

    Args:
        mask: (H, W) values, or (H, W, 3) colours, uint8.
        palette: (256, 3) uint8 of a palette picture; None for others.
        labels: the classes.
        table: see `color_table`; None where nobody has given the classes colours.
        where: the mask's name, for messages.

    Returns:
        (H, W) uint8 class ids, void 255.

    Raises:
        UserError: a value or colour that is no class.
    """
    try:
        if mask.ndim == 3:
            return _decode_colors(mask, labels, table)
        if table and palette is not None and _meant_by_color(mask, palette, labels, table):
            return _decode_colors(palette[mask], labels, table)
        return labels.decode(mask)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _meant_by_color(mask, palette, labels, table) -> bool:
    """Return True if a palette shows a class in its colour at a value that is not the class's id.

    Paint programs store the colours in an order of their own. Other palettes are decoration, also
    those that show several values in one colour: ids are the values.
    """
    if labels.ids is not None or (palette == palette[0]).all():
        return False
    used = np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist()
    shown = {value: tuple(palette[value].tolist()) for value in used if value != labels.ignore}
    found = {value: table.get(color, TWICE) for value, color in shown.items()}
    distinct = len(set(shown.values())) == len(shown)
    return distinct and any(label not in (TWICE, value) for value, label in found.items())


def _decode_colors(mask, labels, table):
    colors = packed(mask)
    if table:
        known = sorted((packed(np.array(color)), label) for color, label in table.items())
        order, ids = np.array(known, np.int32).T
        places = np.minimum(np.searchsorted(order, colors), len(order) - 1)
        found = np.where(order[places] == colors, ids[places], TWICE)
        if found.min(initial=0) >= 0:
            return found.astype(np.uint8)
    if (mask == mask[..., :1]).all():
        values = np.ascontiguousarray(mask[..., 0])
        try:
            return labels.decode(values)
        except UserError:
            if not table:
                raise
    raise UserError(_unknown_color(colors, labels, table))


def packed(colors) -> np.ndarray:
    """Return colours (..., 3) as numbers, int32, red highest."""
    red, green, blue = np.moveaxis(np.asarray(colors, np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def unpacked(color) -> tuple[int, int, int]:
    """Return the colour (r, g, b) of a number."""
    return int(color) >> 16, int(color) >> 8 & 255, int(color) & 255


def _unknown_color(colors, labels, table) -> str:
    """Return what is wrong with the colours of a mask: the commonest that is no class's."""
    found, counts = np.unique(colors, return_counts=True)
    shown = {unpacked(color): int(count) for color, count in zip(found, counts)}
    if not table:
        return (
            f"a mask in colours, such as {max(shown, key=shown.get)}; give labels.json with "
            '"names" and "colors"'
        )
    unknown = {color: n for color, n in shown.items() if table.get(color, TWICE) == TWICE}
    color = max(unknown, key=unknown.get)
    pixels = f"{unknown[color]} pixel{'' if unknown[color] == 1 else 's'}"
    if color in table:
        return f"colour {color} of {pixels} is that of several labels; give each its own"
    distance = {known: int(np.square(np.subtract(known, color)).sum()) for known in table}
    nearest = min(distance, key=distance.get)
    names = {**dict(enumerate(labels.names)), IGNORE: "void", TWICE: "several labels"}
    others = f"; {len(unknown)} such colours: resized with smoothing or saved lossily?"
    return (
        f"colour {color} of {pixels} is no label's; the nearest known one is {nearest} "
        f"({names[table[nearest]]}){others * (len(unknown) > MANY)}"
    )
