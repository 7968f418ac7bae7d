"""Write files atomically; make folders; name outputs."""

import collections
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
    """Return the content of a file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def unique_stems(paths) -> list[str]:
    """Return one output name for each path, no two of them equal.

    A path gets its stem; if that is taken, its full file name; if that is taken too, the first
    free one of stem_2, stem_3, and so on. Names are compared by `str.casefold`, since file
    systems that ignore case would write a.png over A.png.
    """
    names = {}
    numbers = collections.defaultdict(lambda: itertools.count(2))
    for path in map(Path, paths):
        numbered = (f"{path.stem}_{number}" for number in numbers[path.stem.casefold()])
        choices = itertools.chain((path.stem, path.name), numbered)
        name = next(name for name in choices if name.casefold() not in names)
        names[name.casefold()] = name
    return list(names.values())


def evenly_spaced(items, count: int) -> list:
    """Return at most `count` items, evenly spaced, starting with the first."""
    count = min(len(items), count)
    return [items[i * len(items) // count] for i in range(count)]


def writable_folder(path) -> Path:
    """Check that files can be written to a folder, or that it can be made; create nothing.

    Raises:
        UserError: a file is in the way, or the file system refuses.
    """
    path = Path(path)
    existing = next((place for place in (path, *path.parents) if place.exists()), path)
    if not existing.is_dir():
        raise UserError(f"{path}: cannot be a folder, {existing} is a file; choose another place")
    try:
        with tempfile.TemporaryFile(dir=existing):
            return path
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error


def temporary_beside(path: Path) -> Path:
    """Return the name under which `path` is written before it replaces the old file."""
    return path.with_name(f".{path.name}.partial")


@contextlib.contextmanager
def folder_or_nothing(folder: Path) -> Iterator[None]:
    """Create a folder; if the block raises, remove the folders that this call created."""
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
    """Write a file atomically: readers, also after a kill, find the old content or the new.

    Missing folders are created.

    Raises:
        UserError: the file system refuses (full, read-only); the old file stays as it was.
    """
    write_together({Path(path): data})


def write_together(contents: dict[Path, bytes]) -> None:
    """Write several files; replace the old ones only when all new ones are on the disk.

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
    """Write a value as indented JSON, atomically; raises as `write_bytes`."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())
