"""Write .keras files atomically; refuse those of version 0.1.0."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from keras_pspnet.errors import UserError
from keras_pspnet.files import folder_or_nothing, partial_beside


def save_model(model, path) -> None:
    """Write a model to a .keras file, replacing an old file atomically.

    Raises:
        UserError: The file cannot be written; an old file stays as it was.
    """
    path = Path(path)
    with saved_beside(model, path) as partial:
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)


@contextlib.contextmanager
def saved_beside(model, path: Path) -> Iterator[Path]:
    """Save a model as a .keras file in the folder of `path`; remove the file after the block.

    Raises:
        UserError: The file cannot be written, or the block raises an OSError.
    """
    try:
        with folder_or_nothing(path.parent), partial_beside(path, ".keras") as partial:
            model.save(partial)
            yield partial
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error


def refuse_version_0_1(config: dict, key: str) -> None:
    """Raise ValueError if a Keras config holds a key that only keras_pspnet 0.1.0 wrote."""
    if key in config:
        raise ValueError(
            "it was saved by keras_pspnet 0.1.0, which this version does not read; "
            "train or convert again"
        )
