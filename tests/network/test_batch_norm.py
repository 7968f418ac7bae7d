"""The fused batch norm is Keras's own in all that it computes, keeps and saves."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_pspnet.network.batch_norm import BatchNormalization, reestimate

SHAPES = [(4, 7, 5, 6), (1, 33, 47, 3), (2, 1, 1, 4), (1, 2, 1, 1)]
UNIT = {"float32": 2**-24, "mixed_float16": 2**-11, "mixed_bfloat16": 2**-8}  # of rounding


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(2, 3, shape).astype(np.float32)


def pair(channels, shape=None, **arguments):
    """Our layer and Keras's with the same weights, none of them 0 or 1."""
    rng = np.random.default_rng(channels)
    weights = [rng.uniform(0.5, 1.5, channels), rng.normal(size=channels)]
    weights += [rng.normal(size=channels), rng.uniform(0.5, 2, channels)]
    layers = []
    for kind in (BatchNormalization, keras.layers.BatchNormalization):
        layer = kind(**{"momentum": 0.9, "epsilon": 1e-5, **arguments})
        layer.build(shape or (None, None, None, channels))
        layer.set_weights(weights)
        layers.append(layer)
    return layers


def count_fused(monkeypatch):
    """A list that grows with each use of the fused kernel."""
    calls, kernel = [], tf.raw_ops.FusedBatchNormV3

    def counted(**arguments):
        calls.append(arguments["x"].dtype.name)
        return kernel(**arguments)

    monkeypatch.setattr(tf.raw_ops, "FusedBatchNormV3", counted)
    return calls


def step(layer, x, slopes, training=True):
    """Outputs, and gradients of the input, gamma and beta."""
    x = tf.Variable(tf.cast(x, layer.compute_dtype))
    with tf.GradientTape() as tape:
        result = layer(x, training=training)
        loss = tf.reduce_sum(tf.cast(result, "float64") * slopes)
    gradients = tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])
    return [np.asarray(tf.cast(value, "float64")) for value in (result, *gradients)], result.dtype


@pytest.mark.parametrize("policy", UNIT)
@pytest.mark.parametrize("shape", SHAPES)
def test_training_computes_what_keras_computes(monkeypatch, shape, policy):
    calls, slopes = count_fused(monkeypatch), draw(*shape, seed=9)
    ours, native = pair(shape[-1], dtype=policy)
    _, exact = pair(shape[-1], dtype="float64")
    for seed in range(3):
        x = np.asarray(tf.cast(tf.cast(draw(*shape, seed=seed), ours.compute_dtype), "float64"))
        found, dtype = step(ours, x, slopes)
        assert dtype == step(native, x, slopes)[1] == ours.compute_dtype
        expected, _ = step(exact, x, slopes)
        # Rounded once, of values below 6; sums also gather errors on their way.
        one_value = 2e-5 + 6 * UNIT[policy]
        a_sum = 3e-7 * np.abs(slopes).sum() + UNIT[policy] * np.linalg.norm(slopes)
        for one, other, tolerance in zip(found, expected, (one_value, one_value, a_sum, a_sum)):
            np.testing.assert_allclose(one, other, atol=tolerance)
        for one, same, other in zip(ours.weights, native.weights, exact.weights):
            np.testing.assert_allclose(one, same, rtol=3e-6, atol=1e-6)
            np.testing.assert_allclose(one, other, rtol=3e-6, atol=1e-6)
    assert calls == [ours.compute_dtype] * 3


