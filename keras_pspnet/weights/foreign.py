"""The weights of other PSPNets under one set of names, those of the authors' state dict.

Sources: reference semseg (model/pspnet.py, model/resnet.py), mmsegmentation (ResNetV1c, PSPHead,
FCNHead), and the layer names of the authors' Caffe prototxt, which Keras ports kept.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import numpy as np

from keras_pspnet.errors import UserError
from keras_pspnet.images import IMAGENET_MEAN, IMAGENET_STD
from keras_pspnet.labels import ADE20K, CITYSCAPES, VOC2012, LabelSet

BINS = (1, 2, 3, 6)

IMAGENET = (IMAGENET_MEAN, IMAGENET_STD)  # semseg tool/train.py, mmsegmentation

PUBLISHED = {150: ADE20K, 19: CITYSCAPES, 21: VOC2012}
"""What the authors trained, by the number of classes."""

DEPTHS = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152, (3, 30, 48, 8): 269}

BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


@dataclasses.dataclass
class ForeignPSPNet:
    """A foreign PSPNet.

    Args:
        format: "semseg", "mmsegmentation" or "caffe".
        arrays: the authors' keys -> arrays, kernels as (out, in, k, k).
        labels: names of the classes.
        normalization: (mean, std) of RGB in 0..255.
        align_corners: how maps are upsampled.
        output_stride: 8, 16 or 32.
        contract_dilation, stride_on_first: see backbones.ResNet.
        whole_maps: dropout takes whole maps; else single values.
        bins: of the pyramid.
        spell: one of the authors' keys as the file has it, for messages.
    """

    format: str
    arrays: dict[str, np.ndarray]
    labels: LabelSet
    normalization: tuple = IMAGENET
    align_corners: bool = True
    output_stride: int = 8
    contract_dilation: bool = False
    stride_on_first: bool = False
    whole_maps: bool = True
    bins: tuple[int, ...] = BINS
    spell: Callable[[str], str] = str

    @property
    def blocks(self) -> tuple[int, ...]:
        """Bottleneck blocks in each stage."""
        return count_blocks(self.arrays)

    @property
    def name(self) -> str:
        depth = DEPTHS.get(self.blocks)
        return f"PSPNet{depth}" if depth else f"PSPNet of {self.blocks} blocks"


def unwrapped(content: dict, path) -> dict[str, np.ndarray]:
    """The named arrays of a checkpoint, out of "state_dict" and without "module."."""
    state = next(
        (content[key] for key in ("state_dict", "model") if isinstance(content.get(key), dict)),
        content,
    )
    arrays = {}
    for key, value in _flat(state, path):
        if not isinstance(value, np.ndarray):
            kind = type(value).__name__
            raise UserError(f"{path}: {key} is no array but {kind}; expected a state dict")
        while key.startswith("module."):
            key = key.removeprefix("module.")
        add(arrays, key, value, path)
    return arrays


def _flat(state, path, before="", seen=None):
    seen = set() if seen is None else seen
    if id(state) in seen:  # it could unfold without end
        raise UserError(f"{path}: one dict stands in several places of it; expected a state dict")
    seen.add(id(state))
    for key, value in state.items():
        if isinstance(value, dict):
            yield from _flat(value, path, f"{before}{key}/", seen)
        else:
            yield f"{before}{key}", value


def add(arrays, key, value, where) -> None:
    if key in arrays:
        raise UserError(f"{where}: {key} stands in it twice, under two names")
    arrays[key] = value


def bare_resnet(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The authors' ImageNet initialisation: its stem has names of its own, its classifier goes."""
    stem = {f"conv{n + 1}": f"layer0.{3 * n}" for n in range(3)}
    stem |= {f"bn{n + 1}": f"layer0.{3 * n + 1}" for n in range(3)}
    renamed = {}
    for key, value in arrays.items():
        layer, _, rest = key.partition(".")
        if layer != "fc":
            add(renamed, f"{stem.get(layer, layer)}.{rest}", value, "its keys")
    return renamed


def shaped(arrays, key, spell=str) -> np.ndarray:
    """An array that tells the network's shape."""
    value = arrays.get(key)
    if value is None:
        raise UserError(f"no {spell(key)} in it")
    if value.ndim != 4 or 0 in value.shape:
        raise UserError(f"{spell(key)} has the shape {value.shape}; expected a kernel")
    return value


def count_blocks(arrays) -> tuple[int, ...]:
    found = {tuple(key.split(".")[:2]) for key in arrays if re.match(r"layer[1-4]\.\d+\.", key)}
    return tuple(sum(stage == f"layer{n}" for stage, _ in found) for n in (1, 2, 3, 4))


def published_labels(arrays) -> LabelSet:
    classes = len(shaped(arrays, "cls.4.weight"))
    return PUBLISHED.get(classes) or LabelSet.numbered(classes)
