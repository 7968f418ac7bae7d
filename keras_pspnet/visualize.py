"""Draw pictures: class colours, overlays, legends, sheets of pictures."""

import io
import struct
import warnings
import zlib

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from keras_pspnet.errors import UserError
from keras_pspnet.files import write_bytes
from keras_pspnet.images import as_picture
from keras_pspnet.labels import IGNORE, LabelSet, as_labels, default_void_label

INK, QUIET, EDGE = "#202124", "#5f6368", "#a0a0a0"
"""Colours of text, of secondary text, and of a swatch's outline."""

GAP, LINE = 8, 22
"""Pixels between the pictures of a sheet, and from one of its lines of text to the next."""

JPEG_SIDE = 65500
"""Maximum pixels of a JPEG's side (libjpeg's JPEG_MAX_DIMENSION)."""

FAST = 3 * 2**20
"""Bytes of an RGB picture above which it is encoded fast."""


def colorize(mask, labels: LabelSet) -> np.ndarray:
    """Paint class ids (H, W) in their colours, (H, W, 3) uint8; void is black."""
    mask = np.asarray(mask)
    colors = np.zeros((max(int(mask.max(initial=0)), IGNORE) + 1, 3), np.uint8)
    colors[: len(labels)] = labels.colors[: len(colors)]
    if len(labels) <= IGNORE:
        colors[IGNORE] = 0
    return colors[mask]


def overlay(image, classes, labels, opacity=0.55) -> np.ndarray:
    """Blend a picture with its class colours and draw a light line where classes meet.

    Args:
        image: (H, W, 3) RGB in 0..255, or the path of a picture.
        classes: (H, W) class ids; void pixels are darkened.
        labels: a LabelSet, or a list of names in the order of the ids, see `labels.as_labels`.
        opacity: weight of the class colours, 0..1.

    Returns:
        (H, W, 3) uint8.

    Raises:
        UserError: the picture cannot be read, has another size than its classes, these are no
            whole numbers of at least 0, or there are more classes than labels.
    """
    image, mask, labels = as_picture(image), np.asarray(classes), as_labels(labels)
    if mask.shape != image.shape[:2]:
        raise UserError(f"classes of shape {mask.shape}; expected the picture's {image.shape[:2]}")
    if mask.dtype.kind not in "iu":
        raise UserError(
            f"classes of dtype {mask.dtype}; expected whole numbers, the class of each pixel, as "
            "`segment` returns them"
        )
    void = default_void_label(len(labels))
    if mask.min() < 0:
        raise UserError(f"class id {mask.min()}; expected at least 0, and {void} for void pixels")
    largest = mask.max(initial=0, where=mask != void)
    if largest >= len(labels):
        raise UserError(
            f"class id {largest}, but {len(labels)} labels; expected one for each class"
        )
    # In 256ths and a few rows at a time: floats of a whole photo take seconds and a gigabyte.
    weight = round(256 * opacity)
    light = (0.35 * np.arange(256) + 0.65 * 255).astype(np.uint8)
    mixed = np.empty(image.shape, np.uint8)
    for top in range(0, len(mask), 64):
        rows = slice(top, min(top + 64, len(mask)))
        colors = colorize(mask[rows], labels).astype(np.uint16)
        shown = np.multiply(image[rows], 256 - weight, dtype=np.uint16)
        mixed[rows] = (shown + colors * np.uint16(weight)) >> 8
        edge = np.zeros(colors.shape[:2], bool)
        edge[:, 1:] |= mask[rows, 1:] != mask[rows, :-1]
        lower = slice(max(top, 1), rows.stop)
        edge[lower.start - top :] |= mask[lower] != mask[lower.start - 1 : rows.stop - 1]
        mixed[rows][edge] = light[mixed[rows][edge]]
    return mixed


