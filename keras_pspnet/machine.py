"""The machine: its cores and free memory, and which process uses a folder."""

import contextlib
import math
import os
import platform
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from keras_pspnet.errors import UserError
from keras_pspnet.files import flock, folder_or_nothing, is_at

SETTINGS = {
    # Without it every feature map above 32 MB is taken from the system and given back at each
    # operation, which fills new pages with zeros each time.
    "TF_CPU_ALLOCATOR_USE_BFC": "1",
}
"""Environment variables that the commands set; benchmarks/cpu_settings.py measures them."""

LOCK = ".lock"
"""Name of the file that says which process uses a folder, see `locked`."""

CGROUPS = Path("/sys/fs/cgroup")
"""Where Linux shows the limits of groups of processes: containers, services, jobs."""

RENEWED, STALE = 20.0, 120.0
"""Seconds between two renewals of a lock, and after which another machine's lock counts as left."""


def fast_cpu() -> None:
    """Set the environment variables with which the commands run TensorFlow on a CPU.

    Call it before TensorFlow or Keras is imported. A variable that is set already keeps its value.

    | variable | value | what it does |
    |---|---|---|
    | TF_CPU_ALLOCATOR_USE_BFC | 1 | TensorFlow keeps the memory of large feature maps |
    | TF_NUM_INTRAOP_THREADS | `cores()` | only under a cgroup's limit: TensorFlow does not see it |

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
    if any(_core_limits()):
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(cores()))


def cores() -> int:
    """Return the number of cores that this process may use, also in a container with a limit."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows do not tell
        count = os.cpu_count() or 1
    for limit in _core_limits():
        count = min(count, max(math.ceil(limit), 1))
    return count


def _core_limits() -> Iterator[float]:
    """Yield the limits that cgroups put on this process, in cores."""
    for group in _groups():
        with contextlib.suppress(OSError, ValueError):  # no limit reads as "max"
            quota, period = map(int, (group / "cpu.max").read_text().split())
            yield quota / period
    with contextlib.suppress(OSError, ValueError):  # version 1, where no limit reads as -1
        names = (CGROUPS / f"cpu/cpu.cfs_{name}_us" for name in ("quota", "period"))
        quota, period = (int(name.read_text()) for name in names)
        if quota > 0:
            yield quota / period


def _groups() -> list[Path]:
    """Return the folders of this process's cgroup, version 2, and of those above it.

    Within a container its cgroup is the uppermost. A service of systemd and a job of Slurm have
    theirs further down.
    """
    own = CGROUPS
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            number, _, path = line.split(":", 2)
            if number == "0":
                own = CGROUPS / path.strip("/")
    return [own, *(group for group in own.parents if group.is_relative_to(CGROUPS))]


def threads() -> int:
    """Return on how many threads an operation runs: TF_NUM_INTRAOP_THREADS, else the cores."""
    given = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    return int(given) if given.isdecimal() and int(given) else cores()


def processor() -> str:
    """Return the name of the processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def free_memory() -> int | None:
    """Return the bytes of memory that are free for this process, None if the system hides them.

    On Linux what is available, also in a container, service or job with a limit; elsewhere all
    memory of the machine.
    """
    with contextlib.suppress(OSError, ValueError, KeyError):
        free = _table("/proc/meminfo")["MemAvailable:"] * 1024
        for group in _groups():
            with contextlib.suppress(OSError, ValueError, KeyError):  # no limit reads as "max"
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


@contextlib.contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Keep a folder for this call alone; create it, and remove it again if the block raises.

    The lock is a file in it that names the process, the machine and the time. The system unlocks
    it when a process ends, killed too; that of another machine ends if not renewed for STALE.

    Args:
        what: what runs in the folder, for the message of others, such as "a training".

    Raises:
        UserError: another call or process keeps the folder, or the lock cannot be written.
    """
    path, ended = folder / LOCK, threading.Event()
    with folder_or_nothing(folder):
        try:
            file = _take(path, what)
        except OSError as error:
            raise UserError(f"{folder}: cannot be written: {error.strerror}") from error
        renewing = threading.Thread(target=_renew, args=(file, ended), daemon=True)
        renewing.start()
        try:
            yield
        finally:
            ended.set()
            renewing.join()
            if is_at(file, path):
                with contextlib.suppress(OSError):
                    path.unlink()
            os.close(file)


def _take(path: Path, what: str) -> int:
    """Return the descriptor of a lock file, open and locked; raises as `locked`."""
    kernel = machine = socket.gethostname()
    with contextlib.suppress(OSError):  # which containers of one machine share
        kernel = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        held = flock(file)
        if held is False or is_at(file, path):
            break
        os.close(file)  # its owner has just removed it
    where, _, owner = os.read(file, 1000).decode(errors="replace").partition("\n")
    elsewhere = owner and (held is None or where != kernel)
    if held is False or (elsewhere and time.time() - os.fstat(file).st_mtime <= STALE):
        os.close(file)
        ends = f" (if that has ended: {STALE:.0f} s after its end)" * bool(elsewhere)
        raise UserError(
            f"{path.parent}: {owner or 'another process'} uses this folder; wait for it{ends}, or "
            "choose another folder"
        )
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    os.ftruncate(file, 0)
    os.lseek(file, 0, os.SEEK_SET)
    os.write(file, f"{kernel}\n{what}, process {os.getpid()} on {machine} since {since}".encode())
    return file


def _renew(file: int, ended: threading.Event) -> None:
    while not ended.wait(RENEWED):
        with contextlib.suppress(OSError):
            os.utime(file)


@contextlib.contextmanager
def scratch_in(folder: Path, name: str) -> Iterator[Path]:
    """Create a folder in `folder` for unfinished files of this call; remove it after the block.

    What killed calls left there is removed too.

    Args:
        folder: an existing folder; files can be moved into it atomically.
        name: what the scratch folders are called.
    """
    for left in folder.glob(f".{name}.*.partial"):
        if not (left / LOCK).exists():  # its owner is about to make one, or to remove the folder
            continue
        with contextlib.suppress(UserError), locked(left, "a command"):
            shutil.rmtree(left, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".partial", dir=folder))
    try:
        with locked(scratch, "a command"):
            yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
