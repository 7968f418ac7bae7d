"""Rename mmsegmentation's weights (ResNetV1c, PSPHead, FCNHead) and read its configuration."""

import re

import numpy as np

from keras_pspnet.errors import UserError
from keras_pspnet.labels import LabelSet, default_void_label
from keras_pspnet.weights import foreign

PREFIXES = (  # of mmsegmentation's keys -> of semseg's
    ("backbone.stem.{}.", "layer0.{}."),
    ("backbone.layer", "layer"),
    ("decode_head.psp_modules.{}.1.conv.", "ppm.features.{}.1."),
    ("decode_head.psp_modules.{}.1.bn.", "ppm.features.{}.2."),
    ("decode_head.bottleneck.conv.", "cls.0."),
    ("decode_head.bottleneck.bn.", "cls.1."),
    ("decode_head.conv_seg.", "cls.4."),
    ("auxiliary_head.convs.0.conv.", "aux.0."),
    ("auxiliary_head.convs.0.bn.", "aux.1."),
    ("auxiliary_head.conv_seg.", "aux.4."),
)


LARGEST = 100_000
"""Numbers of a configuration must be below this."""

MOST_BINS = 1000
"""Maximum grid size of a pyramid's level, as of a recipe."""


def from_mmseg(arrays, meta) -> foreign.ForeignPSPNet:
    """Rename the arrays of an mmsegmentation PSPNet.

    Args:
        arrays: mmsegmentation's keys -> arrays.
        meta: the checkpoint's "meta", with the text of its configuration and its class names;
            where they are missing, mmsegmentation's PSPNet defaults hold.

    Raises:
        UserError: another backbone than ResNetV1c with bottlenecks, another dilation than 1, 2, 4.
    """
    if not any(key.startswith("backbone.stem.") for key in arrays):
        raise UserError(
            "an mmsegmentation checkpoint whose backbone is not a ResNetV1c (no backbone.stem.*); "
            "expected PSPNet on R-50, R-101 or R-152"
        )
    renamed = {}
    for key, value in arrays.items():
        foreign.add_new(renamed, _renamed(key, PREFIXES), value, "its keys")
    if not any(".conv3." in key for key in renamed):
        raise UserError("its ResNet has basic blocks (R-18); expected bottlenecks: R-50 or deeper")
    meta = meta if isinstance(meta, dict) else {}
    config = meta.get("config") or meta.get("cfg")
    config = config if isinstance(config, str) else ""
    dilation = max(_numbers(config, "dilations") or (4,))
    if dilation not in (1, 2, 4):
        raise UserError(f"its configuration has a dilation of {dilation:g}; expected 1, 2 or 4")
    mean, std = (
        _numbers(config, name) or default
        for name, default in zip(("mean", "std"), foreign.IMAGENET)
    )
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise UserError(f"its configuration has mean={mean} std={std}; expected three numbers each")
    bins = tuple(int(n) for n in _numbers(config, "pool_scales") or foreign.BINS)
    if not 1 <= min(bins) <= max(bins) <= MOST_BINS:
        raise UserError(f"its configuration has pool_scales={bins}; expected 1 to {MOST_BINS}")
    if "bgr_to_rgb=False" in config or "to_rgb=False" in config:
        mean, std = mean[::-1], std[::-1]
        renamed["layer0.0.weight"] = foreign.required_kernel(renamed, "layer0.0.weight")[:, ::-1]
    return foreign.ForeignPSPNet(
        "mmsegmentation",
        renamed,
        _labels(meta, foreign.published_labels(renamed)),
        (tuple(mean), tuple(std)),
        # True in their configurations for 769x769 only.
        align_corners="align_corners=True" in config,
        output_stride=int(32 // dilation),
        # False where a configuration does not name it, but the base of all their PSPNets does.
        contract_dilation="contract_dilation=True" in config or not config,
        stride_on_first=bool(re.search(r"style=.caffe", config)),
        bins=bins,
        original_key=lambda key: _renamed(key, [pair[::-1] for pair in PREFIXES]),
    )


def _renamed(key, prefixes) -> str:
    """Replace the first prefix that fits; {} stands for a number and is kept."""
    for before, after in prefixes:
        found = re.match(re.escape(before).replace(r"\{\}", r"(\d+)"), key)
        if found:
            return after.format(*found.groups()) + key[found.end() :]
    return key


def _numbers(config, name) -> tuple[float, ...]:
    """Find name=(1, 2, ...) or name=[1, 2, ...] in the text of a configuration; () if absent.

    Raises:
        UserError: what stands there are no numbers below LARGEST.
    """
    found = re.search(rf"\b{name}=[(\[]([\d\s.,]+)[)\]]", config)
    try:
        texts = found[1].split(",") if found else ()
        numbers = tuple(float(number) for number in texts if number.strip())
    except ValueError:
        numbers = (LARGEST,)
    if max(numbers, default=0) >= LARGEST:
        raise UserError(f"its configuration has {found[0][:60]}; expected numbers below {LARGEST}")
    return numbers


def _labels(meta, known: LabelSet) -> LabelSet:
    """Return the names and colours in the checkpoint's meta where they are valid, else `known`."""
    about = meta.get("dataset_meta") if isinstance(meta.get("dataset_meta"), dict) else meta
    about = {key.lower(): value for key, value in about.items() if isinstance(key, str)}
    names, colors = (about.get(key, ()) for key in ("classes", "palette"))
    names, colors = (
        value.tolist() if isinstance(value, np.ndarray) else value for value in (names, colors)
    )
    if not isinstance(names, (list, tuple)) or len(names) != len(known):
        return known
    if not all(isinstance(name, (str, bytes, int)) for name in names):
        return known
    names = [str(name).strip() for name in names]
    if names == list(known.names):
        return known
    config = {"names": names, "ignore": default_void_label(len(names))}
    for given in ({"colors": colors}, {}):
        try:
            return LabelSet.from_config({**config, **given})
        except UserError:
            continue
    return known
