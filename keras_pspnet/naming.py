"""The weights of other PSPNets under one set of names, those of the authors' state dict.

Sources: reference semseg (model/pspnet.py, model/resnet.py), mmsegmentation (ResNetV1c, PSPHead,
FCNHead), and the layer names of the authors' Caffe prototxt, which Keras ports kept.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from keras_pspnet.files import UserError
from keras_pspnet.labels import ADE20K, CITYSCAPES, VOC2012, LabelSet, void_of

BINS = (1, 2, 3, 6)
IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))  # semseg tool/train.py, mmseg
CAFFE = ((123.68, 116.779, 103.939), (1.0, 1.0, 1.0))  # RGB; evaluation/*.m subtract it as BGR
PUBLISHED = {150: ADE20K, 19: CITYSCAPES, 21: VOC2012}
"""What the authors trained, by the number of classes."""
DEPTHS = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152, (3, 30, 48, 8): 269}
BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


@dataclasses.dataclass
class Weights:
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

    @property
    def blocks(self) -> tuple[int, ...]:
        """Bottleneck blocks in each stage."""
        return _blocks(self.arrays)

    @property
    def name(self) -> str:
        depth = DEPTHS.get(self.blocks)
        return f"PSPNet{depth}" if depth else f"PSPNet of {self.blocks} blocks"


def recognise(content: dict, path) -> Weights:
    """Whose PSPNet a checkpoint holds, by its keys.

    Args:
        content: see `checkpoints.read_checkpoint`.
        path: the file, for messages.

    Raises:
        UserError: none that is known, or one that lacks what tells its shape.
    """
    arrays = unwrapped(content, path)
    try:
        if any(key.startswith("decode_head.") for key in arrays):
            weights = _mmseg(arrays, content.get("meta"))
        elif any(key.startswith(("ppm.features.", "cls.")) for key in arrays):
            weights = Weights("semseg", arrays, _labels(arrays))
        elif any(key.startswith("conv5_3_pool") for key in (_caffe_layer(key) for key in arrays)):
            weights = _caffe(arrays)
        elif "layer4.0.conv1.weight" in arrays:
            raise UserError(
                "a ResNet without a PSPNet's heads; give it to build_pspnet as backbone_weights"
            )
        else:
            raise UserError(
                "not the weights of a PSPNet that is known: expected keys such as "
                "ppm.features.0.1.weight (semseg), decode_head.psp_modules.0.1.conv.weight "
                "(mmsegmentation) or conv5_3_pool1_conv (Caffe names); found "
                f"{', '.join(list(map(str, arrays))[:3]) or 'nothing'}"
            )
        for key in ("layer1.0.conv1.weight", "cls.0.weight", "ppm.features.0.1.weight"):
            _shaped(weights.arrays, key)
        levels = sum(
            bool(re.fullmatch(r"ppm\.features\.\d+\.1\.weight", k)) for k in weights.arrays
        )
        if levels != len(BINS):
            raise UserError(f"its pyramid has {levels} levels; expected those of bins {BINS}")
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return weights


def unwrapped(content: dict, path) -> dict[str, np.ndarray]:
    """The named arrays of a checkpoint, out of "state_dict" and without "module."."""
    state = next(
        (content[key] for key in ("state_dict", "model") if isinstance(content.get(key), dict)),
        content,
    )
    arrays = {}
    for key, value in _flat(state):
        if not isinstance(value, np.ndarray):
            kind = type(value).__name__
            raise UserError(f"{path}: {key} is no array but {kind}; expected a state dict")
        arrays[key.removeprefix("module.")] = value
    return arrays


def _flat(state, before=""):
    for key, value in state.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}/")
        else:
            yield f"{before}{key}", value


def bare_resnet(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The authors' ImageNet initialisation: its stem has names of its own, its classifier goes."""
    stem = {f"conv{n + 1}": f"layer0.{3 * n}" for n in range(3)}
    stem |= {f"bn{n + 1}": f"layer0.{3 * n + 1}" for n in range(3)}
    renamed = {}
    for key, value in arrays.items():
        layer, _, rest = key.partition(".")
        if layer != "fc":
            renamed[f"{stem.get(layer, layer)}.{rest}"] = value
    return renamed


def _shaped(arrays, key) -> np.ndarray:
    """An array that tells the network's shape."""
    value = arrays.get(key)
    if value is None:
        raise UserError(f"no {key} in it")
    if value.ndim != 4:
        raise UserError(f"{key} has the shape {value.shape}; expected a kernel of 4 dimensions")
    return value


def _blocks(arrays) -> tuple[int, ...]:
    found = {tuple(key.split(".")[:2]) for key in arrays if re.match(r"layer[1-4]\.\d+\.", key)}
    return tuple(sum(stage == f"layer{n}" for stage, _ in found) for n in (1, 2, 3, 4))


