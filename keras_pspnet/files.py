"""Write files atomically; make folders; list pictures; name outputs."""

import collections
import contextlib
import errno
import functools
import itertools
import json
import os
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from PIL import features

from keras_pspnet.errors import UserError

PICTURES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
"""File name endings of pictures, in lower case."""
if "avif" in features.modules and features.check_module("avif"):  # Pillow 11.3, and not all of it
    PICTURES += (".avif",)

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""The same as Pillow calls them. It knows more, some of which it reads by starting a program."""
if ".avif" in PICTURES:
    FORMATS += ("AVIF",)

INFLATED = 30
"""How many times a member of a zip archive may inflate; the configuration of a model does 25."""

UNREAD = {".avif", ".heic", ".heif", ".jp2", ".jxl", ".psd", ".svg", ".tga"} - set(PICTURES)
UNREAD |= {".exr", ".hdr", ".pbm", ".pgm", ".pnm", ".ppm"}
UNREAD |= {".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"}  # of cameras
"""Endings of pictures that are not read here."""


def read_bytes(path) -> bytes:
    """Return the content of a file.

    Raises:
        UserError: it cannot be read, or is no regular file.
    """
    check_regular(path)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def read_member(archive, name: str) -> bytes:
    """Return a member of an open zip archive; raises as `check_member`, and what zipfile raises."""
    check_member(archive.getinfo(name))
    return archive.read(name)


def check_member(entry) -> None:
    """Check that a member of a zip archive inflates by what text and weights do, beside 1 MB.

    Raises:
        UserError: it is more than INFLATED times as large as in the archive.
    """
    if entry.file_size > INFLATED * entry.compress_size + 2**20:
        inflated = f"{entry.filename} in it inflates to {entry.file_size / 1e6:.0f} MB"
        raise UserError(f"{inflated}, more than {INFLATED} times its size; save the file again")


def check_regular(path) -> None:
    """Check that a path, if it is there, is a file or a folder: a pipe is read without end.

    Raises:
        UserError: it is a pipe, a device or a socket.
    """
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(f"{path}: a pipe or a device; expected a file")


def composed(name: str) -> str:
    """Return a name in Unicode's composed form, NFC: macOS decomposes the names in its archives."""
    return unicodedata.normalize("NFC", name)


def existing(path: Path) -> Path | None:
    """Return a path that is there, also where Unicode's form of its last name is another."""
    with contextlib.suppress(OSError, ValueError):  # too long, or with a zero byte
        if path.exists():
            return path
        if not path.name.isascii():
            changed = path.parent.stat().st_mtime_ns
            return _by_composed_name(path.parent, changed).get(composed(path.name))
    return None


@functools.lru_cache(maxsize=64)
def _by_composed_name(folder: Path, changed: int) -> dict[str, Path]:
    return {composed(path.name): path for path in folder.iterdir()}


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


@contextlib.contextmanager
def partial_beside(path: Path, ending: str = "") -> Iterator[Path]:
    """Reserve a name under which `path` is written before it replaces the old file.

    The name belongs to this call alone until the block ends; other threads and processes that write
    the same file take other names. What a killed process left is written over.

    Args:
        path: the file to write.
        ending: what the name must end in.
    """
    for number in itertools.count(1):
        partial = path.with_name(f".{path.name}.{number}.partial{ending}")
        file = os.open(partial, os.O_RDWR | os.O_CREAT, 0o666)
        held = flock(file)
        if held and is_at(file, partial):
            break
        os.close(file)
        if held is None:
            break
    try:
        yield partial
    finally:
        if held is None or is_at(file, partial):  # it did not replace `path`
            with contextlib.suppress(OSError):
                partial.unlink()
        if held:
            os.close(file)


def flock(file: int) -> bool | None:
    """Lock an open file by its descriptor; the system unlocks it when the process ends, killed too.

    Returns:
        True if it is locked now, False if another opener holds it, None where the system or the
        file system has no such locks.
    """
    try:
        import fcntl  # not on Windows

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None


def is_at(file: int, path) -> bool:
    """Return whether the file of a descriptor still has its name."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(file), os.stat(path))
    return False


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


@contextlib.contextmanager
def plain_path(folder: Path) -> Iterator[Path]:
    """Give a path to a folder without `[`, `*` and `?`, which TensorFlow would read as a pattern.

    If the folder's own path has one of them, this is a symbolic link in the temporary folder.
    """
    if not set(str(folder)) & set("[]*?" + "\\" * (os.sep == "/")):
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        link = Path(place) / "link"
        link.symlink_to(folder.absolute(), target_is_directory=True)
        yield link


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
    try:
        with contextlib.ExitStack() as stack:
            partials = {}
            for path, data in contents.items():
                stack.enter_context(folder_or_nothing(path.parent))
                if path.is_dir():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                partials[path] = stack.enter_context(partial_beside(path))
                with open(partials[path], "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            for path, partial in partials.items():
                os.replace(partial, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error


def write_json(path, value) -> None:
    """Write a value as indented JSON, atomically; raises as `write_bytes`."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


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
