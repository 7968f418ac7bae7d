"""Read a .keras file, after a look at what its archive and its configuration ask for."""

import io
import json
import zipfile

import h5py
import keras

from keras_pspnet.errors import UserError
from keras_pspnet.files import check_member

WEIGHTS = "model.weights.h5"

MEMBERS = {"config.json", "metadata.json", WEIGHTS, "training_state.json"}
"""The names in a .keras file of this package; checkpoints alone have training_state.json."""

SMALL = 2**20
"""Bytes that weights may have in any case, however small their file is."""

OBJECTS = tuple(
    f"keras.{name}"
    for name in (
        *("activations", "constraints", "dtype_policies", "initializers", "layers", "losses"),
        *("metrics", "optimizers", "quantizers", "regularizers"),
        *("src.activations", "src.applications.convnext", "src.dtype_policies", "src.layers"),
        *("src.models", "src.ops"),
    )
)
"""The modules of Keras that a configuration may name; others can write files or start programs."""

FUNCTIONS = ("builtins", "keras.activations", "keras.losses", "keras.metrics")
"""Where a function in a configuration may come from, beside packages that register theirs."""

LARGEST_SIDE = 100_000
"""Greatest height and width of a network's input in pixels."""


def read_keras(path, name=None) -> keras.Model:
    """Return the model in a .keras file.

    Args:
        path: the file.
        name: what messages call it; its path by default.

    Raises:
        UserError: members that are twins, inflate to many times their size or are not of a .keras
            file; objects that no network is made of; sizes that the weights do not have.
        Exception: what Keras raises of a damaged file.
    """
    import keras_pspnet.network  # noqa: F401  registers the classes that files name

    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive)
            config = json.loads(archive.read("config.json"))
            axes, largest = _sizes(archive)
        _check_config(config, axes, largest)
    except UserError as error:
        raise UserError(f"{name or path}: {error}") from error
    return keras.saving.load_model(path)


def _check_members(archive) -> None:
    names = archive.namelist()
    if len(set(names)) < len(names) or not {"config.json", WEIGHTS} <= set(names) <= MEMBERS:
        raise UserError(
            f"a .keras file with the members {', '.join(sorted(names))[:80]}; expected "
            f"{', '.join(sorted(MEMBERS))}, the last if a training wrote it"
        )
    for entry in archive.infolist():
        check_member(entry)


def _sizes(archive) -> tuple[set[int], int]:
    """Return the axes of the weights, and how many numbers the largest one has.

    Raises:
        UserError: weights that are not in the file.
    """
    axes, largest, total = {1}, 1, 0
    data = io.BytesIO(archive.read(WEIGHTS))

    def visit(name, item):
        nonlocal largest, total
        if isinstance(item, h5py.Dataset):
            if item.is_virtual or item.external:
                raise UserError(f"its weights {name} are in another file")
            axes.update(item.shape)
            largest, total = max(largest, item.size), total + item.nbytes

    with h5py.File(data, "r") as file:
        file.visititems(visit)
    if total > 4 * len(data.getbuffer()) + SMALL:
        raise UserError("its weights are far larger than the file; save the model again")
    return axes, largest


def _check_config(config, axes: set[int], largest: int) -> None:
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
            _check_object(value)
            if isinstance(value.get("batch_shape"), list):
                _check_input(value["batch_shape"])
            _check_layer(value, axes, largest)


def _check_object(value: dict) -> None:
    """Refuse objects of Keras and of Python that no network is made of."""
    module, name = value.get("module"), value.get("class_name")
    if not isinstance(module, str) or name is None:
        return
    ours = module == "builtins" or module.partition(".")[0] == "keras"
    if name == "function":
        allowed = not ours or module in FUNCTIONS
    elif module == "keras":
        allowed = name in ("DTypePolicy", "Model", "Sequential")
    else:
        allowed = not ours or any(f"{module}.".startswith(f"{known}.") for known in OBJECTS)
    if not allowed or name == "Lambda":
        raise UserError(
            f"its configuration names {module}.{name}, which no network is made of; a file of "
            "another origin? train or convert the network anew"
        )


def _check_input(shape) -> None:
    for side in shape:
        if side is not None and not (type(side) is int and 1 <= side <= LARGEST_SIDE):
            raise UserError(f"its input has the shape {str(shape)[:60]}; expected [null, H, W, 3]")


def _check_layer(layer: dict, axes: set[int], largest: int) -> None:
    """Refuse a layer that would make more weights than the file holds."""
    asked = 1
    for key in ("filters", "units", "kernel_size", "depth_multiplier"):
        numbers = layer.get(key)
        for number in numbers if isinstance(numbers, list) else [numbers]:
            if type(number) is int:  # of all other things Keras says what is wrong
                if not 1 <= number <= max(axes):
                    raise UserError(f"its configuration has {key}={str(number)[:40]}; damaged?")
                asked *= number
    if asked > largest:
        raise UserError("its configuration asks for more weights than the file holds; damaged?")
