"""The pyramid pooling module and the resizing, value by value against their definitions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_pspnet.labels import LabelSet
from keras_pspnet.network import resampling
from keras_pspnet.network.layers import PyramidConv2D, PyramidPoolingModule, Upsample


def normal(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def pooled(x, bins, pooling):
    """Adaptive pooling: bin i of n covers floor(i n / bins) to ceil((i + 1) n / bins)."""
    reduce = np.mean if pooling == "average" else np.max
    result = np.zeros((x.shape[0], bins, bins, x.shape[3]))
    for i in range(bins):
        for j in range(bins):
            top, bottom = (
                int(np.floor(i * x.shape[1] / bins)),
                int(np.ceil((i + 1) * x.shape[1] / bins)),
            )
            left, right = (
                int(np.floor(j * x.shape[2] / bins)),
                int(np.ceil((j + 1) * x.shape[2] / bins)),
            )
            result[:, i, j] = reduce(x[:, top:bottom, left:right].astype(np.float64), axis=(1, 2))
    return result


def resized(x, size, align_corners):
    """Bilinear interpolation, one output pixel at a time."""
    result = np.zeros((x.shape[0], *size, x.shape[3]))
    for row in range(size[0]):
        for column in range(size[1]):
            corners = 1.0
            for axis, place in ((1, row), (2, column)):
                old, new = x.shape[axis], size[axis - 1]
                if align_corners:
                    source = place * (old - 1) / (new - 1) if new > 1 else 0.0
                else:
                    source = min(max((place + 0.5) * old / new - 0.5, 0), old - 1)
                weights = np.maximum(1 - np.abs(source - np.arange(old)), 0)
                corners = np.multiply.outer(corners, weights)
            result[:, row, column] = np.einsum("hw,bhwc->bc", corners, x.astype(np.float64))
    return result


@keras.saving.register_keras_serializable("tests")
class Pool(keras.layers.Layer):
    def __init__(self, bins, pooling, **kwargs):
        super().__init__(**kwargs)
        self.bins, self.pooling = bins, pooling

    def call(self, x):
        return resampling.adaptive_pool(x, self.bins, self.pooling)

    def compute_output_shape(self, shape):
        return (shape[0], self.bins, self.bins, shape[-1])


# --- pooling ---


@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize("bins", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [(6, 12), (7, 10), (60, 13), (4, 2), (1, 1)])
def test_pooling_windows_are_those_of_adaptive_pooling(size, bins, pooling):
    x = normal(2, *size, 3)
    result = resampling.adaptive_pool(keras.ops.array(x), bins, pooling)
    np.testing.assert_allclose(result, pooled(x, bins, pooling), atol=1e-6)


@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize("bins", [1, 2, 3, 6])
def test_one_model_of_unknown_size_pools_one_size_after_another(bins, pooling):
    image = keras.Input((None, None, 2))
    model = keras.Model(image, Pool(bins, pooling)(image))
    for size in ((6, 12), (7, 5), (3, 4), (6, 12), (13, 8)):
        x = normal(1, *size, 2)
        for result in (model(x), model.predict(x, verbose=0)):
            np.testing.assert_allclose(result, pooled(x, bins, pooling), atol=1e-6)


# --- resizing ---

SIZES = [((3, 4), (9, 13)), ((1, 1), (5, 6)), ((6, 6), (2, 3)), ((5, 7), (1, 1)), ((1, 4), (4, 4))]


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("old, new", SIZES)
def test_resizing_is_bilinear(old, new, align_corners):
    x = normal(2, *old, 3)
    result = resampling.resize(keras.ops.array(x), new, align_corners)
    np.testing.assert_allclose(result, resized(x, new, align_corners), atol=2e-6)


def test_aligned_corners_keep_the_corner_pixels():
    x = normal(1, 3, 5, 2)
    result = np.asarray(resampling.resize(keras.ops.array(x), (17, 33)))
    np.testing.assert_allclose(result[:, ::8, ::8], x, atol=1e-6)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("old, new", SIZES)
def test_other_backends_resize_the_same(monkeypatch, old, new, align_corners):
    x = keras.ops.array(normal(2, *old, 3))
    expected = resampling.resize(x, new, align_corners)
    monkeypatch.setattr(keras.backend, "backend", lambda: "another")
    monkeypatch.setattr(tf.raw_ops, "ResizeBilinear", None)
    result = resampling.resize(x, new, align_corners)
    np.testing.assert_allclose(result, expected, atol=2e-6)


def test_interpolation_weights_by_hand():
    aligned = resampling.interpolation(2, 3, True, "float32")
    half = resampling.interpolation(2, 4, False, "float32")
    np.testing.assert_allclose(aligned, [[1, 0], [0.5, 0.5], [0, 1]])
    np.testing.assert_allclose(half, [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])


# --- the pyramid pooling module ---


def randomise(layer):
    """Weights that leave no factor at 0 or 1; positive, because two of them are variances."""
    rng = np.random.default_rng(5)
    for weight in layer.weights:
        low = -1.0 if weight.name == "kernel" else 0.2
        weight.assign(rng.uniform(low, 1.5, weight.shape))


def pyramid(layer, x):
    """What the module computes in inference, in numpy, from its weights by position."""
    levels = [x]
    for index, bins in enumerate(layer.bins):
        level = pooled(x, bins, layer.pooling)
        if layer.reduce_channels:
            (kernel,) = layer.convolutions[index].get_weights()
            gamma, beta, mean, variance = layer.norms[index].get_weights()
            level = level @ kernel[0, 0]
            level = np.maximum((level - mean) / np.sqrt(variance + 1e-5) * gamma + beta, 0)
        levels.append(resized(level, x.shape[1:3], layer.align_corners))
    return np.concatenate(levels, -1)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize("reduce_channels", [True, False])
def test_the_module_computes_the_papers_pyramid(reduce_channels, pooling, align_corners):
    layer = PyramidPoolingModule(
        reduce_channels=reduce_channels, pooling=pooling, align_corners=align_corners
    )
    x = normal(2, 9, 7, 8)
    layer.build(x.shape)
    randomise(layer)
    result = layer(x)
    assert result.shape == (2, 9, 7, 16 if reduce_channels else 40)
    np.testing.assert_allclose(result, pyramid(layer, x), atol=1e-4, rtol=1e-5)


def test_the_order_is_the_map_and_then_the_bins_as_given():
    x = normal(1, 12, 12, 4)
    result = np.asarray(PyramidPoolingModule((6, 1), reduce_channels=False)(x))
    np.testing.assert_array_equal(result[..., :4], x)
    np.testing.assert_allclose(
        result[..., 4:8], resized(pooled(x, 6, "average"), (12, 12), True), atol=1e-6
    )
    np.testing.assert_allclose(result[..., 8:], np.full_like(x, 1) * x.mean((1, 2)), atol=1e-6)


def test_a_branch_has_its_share_of_the_channels():
    for bins, channels in (((1, 2, 3, 6), 4), ((1, 2, 3), 5), (tuple(range(1, 19)), 1)):
        layer = PyramidPoolingModule(bins)
        expected = 16 + len(bins) * channels
        assert layer(normal(2, 6, 6, 16)).shape[-1] == expected
        assert layer.compute_output_shape((2, 6, 6, 16)) == (2, 6, 6, expected)
        assert layer.count_params() == len(bins) * channels * (16 + 4)
    without = PyramidPoolingModule((1, 2), reduce_channels=False)
    assert without.compute_output_shape((None, None, 5, 7)) == (None, None, 5, 21)
    assert without(normal(2, 6, 5, 7)).shape[-1] == 21 and not without.weights


@pytest.mark.parametrize("size", [(None, None), (9, 11)])
def test_the_module_survives_saving_loading_and_cloning(tmp_path, size):
    image = keras.Input((*size, 6))
    layer = PyramidPoolingModule((1, 3), pooling="max", align_corners=False, name="ppm")
    model = keras.Model(image, layer(image))
    assert model.output.shape == (None, *size, 12)
    randomise(layer)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    for other in (loaded, clone):
        config = other.get_layer("ppm").get_config()
        assert tuple(config["bins"]) == (1, 3) and config["pooling"] == "max"
        assert config["align_corners"] is False
        for size in ((9, 11), (4, 5))[: 1 if model.input.shape[1] else 2]:
            x = normal(2, *size, 6)
            np.testing.assert_allclose(other(x), pyramid(layer, x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pooling", ["average", "max"])
def test_every_weight_and_the_input_get_a_gradient(pooling):
    layer = PyramidPoolingModule(pooling=pooling)
    x = tf.Variable(normal(4, 7, 6, 8))
    with tf.GradientTape() as tape:
        result = layer(x, training=True)
        loss = tf.reduce_sum(result * normal(*result.shape))
    assert len(layer.trainable_weights) == 4 * 3
    for gradient in tape.gradient(loss, [x, *(w.value for w in layer.trainable_weights)]):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 1e-4


def test_training_normalizes_by_the_batch_and_keeps_its_statistics():
    layer = PyramidPoolingModule((1,))
    x = normal(8, 3, 3, 4)
    result = np.asarray(layer(x, training=True))[:, 0, 0, 4:]
    values = x.mean((1, 2)) @ layer.convolutions[0].get_weights()[0][0, 0]
    expected = np.maximum((values - values.mean(0)) / np.sqrt(values.var(0) + 1e-5), 0)
    np.testing.assert_allclose(result, expected, atol=1e-4)
    _, _, mean, variance = layer.norms[0].get_weights()
    np.testing.assert_allclose(mean, 0.1 * values.mean(0), atol=1e-6)
    np.testing.assert_allclose(variance, 0.9 + 0.1 * values.var(0), atol=1e-5)


def test_of_one_picture_the_branch_of_one_region_keeps_its_statistics():
    """Normalised by itself, each channel of that branch would be 0 and its variance fall to 0."""
    layer = PyramidPoolingModule((1, 2), upsample=False)
    x = normal(1, 4, 6, 8)
    layer.build(x.shape)
    randomise(layer)
    before = [norm.get_weights() for norm in layer.norms]
    expected = layer(x, training=False)
    found = layer(x, training=True)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-6)
    assert np.abs(found[1]).max() > 0 and np.abs(found[2] - expected[2]).max() > 1e-2
    for kept, old, new in zip((True, False), before, layer.norms):
        assert np.array_equal(old[3], new.get_weights()[3]) == kept


def test_half_precision_does_not_overflow():
    x = np.full((1, 64, 64, 2), 30000, np.float32)
    layer = PyramidPoolingModule(reduce_channels=False, dtype="mixed_float16")
    result = np.asarray(layer(x))
    assert result.dtype == np.float16 and (result == 30000).all()


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"bins": ()}, "bins"),
        ({"bins": (1, 0)}, "bins"),
        ({"bins": (1, 2.5)}, "bins"),
        ({"pooling": "min"}, "min"),
    ],
)
def test_a_module_that_means_nothing_is_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        PyramidPoolingModule(**arguments)


# --- the convolution over the pyramid ---


def convolved(layer, module, x):
    """The definition: the module's concatenation under a plain convolution with the same kernel."""
    plain = PyramidPoolingModule.from_config({**module.get_config(), "upsample": True})
    convolution = keras.layers.Conv2D(layer.filters, 3, padding="same", use_bias=False)
    pyramid = plain(x)
    convolution.build(pyramid.shape)
    plain.set_weights(module.get_weights())
    convolution.set_weights(layer.get_weights())
    return convolution(plain(x))


