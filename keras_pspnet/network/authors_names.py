"""Find and assign variables by the names of the authors' PyTorch code (semseg)."""

import keras
import numpy as np
from keras import layers

from keras_pspnet.errors import UserError
from keras_pspnet.network.layers import PyramidConv2D, PyramidPoolingModule


def named_variables(model: keras.Model) -> dict:
    """Return a network's variables by their keys in the authors' state dict."""
    found = {}
    for layer in model.layers:
        if isinstance(layer, PyramidPoolingModule):
            for index, (conv, norm) in enumerate(zip(layer.convolutions, layer.norms)):
                found |= variables_of(f"ppm.features.{index}.1", conv)
                found |= variables_of(f"ppm.features.{index}.2", norm)
        elif isinstance(layer, PyramidConv2D):
            found |= {f"{layer.name.replace('_', '.')}.weight": layer.kernel}
        elif layer.weights and isinstance(layer, (layers.Conv2D, layers.BatchNormalization)):
            found |= variables_of(layer.name.replace("_", "."), layer)
    return found


def variables_of(key: str, layer) -> dict:
    """Return the variables of a convolution or batch norm by PyTorch's keys: KEY.weight, ..."""
    if isinstance(layer, layers.BatchNormalization):
        variables = {"weight": layer.gamma, "bias": layer.beta}
        variables |= {"running_mean": layer.moving_mean, "running_var": layer.moving_variance}
    else:
        variables = {"weight": layer.kernel, "bias": layer.bias}
    return {f"{key}.{part}": value for part, value in variables.items() if value is not None}


def assign(variables: dict, arrays: dict, path, spell=str) -> None:
    """Assign arrays to variables by key; all keys must match.

    Args:
        variables: Variables by key, see `named_variables`.
        arrays: Arrays by key, kernels in PyTorch's order (out, in, k, k).
        path: Where the arrays come from, for error messages.
        spell: Function from a key to its name in the file, for error messages.

    Raises:
        UserError: A key has no variable or no array, a shape does not fit, or values are not
            finite numbers. Then nothing has been assigned.
    """
    arrays, values = dict(arrays), {}
    for key, variable in variables.items():
        value = arrays.pop(key, None)
        if value is None:
            raise UserError(f"{path}: no {spell(key)} in it; expected {len(variables)} arrays")
        if value.dtype.kind not in "fiub":
            raise UserError(f"{path}: {spell(key)} holds {value.dtype}; expected numbers")
        if value.ndim == 4:
            value = value.transpose(2, 3, 1, 0)
        if value.shape != tuple(variable.shape):
            raise UserError(
                f"{path}: {spell(key)} has the shape {value.shape}; expected "
                f"{tuple(variable.shape)} (kernels as height, width, in, out)"
            )
        with np.errstate(over="ignore"):
            value = value.astype(np.float32)
        if not np.isfinite(value).all():
            raise UserError(f"{path}: {spell(key)} holds values that are not finite; it diverged")
        if key.endswith("running_var") and value.min() < 0:
            raise UserError(f"{path}: {spell(key)} holds negative variances; it is damaged")
        values[key] = value
    left = [key for key in arrays if not key.endswith("num_batches_tracked")]
    if left:
        raise UserError(f"{path}: {spell(left[0])} fits no layer; {len(left)} left over")
    for key, value in values.items():
        variables[key].assign(value)
