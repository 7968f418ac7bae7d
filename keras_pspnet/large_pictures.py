"""Open pictures of any number of pixels; refuse those that the memory cannot hold."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from keras_pspnet.errors import UserError

PIXEL_BYTES = 8
"""Memory that one pixel takes while a picture is read: 4 bytes in Pillow, 3 in the array."""

UNCHECKED = 2**28
"""Bytes up to which a picture is read without a look at the free memory: 33 megapixels."""

_lock = threading.Lock()
_threads, _limit = 0, None  # threads that read a picture now; Pillow's limit before the first


@contextlib.contextmanager
def opened_picture(path, name) -> Iterator[Image.Image]:
    """Open a picture with Pillow for a block, whatever its number of pixels.

    Raises:
        UserError: decoding it would take more than half of the free memory; what Pillow raises.
    """
    with _without_limit(), Image.open(path) as image:
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


def free_memory() -> int | None:
    """Return the bytes of memory that are free for this process, None if the system hides them.

    On Linux what is available, also in a container with a limit; elsewhere all memory of the
    machine.
    """
    with contextlib.suppress(OSError, ValueError, KeyError):
        free = _table("/proc/meminfo")["MemAvailable:"] * 1024
        with contextlib.suppress(OSError, ValueError):  # no limit reads as "max"
            group = Path("/sys/fs/cgroup")
            limit, used = (int((group / f"memory.{n}").read_text()) for n in ("max", "current"))
            files = _table(group / "memory.stat")  # copies of files count as used, and give way
            free = min(free, limit - used + files["active_file"] + files["inactive_file"])
        return free
    with contextlib.suppress(OSError, ValueError, AttributeError):  # Windows has no sysconf
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _table(file) -> dict[str, int]:
    """Return the first two columns of a file of the kernel."""
    return {line.split()[0]: int(line.split()[1]) for line in Path(file).read_text().splitlines()}
