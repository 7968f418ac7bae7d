"""Build the named backbones: deep-stem ResNets, EfficientNet-Lite0 and Lite2, MobileNetV2."""

import dataclasses

import keras
from keras import layers

from keras_pspnet.images import IMAGENET_MEAN, IMAGENET_STD
from keras_pspnet.network import dilation
from keras_pspnet.network.batch_norm import BatchNormalization


@dataclasses.dataclass(frozen=True)
class ResNet:
    """The numbers that define a deep-stem ResNet of bottleneck blocks.

    Args:
        blocks: Number of blocks in each of the four stages.
        width: Channels of the 3x3 convolutions of the first stage; they double with each stage.
        stem: Channels of the three 3x3 convolutions of the stem; () for (width, width, 2 * width).
        contract_dilation: Whether the first block of a dilated stage has half of the dilation (as
            in mmsegmentation) instead of all of it (as in semseg).
        stride_on_first: Whether the stride of a block is on its first 1x1 convolution (as in the
            authors' Caffe network of 50 layers) instead of on its 3x3 convolution.
    """

    blocks: tuple[int, int, int, int]
    width: int = 64
    stem: tuple[int, ...] = ()
    contract_dilation: bool = False
    stride_on_first: bool = False


RESNETS = {
    "resnet50": ResNet((3, 4, 6, 3)),
    "resnet101": ResNet((3, 4, 23, 3)),
    "resnet152": ResNet((3, 8, 36, 3)),
    "resnet269": ResNet((3, 30, 48, 8)),  # the authors' Caffe prototxt
    # Our own, for the generated scenes and tests.
    "resnet14_narrow": ResNet((1, 1, 1, 1), width=16),
}

LITE0, LITE2 = "efficientnet_lite0", "efficientnet_lite2"

LITE_STAGES = (  # (kernel, stride, expansion): EfficientNet paper, table 1
    (3, 1, 1),
    (3, 2, 6),
    (5, 2, 6),
    (3, 2, 6),
    (5, 1, 6),
    (5, 2, 6),
    (3, 1, 6),
)

LITES = {  # (blocks, channels) of each stage
    LITE0: ((1, 16), (2, 24), (2, 40), (3, 80), (3, 112), (4, 192), (1, 320)),
    # tpu/models/official/efficientnet/lite: 1.1 times as wide, 1.2 times as deep
    LITE2: ((1, 16), (3, 24), (3, 48), (4, 88), (4, 120), (5, 208), (1, 352)),
}

MOBILENET = "mobilenet_v2"  # keras.applications

NAMES = (*RESNETS, *LITES, MOBILENET)

NORMALIZATION = {  # (mean, std) of RGB in 0..255
    **{name: (IMAGENET_MEAN, IMAGENET_STD) for name in RESNETS},  # semseg tool/train.py
    **{
        name: ((127.0,) * 3, (128.0,) * 3) for name in LITES
    },  # tpu/models/official/efficientnet/lite
    MOBILENET: ((127.5,) * 3, (127.5,) * 3),  # keras.applications.mobilenet_v2.preprocess_input
}


def normalization_of(backbone) -> tuple:
    """Return the (mean, std) of RGB in 0..255 of a named backbone or a ResNet."""
    return NORMALIZATION["resnet50" if isinstance(backbone, ResNet) else backbone]


def fine_layer(backbone) -> str:
    """Return the name of the last layer of a named backbone, or a ResNet, at stride 4."""
    config = backbone if isinstance(backbone, ResNet) else RESNETS.get(backbone)
    if config is not None:
        return f"layer1_{config.blocks[0] - 1}_relu3"
    if backbone in LITES:
        return f"blocks_{LITES[backbone][0][0] + LITES[backbone][1][0] - 1}_add"
    return "block_2_add"


