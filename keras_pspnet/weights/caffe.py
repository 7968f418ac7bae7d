"""The Caffe prototxt's names, in Keras weights (.h5) or a dict of layers (.npy)."""

from __future__ import annotations

import re

import numpy as np

from keras_pspnet.errors import UserError
from keras_pspnet.weights.foreign import (
    BATCH_NORM,
    BINS,
    ForeignPSPNet,
    add,
    count_blocks,
    published_labels,
    shaped,
)

CAFFE = ((123.68, 116.779, 103.939), (1.0, 1.0, 1.0))  # RGB; evaluation/*.m subtract it as BGR

CAFFE_PARTS = {  # what Keras and the .npy call a layer's arrays
    **dict.fromkeys(("kernel", "weights", "gamma", "scale"), "weight"),
    **dict.fromkeys(("bias", "biases", "beta", "offset"), "bias"),
    **dict.fromkeys(("moving_mean", "mean"), "running_mean"),
    **dict.fromkeys(("moving_variance", "variance"), "running_var"),
}

CAFFE_STEM = {"conv1_1_3x3_s2": 0, "conv1_2_3x3": 3, "conv1_3_3x3": 6}

CAFFE_BLOCK = {  # -> (convolution, batch norm)
    "1x1_reduce": ("conv1", "bn1"),
    "3x3": ("conv2", "bn2"),
    "1x1_increase": ("conv3", "bn3"),
    "1x1_proj": ("downsample.0", "downsample.1"),
}

CAFFE_FIRST_STRIDE = (3, 4, 6, 3)
"""pspnet50_ADE20K strides on conv3_1_1x1_reduce, the networks of 101 layers on conv3_1_3x3."""


def from_caffe(arrays) -> ForeignPSPNet:
    renamed = {}
    for path, value in arrays.items():
        if path.startswith("optimizer_weights/"):
            continue
        key, kernel = _caffe_key(path)
        if kernel and value.ndim != 4:
            raise UserError(f"{path} has the shape {value.shape}; expected a kernel")
        value = value.transpose(3, 2, 0, 1) if kernel else value.reshape(-1)
        add(renamed, key, value, "its keys")
    stem, head = (
        shaped(renamed, key, _caffe_spelling) for key in ("layer0.0.weight", "cls.0.weight")
    )
    renamed["layer0.0.weight"] = stem[:, ::-1]  # it takes BGR
    # Its concatenation is [conv5_3, pool6, pool3, pool2, pool1].
    levels = [
        len(shaped(renamed, f"ppm.features.{i}.1.weight", _caffe_spelling)) for i in (3, 2, 1, 0)
    ]
    pieces = np.split(head, np.cumsum([head.shape[1] - sum(levels), *levels])[:-1], axis=1)
    renamed["cls.0.weight"] = np.concatenate([pieces[0], *pieces[:0:-1]], axis=1)
    return ForeignPSPNet(
        "caffe",
        renamed,
        published_labels(renamed),
        normalization=CAFFE,
        stride_on_first=count_blocks(renamed) == CAFFE_FIRST_STRIDE,
        whole_maps=False,
        spell=_caffe_spelling,
    )


def _caffe_spelling(key: str) -> str:
    """layer2.0.downsample.1.weight -> conv3_1_1x1_proj_bn/gamma (scale in a .npy)"""
    place, _, part = key.rpartition(".")
    if part not in BATCH_NORM:
        return key
    names = {name: (f"layer0.{n}", f"layer0.{n + 1}") for name, n in CAFFE_STEM.items()}
    names |= {"conv5_4": ("cls.0", "cls.1"), "conv6": ("cls.4", "")}
    for index, bins in enumerate(BINS):
        names[f"conv5_3_pool{bins}_conv"] = (f"ppm.features.{index}.1", f"ppm.features.{index}.2")
    block = re.match(r"layer(\d)\.(\d+)\.", key)
    if block and block[1] != "0":
        for name, ends in CAFFE_BLOCK.items():
            names[f"conv{int(block[1]) + 1}_{int(block[2]) + 1}_{name}"] = tuple(
                f"layer{block[1]}.{block[2]}.{end}" for end in ends
            )
    for name, (conv, norm) in names.items():
        if place == conv:
            return f"{name}/{'kernel' if part == 'weight' else part}"
        if place == norm:
            keras_name = dict(zip(BATCH_NORM, ("gamma", "beta", "moving_mean", "moving_variance")))
            return f"{name}_bn/{keras_name[part]}"
    return key


def layer_of(path) -> str:
    return str(path).removeprefix("model_weights/").split("/")[0]


def _caffe_key(path: str) -> tuple[str, bool]:
    """conv3_1_1x1_proj_bn/.../gamma:0 -> layer2.0.downsample.1.weight; whether it is a kernel."""
    layer, *between = path.removeprefix("model_weights/").split("/")
    leaf = (between or [""])[-1].split(":")[0]
    norm = layer.endswith("_bn") or "bn" in between[:-1]
    layer, part = layer.removesuffix("_bn"), CAFFE_PARTS.get(leaf)
    block = re.fullmatch(r"conv([2-5])_(\d+)_(1x1_reduce|3x3|1x1_increase|1x1_proj)", layer)
    pool = re.fullmatch(r"conv5_3_pool([1236])_conv", layer)
    if part is None:
        key = None
    elif layer in CAFFE_STEM:
        key = f"layer0.{CAFFE_STEM[layer] + norm}"
    elif block:
        key = f"layer{int(block[1]) - 1}.{int(block[2]) - 1}.{CAFFE_BLOCK[block[3]][norm]}"
    elif pool:
        key = f"ppm.features.{BINS.index(int(pool[1]))}.{1 + norm}"
    else:
        key = {"conv5_4": f"cls.{int(norm)}", "conv6": "cls.4"}.get(layer)
    if key is None:
        raise UserError(f"{path} is no array of the authors' Caffe network")
    return f"{key}.{part}", part == "weight" and not norm
