"""Recognise whose PSPNet a checkpoint holds."""

import re

from keras_pspnet.errors import UserError
from keras_pspnet.weights import foreign
from keras_pspnet.weights.caffe import from_caffe, layer_of
from keras_pspnet.weights.mmseg import from_mmseg


def recognise(content: dict, path) -> foreign.ForeignPSPNet:
    """Recognise by its keys whose PSPNet a checkpoint holds, and rename its arrays.

    Args:
        content: see `reader.read_checkpoint`.
        path: the file, for messages.

    Raises:
        UserError: no known PSPNet, or one without the arrays that give its shape.
    """
    arrays = foreign.state_dict(content, path)
    try:
        weights = _renamed(arrays, content.get("meta"))
        stem = (f"layer0.{3 * n}.weight" for n in range(3))
        for key in (*stem, "layer1.0.conv1.weight", "cls.0.weight", "ppm.features.0.1.weight"):
            foreign.required_kernel(weights.arrays, key, weights.original_key)
        level = re.compile(r"ppm\.features\.\d+\.1\.weight")
        levels = sum(bool(level.fullmatch(key)) for key in weights.arrays)
        if levels != len(weights.bins):
            raise UserError(f"its pyramid has {levels} levels; expected bins {weights.bins}")
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return weights


def _renamed(arrays, meta) -> foreign.ForeignPSPNet:
    if any(key.startswith("decode_head.") for key in arrays):
        return from_mmseg(arrays, meta)
    if any(key.startswith(("ppm.features.", "cls.")) for key in arrays):
        return foreign.ForeignPSPNet("semseg", arrays, foreign.published_labels(arrays))
    if any(layer_of(key).startswith("conv5_3_pool") for key in arrays):
        return from_caffe(arrays)
    if "layer4.0.conv1.weight" in arrays:
        raise UserError(
            "a ResNet without a PSPNet's heads; give it to build_pspnet as backbone_weights"
        )
    raise UserError(
        "not the weights of a known PSPNet: expected keys such as ppm.features.0.1.weight "
        "(semseg), decode_head.psp_modules.0.1.conv.weight (mmsegmentation) or "
        f"conv5_3_pool1_conv (Caffe names); found {', '.join(list(arrays)[:3]) or 'nothing'}"
    )
