"""Save and load the full state of a training, so that a resumed one gives the same bytes."""

import contextlib
import json
import os
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np

from keras_pspnet.errors import UserError
from keras_pspnet.files import partial_beside
from keras_pspnet.network import replicas
from keras_pspnet.network.keras_file import read_keras
from keras_pspnet.network.main_head import check_ours
from keras_pspnet.network.saving import saved_beside
from keras_pspnet.train.state import STATE, one_line, read_state


def save(model: keras.Model, path: Path, state: dict) -> None:
    """Write a model, its optimizer and the training state to a .keras file, atomically.

    The state also gets the seeds of dropout and the running metrics, which a .keras file lacks.
    Dates and memory addresses are removed, so that the same training gives the same bytes.

    Args:
        state: JSON values under "step", "history", "best", "recipe", "data" and
            "coarse".

    Raises:
        UserError: a weight is not finite, or the folder cannot be written; the old file stays.
    """
    for weight in model.weights:
        if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
            raise UserError(
                f"{path}: {weight.path} is no longer finite at step {state['step']}; the file, if "
                "there is one, keeps an earlier step; train anew with a lower learning_rate"
            )
    metrics = [_values(replicas.parts(variable)) for variable in _metrics(model)]
    state = {**state, "seeds": _values(_seeds(model)), "metrics": metrics}
    with (
        _this_process_alone(),
        saved_beside(model, path) as saved,
        zipfile.ZipFile(saved) as archive,
        partial_beside(path) as partial,
    ):
        metadata = json.loads(archive.read("metadata.json"))
        config = json.loads(archive.read("config.json"), object_hook=_without_address)
        changed = {"metadata.json": {**metadata, "date_saved": ""}, "config.json": config}
        changed[STATE] = state
        with open(partial, "wb") as file:
            with zipfile.ZipFile(file, "w") as target:
                for name in sorted({*archive.namelist(), STATE}):
                    member = zipfile.ZipInfo(name)  # dated 1980-01-01
                    if name in changed:
                        target.writestr(member, json.dumps(changed[name]))
                        continue
                    member.file_size = archive.getinfo(name).file_size
                    with archive.open(name) as source, target.open(member, "w") as copy:
                        shutil.copyfileobj(source, copy, 2**20)  # weights may be large
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)


def load(path: Path) -> tuple[keras.Model, dict]:
    """Return the model with its dropout seeds, and the state, of a file of `save`.

    The running metrics are created at the first batch; then call `restore_metrics`.

    Raises:
        UserError: not a file of `save`.
    """
    state = read_state(path)
    with one_line(path):
        model = read_keras(path)
        check_ours(model, path)
        if not getattr(model, "optimizer", None):
            raise ValueError("its network has no optimizer")
        _assign(_seeds(model), state["seeds"])
    return model, state


def restore_metrics(model: keras.Model, state: dict) -> None:
    """Assign the running metrics of an unfinished epoch.

    Each replica goes on with its own; with another number of them the first one takes the sum.
    """
    for variable, values in zip(_metrics(model), state["metrics"], strict=True):
        parts = replicas.parts(variable)
        if np.shape(values) == tuple(variable.shape):  # of a version without replicas
            values = [values]
        if len(parts) != len(values):
            whole = np.sum(values, 0)
            values = [whole, *[np.zeros_like(whole)] * (len(parts) - 1)]
        _assign(parts, values)


@contextlib.contextmanager
def _this_process_alone():
    """Let Keras make variables without the other processes of a training.

    To save an optimizer it makes another one, whose variables would wait for those processes.
    """
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def _without_address(config: dict) -> dict:
    # Keras names a dtype policy that layers share by its address, different in every process.
    config.pop("shared_object_id", None)
    if config.get("synchronized"):  # set for several devices, see `Devices.built`
        config["synchronized"] = False
    return config


def _seeds(model):
    return [v for v in model.non_trainable_variables if v.name == "seed_generator_state"]


def _metrics(model):
    return [variable for metric in model.metrics for variable in metric.variables]


def _values(variables):
    return [keras.ops.convert_to_numpy(variable).tolist() for variable in variables]


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
