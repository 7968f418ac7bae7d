"""The network in its form for devices equals the network; the class map equals the argmax."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_pspnet
from keras_pspnet.export import fast_graph
from keras_pspnet.export.winograd import WinogradConv2D
from keras_pspnet.network.main_head import main_network
from keras_pspnet.network.resampling import resize


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


@pytest.mark.parametrize("split, winograd", [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("arguments", [{}, {"bins": ()}, {"backbone": "efficientnet_lite0"}])
def test_the_function_stays_the_same(monkeypatch, arguments, split, winograd):
    monkeypatch.setattr(fast_graph, "MAX_REDUCTION", 1000)
    before = network(**arguments)
    after, forms = fast_graph.device_network(before, split=split, winograd=winograd)
    equal(before, after)
    if split:
        channels = before.get_layer("cls_0").kernel.shape[2]
        if "bins" not in arguments:
            channels //= 2  # the other half is the pyramid's, at low rank
        parts = -(-(3 if winograd else 9) * channels // 1000)
        assert forms["cls_0"] == {"parts": parts, "winograd": winograd}
    else:
        assert forms == {}


def test_long_convolutions_of_the_backbone_are_split_and_short_ones_are_not(monkeypatch):
    monkeypatch.setattr(fast_graph, "MAX_REDUCTION", 600)
    before = network()
    after, forms = fast_graph.device_network(before, split=True, winograd=True)
    # 3x3 over 128 channels in the last stage, 64 in the one before; 1x1 kernels of any length stay
    assert forms == {
        "layer4_0_conv2": {"parts": 2, "winograd": False},  # it is dilated
        "cls_0": {"parts": 3, "winograd": True},
    }
    assert after.get_layer("layer4_0_conv2").dilation_rate == (4, 4)
    equal(before, after)


def test_a_convolution_seen_by_others_than_its_norm_keeps_it(monkeypatch):
    monkeypatch.setattr(fast_graph, "MAX_REDUCTION", 100)
    image = keras.Input((9, 9, 16), batch_size=1)
    seen = keras.layers.Conv2D(4, 3, name="seen", use_bias=True)(image)
    model = keras.Model(image, [keras.layers.BatchNormalization()(seen), seen])
    model.layers[-1].set_weights([np.full(4, value) for value in (2.0, 3.0, 0.5, 4.0)])
    after, forms = fast_graph.device_network(model, split=True, winograd=False)
    assert forms == {"seen": {"parts": 2, "winograd": False}}
    x = np.random.default_rng(0).normal(size=(1, 9, 9, 16)).astype(np.float32)
    for found, expected in zip(after(x), model(x)):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("twice", ["the convolution", "the norm"])
@pytest.mark.parametrize("winograd", [False, True])
def test_what_is_called_twice_is_not_folded(monkeypatch, twice, winograd):
    monkeypatch.setattr(fast_graph, "MAX_REDUCTION", 100)
    image = keras.Input((9, 9, 16), batch_size=1)
    convolutions = [keras.layers.Conv2D(4, 3, padding="same", name=f"seen{i}") for i in range(2)]
    norms = [keras.layers.BatchNormalization(name=f"norm{i}") for i in range(2)]
    if twice == "the convolution":
        convolutions[1] = convolutions[0]
    else:
        norms[1] = norms[0]
    paths = [norm(seen(x)) for norm, seen, x in zip(norms, convolutions, (image, -image))]
    model = keras.Model(image, paths[0] + paths[1])
    for factor, norm in enumerate(norms, start=2):
        norm.set_weights([np.full(4, value * factor) for value in (2.0, 3.0, 0.5, 4.0)])
    after, forms = fast_graph.device_network(model, split=True, winograd=winograd)
    assert forms["seen0"]["parts"] > 1 or forms["seen0"]["winograd"]
    x = np.random.default_rng(0).normal(size=(1, 9, 9, 16)).astype(np.float32)
    np.testing.assert_allclose(after(x), model(x), atol=1e-4)


@pytest.mark.parametrize("between", ["its own activation", "another operation"])
def test_a_norm_that_cannot_be_folded_is_kept(monkeypatch, between):
    monkeypatch.setattr(fast_graph, "MAX_REDUCTION", 100)
    image = keras.Input((9, 9, 16), batch_size=1)
    own = between == "its own activation"
    seen = keras.layers.Conv2D(4, 3, activation="relu" if own else None, name="seen")(image)
    normed = keras.layers.BatchNormalization(name="norm")(seen)
    outputs = normed if own else normed + keras.ops.multiply(seen, 0.5)
    model = keras.Model(image, outputs)
    model.get_layer("norm").set_weights([np.full(4, v) for v in (2.0, 3.0, 0.5, 4.0)])
    x = np.random.default_rng(0).normal(size=(1, 9, 9, 16)).astype(np.float32)
    for winograd in (False, True):
        after, forms = fast_graph.device_network(model, split=True, winograd=winograd)
        assert forms["seen"]["parts"] > 1
        np.testing.assert_allclose(after(x), model(x), atol=1e-5)


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("size", [(5, 8), (3, 6), (4, 9), (2, 1), (7, 31), (1, 2)])
def test_winograds_convolution_is_the_plain_one(size, parts):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(1, *size, 6)).astype(np.float32)
    plain = keras.layers.Conv2D(5, 3, padding="same", activation="relu")
    expected = plain(x)
    plain.bias.assign(rng.normal(size=5))
    layer = WinogradConv2D(5, parts=parts, activation="relu")
    layer.build(x.shape)
    layer.assign(*plain.get_weights())
    np.testing.assert_allclose(layer(x), plain(x), atol=2e-6 * np.abs(expected).max() + 1e-6)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    "features, size",
    [((7, 8), (49, 57)), ((11, 4), (81, 25)), ((9, 6), (65, 50)), ((8, 8), (64, 64))]
    + [((2, 3), (9, 17)), ((1, 1), (5, 5)), ((6, 6), (6, 6)), ((31, 3), (481, 33))],
)
def test_the_class_map_is_the_argmax_of_the_enlarged_scores(features, size, align_corners):
    scores = np.random.default_rng(3).normal(size=(1, *features, 7)).astype(np.float32)
    found = tf.function(lambda x: fast_graph.class_map(x, size, align_corners))(tf.constant(scores))
    expected = tf.argmax(resize(tf.constant(scores), size, align_corners), -1)
    assert found.dtype == tf.int32 and found.shape == (1, *size)
    np.testing.assert_array_equal(found, expected)


def test_which_class_maps_are_made_in_strips():
    assert fast_graph.in_strips(60, 473, True) and fast_graph.in_strips(24, 369, True)
    assert not fast_graph.in_strips(60, 473, False) and not fast_graph.in_strips(60, 480, True)
    assert not fast_graph.in_strips(1, 8, True)
