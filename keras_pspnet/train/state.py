"""Read the training state inside a checkpoint, without TensorFlow."""

import contextlib
import json
import zipfile
from pathlib import Path

from keras_pspnet.errors import UserError

STATE = "training_state.json"
"""Name of the archive member that holds the state beside Keras's own members."""


def read_state(path: Path) -> dict:
    """Return the state of a file of `checkpoint.save`, without loading the model.

    Raises:
        UserError: not a file of `checkpoint.save`.
    """
    with one_line(path):
        with zipfile.ZipFile(path) as archive:
            state = json.loads(archive.read(STATE))
        missing = {"step", "history", "best", "recipe", "coarse", "seeds", "metrics"} - set(state)
        if missing:
            raise ValueError(f"no {', '.join(sorted(missing))} in it")
    return state


@contextlib.contextmanager
def one_line(path):
    """Turn the errors of a file that cannot be loaded into a UserError."""
    try:
        yield
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: no training can be resumed from it ({reason[:160]})") from error
