"""Read, check and resize pictures and masks."""

import contextlib
import numbers
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from keras_pspnet.errors import UserError
from keras_pspnet.files import FORMATS, UNREAD, check_regular
from keras_pspnet.machine import free_memory

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
"""RGB in 0..255 of ImageNet's pictures (semseg tool/train.py)."""

ORIENTATION = 0x0112
"""EXIF's tag of how the stored pixels are turned."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns the stored pixels upright, by EXIF orientation."""

NORMALIZED = 3
"""Upper bound of values normalized by ImageNet's mean and deviation, whose largest is 2.64."""

OVERSHOOT = 64
"""How far floats may lie outside 0..255: cubic resizing of sharp edges goes 40 beyond."""

PIXEL_BYTES = 8
"""Memory that one pixel takes while a picture is read: 4 bytes in Pillow, 3 in the array."""

UNCHECKED = 2**28
"""Bytes up to which a picture is read without a look at the free memory: 33 megapixels."""

_lock = threading.Lock()
_threads, _limit = 0, None  # threads that read a picture now; Pillow's limit before the first


def read_image(path, name=None) -> np.ndarray:
    """Read a picture as uint8 RGB (H, W, 3), rotated as its EXIF says.

    All modes with 8 bits a channel are read; 16-bit grey is divided by 257.

    Args:
        path: its path, or a binary file.
        name: what messages call it; the path by default.

    Raises:
        UserError: no such file, not a picture, truncated, 32-bit grey, 16 bits a channel whose
            values are those of 8, or too large for the memory.
    """
    name = name or path
    with _opened(path, name, "picture") as image:
        _check_depth(image, name)
        deep = is_deep(image)
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I"):  # 16-bit grey, which Pillow would cut off at 255
            values = np.asarray(image)
            _check_16_bits(values, name)
            image = Image.fromarray(_to_bytes(values))
        array = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    if deep and not array.any():
        _check_16_bits(_low_bytes(path, name), name)
    return array


def check_picture(path, name=None) -> None:
    """Check a picture by its header, without decoding it.

    A file that is cut off after its header passes: `read_image` refuses it.

    Raises:
        UserError: no such file, not a picture, 32-bit grey, or too large for the memory.
    """
    with _opened(path, name or path, "picture") as image:
        _check_depth(image, name or path)


def _check_depth(image, name) -> None:
    """Refuse grey pictures of 32-bit integers or floats: nothing says what is black and white."""
    # Pillow below 11 opens 16-bit PNGs in mode I.
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        kind = "floats" if image.mode == "F" else "integers"
        raise UserError(
            f"{name}: 32-bit grey ({kind}); expected 8 or 16 bits a channel: scale the values to "
            "0..255 and save them as PNG"
        )


def is_deep(image) -> bool:
    """Return whether a picture that is not decoded yet has 16 bits a channel."""
    return image.mode.startswith("I") or (bool(image.tile) and ";16" in str(image.tile[0].args))


def _low_bytes(path, name) -> np.ndarray:
    """Return the low bytes of a PNG of 16-bit colours, of which Pillow reads the high ones."""
    with _opened(path, name, "picture") as image:
        tile = image.tile[0]
        if tile.args in ("RGB;16B", "RGBA;16B"):
            image.tile = [type(tile)(*tile[:3], tile.args.replace("16B", "16L"))]
        return np.asarray(image)[..., :3]


def _check_16_bits(values, name) -> None:
    """Refuse 16-bit values that reach 255 at most: they are of 8 bits, and would be black."""
    if 0 < values.max() <= 255:
        given = f"values in {values.min()}..{values.max()} as 16 bits a channel"
        raise UserError(f"{name}: {given}; expected 0..65535: make it 8 bits")


def _to_bytes(array) -> np.ndarray:
    """Scale numbers in 0..65535 to uint8: 65535 / 257 is 255."""
    return np.rint(array / np.float32(257)).astype(np.uint8)


def read_mask(path, name=None) -> tuple[np.ndarray, np.ndarray | None]:
    """Read the raw values of a mask, from an 8-bit grey, palette, 1-bit or RGB(A) picture.

    Args:
        path: its path, or a binary file.
        name: what messages call it; the path by default.

    Returns:
        (H, W) uint8 values, or (H, W, 3) uint8 colours; and the (256, 3) uint8 palette of a palette
        picture, else None.

    Raises:
        UserError: no such file, not a picture, truncated, or of another kind.
    """
    name = name or path
    with _opened(path, name, "mask") as image:
        if image.format in ("JPEG", "MPO", "WEBP", "AVIF"):
            raise UserError(
                f"{name}: a mask as {image.format}, which changes class ids; expected a PNG"
            )
        packed = str(image.tile[0].args) if image.tile else ""
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode in ("RGB", "RGBA"):
            return np.asarray(image)[..., :3], None
        if image.mode not in ("L", "P", "1"):
            raise UserError(
                f"{name}: a mask of mode {image.mode}; expected 8 bits a channel, whose values are "
                "class ids or colours"
            )
        palette = None
        if image.mode == "P":
            palette = np.zeros((256, 3), np.uint8)
            colors = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
            palette[: len(colors)] = colors
        # Pillow scales 2- and 4-bit grey to 0..255, which is right for pictures only.
        scale = {"L;2": 85, "L;4": 17}.get(packed, 1)
        values = np.asarray(image).astype(np.uint8, copy=False)
        return values // scale if scale > 1 else values, palette


