"""Pictures a person would want to look at: overlays, legends, rows side by side."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from keras_pspnet.files import write_bytes
from keras_pspnet.labels import IGNORE, LabelSet

INK, PAPER, QUIET = (32, 33, 36), (255, 255, 255), (95, 99, 104)


def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own scalable font."""
    return ImageFont.load_default(size)


def colorize(mask, labels: LabelSet) -> np.ndarray:
    """(H, W) class ids -> (H, W, 3) uint8 colours; void is black."""
    mask = np.asarray(mask)
    colors = np.zeros((max(int(mask.max(initial=0)), IGNORE) + 1, 3), np.uint8)
    colors[: len(labels)] = labels.colors[: len(colors)]
    if len(labels) <= IGNORE:
        colors[IGNORE] = 0
    return colors[mask]


def overlay(image, mask, labels: LabelSet, opacity=0.55) -> np.ndarray:
    """The picture under its class colours, with a light line where classes meet.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) class ids; void pixels show the picture, darkened.
    """
    mask = np.asarray(mask)
    mixed = (1 - opacity) * image + opacity * colorize(mask, labels)
    edge = np.zeros(mask.shape, bool)
    edge[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    edge[1:] |= mask[1:] != mask[:-1]
    mixed[edge] = 0.35 * mixed[edge] + 0.65 * 255
    return mixed.astype(np.uint8)


def legend(mask, labels: LabelSet, height: int, most: int = 16) -> np.ndarray:
    """A column that names the classes of a mask, largest first, with their share of the pixels."""
    counts = np.bincount(np.asarray(mask).ravel(), minlength=len(labels))
    names = [*labels.names]
    shares = [(counts[index] / counts.sum(), names[index], labels.colors[index])
              for index in range(len(labels)) if counts[index]]  # fmt: skip
    shares.sort(key=lambda entry: -entry[0])
    largest = max(30, height // 24)  # a photograph is looked at from further away
    row = int(np.clip(height / max(min(len(shares), most) + 1, 1), 14, largest))
    shown = max(min(most, height // row - 1), 1)
    rest = sum(share for share, _, _ in shares[shown:])
    lines = [(color, f"{name}", f"{_percent(share)}") for share, name, color in shares[:shown]]
    if rest:
        lines.append(((200, 200, 200), f"{len(shares) - shown} more", _percent(rest)))

    text = font(int(row * 0.55))
    name_width = max((text.getlength(name) for _, name, _ in lines), default=0)
    width = int(row * 1.4 + name_width + row * 2.6)
    canvas = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(canvas)
    for index, (color, name, share) in enumerate(lines):
        top = row // 3 + index * row
        box = (row // 3, top + row // 6, row // 3 + int(row * 0.7), top + int(row * 0.83))
        draw.rectangle(box, fill=tuple(color), outline=(160, 160, 160))
        draw.text((int(row * 1.3), top + row / 2), name, fill=INK, font=text, anchor="lm")
        draw.text((width - row // 3, top + row / 2), share, fill=QUIET, font=text, anchor="rm")
    return np.asarray(canvas)


def _percent(share: float) -> str:
    return "< 1 %" if share < 0.01 else f"{share:.0%}".replace("%", " %")


def enlarge(array, height: int) -> np.ndarray:
    """Repeats the pixels of a small picture or mask until it is about `height` high."""
    # Within a width that screens have: a strip of a few rows stays a strip.
    factor = max(min(round(height / array.shape[0]), 2000 // array.shape[1]), 1)
    return array.repeat(factor, 0).repeat(factor, 1)


def overlay_with_legend(image, mask, labels: LabelSet) -> np.ndarray:
    """What `predict` writes: the overlay with its legend beside it, about 480 pixels or higher."""
    shown = overlay(enlarge(image, 480), enlarge(mask, 480), labels)
    return np.concatenate([shown, legend(mask, labels, shown.shape[0])], axis=1)


def rows(table, titles, *, heading="", notes=(), labels: LabelSet | None = None, tile=185):
    """A sheet of pictures: one list of (H, W, 3) arrays a row, a title above each column.

    Args:
        table: rows of pictures; each is scaled to `tile` pixels of height.
        titles: one a column.
        heading: a line at the top.
        notes: lines at the foot.
        labels: adds a legend of all classes below the pictures.

    Returns:
        (H, W, 3) uint8.
    """
    gap = 8
    tiles = [[_fit(picture, tile) for picture in row] for row in table]
    widths = [max(row[i].shape[1] for row in tiles) for i in range(len(titles))]
    texts = [font(20).getlength(heading), *(font(14).getlength(note) for note in notes)]
    width = max(sum(widths) + gap * (len(widths) + 1), 2 * gap + int(max(texts)))
    swatches = _swatches(labels, width) if labels else []
    head = 40 if heading else 6
    legend_height = 24 * (1 + max(line for line, *_ in swatches)) + 8 if swatches else 0
    bottom = head + 24 + len(tiles) * (tile + gap)
    canvas = Image.new("RGB", (width, bottom + legend_height + 22 * len(notes) + gap), PAPER)
    draw = ImageDraw.Draw(canvas)
    if heading:
        draw.text((gap, 20), heading, fill=INK, font=font(20), anchor="lm")
    for r, row in enumerate(tiles):
        left = gap
        for c, picture in enumerate(row):
            if r == 0:
                draw.text((left, head + 12), titles[c], fill=QUIET, font=font(14), anchor="lm")
            canvas.paste(Image.fromarray(picture), (left, head + 24 + r * (tile + gap)))
            left += widths[c] + gap
    for line, left, color, name in swatches:
        top = bottom + 24 * line
        draw.rectangle((left, top + 4, left + 16, top + 20), fill=color, outline=(160, 160, 160))
        draw.text((left + 22, top + 12), name, fill=INK, font=font(14), anchor="lm")
    for index, note in enumerate(notes):
        top = bottom + legend_height + 22 * index + 11
        draw.text((gap, top), note, fill=QUIET, font=font(14), anchor="lm")
    return np.asarray(canvas)


def _fit(picture, height):
    if picture.shape[0] == height:
        return picture
    width = max(round(picture.shape[1] * height / picture.shape[0]), 1)
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


def _swatches(labels, width):
    """(line, left, colour, name) of each class and of void, wrapped at the sheet's width."""
    placed, line, left = [], 0, 8
    for name, color in [*zip(labels.names, labels.colors), ("void", (0, 0, 0))]:
        needed = 22 + int(font(14).getlength(name)) + 18
        if left + needed > width and left > 8:
            line, left = line + 1, 8
        placed.append((line, left, tuple(color), name))
        left += needed
    return placed


def png(array) -> bytes:
    """A uint8 picture as PNG."""
    return _encode(Image.fromarray(array))


def class_png(mask, labels: LabelSet) -> bytes:
    """Class ids as PNG: pixel values are ids, shown in the labels' colours (16 bits beyond 256)."""
    mask = np.asarray(mask)
    if mask.dtype != np.uint8:
        return _encode(Image.fromarray(mask.astype(np.uint16)))
    image = Image.fromarray(mask)
    image.putpalette(labels.palette().tobytes())
    return _encode(image)


def _encode(image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def save_png(path, array) -> None:
    """Writes a uint8 picture."""
    write_bytes(path, png(array))
