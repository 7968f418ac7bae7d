"""The machine: its cores and free memory, and how TensorFlow uses its CPU."""

import contextlib
import os
import sys
from pathlib import Path

from keras_pspnet.errors import UserError

SETTINGS = {
    # Without it every feature map above 32 MB is taken from the system and given back at each
    # operation, which fills new pages with zeros each time.
    "TF_CPU_ALLOCATOR_USE_BFC": "1",
}
"""Environment variables that the commands set; benchmarks/cpu_settings.py measures them."""


def fast_cpu() -> None:
    """Set the environment variables with which the commands run TensorFlow on a CPU.

    Call it before TensorFlow or Keras is imported. A variable that is set already keeps its value.

    | variable | value | what it does |
    |---|---|---|
    | TF_CPU_ALLOCATOR_USE_BFC | 1 | TensorFlow keeps the memory of large feature maps |

    Raises:
        UserError: TensorFlow is imported already and would not read them.
    """
    if "tensorflow" in sys.modules:
        raise UserError(
            "fast_cpu() comes too late: TensorFlow is imported already, which reads its "
            "settings then; call it first in the script"
        )
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


def cores() -> int:
    """Return the number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows do not tell
        return os.cpu_count() or 1


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
