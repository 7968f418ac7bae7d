"""Run a file that nobody vouches for once in a child process: the native libraries may die of it.

python -m keras_pspnet.inference.first_run FILE KIND
"""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from keras_pspnet.errors import UserError, missing_package, reason_of
from keras_pspnet.files import read_bytes
from keras_pspnet.inference.exported import open_exported

SECONDS = 60
"""Processor time that the first run may take, with the start of Python and of TensorFlow."""

WAIT = 600
"""Seconds after which it is given up, on a machine that is busy or has no such limits."""

MEMORY = 4 * 2**30
"""Bytes of memory that the first run may take."""

REMEDY = "if you trust it, put the card of its export beside it"

_passed: set[str] = set()
"""SHA-256 of the files that have been run, in this process or as their card says."""


def check_first_run(path, kind: str) -> None:
    """Run a file of `export_model` once in a child process, unless its card is next to it.

    The card says that `export_model` has run the file. Any *.card.json in its folder counts whose
    `sha256` is the file's.

    Args:
        path: the file, of a SavedModel its folder.
        kind: "saved_model", "tflite" or "onnx".

    Raises:
        UserError: the file cannot be loaded or run, ends the process, or takes more than SECONDS or
            MEMORY.
    """
    digest = contents_sha256(path)
    if digest in _passed or digest in _vouched_for(Path(path).parent):
        return
    command = [sys.executable, "-P", "-m", __name__, str(path), kind]
    # This package, also where it is no installed one; -P leaves the working folder out.
    places = [*filter(None, [os.environ.get("PYTHONPATH")]), str(Path(__file__).parents[2])]
    options = {"env": {**os.environ, "PYTHONPATH": os.pathsep.join(places)}, "timeout": WAIT}
    try:
        done = subprocess.run(command, capture_output=True, check=False, **options)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{path}: no answer in {WAIT} s; {REMEDY}") from error
    said = done.stdout.decode(errors="replace").splitlines()
    if done.returncode == 2 and said:
        raise UserError(said[-1])
    if done.returncode:
        code, how = done.returncode, f"exit code {done.returncode}"
        with contextlib.suppress(ValueError):
            how = signal.Signals(-code).name
        if how == "SIGXCPU":
            raise UserError(f"{path}: no answer in {SECONDS} s of processor time; {REMEDY}")
        raise UserError(
            f"{path}: damaged: it ended the process that first ran it ({how}); export it again"
        )
    _passed.add(digest)


def contents_sha256(path) -> str:
    """Return the SHA-256 of a file; of a folder, that of its files' contents in their order."""
    path, digest = Path(path), hashlib.sha256()
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        if file.is_file():
            digest.update(read_bytes(file))
    return digest.hexdigest()


def _vouched_for(folder: Path) -> set[str]:
    found = set()
    for file in folder.glob("*.card.json"):
        with contextlib.suppress(UserError, ValueError, RecursionError, AttributeError):
            found.add(str(json.loads(read_bytes(file)).get("sha256")))
    return found


def main(path, kind) -> int:
    """Load and run a file within limits; print why it cannot be."""
    import numpy as np

    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows has no limits
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
    try:
        predictor = open_exported(path, kind)
        noise = np.random.default_rng(0).integers(0, 256, (1, *predictor.size, 3), np.uint8)
        predictor(noise)
    except UserError as error:
        print(" ".join(str(error).split()))
        return 2
    except ImportError as error:
        print(missing_package(error) or error)
        return 2
    except Exception as error:  # a damaged file can raise anything inside the libraries
        print(f"{path}: the model cannot be loaded ({reason_of(error)})")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
