"""Read, list, check and resize pictures and masks."""

import contextlib
import numbers
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

from keras_pspnet.errors import UserError
from keras_pspnet.large_pictures import opened_picture

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
"""RGB in 0..255 of ImageNet's pictures (semseg tool/train.py)."""

PICTURES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
"""File name endings of pictures, in lower case."""
if "avif" in features.modules and features.check_module("avif"):  # Pillow 11.3, and not all of it
    PICTURES += (".avif",)

UNREAD = {".avif", ".heic", ".heif", ".jp2", ".jxl", ".psd", ".svg", ".tga"} - set(PICTURES)
UNREAD |= {".exr", ".hdr", ".pbm", ".pgm", ".pnm", ".ppm"}
UNREAD |= {".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"}  # of cameras
"""Endings of pictures that are not read here."""

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
"""What values reach at most that are normalized by ImageNet's mean and deviation: 2.64."""

OVERSHOOT = 64
"""How far floats may lie outside 0..255: cubic resizing of sharp edges goes 40 beyond."""


def read_image(path, name=None) -> np.ndarray:
    """Read a picture as uint8 RGB (H, W, 3), rotated as its EXIF says.

    All modes with 8 bits a channel are read; 16-bit grey is divided by 257.

    Args:
        path: its path, or a binary file.
        name: what messages call it; the path by default.

    Raises:
        UserError: no such file, not a picture, truncated, 32-bit grey, or too large for the memory.
    """
    with _opened(path, name or path, "picture") as image:
        _check_depth(image, name or path)
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):  # 16-bit grey, which Pillow would cut off at 255
            image = Image.fromarray(_to_bytes(np.asarray(image)))
        return np.asarray(image.convert("RGB"))


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
        image = ImageOps.exif_transpose(image)
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
        return np.asarray(image).astype(np.uint8) // scale, palette


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
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{name}: not a readable {kind} ({reason}); replace it") from error


def _unread_kind(path, name) -> str | None:
    """Return the ending of what a file holds, if that is a picture that is not read here."""
    if isinstance(path, (str, os.PathLike)):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            if file.read(12)[4:] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
                return ".heic"  # also where it is called .jpg
    ending = Path(str(name)).suffix.lower()
    return ending if ending in UNREAD else None


def is_picture(file: Path) -> bool:
    """Return True if the file name is that of a picture; hidden files (macOS's ._a.png) are not."""
    return file.suffix.lower() in PICTURES and not file.name.startswith(".")


def unread_pictures(folder: Path) -> list[Path]:
    """Return the files of a folder whose names are those of pictures that are not read here."""
    files = sorted(folder.iterdir()) if folder.is_dir() else ()
    return [f for f in files if f.suffix.lower() in UNREAD and not f.name.startswith(".")]


def passed_over(folder) -> int:
    """Return how many files of a folder are not read; hidden files do not count."""
    files = Path(folder).iterdir()
    return sum(f.is_file() and not is_picture(f) and not f.name.startswith(".") for f in files)


def pictures_in(folder: Path, kind="pictures") -> list[Path]:
    """Return the picture files of a folder, sorted by name; messages call them `kind`.

    Raises:
        UserError: no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected one with {kind}")
    found = sorted(f for f in folder.iterdir() if f.is_file() and is_picture(f))
    if found:
        return found
    if unread := unread_pictures(folder):
        ending = unread[0].suffix.lower()
        raise UserError(
            f"{folder}: no pictures that are read here: {unread[0].name} is there, but {ending} is "
            "not read; convert them to JPEG or PNG"
        )
    deeper = any(f.is_dir() and not f.name.startswith(".") for f in folder.iterdir())
    raise UserError(
        f"{folder}: no pictures in this folder{', only folders' * deeper}; expected "
        f"{' '.join(PICTURES)}"
    )


def list_images(*paths) -> list[Path]:
    """Return the files among `paths` and the pictures in the folders among them, in order.

    Raises:
        UserError: a path that does not exist, a folder without pictures.
    """
    found = []
    for path in map(Path, paths):
        if path.is_dir():
            found += pictures_in(path)
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"{path}: no such file or folder")
    return found


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
