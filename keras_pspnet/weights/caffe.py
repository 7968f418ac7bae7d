"""Rename weights that use the layer names of the authors' Caffe prototxt.

They come as Keras weights (.h5) or as a dict of layers (.npy).
"""

import re

import numpy as np

from keras_pspnet.errors import UserError
from keras_pspnet.weights import foreign

CAFFE = ((123.68, 116.779, 103.939), (1.0, 1.0, 1.0))
"""(mean, std) of RGB; the authors' evaluation/*.m subtract the mean as BGR."""

PARTS = {  # names of a layer's arrays in Keras and in the .npy -> semseg's
    **dict.fromkeys(("kernel", "weights", "gamma", "scale"), "weight"),
    **dict.fromkeys(("bias", "biases", "beta", "offset"), "bias"),
    **dict.fromkeys(("moving_mean", "mean"), "running_mean"),
    **dict.fromkeys(("moving_variance", "variance"), "running_var"),
}

KERAS_BATCH_NORM = dict(
    zip(foreign.BATCH_NORM, ("gamma", "beta", "moving_mean", "moving_variance"))
)

BLOCK = {  # the layers of a bottleneck block -> (convolution, batch norm)
    "1x1_reduce": ("conv1", "bn1"),
    "3x3": ("conv2", "bn2"),
    "1x1_increase": ("conv3", "bn3"),
    "1x1_proj": ("downsample.0", "downsample.1"),
}

LAYERS = {  # all other layers -> (convolution, batch norm)
    "conv1_1_3x3_s2": ("layer0.0", "layer0.1"),
    "conv1_2_3x3": ("layer0.3", "layer0.4"),
    "conv1_3_3x3": ("layer0.6", "layer0.7"),
    **{
        f"conv5_3_pool{bins}_conv": (f"ppm.features.{index}.1", f"ppm.features.{index}.2")
        for index, bins in enumerate(foreign.BINS)
    },
    "conv5_4": ("cls.0", "cls.1"),
    "conv6": ("cls.4", None),
}

BLOCKS_STRIDE_ON_FIRST = (3, 4, 6, 3)
"""pspnet50_ADE20K strides on conv3_1_1x1_reduce, the networks of 101 layers on conv3_1_3x3."""


def from_caffe(arrays) -> foreign.ForeignPSPNet:
    """Rename and transpose the arrays of the authors' Caffe network.

    Raises:
        UserError: an array that is not one of theirs, or no kernel that gives a shape.
    """
    renamed = {}
    for path, value in arrays.items():
        if path.startswith("optimizer_weights/"):
            continue
        key, kernel = _to_semseg_key(path)
        if kernel and value.ndim != 4:
            raise UserError(f"{path} has the shape {value.shape}; expected a kernel")
        value = value.transpose(3, 2, 0, 1) if kernel else value.reshape(-1)
        foreign.add_new(renamed, key, value, "its keys")
    stem, head = (
        foreign.required_kernel(renamed, key, _to_caffe_key)
        for key in ("layer0.0.weight", "cls.0.weight")
    )
    renamed["layer0.0.weight"] = stem[:, ::-1]  # the Caffe network takes BGR
    # Caffe concatenates [conv5_3, pool6, pool3, pool2, pool1], semseg the bins in ascending order.
    levels = [
        len(foreign.required_kernel(renamed, f"ppm.features.{i}.1.weight", _to_caffe_key))
        for i in (3, 2, 1, 0)
    ]
    pieces = np.split(head, np.cumsum([head.shape[1] - sum(levels), *levels])[:-1], axis=1)
    renamed["cls.0.weight"] = np.concatenate([pieces[0], *pieces[:0:-1]], axis=1)
    return foreign.ForeignPSPNet(
        "caffe",
        renamed,
        foreign.published_labels(renamed),
        normalization=CAFFE,
        stride_on_first=foreign.count_blocks(renamed) == BLOCKS_STRIDE_ON_FIRST,
        spatial_dropout=False,
        original_key=_to_caffe_key,
    )


def layer_of(path: str) -> str:
    """Return the layer name in the path of an array: model_weights/conv6/... -> conv6."""
    return path.removeprefix("model_weights/").split("/")[0]


def _semseg_layers(layer) -> tuple | None:
    """Return semseg's (convolution, batch norm) for a Caffe layer; None if it is unknown."""
    block = re.fullmatch(r"conv([2-5])_(\d+)_(\w+)", layer)
    if block and block[3] in BLOCK:
        place = f"layer{int(block[1]) - 1}.{int(block[2]) - 1}"
        return tuple(f"{place}.{name}" for name in BLOCK[block[3]])
    return LAYERS.get(layer)


def _to_semseg_key(path: str) -> tuple[str, bool]:
    """Rename a path and tell if it is that of a kernel.

    conv3_1_1x1_proj_bn/.../gamma:0 -> layer2.0.downsample.1.weight, False
    """
    layer = layer_of(path)
    *between, leaf = path.removeprefix("model_weights/").split("/")[1:] or [""]
    norm = layer.endswith("_bn") or "bn" in between
    layers = _semseg_layers(layer.removesuffix("_bn")) or (None, None)
    part = PARTS.get(leaf.split(":")[0])
    if part is None or layers[norm] is None:
        raise UserError(f"{path} is not an array of the authors' Caffe network")
    return f"{layers[norm]}.{part}", part == "weight" and not norm


def _to_caffe_key(key: str) -> str:
    """Rename one of semseg's keys back, for messages.

    layer2.0.downsample.1.weight -> conv3_1_1x1_proj_bn/gamma
    """
    place, _, part = key.rpartition(".")
    block = re.match(r"layer([1-4])\.(\d+)\.", key)
    if block:
        layers = [f"conv{int(block[1]) + 1}_{int(block[2]) + 1}_{name}" for name in BLOCK]
    else:
        layers = LAYERS
    for layer in layers:
        convolution, norm = _semseg_layers(layer)
        if place == convolution:
            return f"{layer}/{'kernel' if part == 'weight' else part}"
        if place == norm and part in foreign.BATCH_NORM:
            return f"{layer}_bn/{KERAS_BATCH_NORM[part]}"
    return key