def orientation(path) -> int:
    """Return how EXIF says that the stored pixels are turned, 1..8; 1 if it says nothing.

    Raises:
        UserError: no such file, or not a picture.
    """
    with _opened(path, path, "picture") as image:
        turn = image.getexif().get(ORIENTATION, 1)
    return turn if turn in TURNS else 1


def turned_upright(array, turn: int, back: bool = False) -> np.ndarray:
    """Turn a uint8 array (H, W) as an EXIF orientation says, or back to the stored pixels."""
    if turn not in TURNS:
        return array
    if back:
        turn = {6: 8, 8: 6}.get(turn, turn)
    return np.asarray(Image.fromarray(array).transpose(TURNS[turn]))


@contextlib.contextmanager
def _opened(path, name, kind) -> Iterator[Image.Image]:
    """Open a picture and close it after the block; turn Pillow's errors into a UserError."""
    try:
        with opened_picture(path, name) as image:
            yield image
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{name}: no such file") from error
    except UnidentifiedImageError as error:
        ending = _unread_kind(path, name)
        if ending is None:
            raise UserError(
                f"{name}: not a readable {kind} (it is in no format that is known); replace it"
            ) from error
        raise UserError(f"{name}: {ending} is not read here; convert it to JPEG or PNG") from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can raise anything inside Pillow
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name}: not a readable {kind} ({reason}); replace it") from error


@contextlib.contextmanager
def opened_picture(path, name) -> Iterator[Image.Image]:
    """Open a picture with Pillow for a block, whatever its number of pixels.

    Raises:
        UserError: decoding it would take more than half of the free memory; what Pillow raises.
    """
    if isinstance(path, (str, os.PathLike)):
        check_regular(path)
    with _without_limit(), Image.open(path, formats=FORMATS) as image:
        width, height = image.size
        needed = width * height * PIXEL_BYTES
        free = free_memory() if needed > UNCHECKED else None
        if free is not None and needed > free / 2:
            raise UserError(
                f"{name}: {width}x{height} pixels take {needed / 1e9:.1f} GB to decode, more than "
                f"half of the free memory ({free / 1e9:.1f} GB); cut the picture into parts"
            )
        yield image


@contextlib.contextmanager
def _without_limit():
    """Lift Pillow's limit on pixels, one for the whole process, while a thread reads a picture."""
    global _threads, _limit
    with _lock:
        if not _threads:
            _limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _threads += 1
    try:
        yield
    finally:
        with _lock:
            _threads -= 1
            if not _threads:
                Image.MAX_IMAGE_PIXELS = _limit


def _unread_kind(path, name) -> str | None:
    """Return the ending of what a file holds, if that is a picture that is not read here."""
    if isinstance(path, (str, os.PathLike)):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            if file.read(12)[4:] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
                return ".heic"  # also where it is called .jpg
    ending = Path(str(name)).suffix.lower()
    return ending if ending in UNREAD else None


def as_picture(image, name="the picture") -> np.ndarray:
    """Return a picture as uint8 RGB (H, W, 3), from a path or an array of numbers in 0..255.

    Floats are rounded, values up to 64 outside 0..255 (of resized pictures) are clipped. uint16 is
    in 0..65535 and is divided by 257, as 16-bit files are. Messages call an array `name`.

    Raises:
        UserError: a path that is not a readable picture, an array of another shape, dtype or range.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(image)
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
        raise UserError(f"{name} has shape {image.shape}; expected (H, W, 3) RGB in 0..255")
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind not in "uif":
        raise UserError(f"{name} has dtype {image.dtype}; expected numbers in 0..255")
    low, high = image.min(), image.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UserError(f"{name} has values that are NaN or infinite; expected 0..255")
    values = f"{name} has values in {low:.4g}..{high:.4g}"
    if image.dtype == np.uint16:
        if 0 < high <= 255:
            raise UserError(f"{values} as uint16; expected 0..65535: make it uint8")
        return _to_bytes(image)
    if image.dtype.kind == "f" and low >= 0 and 0 < high <= 1:
        raise UserError(f"{values}; expected 0..255: multiply by 255")
    if image.dtype.kind == "f" and low < 0 and high <= NORMALIZED:
        raise UserError(f"{values}; expected 0..255: undo the normalization")
    if low < -OVERSHOOT or high > 255 + OVERSHOOT:
        raise UserError(f"{values}; expected 0..255")
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def resize_image(image, size):
    """Resize a uint8 picture to (H, W): bilinear, with antialiasing where it shrinks."""
    if image.shape[:2] == tuple(size):
        return image
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


def resize_nearest(classes, size):
    """Resize class ids (h, w) to (H, W) by nearest neighbour, sampled at pixel centres."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, classes.shape)
    )
    return classes[rows[:, None], columns]


def check_size(size, name="size") -> None:
    """Check that a size is None or a pair (H, W) of whole numbers, at least 1.

    Raises:
        UserError: it is anything else; the message calls it `name`.
    """
    if size is None:
        return
    pair = isinstance(size, (tuple, list)) and len(size) == 2
    if not pair or not all(isinstance(side, numbers.Integral) and side >= 1 for side in size):
        raise UserError(f"{name} {size!r} is not (H, W) in pixels, both whole and at least 1")
