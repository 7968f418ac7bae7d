"""The network in its form for devices equals the network; the class map equals the argmax."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_pspnet
from keras_pspnet import device
from keras_pspnet.model import main_network
from keras_pspnet.resample import resize


def network(**arguments):
    keras.utils.set_random_seed(4)
    arguments = {"input_shape": (49, 57, 3), "backbone": "resnet14_narrow", **arguments}
    model = main_network(keras_pspnet.build_pspnet(5, channels=8, **arguments))
    rng = np.random.default_rng(0)
    for weight in model.weights:  # batch norms that leave no factor at 0 or 1
        if weight.name in ("moving_variance", "gamma"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif weight.name in ("moving_mean", "beta"):
            weight.assign(rng.normal(size=weight.shape))
    return model


PICTURES = np.random.default_rng(1).integers(0, 256, (2, 49, 57, 3)).astype(np.float32)


def equal(a, b):
    np.testing.assert_allclose(a(PICTURES), b(PICTURES), atol=1e-5 * np.ptp(a(PICTURES)))


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("arguments", [{}, {"bins": ()}, {"backbone": "efficientnet_lite0"}])
def test_the_function_stays_the_same(monkeypatch, arguments, split):
    monkeypatch.setattr(device, "LONGEST", 1000)
    before = network(**arguments)
    after, parts = device.device_network(before, split)
    equal(before, after)
    if split:
        channels = before.get_layer("cls_0").kernel.shape[2]
        if "bins" not in arguments:
            channels //= 2  # the other half is the pyramid's, at low rank
        assert parts["cls_0"] == -(-9 * channels // 1000) > 2
    else:
        assert parts == {}


def test_long_convolutions_of_the_backbone_are_split_and_short_ones_are_not(monkeypatch):
    monkeypatch.setattr(device, "LONGEST", 600)
    before = network()
    after, parts = device.device_network(before, True)
    # 3x3 over 128 channels in the last stage, 64 in the one before; 1x1 kernels of any length stay
    assert parts == {"layer4_0_conv2": 2, "cls_0": 8}
    assert after.get_layer("layer4_0_conv2").dilation_rate == (4, 4)
    equal(before, after)


def test_a_convolution_seen_by_others_than_its_norm_keeps_it(monkeypatch):
    monkeypatch.setattr(device, "LONGEST", 100)
    image = keras.Input((9, 9, 16), batch_size=1)
    seen = keras.layers.Conv2D(4, 3, name="seen", use_bias=True)(image)
    model = keras.Model(image, [keras.layers.BatchNormalization()(seen), seen])
    model.layers[-1].set_weights([np.full(4, value) for value in (2.0, 3.0, 0.5, 4.0)])
    after, parts = device.device_network(model, True)
    assert parts == {"seen": 2}
    x = np.random.default_rng(0).normal(size=(1, 9, 9, 16)).astype(np.float32)
    for found, expected in zip(after(x), model(x)):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    "features, size",
    [((7, 8), (49, 57)), ((11, 4), (81, 25)), ((9, 6), (65, 50)), ((8, 8), (64, 64))]
    + [((2, 3), (9, 17)), ((1, 1), (5, 5)), ((6, 6), (6, 6)), ((31, 3), (481, 33))],
)
def test_the_class_map_is_the_argmax_of_the_enlarged_scores(features, size, align_corners):
    scores = np.random.default_rng(3).normal(size=(1, *features, 7)).astype(np.float32)
    found = tf.function(lambda x: device.class_map(x, size, align_corners))(tf.constant(scores))
    expected = tf.argmax(resize(tf.constant(scores), size, align_corners), -1)
    assert found.dtype == tf.int32 and found.shape == (1, *size)
    np.testing.assert_array_equal(found, expected)


def test_which_class_maps_are_made_in_strips():
    assert device.in_strips(60, 473, True) and device.in_strips(24, 369, True)
    assert not device.in_strips(60, 473, False) and not device.in_strips(60, 480, True)
    assert not device.in_strips(1, 8, True)
