"""The weights of other PSPNets in our network."""

from __future__ import annotations

import hashlib
from pathlib import Path

import keras

from keras_pspnet.errors import UserError
from keras_pspnet.files import read_bytes
from keras_pspnet.network import authors_names
from keras_pspnet.network.backbones import ResNet
from keras_pspnet.network.main_head import set_labels
from keras_pspnet.network.model import build_pspnet
from keras_pspnet.weights import foreign
from keras_pspnet.weights.reader import read_checkpoint
from keras_pspnet.weights.recognise import recognise


def convert(path, *, size=None) -> keras.Model:
    """A PSPNet from somebody else's checkpoint.

    Formats: the authors' PyTorch checkpoints (semseg), mmsegmentation's on ResNetV1c, and weights
    under the names of the authors' Caffe network; in files of PyTorch, safetensors, .h5 or .npy.
    Format and variant are told from the keys.

    Args:
        path: the file; nothing in it is executed.
        size: (H, W) that the model takes; any by default.

    Returns:
        A model of `build_pspnet`, with its auxiliary head where the file has one. Its layer `main`
        carries the names of the classes and, as `source`, where the weights came from.

    Raises:
        UserError: a file that cannot be read, that holds no known PSPNet, a key too many or too
            few, a shape that does not fit.
    """
    return from_weights(recognise(read_checkpoint(path), path), path, size)


def from_weights(weights: foreign.ForeignPSPNet, path, size=None) -> keras.Model:
    """As `convert`, of what was read already."""
    arrays = weights.arrays
    stem = tuple(len(arrays[f"layer0.{3 * n}.weight"]) for n in range(3))
    row = ResNet(
        weights.blocks,
        len(arrays["layer1.0.conv1.weight"]),
        stem,
        weights.contract_dilation,
        weights.stride_on_first,
    )
    try:
        model = build_pspnet(
            len(weights.labels),
            input_shape=(*(size or (None, None)), 3),
            backbone=row,
            output_stride=weights.output_stride,
            bins=weights.bins,
            channels=len(arrays["cls.0.weight"]),
            aux=any(key.startswith("aux.") for key in arrays),
            dropout=0.1 if weights.whole_maps else keras.layers.Dropout(0.1),
            align_corners=weights.align_corners,
            normalization=weights.normalization,
        )
    except ValueError as error:
        raise UserError(
            f"{path}: no PSPNet of its shapes ({str(error).splitlines()[0]})"
        ) from error
    authors_names.assign(authors_names.named_variables(model), arrays, path, weights.spell)
    set_labels(model, weights.labels)
    model.get_layer("main").source = {
        "file": Path(path).name,
        "sha256": hashlib.sha256(read_bytes(path)).hexdigest(),
        "format": weights.format,
        "network": weights.name,
    }
    return model