def test_training_by_its_definition():
    ours, _ = pair(3)
    x = draw(2, 4, 5, 3).astype(np.float64)
    gamma, beta, old_mean, old_variance = ours.get_weights()
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    result = ours(x.astype(np.float32), training=True)
    expected = (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta
    np.testing.assert_allclose(result, expected, atol=1e-5)
    np.testing.assert_allclose(ours.moving_mean, 0.9 * old_mean + 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(ours.moving_variance, 0.9 * old_variance + 0.1 * variance, rtol=1e-5)


@pytest.mark.parametrize("policy", [*UNIT, "float64"])
def test_a_single_value_is_normalised_by_the_moving_statistics(policy):
    ours, _ = pair(4, dtype=policy)
    x, before = draw(1, 1, 1, 4), ours.get_weights()
    slopes, expected = draw(1, 1, 1, 4, seed=9), ours(x, training=False)
    found, _ = step(ours, x, slopes)
    np.testing.assert_array_equal(found[0], np.asarray(tf.cast(expected, "float64")))
    for one, other in zip(before, ours.get_weights()):
        np.testing.assert_array_equal(one, other)
    assert np.abs(found[1]).min() > 0 and np.abs(found[2]).min() > 0  # input and gamma learn


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_in_fit_a_last_batch_of_one_leaves_the_statistics(policy):
    """The number of pictures is unknown in the graph, as of a data set with a rest."""
    x = draw(5, 1, 1, 3)
    image = keras.Input((1, 1, 3))
    norm = BatchNormalization(dtype=policy)
    model = keras.Model(image, norm(image))
    model.compile(keras.optimizers.SGD(0.0), loss="mse")
    data = tf.data.Dataset.from_tensor_slices((x, x)).batch(2)
    assert data.element_spec[0].shape[0] is None
    model.fit(data, verbose=0)
    mean, variance = np.zeros(3), np.ones(3)
    for batch in (x[:2, 0, 0], x[2:4, 0, 0]):
        mean = 0.9 * mean + 0.1 * batch.mean(0)
        variance = 0.9 * variance + 0.1 * batch.var(0)
    tolerance = 1e-5 if policy == "float32" else 1e-2
    np.testing.assert_allclose(norm.moving_mean, mean, atol=tolerance)
    np.testing.assert_allclose(norm.moving_variance, variance, atol=tolerance)


@pytest.mark.parametrize("epsilon", [1e-6, 1e-5, 1e-3])
def test_epsilon_is_the_given_one(epsilon):
    """Some versions of tf.compat.v1.nn.fused_batch_norm raise it to 1.001e-5."""
    x = 1e-3 * draw(2, 3, 4, 2)
    ours, _ = pair(2, epsilon=epsilon)
    variance = x.astype(np.float64).var((0, 1, 2))
    deviation = (x - x.mean((0, 1, 2))) / np.sqrt(variance + epsilon)
    expected = deviation * ours.gamma.numpy() + ours.beta.numpy()
    np.testing.assert_allclose(ours(x, training=True), expected, rtol=1e-4, atol=2e-6)


def test_the_defaults_are_the_references():
    layer = BatchNormalization()
    assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)


def test_a_channel_that_never_varies_is_normalized_alike():
    ours, native = pair(2)
    x = np.full((2, 3, 3, 2), 0.25, np.float32)
    x[..., 1] += 1e-3 * draw(2, 3, 3)
    for one, other in zip(ours.weights, native.weights):
        assert np.array_equal(one, other)
    np.testing.assert_allclose(ours(x, training=True), native(x, training=True), atol=2e-4)


@pytest.mark.parametrize("policy", UNIT)
@pytest.mark.parametrize("frozen", [False, True])
def test_inference_and_frozen_layers_are_left_to_keras(monkeypatch, policy, frozen):
    calls = count_fused(monkeypatch)
    ours, native = pair(5, dtype=policy)
    for layer in (ours, native):
        layer.trainable = not frozen
    before, x = ours.get_weights(), draw(2, 3, 4, 5)
    for training in (None, False, True) if frozen else (None, False):
        assert np.array_equal(ours(x, training=training), native(x, training=training))
    assert not calls
    for one, other in zip(before, ours.get_weights()):
        assert np.array_equal(one, other)


@pytest.mark.parametrize(
    "shape, arguments",
    [
        ((3, 4, 5, 2), {"dtype": "float64"}),
        ((3, 4, 5, 2), {"dtype": "float16"}),
        ((3, 4, 5, 2), {"dtype": "bfloat16"}),
        ((3, 2, 4, 5), {"axis": 1}),
        ((8, 2), {}),
        ((4, 6, 2), {}),
    ],
)
def test_what_the_kernel_cannot_do_is_left_to_keras(monkeypatch, shape, arguments):
    calls = count_fused(monkeypatch)
    ours, native = pair(2, shape, **arguments)
    x = draw(*shape)
    assert np.array_equal(ours(x, training=True), native(x, training=True))
    for one, other in zip(ours.weights, native.weights):
        assert np.array_equal(one, other)
    assert not calls


@pytest.mark.parametrize("arguments", [{"scale": False}, {"center": False}])
def test_without_a_factor_or_a_shift_it_is_left_to_keras(arguments):
    x, results = draw(3, 4, 5, 2), []
    for kind in (BatchNormalization, keras.layers.BatchNormalization):
        layer = kind(momentum=0.9, epsilon=1e-5, **arguments)
        results.append([layer(x, training=True), layer.moving_mean, layer.moving_variance])
    for one, other in zip(*results):
        assert np.array_equal(one, other)


def test_masked_pixels_are_left_out_as_in_keras():
    ours, native = pair(2)
    x, mask = draw(2, 3, 4, 2), np.arange(24).reshape(2, 3, 4) % 3 > 0
    assert np.array_equal(ours(x, training=True, mask=mask), native(x, training=True, mask=mask))
    assert np.array_equal(ours.moving_mean, native.moving_mean)


def network(kind, size):
    image = keras.Input((*size, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(image)
    x = kind(momentum=0.9, epsilon=1e-5, name="norm")(x)
    return keras.Model(image, keras.layers.Conv2D(2, 1, name="last")(x))


@pytest.mark.parametrize("size", [(9, 11), (None, None)])
def test_fitting_in_graph_mode_ends_where_keras_ends(monkeypatch, size):
    calls = count_fused(monkeypatch)
    images, truth = draw(12, 9, 11, 3), draw(12, 7, 9, 2, seed=1)
    ends, traced = [], []
    for kind in (BatchNormalization, keras.layers.BatchNormalization):
        keras.utils.set_random_seed(4)
        model = network(kind, size)
        model.compile(keras.optimizers.SGD(0.05, 0.9), loss="mse", jit_compile=False)
        history = model.fit(images, truth, batch_size=4, epochs=3, shuffle=False, verbose=0)
        result = model.predict(images[:2], verbose=0)
        ends.append([*model.get_weights(), *history.history["loss"], result])
        traced.append(len(calls))
    assert traced[0] > 0 and traced[1] == traced[0]
    for one, other in zip(*ends):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert ends[0][-2] < 0.9 * ends[0][-4]  # the loss falls


def test_saving_and_cloning_keep_it(tmp_path):
    model = network(BatchNormalization, (9, 11))
    for weight in model.get_layer("norm").weights:
        weight.assign(np.arange(1.0, 5.0))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    x = draw(2, 9, 11, 3)
    expected = model.predict(x, verbose=0)
    for other in (loaded, clone):
        layer = other.get_layer("norm")
        assert type(layer) is BatchNormalization
        assert layer.get_config() == model.get_layer("norm").get_config()
        assert np.array_equal(other.predict(x, verbose=0), expected)


def test_its_weights_are_those_of_keras(tmp_path):
    """A file of the one is read by the other: the same names, shapes and order."""
    kinds = (BatchNormalization, keras.layers.BatchNormalization)
    ours, native = (network(kind, (9, 11)) for kind in kinds)
    ours.save_weights(tmp_path / "a.weights.h5")
    native.load_weights(tmp_path / "a.weights.h5")
    for one, other in zip(ours.weights, native.weights, strict=True):
        assert one.path == other.path and np.array_equal(one, other)
    x = draw(1, 9, 11, 3)
    assert np.array_equal(ours.predict(x, verbose=0), native.predict(x, verbose=0))


def test_another_backend_is_left_to_keras(monkeypatch):
    calls = count_fused(monkeypatch)
    ours, native = pair(2)
    monkeypatch.setattr(keras.backend, "backend", lambda: "another")
    x = draw(2, 3, 4, 2)
    assert np.array_equal(ours(x, training=True), native(x, training=True)) and not calls


def normed(frozen=False):
    """Two batch norms, the first on the pictures, with dropout between them."""
    image = x = keras.Input((5, 6, 3))
    for name in ("one", "two"):
        x = BatchNormalization(name=name)(x)
        x = keras.layers.Dropout(0.5, seed=3)(x) if name == "one" and not frozen else x
    model = keras.Model(image, x)
    model.get_layer("one").trainable = not frozen
    return model


def test_statistics_are_those_of_all_batches_together():
    batches = [draw(4, 5, 6, 3, seed=seed) * (seed + 1) for seed in range(3)]
    model, whole = normed(frozen=True), np.concatenate(batches).astype(np.float64)
    model.get_layer("one").trainable = True
    model.get_layer("one").gamma.assign([1.0, 2.0, 3.0])
    reestimate(model, batches)
    one, two = (model.get_layer(name) for name in ("one", "two"))
    np.testing.assert_allclose(one.moving_mean, whole.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(one.moving_variance, whole.var((0, 1, 2)), rtol=1e-5)
    # The first normalizes batch by batch: the second sees mean 0 and the variance gamma ** 2.
    np.testing.assert_allclose(two.moving_mean, 0, atol=1e-6)
    np.testing.assert_allclose(two.moving_variance, [1, 4, 9], rtol=1e-4)
    assert one.momentum == two.momentum == 0.9
    assert one.gamma.numpy().tolist() == [1, 2, 3]


def test_taking_statistics_leaves_frozen_layers_and_dropout_as_they_were():
    model, frozen = normed(), normed(frozen=True)
    seeds = [np.array(v) for v in model.non_trainable_variables if "seed" in v.path]
    assert seeds
    for network in (model, frozen):
        reestimate(network, [draw(4, 5, 6, 3)])
    now = [np.array(v) for v in model.non_trainable_variables if "seed" in v.path]
    assert all(map(np.array_equal, seeds, now))
    assert (model.get_layer("one").moving_mean.numpy() != 0).all()
    assert (frozen.get_layer("one").moving_mean.numpy() == 0).all()
    assert (frozen.get_layer("two").moving_mean.numpy() != 0).all()
    with pytest.raises(ValueError, match="no batch"):
        reestimate(model, [])
    assert model.get_layer("one").momentum == 0.9
