"""Write .keras files atomically; refuse those of version 0.1.0."""

from pathlib import Path

from keras_pspnet.errors import UserError
from keras_pspnet.files import folder_or_nothing, write_bytes


def save_model(model, path) -> None:
    """Write a model to a .keras file, replacing an old file atomically.

    Raises:
        UserError: The file cannot be written; an old file stays as it was.
    """
    path = Path(path)
    write_bytes(path, keras_bytes(model, path))


def keras_bytes(model, path: Path) -> bytes:
    """Return the content of a model's .keras file.

    Keras can only write to a path, so it writes a temporary file in the folder of `path`.

    Raises:
        UserError: The temporary file cannot be written.
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


def refuse_version_0_1(config: dict, key: str) -> None:
    """Raise ValueError if a Keras config holds a key that only keras_pspnet 0.1.0 wrote."""
    if key in config:
        raise ValueError(
            "it was saved by keras_pspnet 0.1.0, which this version does not read; "
            "train or convert again"
        )
