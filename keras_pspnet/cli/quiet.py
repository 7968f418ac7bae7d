"""Silence what libraries print, and set what must be set before TensorFlow is imported."""

import contextlib
import faulthandler
import logging
import os


def make_training_repeatable() -> None:
    """Run TensorFlow's operations one after the other: gradients are summed in a fixed order.

    Call before TensorFlow is imported. Each operation still uses all cores; a training step was
    measured to take as long as before.
    """
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")


def quiet_tensorflow() -> None:
    """Import TensorFlow and hide what it prints to stderr while it looks for devices."""
    with quiet_stderr():
        import tensorflow

        tensorflow.zeros(())


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
    with open(os.devnull, "w") as devnull, contextlib.ExitStack() as stack:
        if quiet:
            stack.enter_context(contextlib.redirect_stdout(devnull))
        yield


def quiet_datasets(name: str) -> None:
    """Import TensorFlow quietly and hide TFDS's log if the dataset `name` needs them."""
    if name.startswith("tfds:"):
        quiet_tensorflow()
        logging.getLogger("absl").setLevel(logging.ERROR)
