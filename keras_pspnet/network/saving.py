"""Write a model as a .keras file."""

from __future__ import annotations

from pathlib import Path

from keras_pspnet.errors import UserError
from keras_pspnet.files import folder_or_nothing, write_bytes


def save_model(model, path) -> None:
    """Replaces a .keras file at once.

    Raises:
        UserError: the folder cannot be written; the old file stays.
    """
    path = Path(path)
    write_bytes(path, keras_bytes(model, path))


def keras_bytes(model, path: Path) -> bytes:
    """A model as the bytes of a .keras file; Keras writes it beside `path`, and it is taken away.

    Raises:
        UserError: the folder cannot be written.
    """
    partial = path.with_name(f".{path.stem}.partial.keras")
    try:
        with folder_or_nothing(path.parent):
            try:
                model.save(partial)
                return partial.read_bytes()
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