def to_config(backbone) -> str | dict | None:
    """Return what a model keeps of its backbone, as JSON values.

    Returns:
        A name of NAMES, also for a ResNet with the numbers of a named one; the fields of another
        ResNet; None for a keras.Model.
    """
    if not isinstance(backbone, ResNet):
        return backbone if isinstance(backbone, str) else None
    numbers = _numbers(backbone)
    names = [name for name, row in RESNETS.items() if _numbers(row) == numbers]
    return names[0] if names else numbers


def from_config(config: str | dict) -> str | ResNet:
    """Return a backbone's name, or its ResNet, from what `to_config` returns."""
    if isinstance(config, str):
        return config
    return ResNet(**{k: tuple(v) if isinstance(v, list) else v for k, v in config.items()})


def _numbers(row: ResNet) -> dict:
    """Return the fields of a ResNet, its stem written out, as JSON values."""
    return {**dataclasses.asdict(row), "blocks": list(row.blocks), "stem": list(_stem(row))}


def _stem(row: ResNet) -> tuple:
    return row.stem or (row.width, row.width, 2 * row.width)


def backbone(name, x, output_stride):
    """Return the features of a named backbone before and after its last stride.

    Args:
        name: One of NAMES, or a ResNet.
        x: Normalized RGB, (B, H, W, 3).
        output_stride: 8, 16 or 32; later strides become dilations.

    Returns:
        (auxiliary features, main features): the outputs of stages 3 and 4 of a ResNet, of stages 5
        and 7 of an EfficientNet-Lite. Both have 1 / output_stride of the input's height and width;
        with output_stride=32 the auxiliary features have 1 / 16.
    """
    resnet_config = name if isinstance(name, ResNet) else RESNETS.get(name)
    if resnet_config is not None:
        return resnet(x, resnet_config, output_stride)
    if name in LITES:
        return efficientnet_lite(x, LITES[name], output_stride)
    # keras.applications pads a MobileNetV2 by its input size, so it is built for the size of x.
    model = keras.applications.MobileNetV2(
        input_shape=tuple(x.shape[1:]), include_top=False, weights=None
    )
    return dilation.features(model, x, output_stride)


def conv_bn(x, channels, kernel, stride=1, dilation=1, *, name, bn_name):
    """Apply a convolution without bias, padded symmetrically, and a batch norm."""
    x = _pad(x, kernel, stride, f"{name}_pad")
    x = layers.Conv2D(
        channels,
        kernel,
        strides=stride,
        dilation_rate=dilation,
        padding="same" if stride == 1 else "valid",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)
    return BatchNormalization(name=bn_name)(x)


