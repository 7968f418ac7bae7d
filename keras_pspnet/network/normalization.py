"""Normalize the input image."""

import keras
import numpy as np
from keras import layers, ops

from keras_pspnet.network.graph_copy import copy_without_weights


def normalize(image, normalization):
    """Return a normalized image tensor.

    Args:
        image: RGB in 0..255, (B, H, W, 3), float32.
        normalization: (mean, std), three values each, or a layer that is copied with its weights.

    Raises:
        ValueError: `normalization` is neither, or the layer cannot be copied from its config.
    """
    if isinstance(normalization, layers.Layer):
        layer = copy_without_weights(normalization, {"name": "normalization"})
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
    return layers.Normalization(
        mean=list(mean), variance=np.square(std).tolist(), dtype="float32", name="normalization"
    )(image)


@keras.saving.register_keras_serializable("keras_pspnet")
class CaffeNormalization(layers.Layer):
    """Convert RGB in 0..255 to BGR and subtract ImageNet's mean colour.

    The ResNet50/101/152 and VGG models of keras.applications were trained with it. Use it as
    `build_pspnet(..., normalization=CaffeNormalization())`.

    Call:
        RGB in 0..255, (B, H, W, 3) -> BGR minus (103.939, 116.779, 123.68), the same shape,
        float32 unless `dtype` is given.
    """

    MEAN = (103.939, 116.779, 123.68)  # keras.applications.imagenet_utils, mode "caffe"

    def __init__(self, dtype="float32", **kwargs):
        super().__init__(dtype=dtype, **kwargs)

    def call(self, x):
        blue_green_red = ops.concatenate([x[..., i : i + 1] for i in (2, 1, 0)], axis=-1)
        return blue_green_red - ops.convert_to_tensor(self.MEAN, dtype=self.compute_dtype)
