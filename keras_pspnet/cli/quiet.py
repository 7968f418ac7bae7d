"""Silence libraries, and make training repeatable."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os


def make_training_repeatable() -> None:
    """Before TensorFlow is imported: gradients are added up in one order, so bits can be repeated.

    Each operation still uses all cores; measured, a training step takes as long as before.
    """
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")


def quiet_tensorflow() -> None:
    """Imports TensorFlow without what it prints to stderr while it looks for devices."""
    with quiet_stderr():
        import tensorflow

        tensorflow.zeros(())


@contextlib.contextmanager
def quiet_stderr():
    """Without what libraries print to stderr past Python; errors are raised as ever."""
    stderr = os.dup(2)
    watched = faulthandler.is_enabled()
    if not watched:
        faulthandler.enable(stderr)  # where one crashes, it is seen
    with open(os.devnull, "w") as devnull:
        os.dup2(devnull.fileno(), 2)
    try:
        yield
    finally:
        if not watched:
            faulthandler.disable()
        os.dup2(stderr, 2)
        os.close(stderr)


def quiet_datasets(name: str) -> None:
    """TFDS imports TensorFlow, and warns of its own ways."""
    if name.startswith("tfds:"):
        quiet_tensorflow()
        logging.getLogger("absl").setLevel(logging.ERROR)