def _pad(x, kernel, stride, name):
    """Pad symmetrically before a strided window, as PyTorch; "same" is asymmetric at even sizes."""
    if stride == 1 or kernel == 1:
        return x
    return layers.ZeroPadding2D(kernel // 2, name=name)(x)


def resnet(x, config: ResNet, output_stride):
    """Return the outputs of stages 3 and 4 of a ResNet; layers have semseg's names, "." -> "_"."""
    width = config.width
    for index, channels in enumerate(_stem(config)):
        conv, bn = f"layer0_{3 * index}", f"layer0_{3 * index + 1}"
        x = conv_bn(x, channels, 3, stride=2 if index == 0 else 1, name=conv, bn_name=bn)
        x = layers.ReLU(name=f"layer0_{3 * index + 2}")(x)
    # Zeros are as good as minus infinity for this max pooling: no value behind a ReLU is below 0.
    x = _pad(x, 3, 2, "layer0_9_pad")
    x = layers.MaxPooling2D(3, strides=2, name="layer0_9")(x)

    stride, dilation = 4, 1
    stages = []
    for stage, blocks in enumerate(config.blocks, start=1):
        first_stride = 1
        if stage > 1:
            if stride < output_stride:
                stride, first_stride = stride * 2, 2
            else:
                dilation *= 2
        # In semseg the first block of a dilated stage has the full dilation too.
        first_dilation = max(dilation // 2, 1) if config.contract_dilation else dilation
        strides = (first_stride, 1) if config.stride_on_first else (1, first_stride)
        channels = width * 2 ** (stage - 1)
        for block in range(blocks):
            how = (strides, first_dilation) if block == 0 else ((1, 1), dilation)
            x = _bottleneck(x, channels, *how, f"layer{stage}_{block}")
        stages.append(x)
    return stages[2], stages[3]


def _bottleneck(x, channels, strides, dilation, name):
    """Apply a bottleneck block: 1x1, dilated 3x3, 1x1 to 4 * channels, plus the shortcut.

    Args:
        strides: Stride of the first 1x1 and of the 3x3 convolution.
    """
    shortcut = x
    if name.endswith("_0"):
        down = f"{name}_downsample"
        shortcut = conv_bn(x, 4 * channels, 1, max(strides), name=f"{down}_0", bn_name=f"{down}_1")
    x = conv_bn(x, channels, 1, strides[0], name=f"{name}_conv1", bn_name=f"{name}_bn1")
    x = layers.ReLU(name=f"{name}_relu1")(x)
    x = conv_bn(x, channels, 3, strides[1], dilation, name=f"{name}_conv2", bn_name=f"{name}_bn2")
    x = layers.ReLU(name=f"{name}_relu2")(x)
    x = conv_bn(x, 4 * channels, 1, name=f"{name}_conv3", bn_name=f"{name}_bn3")
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_relu3")(x)


def efficientnet_lite(x, rows, output_stride):
    """Return the outputs of stages 5 and 7 of an EfficientNet-Lite; `rows` is a row of LITES."""
    x = _pad(x, 3, 2, "stem_pad")
    x = layers.Conv2D(32, 3, strides=2, use_bias=False, name="conv_stem")(x)
    x = BatchNormalization(epsilon=1e-3, name="bn0")(x)
    x = layers.ReLU(6.0, name="stem_relu")(x)

    stride, dilation, block = 2, 1, 0
    stages = []
    for (blocks, channels), (kernel, stage_stride, expansion) in zip(rows, LITE_STAGES):
        next_dilation, first_stride = dilation, stage_stride
        if stage_stride == 2:
            if stride < output_stride:
                stride *= 2
            else:
                first_stride, next_dilation = 1, dilation * 2
        for index in range(blocks):
            x = _inverted_residual(
                x,
                kernel,
                first_stride if index == 0 else 1,
                # The convolution that loses its stride is not dilated itself: its input is not
                # denser. So pretrained weights compute the same values as with the stride.
                dilation if index == 0 else next_dilation,
                expansion,
                channels,
                name=f"blocks_{block}",
            )
            block += 1
        dilation = next_dilation
        stages.append(x)
    return stages[4], stages[6]


def _inverted_residual(x, kernel, stride, dilation, expansion, channels, name):
    """Apply an inverted residual block: 1x1 expansion, depthwise, 1x1 projection, shortcut."""
    shortcut = x
    if expansion > 1:
        width = x.shape[-1] * expansion
        x = layers.Conv2D(width, 1, use_bias=False, name=f"{name}_expand_conv")(x)
        x = BatchNormalization(epsilon=1e-3, name=f"{name}_bn0")(x)
        x = layers.ReLU(6.0, name=f"{name}_expand_relu")(x)
    x = _pad(x, kernel, stride, f"{name}_pad")
    x = layers.DepthwiseConv2D(
        kernel,
        strides=stride,
        dilation_rate=dilation,
        padding="same" if stride == 1 else "valid",
        use_bias=False,
        name=f"{name}_depthwise_conv",
    )(x)
    x = BatchNormalization(epsilon=1e-3, name=f"{name}_bn1")(x)
    x = layers.ReLU(6.0, name=f"{name}_relu")(x)
    x = layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_project_conv")(x)
    x = BatchNormalization(epsilon=1e-3, name=f"{name}_bn2")(x)
    if stride == 1 and shortcut.shape[-1] == channels:
        x = layers.Add(name=f"{name}_add")([x, shortcut])
    return x
