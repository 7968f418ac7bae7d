"""Our variables under the authors' (semseg's) names."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from keras_pspnet.errors import UserError
from keras_pspnet.network.layers import PyramidConv2D, PyramidPoolingModule


def named_variables(model: keras.Model) -> dict:
    """Our variables under the keys that the authors' state dict has for them."""
    found = {}
    for layer in model.layers:
        if isinstance(layer, PyramidPoolingModule):
            for index, (conv, norm) in enumerate(zip(layer.convolutions, layer.norms)):
                found |= _of_layer(f"ppm.features.{index}.1", conv)
                found |= _of_layer(f"ppm.features.{index}.2", norm)
        elif isinstance(layer, PyramidConv2D):
            found |= {f"{layer.name.replace('_', '.')}.weight": layer.kernel}
        elif layer.weights and isinstance(layer, (layers.Conv2D, layers.BatchNormalization)):
            found |= _of_layer(layer.name.replace("_", "."), layer)
    return found


def _of_layer(key, layer) -> dict:
    if isinstance(layer, layers.Conv2D):
        variables = {"weight": layer.kernel, "bias": layer.bias}
    else:
        variables = {"weight": layer.gamma, "bias": layer.beta}
        variables |= {"running_mean": layer.moving_mean, "running_var": layer.moving_variance}
    return {f"{key}.{part}": value for part, value in variables.items() if value is not None}


def assign(variables: dict, arrays: dict, path, spell=str) -> None:
    """Gives each variable its array; every key of both sides must find the other.

    Args:
        variables: see `named_variables`.
        arrays: PyTorch's shapes: (out, in, k, k) kernels.
        path: where they come from, for messages.
        spell: one of our keys as the file has it.

    Raises:
        UserError: a key without a variable or the reverse, a shape that does not fit, values that
            are no numbers. Nothing has been assigned then.
    """
    arrays, values = dict(arrays), {}
    for key, variable in variables.items():
        value = arrays.pop(key, None)
        if value is None:
            raise UserError(f"{path}: no {spell(key)} in it; {len(variables)} arrays are expected")
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
            raise UserError(f"{path}: {spell(key)} holds values that are no numbers; it diverged")
        if key.endswith("running_var") and value.min() < 0:
            raise UserError(f"{path}: {spell(key)} holds negative variances; it is damaged")
        values[key] = value
    left = [key for key in arrays if not key.endswith("num_batches_tracked")]
    if left:
        raise UserError(f"{path}: {spell(left[0])} fits no layer; {len(left)} left over")
    for key, value in values.items():
        variables[key].assign(value)