PYRAMIDS = [{}, {"bins": (2, 5)}, {"bins": (6,), "pooling": "max"}, {"reduce_channels": False}]


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("arguments", PYRAMIDS)
@pytest.mark.parametrize("size", [(12, 12), (9, 7), (2, 5), (1, 1), (1, 8)])
def test_the_low_rank_convolution_is_that_of_the_concatenated_pyramid(
    size, arguments, align_corners
):
    module = PyramidPoolingModule(align_corners=align_corners, upsample=False, **arguments)
    layer = PyramidConv2D(5, align_corners=align_corners)
    x = normal(2, *size, 8)
    module.build(x.shape)
    layer.build([level.shape for level in module(x)])
    randomise(module)
    randomise(layer)
    expected = np.asarray(convolved(layer, module, x))
    np.testing.assert_allclose(layer(module(x)), expected, atol=2e-6 * np.abs(expected).max())
    assert layer.compute_output_shape([level.shape for level in module(x)]) == (2, *size, 5)


def test_the_low_rank_convolution_takes_one_unknown_size_after_another(tmp_path):
    image = keras.Input((None, None, 8))
    module, layer = PyramidPoolingModule(upsample=False), PyramidConv2D(5, name="conv")
    levels = module(image)
    assert [level.shape[1] for level in levels] == [None, 1, 2, 3, 6]
    model = keras.Model(image, layer(levels))
    randomise(module)
    assert layer.kernel.shape == (3, 3, 16, 5)
    model.save(tmp_path / "model.keras")
    for other in (model, keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)):
        for size in ((9, 11), (4, 5), (12, 6)):
            x = normal(2, *size, 8)
            expected = np.asarray(convolved(layer, module, x))
            for result in (other(x), other.predict(x, verbose=0)):
                np.testing.assert_allclose(result, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("size", [(12, 12), (7, 6)])
def test_the_low_rank_convolution_has_the_gradients_of_the_plain_one(size):
    module, layer = PyramidPoolingModule(upsample=False), PyramidConv2D(5)
    x = tf.Variable(normal(2, *size, 8))
    layer.build([level.shape for level in module(x)])
    factors = normal(2, *size, 5)
    plain, convolution = PyramidPoolingModule(), keras.layers.Conv2D(5, 3, padding="same")
    convolution.build(plain(x).shape)
    plain.set_weights(module.get_weights())
    convolution.kernel.assign(layer.kernel)
    gradients = []
    for network, kernel, moving in (
        (lambda x: layer(module(x)), layer.kernel, module),
        (lambda x: convolution(plain(x)), convolution.kernel, plain),
    ):
        variables = [x, kernel.value, *(w.value for w in moving.trainable_weights)]
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(network(x) * factors)
        gradients.append(tape.gradient(loss, variables))
    for found, expected in zip(*gradients):
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


# --- upsampling ---


@pytest.mark.parametrize("align_corners", [True, False])
def test_upsampling_takes_two_maps_of_unknown_size(align_corners):
    small, large = keras.Input((None, None, 2)), keras.Input((None, None, 3))
    model = keras.Model([small, large], Upsample(align_corners)(small, large))
    assert model.output.shape == (None, None, None, 2)
    for old, new in (((3, 4), (9, 13)), ((2, 2), (5, 4)), ((3, 4), (9, 13))):
        x = normal(1, *old, 2)
        expected = resized(x, new, align_corners)
        np.testing.assert_allclose(model([x, normal(1, *new, 3)]), expected, atol=2e-6)
        result = model.predict([x, normal(1, *new, 3)], verbose=0)
        np.testing.assert_allclose(result, expected, atol=2e-6)


def test_labels_survive_saving_and_cloning(tmp_path):
    labels = LabelSet(("a", "b"), ((1, 2, 3), (4, 5, 6)), ignore=9, ids={7: 1, 8: 0})
    image = keras.Input((8, 8, 2))
    model = keras.Model(image, Upsample(False, labels, name="main")(image[:, ::2, ::2], image))
    model.save(tmp_path / "model.keras")
    for other in (
        keras.saving.load_model(tmp_path / "model.keras", safe_mode=True),
        keras.models.clone_model(model),
    ):
        assert other.get_layer("main").labels == labels
        assert other.get_layer("main").align_corners is False
    assert Upsample.from_config(Upsample().get_config()).labels is None
