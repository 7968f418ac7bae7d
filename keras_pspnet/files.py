"""Files in and out: what comes in is checked, what goes out is whole or not there at all."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


class UserError(ValueError):
    """Something given is wrong. The message is one line: what, which, expected, what to do.

    Where it names the first of several, `errors` holds all.
    """

    errors: tuple[UserError, ...] = ()


def read_bytes(path) -> bytes:
    """The content of a file, or one line that says why not."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def read_image(path, name=None) -> np.ndarray:
    """A picture as uint8 RGB (H, W, 3), whatever its mode, turned as its EXIF says.

    Args:
        path: its path, or a binary file.
        name: what messages call it; the path by default.

    Raises:
        UserError: no such file, not a picture, or truncated.
    """
    name = name or path
    try:
        with Image.open(path) as image:
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):  # 16-bit grey, which Pillow would cut off at 255
                image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError as error:
        raise UserError(f"{name}: no such file") from error
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{name}: not a readable picture ({reason}); replace or remove it"
        ) from error


def read_mask(path, name=None) -> np.ndarray:
    """A mask's raw ids as uint8 (H, W): an 8-bit grey, palette or 1-bit picture.

    Args:
        path: its path, or a binary file.
        name: what messages call it; the path by default.

    Raises:
        UserError: no such file, not a picture, truncated, or of another kind.
    """
    name = name or path
    try:
        with Image.open(path) as image:
            if image.format in ("JPEG", "WEBP"):
                raise UserError(
                    f"{name}: a mask as {image.format}, which changes class ids; expected a PNG"
                )
            if image.mode not in ("L", "P", "1"):
                raise UserError(
                    f"{name}: a mask of mode {image.mode}; expected 8 bits and one channel, whose "
                    "values are class ids"
                )
            packed = str(image.tile[0].args) if image.tile else ""
            # Pillow spreads 2- and 4-bit grey over 0..255, which is right for pictures alone.
            spread = {"L;2": 85, "L;4": 17}.get(packed, 1)
            return np.asarray(ImageOps.exif_transpose(image)).astype(np.uint8) // spread
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{name}: no such file") from error
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{name}: not a readable mask ({reason}); replace it") from error


def pictures_in(folder: Path) -> list[Path]:
    """The picture files of a folder, in order.

    Raises:
        UserError: no such folder, or none in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected one with pictures")
    found = sorted(f for f in folder.iterdir() if f.is_file() and is_picture(f))
    if not found:
        raise UserError(f"{folder}: no pictures in this folder; expected {' '.join(PICTURES)}")
    return found


def is_picture(file: Path) -> bool:
    """By its name; hidden files, as macOS leaves them beside pictures, are none."""
    return file.suffix.lower() in PICTURES and not file.name.startswith(".")


def unique_stems(paths) -> list[str]:
    """A name for what belongs to each file: its stem, or more where that is taken."""
    names = []
    for path in map(Path, paths):
        numbered = (f"{path.stem}_{number}" for number in itertools.count(2))
        choices = itertools.chain((path.stem, path.name), numbered)
        names.append(next(name for name in choices if name not in names))
    return names


def list_images(*paths) -> list[Path]:
    """The pictures named, and those inside the folders named, in order.

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


def spread(items, most: int) -> list:
    """At most so many of them, evenly from the first on."""
    count = min(len(items), most)
    return [items[i * len(items) // count] for i in range(count)]


def writable_folder(path) -> Path:
    """Checks that a folder is there, or can be made, and can be written; makes nothing that stays.

    Raises:
        UserError: a file is in the way, or the file system refuses.
    """
    path = Path(path)
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise UserError(f"{path}: cannot be a folder, {there} is a file; choose another place")
    try:
        with tempfile.TemporaryFile(dir=there):
            return path
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error


def temporary_beside(path: Path) -> Path:
    """The name under which `path` is written before it takes its place; one for each target."""
    return path.with_name(f".{path.name}.partial")


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Makes a folder, and takes away what it made if the files inside cannot be written."""
    made = [folder for folder in (folder, *folder.parents) if not folder.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:  # also Ctrl-C
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def write_bytes(path, data: bytes) -> None:
    """Replaces a file at once: a reader, or a run that is killed, sees the old or the new one.

    Raises:
        UserError: the file system refuses (full, read-only); the old file stays as it was.
    """
    write_together({Path(path): data})


def write_together(contents: dict[Path, bytes]) -> None:
    """Replaces files that belong together; the first only when all of them are on the disk.

    Raises:
        UserError: one of them cannot be written; the old files stay as they were.
    """
    partials = {path: temporary_beside(path) for path in contents}
    try:
        with contextlib.ExitStack() as folders:
            try:
                for path, data in contents.items():
                    folders.enter_context(new_folder(path.parent))
                    if path.is_dir():
                        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                    with open(partials[path], "wb") as file:
                        file.write(data)
                        file.flush()
                        os.fsync(file.fileno())
                for path, partial in partials.items():
                    os.replace(partial, path)
            finally:
                for partial in partials.values():
                    with contextlib.suppress(OSError):
                        partial.unlink()
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error


def write_json(path, value) -> None:
    """`write_bytes` of readable JSON."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())
