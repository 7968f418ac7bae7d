"""Hold the weights of other projects' PSPNets under the names of the authors' state dict.

Sources: the authors' semseg (model/pspnet.py, model/resnet.py), mmsegmentation (ResNetV1c,
PSPHead, FCNHead), and the layer names of the authors' Caffe prototxt, which Keras ports kept.
"""

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
"""The label sets of the authors' published networks, by the number of classes."""

DEPTHS = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152, (3, 30, 48, 8): 269}

BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


@dataclasses.dataclass
class ForeignPSPNet:
    """A PSPNet checkpoint of another project, and how its network differs from ours.

    Args:
        format: "semseg", "mmsegmentation" or "caffe".
        arrays: semseg's keys -> arrays, kernels as (out, in, k, k).
        labels: names and colours of the classes.
        normalization: (mean, std) of RGB in 0..255.
        align_corners: how maps are upsampled.
        output_stride: 8, 16 or 32.
        contract_dilation, stride_on_first: see backbones.ResNet.
        spatial_dropout: dropout drops whole feature maps, not single values.
        bins: bin sizes of the pyramid pooling module.
        original_key: maps one of semseg's keys to the file's own, for messages.
    """

    format: str
    arrays: dict[str, np.ndarray]
    labels: LabelSet
    normalization: tuple = IMAGENET
    align_corners: bool = True
    output_stride: int = 8
    contract_dilation: bool = False
    stride_on_first: bool = False
    spatial_dropout: bool = True
    bins: tuple[int, ...] = BINS
    original_key: Callable[[str], str] = str

    @property
    def blocks(self) -> tuple[int, ...]:
        """Number of bottleneck blocks in each stage."""
        return count_blocks(self.arrays)

    @property
    def name(self) -> str:
        """PSPNet and the depth of its ResNet: PSPNet50."""
        depth = DEPTHS.get(self.blocks)
        return f"PSPNet{depth}" if depth else f"PSPNet of {self.blocks} blocks"


def state_dict(content: dict, path) -> dict[str, np.ndarray]:
    """Return the named arrays of a checkpoint.

    They are looked for under "state_dict" and "model", else taken from the top. Keys of nested
    dicts are joined with "/"; the prefix "module." (torch's DataParallel) is removed.

    Raises:
        UserError: a value that is not an array, or two arrays of one name.
    """
    state = next(
        (content[key] for key in ("state_dict", "model") if isinstance(content.get(key), dict)),
        content,
    )
    arrays = {}
    for key, value in _flat(state, path):
        if not isinstance(value, np.ndarray):
            kind = type(value).__name__
            raise UserError(f"{path}: {key} is a {kind}, not an array; expected a state dict")
        if value.dtype.kind not in "fiub":
            raise UserError(f"{path}: {key} holds {value.dtype}; expected numbers")
        while key.startswith("module."):
            key = key.removeprefix("module.")
        add_new(arrays, key, value, path)
    return arrays


def _flat(state, path, prefix="", seen=None):
    """Yield the keys, joined with "/", and the values of nested dicts."""
    seen = set() if seen is None else seen
    if id(state) in seen:  # a dict inside itself or shared many times would unfold without end
        raise UserError(f"{path}: the same dict appears in several places; expected a state dict")
    seen.add(id(state))
    for key, value in state.items():
        if isinstance(value, dict):
            yield from _flat(value, path, f"{prefix}{key}/", seen)
        else:
            yield f"{prefix}{key}", value


def add_new(arrays, key, value, where) -> None:
    """Add an array under a key; refuse one that is there already."""
    if key in arrays:
        raise UserError(f"{where}: {key} appears twice, under two names")
    arrays[key] = value


def bare_resnet(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename the authors' ImageNet initialization (initmodel/resnet50_v2.pth) to PSPNet's keys.

    Its stem has other names there; its classifier is dropped.
    """
    stem = {f"conv{n + 1}": f"layer0.{3 * n}" for n in range(3)}
    stem |= {f"bn{n + 1}": f"layer0.{3 * n + 1}" for n in range(3)}
    renamed = {}
    for key, value in arrays.items():
        layer, _, rest = key.partition(".")
        if layer != "fc":
            add_new(renamed, f"{stem.get(layer, layer)}.{rest}", value, "its keys")
    return renamed


def required_kernel(arrays, key, original_key=str) -> np.ndarray:
    """Return a kernel whose shape decides that of the network.

    Raises:
        UserError: it is missing, or has not four dimensions.
    """
    value = arrays.get(key)
    if value is None:
        raise UserError(f"no {original_key(key)} in it")
    if value.ndim != 4 or 0 in value.shape:
        raise UserError(f"{original_key(key)} has the shape {value.shape}; expected a kernel")
    return value


def count_blocks(arrays) -> tuple[int, ...]:
    """Return the number of bottleneck blocks in each of the four stages."""
    found = {tuple(key.split(".")[:2]) for key in arrays if re.match(r"layer[1-4]\.\d+\.", key)}
    return tuple(sum(stage == f"layer{n}" for stage, _ in found) for n in (1, 2, 3, 4))


def published_labels(arrays) -> LabelSet:
    """Return the label set with as many classes as the classifier; numbered names if unknown."""
    classes = len(required_kernel(arrays, "cls.4.weight"))
    return PUBLISHED.get(classes) or LabelSet.numbered(classes)
