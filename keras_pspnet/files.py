"""Files in and out: what comes in is checked, what goes out is whole or not there at all."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from keras_pspnet.errors import UserError


def read_bytes(path) -> bytes:
    """The content of a file, or one line that says why not."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def unique_stems(paths) -> list[str]:
    """A name for what belongs to each file: its stem, or more where that is taken."""
    names = []
    for path in map(Path, paths):
        numbered = (f"{path.stem}_{number}" for number in itertools.count(2))
        choices = itertools.chain((path.stem, path.name), numbered)
        names.append(next(name for name in choices if name not in names))
    return names


def evenly_spaced(items, most: int) -> list:
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
def folder_or_nothing(folder: Path) -> Iterator[None]:
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
                    folders.enter_context(folder_or_nothing(path.parent))
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
