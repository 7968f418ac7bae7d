"""Read the training state inside a checkpoint, without TensorFlow."""

import contextlib
import json
import zipfile
import zlib
from pathlib import Path

from keras_pspnet.errors import UserError, reason_of
from keras_pspnet.files import check_regular, read_member

ERRORS = (OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError)
ERRORS += (zipfile.BadZipFile, zlib.error)
"""What a damaged file raises."""

STATE = "training_state.json"
"""Name of the archive member that holds the state beside Keras's own members."""


def read_state(path: Path) -> dict:
    """Return the state of a file of `checkpoint.save`, without loading the model.

    Raises:
        UserError: not a file of `checkpoint.save`.
    """
    check_regular(path)
    with one_line(path):
        with zipfile.ZipFile(path) as archive:
            state = dict(json.loads(read_member(archive, STATE)))
        for name, fits in FORM.items():
            if not fits(state[name] if name in REQUIRED else state.get(name)):
                raise ValueError(f"its {name} is {str(state.get(name))[:40]}")
    return state


def _number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _rows(value) -> bool:
    """Return whether a value is the history: rows of the same columns, numbers where curves are."""
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        return False
    return all(COLUMNS <= set(row) == set(value[0]) for row in value) and all(
        _number(row[name]) for row in value for name in COLUMNS
    )


COLUMNS = {"epoch", "loss", "val_loss", "main_mIoU", "val_main_mIoU", "learning_rate"}
"""Columns of the history that its curves show."""

FORM = {
    "step": lambda value: type(value) is int and value >= 0,
    "history": _rows,
    "best": lambda value: value is None or _number(value),
    "recipe": lambda value: isinstance(value, dict),
    "coarse": lambda value: isinstance(value, bool),
    "seeds": lambda value: isinstance(value, list),
    "metrics": lambda value: isinstance(value, list),
    "start": lambda value: value is None or isinstance(value, str),
    "data": lambda value: value is None or isinstance(value, dict),
    "machine": lambda value: value is None or set(value) == {"threads", "processor"},
}
"""What the state holds under each name."""

REQUIRED = set(FORM) - {"start", "data", "machine"}
"""The names without which no run can be resumed."""


@contextlib.contextmanager
def one_line(path):
    """Turn the errors of a file that cannot be loaded into a UserError."""
    try:
        yield
    except ERRORS as error:
        raise UserError(
            f"{path}: no training can be resumed from it ({reason_of(error)})"
        ) from error
