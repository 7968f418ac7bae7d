"""Normalise the input picture."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, ops

from keras_pspnet.network.graph_copy import rebuilt


def _normalized(image, normalization):
    if isinstance(normalization, layers.Layer):
        layer = rebuilt(normalization, {"name": "normalization"})
        if layer is None:
            kind = type(normalization).__name__
            raise ValueError(f"`normalization` cannot be copied from its config. Received: {kind}")
        x = layer(image)
        if layer.weights:
            layer.set_weights(normalization.get_weights())
        return x
    if np.shape(normalization) != (2, 3):
        raise ValueError(
            "`normalization` must be (mean, std), three values each, or a layer. "
            f"Received: {normalization}"
        )
    mean, std = normalization
    layer = layers.Normalization(
        mean=list(mean), variance=np.square(std).tolist(), dtype="float32", name="normalization"
    )
    return layer(image)


@keras.saving.register_keras_serializable("keras_pspnet")
class CaffeNormalization(layers.Layer):
    """What keras.applications' ResNets and VGGs were trained with: BGR minus ImageNet's mean.

    Input: RGB in 0..255, (B, H, W, 3). Output: the same shape, float32.
    """

    MEAN = (103.939, 116.779, 123.68)  # keras.applications.imagenet_utils, mode "caffe"

    def __init__(self, dtype="float32", **kwargs):
        super().__init__(dtype=dtype, **kwargs)

    def call(self, x):
        blue_green_red = ops.concatenate([x[..., i : i + 1] for i in (2, 1, 0)], axis=-1)
        return blue_green_red - ops.convert_to_tensor(self.MEAN, dtype=self.compute_dtype)
