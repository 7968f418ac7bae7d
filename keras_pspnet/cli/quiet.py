"""Silence what libraries print, and set what must be set before TensorFlow is imported."""

import contextlib
import ctypes
import faulthandler
import importlib.util
import json
import logging
import os
import sys
import tempfile
import warnings
from pathlib import Path

from PIL import Image

from keras_pspnet.errors import UserError
from keras_pspnet.machine import scratch_in


def make_training_repeatable() -> None:
    """Run TensorFlow's operations one after the other: gradients are summed in a fixed order.

    Call before TensorFlow is imported. Each operation still uses all cores; a training step was
    measured to take as long as before.
    """
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")


def quiet_tensorflow() -> None:
    """Import TensorFlow and hide what it prints to stderr while it looks for devices.

    Raises:
        UserError: TensorFlow is half-installed, or Keras's backend is not there.
    """
    check_backend()
    with quiet_stderr():
        import tensorflow

        try:
            tensorflow.zeros(())
        except AttributeError as error:  # what pip leaves of a package that it cannot remove
            raise UserError(
                "tensorflow is half-installed; run: pip install --force-reinstall tensorflow"
            ) from error
    # TensorFlow logs the traceback of a damaged fingerprint.pb and goes on; TFDS logs its progress.
    logging.getLogger("absl").setLevel(logging.CRITICAL)


def check_backend() -> None:
    """Check that the backend which Keras will import is there; it raises a traceback if not.

    Raises:
        UserError: it is not installed, or no backend of this package.
    """
    name, where = os.environ.get("KERAS_BACKEND"), "KERAS_BACKEND"
    if not name:
        home = os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras")
        where = os.path.join(home, "keras.json")
        try:
            with open(where, encoding="utf-8") as file:
                name = json.load(file).get("backend", "tensorflow")
        except (OSError, ValueError, AttributeError):  # Keras passes over it too
            return
    known = name in ("tensorflow", "jax", "torch")
    if not known or importlib.util.find_spec(name) is None:
        wrong = "is not installed" if known else "does not exist; expected tensorflow or jax"
        raise UserError(
            f"Keras's backend is {name} ({where}), which {wrong}; set KERAS_BACKEND=tensorflow"
        )


@contextlib.contextmanager
def own_temporary_folder():
    """Let everything within the block make its temporary files in a folder of this command.

    Libraries leave some behind. The folder is removed after the block, and if the process is
    killed, by the next command.
    """
    before = os.environ.get("TMPDIR"), tempfile.tempdir
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(scratch_in(Path(tempfile.gettempdir()), "keras_pspnet"))
            os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        except (OSError, UserError):  # whoever needs one will say so
            pass
        try:
            yield
        finally:
            tempfile.tempdir = before[1]
            os.environ.pop("TMPDIR", None)
            if before[0] is not None:
                os.environ["TMPDIR"] = before[0]


def write_any_character() -> None:
    """Let standard output and error write what their encoding lacks as \\u escapes."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # replaced by another object
            stream.reconfigure(errors="backslashreplace")


def quiet_pillow() -> None:
    """Hide what Pillow and libtiff print about damaged pictures; what is wrong becomes an error."""
    warnings.filterwarnings("ignore", module=r"PIL\b")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    with contextlib.suppress(OSError, AttributeError):  # libtiff is inside, or is not there
        library = ctypes.CDLL(Image.core.__file__)
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)


@contextlib.contextmanager
def quiet_stderr():
    """Hide what Python and native libraries write to stderr within the block, but for crashes."""
    stderr = os.dup(2)
    watched = faulthandler.is_enabled()
    if not watched:
        faulthandler.enable(stderr)
    with open(os.devnull, "w") as devnull:
        os.dup2(devnull.fileno(), 2)
    try:
        yield
    finally:
        if not watched:
            faulthandler.disable()
        os.dup2(stderr, 2)
        os.close(stderr)


@contextlib.contextmanager
def quiet_stdout(quiet: bool):
    """Hide what Python prints to stdout within the block, if `quiet`."""
    if not quiet:
        yield
        return
    with open(os.devnull, "w") as devnull, contextlib.redirect_stdout(devnull):
        yield


def quiet_datasets(name: str) -> None:
    """Import TensorFlow quietly if the dataset `name` needs it."""
    if name.startswith("tfds:"):
        quiet_tensorflow()
