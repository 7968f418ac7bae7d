"""What a training must keep so that it can go on, bit for bit, where it was killed."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import keras

from keras_pspnet.errors import UserError
from keras_pspnet.files import write_bytes
from keras_pspnet.network.saving import keras_bytes

STATE = "training_state.json"

EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date of the zip format


def save(model: keras.Model, path: Path, state: dict) -> None:
    """Replaces `path` with the model, its optimizer and what Keras's format leaves out.

    Seeds of dropout and running metrics are not in a .keras file; they stand in an archive member
    beside its own, so that one atomic replacement holds all. Dates are left out: the same training
    gives the same bytes.

    Args:
        state: plain values of the caller's, ready for JSON.

    Raises:
        UserError: the folder cannot be written; the old file stays.
    """
    state = {**state, "seeds": _values(_seeds(model)), "metrics": _values(_metrics(model))}
    archive = zipfile.ZipFile(io.BytesIO(keras_bytes(model, path)))
    members = {name: archive.read(name) for name in archive.namelist()}
    metadata = json.loads(members["metadata.json"])
    members["metadata.json"] = json.dumps({**metadata, "date_saved": ""}).encode()
    config = json.loads(members["config.json"], object_hook=_without_address)
    members["config.json"] = json.dumps(config).encode()
    members[STATE] = json.dumps(state).encode()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        for name in sorted(members):
            target.writestr(zipfile.ZipInfo(name, EPOCH), members[name])
    write_bytes(path, stream.getvalue())


def load(path: Path) -> tuple[keras.Model, dict]:
    """The model as it was, its dropout seeds too, and the state of `save`.

    The running metrics exist only once training has begun: see `restore_metrics`.

    Raises:
        UserError: not a file of `save`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            state = json.loads(archive.read(STATE))
        model = keras.saving.load_model(path)
        _assign(_seeds(model), state["seeds"])
        _ = (
            state["step"],
            state["history"],
            state["best"],
            state["recipe"],
            state["coarse"],
            state["metrics"],
        )
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: no training can be resumed from it ({reason[:160]})") from error
    return model, state


def restore_metrics(model: keras.Model, state: dict) -> None:
    """Puts the running means of an unfinished epoch back."""
    _assign(_metrics(model), state["metrics"])


def _without_address(config: dict) -> dict:
    """Keras marks a dtype policy that layers share by its address, another in every process."""
    config.pop("shared_object_id", None)
    return config


def _seeds(model):
    return [v for v in model.non_trainable_variables if v.name == "seed_generator_state"]


def _metrics(model):
    return [variable for metric in model.metrics for variable in metric.variables]


def _values(variables):
    return [keras.ops.convert_to_numpy(variable.value).tolist() for variable in variables]


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