def legend(mask, labels: LabelSet, height: int, most: int = 16) -> np.ndarray:
    """Draw a column with the classes of a mask, largest first, and their shares of the pixels.

    Args:
        mask: (H, W) class ids; void has no line.
        labels: the classes.
        height: height of the column in pixels.
        most: maximum number of classes; a last line sums up the others.

    Returns:
        (height, W, 3) uint8.
    """
    counts = np.bincount(np.asarray(mask).ravel(), minlength=len(labels))
    shares = counts[: len(labels)] / counts.sum()
    present = [n for n in np.argsort(-shares, kind="stable") if shares[n]]
    largest = max(30, height // 24)  # a photograph is looked at from further away
    row = int(np.clip(height / max(min(len(present), most) + 1, 1), 14, largest))
    shown = max(min(most, height // row - 1), 1)
    lines = [(labels.colors[n], labels.names[n], _percent(shares[n])) for n in present[:shown]]
    if rest := present[shown:]:
        lines.append(((200, 200, 200), f"{len(rest)} more", _percent(shares[rest].sum())))

    font = ImageFont.load_default(int(row * 0.55))
    name_width = max((font.getlength(name) for _, name, _ in lines), default=0)
    width = int(row * 1.4 + name_width + row * 2.6)
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    for index, (color, name, share) in enumerate(lines):
        top = row // 3 + index * row
        box = (row // 3, top + row // 6, row // 3 + int(row * 0.7), top + int(row * 0.83))
        draw.rectangle(box, fill=tuple(color), outline=EDGE)
        draw.text((int(row * 1.3), top + row / 2), name, fill=INK, font=font, anchor="lm")
        draw.text((width - row // 3, top + row / 2), share, fill=QUIET, font=font, anchor="rm")
    return np.asarray(canvas)


def _percent(share: float) -> str:
    """Format a share as a whole percentage; below one it is "< 1 %"."""
    return "< 1 %" if share < 0.01 else f"{100 * share:.0f} %"


def enlarge(array, height: int) -> np.ndarray:
    """Repeat the pixels of a picture or mask a whole number of times, up to about `height` rows.

    The result is at most 2000 pixels wide, unless the array is wider; nothing is made smaller.
    """
    factor = max(min(round(height / array.shape[0]), 2000 // array.shape[1]), 1)
    return array.repeat(factor, 0).repeat(factor, 1)


def overlay_with_legend(image, mask, labels: LabelSet) -> np.ndarray:
    """Draw an overlay with its legend beside it; small pictures are enlarged to about 480 rows.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) class ids.
        labels: the classes.

    Returns:
        (H', W', 3) uint8.
    """
    shown = overlay(enlarge(image, 480), enlarge(mask, 480), labels)
    return np.concatenate([shown, legend(mask, labels, shown.shape[0])], axis=1)


def rows(table, titles, *, heading="", notes=(), labels=None, tile=185, void="void"):
    """Draw a sheet of pictures: each list of the table is a row, with a title above each column.

    Args:
        table: rows of (H, W, 3) uint8 pictures, at most one for each title.
        titles: titles of the columns.
        heading: a line at the top.
        notes: lines at the foot.
        labels: a LabelSet: adds a legend of all classes and void below the pictures.
        tile: height in pixels to which higher pictures are reduced; lower ones are enlarged a
            whole number of times, to about this height.
        void: what the legend calls void.

    Returns:
        (H, W, 3) uint8.
    """
    # matplotlib warns of each character that its fonts lack; such a character is drawn as a box.
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        return _sheet(table, titles, heading, notes, labels, tile, void)


def _sheet(table, titles, heading, notes, labels, tile, void) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.patches import Rectangle
    from matplotlib.transforms import IdentityTransform

    # Positions are pixels from the lower left corner: pictures stay sharp, and the sheet can grow
    # upwards. At 72 dpi a point is a pixel.
    figure = Figure(dpi=72, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    pixels = {"transform": IdentityTransform()}

    def length(text, size=13):
        font = FontProperties(size=size)
        return int(canvas.get_renderer().get_text_width_height_descent(text, font, False)[0]) + 1

    def write(text, left, bottom, color=QUIET, size=13):
        figure.text(left, bottom + 6, text, color=color, size=size, parse_math=False, **pixels)

    table = [[_to_height(picture, tile) for picture in row] for row in table]
    columns = [[row[n].shape[1] for row in table if n < len(row)] for n in range(len(titles))]
    widths = [max([length(title), *column]) for title, column in zip(titles, columns)]
    lefts = [GAP + sum(widths[:n]) + GAP * n for n in range(len(widths))]
    texts = [length(heading, 18), *map(length, notes)]
    width = max(GAP + sum(widths) + GAP * len(widths), max(texts) + 2 * GAP)

    height = GAP
    for note in reversed(notes):
        write(note, GAP, height)
        height += LINE
    if labels:
        classes = [*zip(labels.names, labels.colors), (void, (0, 0, 0))]
        cell = max(length(name) for name, _ in classes) + 40
        width = max(width, cell + GAP)
        in_line = (width - GAP) // cell
        lines = -(-len(classes) // in_line)
        for index, (name, color) in enumerate(classes):
            left = GAP + index % in_line * cell
            bottom = height + (lines - 1 - index // in_line) * LINE
            box = Rectangle((left, bottom + 3), 16, 16, fc=np.divide(color, 255), ec=EDGE, **pixels)
            figure.add_artist(box)
            write(name, left + 22, bottom, INK)
        height += lines * LINE + GAP
    for row in reversed(table):
        top = height + max(len(picture) for picture in row)
        for left, picture in zip(lefts, row):
            figure.figimage(picture, left, top - len(picture))
        height = top + GAP
    for left, title in zip(lefts, titles):
        write(title, left, height - GAP)
    height += LINE
    if heading:
        write(heading, GAP, height - GAP, INK, 18)
        height += LINE

    # The canvas rounds its size down.
    figure.set_size_inches((width + 0.5) / 72, (height + 0.5) / 72)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _to_height(picture, height):
    if len(picture) <= height:
        return enlarge(picture, height)
    size = (max(round(picture.shape[1] * height / len(picture)), 1), height)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def png(array) -> bytes:
    """Encode a uint8 picture as PNG; a large RGB picture fast, at about the same size."""
    if array.ndim == 3 and array.size > FAST:
        return _png_of_a_photo(array)
    return _encode(Image.fromarray(array))


def _png_of_a_photo(array) -> bytes:
    """Encode (H, W, 3) uint8 as PNG: each row as its difference from the one above.

    Pillow tries five filters for each row and searches for repetitions, which photos do not have.
    """
    height, width, _ = array.shape
    flat = array.reshape(height, -1)
    rows = np.empty((height, 1 + flat.shape[1]), np.uint8)
    rows[:, 0] = 2  # the filter "up"
    rows[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=rows[1:, 1:])
    encoder = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0),  # 8 bits of RGB
        b"IDAT": encoder.compress(rows) + encoder.flush(),
        b"IEND": b"",
    }
    stream = b"\x89PNG\r\n\x1a\n"
    for name, data in chunks.items():
        stream += struct.pack(">I", len(data)) + name + data
        stream += struct.pack(">I", zlib.crc32(name + data))
    return stream


def jpeg(array, quality: int) -> bytes:
    """Encode a uint8 picture as JPEG, with colours at full resolution.

    Raises:
        UserError: a side is longer than JPEG allows.
    """
    if max(array.shape[:2]) > JPEG_SIDE:
        raise UserError(f"is longer than {JPEG_SIDE} pixels, which JPEG does not allow; take PNG")
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "JPEG", quality=quality, subsampling=0)
    return stream.getvalue()


def class_png(mask, labels: LabelSet, values=None) -> bytes:
    """Encode class ids as PNG: pixel values are the ids, or the `values` of the classes.

    uint8 pixels become a palette picture in the labels' colours, others 16-bit grey.

    Args:
        mask: (H, W) class ids.
        labels: the classes.
        values: (n,) uint8, see `LabelSet.mask_values`; None keeps the ids.
    """
    mask, palette = np.asarray(mask), labels.palette()
    if values is not None:
        mask, palette = values[mask], np.zeros_like(palette)
        palette[values] = labels.colors
    if mask.dtype != np.uint8:
        return _encode(Image.fromarray(mask.astype(np.uint16)))
    image = Image.fromarray(mask)
    image.putpalette(palette.tobytes())
    return _encode(image)


def _encode(image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def save_png(path, array) -> None:
    """Write a uint8 picture as PNG, atomically."""
    write_bytes(path, png(array))
