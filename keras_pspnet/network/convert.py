"""Convert PSPNet checkpoints of other projects to Keras models."""

import hashlib
from pathlib import Path

import keras

from keras_pspnet.errors import UserError, reason_of
from keras_pspnet.files import read_bytes
from keras_pspnet.network import authors_names
from keras_pspnet.network.backbones import ResNet
from keras_pspnet.network.model import build_pspnet
from keras_pspnet.weights import foreign
from keras_pspnet.weights.reader import read_checkpoint
from keras_pspnet.weights.recognise import recognise


def convert(path: str | Path, *, size: tuple | None = None) -> keras.Model:
    """Convert a PSPNet checkpoint of another project to a Keras model.

    Supported are PyTorch checkpoints of the authors (semseg) and of mmsegmentation (on ResNetV1c),
    and weights under the names of the authors' Caffe network, in .pth, .safetensors, .h5 or .npy
    files; a .caffemodel is not read. The keys say whose network it is. The variant follows from the
    shapes and, for mmsegmentation, from the configuration under the checkpoint's "meta"; without
    it, mmsegmentation's PSPNet defaults hold.

    Args:
        path: The checkpoint. No code in it is executed.
        size: (H, W) of the model's input; None for any size.

    Returns:
        A model as of `build_pspnet`, with the auxiliary head if the file has one. Its layer `main`
        holds the class names as `labels` and, as `source`, a record of the file: name, SHA-256,
        format, network.

    Raises:
        UserError: The file cannot be read or holds no known PSPNet, a key is missing or left over,
            or a shape does not fit.
    """
    return from_weights(recognise(read_checkpoint(path), path), path, size)


def from_weights(weights: foreign.ForeignPSPNet, path, size=None) -> keras.Model:
    """Build the model of a checkpoint that was read already, see `convert`."""
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
            dropout=0.1 if weights.spatial_dropout else keras.layers.Dropout(0.1),
            align_corners=weights.align_corners,
            normalization=weights.normalization,
            labels=weights.labels,
        )
    except ValueError as error:
        raise UserError(
            f"{path}: no PSPNet has arrays of these shapes ({reason_of(error)})"
        ) from error
    authors_names.assign(authors_names.named_variables(model), arrays, path, weights.original_key)
    model.get_layer("main").source = {
        "file": Path(path).name,
        "sha256": hashlib.sha256(read_bytes(path)).hexdigest(),
        "format": weights.format,
        "network": weights.name,
    }
    return model