def _labels(arrays) -> LabelSet:
    classes = len(_shaped(arrays, "cls.4.weight"))
    return PUBLISHED.get(classes) or LabelSet.numbered(classes)


# --- mmsegmentation ---

MMSEG = (  # (its keys, the authors')
    (r"backbone\.stem\.(\d)\.", r"layer0.\1."),
    (r"backbone\.layer", "layer"),
    (r"decode_head\.psp_modules\.(\d+)\.1\.conv\.", r"ppm.features.\1.1."),
    (r"decode_head\.psp_modules\.(\d+)\.1\.bn\.", r"ppm.features.\1.2."),
    (r"decode_head\.bottleneck\.conv\.", "cls.0."),
    (r"decode_head\.bottleneck\.bn\.", "cls.1."),
    (r"decode_head\.conv_seg\.", "cls.4."),
    (r"auxiliary_head\.convs\.0\.conv\.", "aux.0."),
    (r"auxiliary_head\.convs\.0\.bn\.", "aux.1."),
    (r"auxiliary_head\.conv_seg\.", "aux.4."),
)


def _mmseg(arrays, meta) -> Weights:
    if not any(key.startswith("backbone.stem.") for key in arrays):
        raise UserError(
            "an mmsegmentation checkpoint whose backbone is no ResNetV1c (no backbone.stem.*); "
            "expected PSPNet on R-50, R-101 or R-152"
        )
    renamed = {}
    for key, value in arrays.items():
        for pattern, name in MMSEG:
            if re.match(pattern, key):
                key = re.sub(pattern, name, key, count=1)
                break
        renamed[key] = value
    if "layer1.0.conv3.weight" not in renamed:
        raise UserError("its ResNet has basic blocks (R-18); expected bottlenecks: R-50 or deeper")
    meta = meta if isinstance(meta, dict) else {}
    config = str(meta.get("config") or meta.get("cfg") or "")
    dilations = re.search(r"dilations=\((\d), (\d), (\d), (\d)\)", config)
    return Weights(
        "mmsegmentation",
        renamed,
        _mmseg_labels(meta, _labels(renamed)),
        # Their configurations of 769x769 have it on; the file's own says so.
        align_corners="align_corners=True" in config,
        output_stride=32 // int(dilations[4]) if dilations else 8,
        contract_dilation="contract_dilation=False" not in config,
    )


def _mmseg_labels(meta, known: LabelSet) -> LabelSet:
    """The names and colours that the checkpoint holds."""
    about = meta.get("dataset_meta") if isinstance(meta.get("dataset_meta"), dict) else meta
    names, colors = (about.get(key) or about.get(key.upper()) for key in ("classes", "palette"))
    if not isinstance(names, (list, tuple)) or len(names) != len(known):
        return known
    if [str(name).strip() for name in names] == list(known.names):
        return known
    colors = colors if isinstance(colors, (list, tuple)) and len(colors) == len(names) else ()
    names = [str(name).strip() for name in names]
    return LabelSet.from_config(
        {"names": names, "colors": list(colors), "ignore": void_of(len(names))}
    )


# --- The Caffe prototxt's names, in Keras weights (.h5) or a dict of layers (.npy) ---

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


def _caffe(arrays) -> Weights:
    renamed = {}
    for path, value in arrays.items():
        if path.startswith("optimizer_weights/"):
            continue
        key, kernel = _caffe_key(path)
        if key in renamed:
            raise UserError(f"{path} stands twice in it")
        if kernel and value.ndim != 4:
            raise UserError(f"{path} has the shape {value.shape}; expected a kernel")
        renamed[key] = value.transpose(3, 2, 0, 1) if kernel else value.reshape(-1)
    stem, head = _shaped(renamed, "layer0.0.weight"), _shaped(renamed, "cls.0.weight")
    renamed["layer0.0.weight"] = stem[:, ::-1]  # it takes BGR
    # Its concatenation is [conv5_3, pool6, pool3, pool2, pool1].
    levels = [_shaped(renamed, f"ppm.features.{i}.1.weight").shape[0] for i in (3, 2, 1, 0)]
    pieces = np.split(head, np.cumsum([head.shape[1] - sum(levels), *levels])[:-1], axis=1)
    renamed["cls.0.weight"] = np.concatenate([pieces[0], *pieces[:0:-1]], axis=1)
    return Weights(
        "caffe",
        renamed,
        _labels(renamed),
        normalization=CAFFE,
        stride_on_first=_blocks(renamed) == CAFFE_FIRST_STRIDE,
        whole_maps=False,
    )


def _caffe_layer(path) -> str:
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
