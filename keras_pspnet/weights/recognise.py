"""Whose PSPNet a checkpoint holds."""

from __future__ import annotations

import re

from keras_pspnet.errors import UserError
from keras_pspnet.weights.caffe import from_caffe, layer_of
from keras_pspnet.weights.foreign import ForeignPSPNet, published_labels, shaped, unwrapped
from keras_pspnet.weights.mmseg import from_mmseg


def recognise(content: dict, path) -> ForeignPSPNet:
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
            weights = from_mmseg(arrays, content.get("meta"))
        elif any(key.startswith(("ppm.features.", "cls.")) for key in arrays):
            weights = ForeignPSPNet("semseg", arrays, published_labels(arrays))
        elif any(key.startswith("conv5_3_pool") for key in (layer_of(key) for key in arrays)):
            weights = from_caffe(arrays)
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
        stem = (f"layer0.{3 * n}.weight" for n in range(3))
        for key in (*stem, "layer1.0.conv1.weight", "cls.0.weight", "ppm.features.0.1.weight"):
            shaped(weights.arrays, key, weights.spell)
        levels = sum(
            bool(re.fullmatch(r"ppm\.features\.\d+\.1\.weight", k)) for k in weights.arrays
        )
        if levels != len(weights.bins):
            raise UserError(f"its pyramid has {levels} levels; expected bins {weights.bins}")
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return weights
