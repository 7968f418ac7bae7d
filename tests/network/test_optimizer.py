"""The optimizer against stochastic gradient descent as PyTorch and Caffe define it, in numpy."""

import keras
import numpy as np
import pytest

from keras_pspnet.network.optimizer import PSPNetSGD

GRADIENTS = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
START = np.array([1.0, -2.0, 0.5], np.float32)


def caffe_sgd(gradients, rates, momentum=0.9, decay=1e-4):
    """Caffe's solver: buffer = momentum * buffer + rate * (g + decay * w); w -= buffer."""
    weight, buffer = START.copy(), 0.0
    for gradient, rate in zip(gradients, rates):
        buffer = momentum * buffer + rate * (gradient + decay * weight)
        weight = weight - buffer
    return weight


def torch_sgd(gradients, rates, momentum=0.9, decay=1e-4):
    """torch.optim.SGD: g += decay * w; buffer = momentum * buffer + g; w -= rate * buffer."""
    weight, buffer = START.copy(), 0.0
    for gradient, rate in zip(gradients, rates):
        buffer = momentum * buffer + gradient + decay * weight
        weight = weight - rate * buffer
    return weight


def run(optimizer, *names, gradients=GRADIENTS):
    variables = [keras.Variable(START, name=name) for name in names]
    for gradient in gradients:
        optimizer.apply([keras.ops.array(gradient)] * len(variables), variables)
    return [np.asarray(variable.value) for variable in variables]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_are_those_of_pytorch(momentum, decay):
    (weight,) = run(PSPNetSGD(0.05, momentum=momentum, decay=decay), "layer1_0_conv1")
    expected = torch_sgd(GRADIENTS, [0.05] * 6, momentum, decay)
    np.testing.assert_allclose(weight, expected, rtol=2e-6)


def test_with_a_poly_schedule_each_step_has_its_rate_as_in_caffe():
    schedule = keras.optimizers.schedules.PolynomialDecay(0.05, 8, 0.0, power=0.9)
    (weight,) = run(PSPNetSGD(schedule, decay=0.1), "layer1_0_conv1")
    rates = [0.05 * (1 - step / 8) ** 0.9 for step in range(6)]
    np.testing.assert_allclose(weight, caffe_sgd(GRADIENTS, rates, decay=0.1), rtol=2e-6)


def test_without_momentum_the_poly_schedule_is_exact():
    schedule = keras.optimizers.schedules.PolynomialDecay(0.05, 8, 0.0, power=0.9)
    (weight,) = run(PSPNetSGD(schedule, momentum=0.0, decay=0.1), "layer1_0_conv1")
    rates = [0.05 * (1 - step / 8) ** 0.9 for step in range(6)]
    np.testing.assert_allclose(weight, torch_sgd(GRADIENTS, rates, 0.0, 0.1), rtol=2e-6)


def test_heads_learn_as_with_ten_times_the_rate():
    names = ("layer4_2_conv3", "ppm_x", "cls_4", "aux_0")
    body, *heads = run(PSPNetSGD(0.01, decay=0.1, head_multiplier=10.0), *names)
    np.testing.assert_allclose(body, torch_sgd(GRADIENTS, [0.01] * 6, decay=0.1), rtol=2e-6)
    for head in heads:
        np.testing.assert_allclose(head, torch_sgd(GRADIENTS, [0.1] * 6, decay=0.1), rtol=2e-5)


def tiny_model():
    image = keras.Input((4,))
    x = keras.layers.Dense(3, name="layer1")(image)
    model = keras.Model(image, keras.layers.Dense(2, name="cls_4")(x))
    schedule = keras.optimizers.schedules.PolynomialDecay(0.05, 20, power=0.9)
    model.compile(PSPNetSGD(schedule, decay=0.01, head_multiplier=10.0), loss="mse")
    return model


def test_in_fit_only_the_heads_are_multiplied():
    model = tiny_model()
    x, y = np.ones((2, 4), np.float32), np.zeros((2, 2), np.float32)
    before = [np.array(w) for w in model.get_weights()]
    model.fit(x, y, verbose=0)
    kernel, bias, head, head_bias = before
    hidden = x @ kernel + bias
    error = 2 * (hidden @ head + head_bias - y) / y.size
    gradients = [x.T @ (error @ head.T), (error @ head.T).sum(0), hidden.T @ error, error.sum(0)]
    for old, gradient, new, rate in zip(
        before, gradients, model.get_weights(), (0.05,) * 2 + (0.5,) * 2
    ):
        np.testing.assert_allclose(new, old - rate * (gradient + 0.01 * old), atol=1e-6)


def test_saving_keeps_momentum_steps_and_settings(tmp_path):
    model = tiny_model()
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(8, 4)), rng.normal(size=(8, 2))
    model.fit(x, y, batch_size=2, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert int(loaded.optimizer.iterations) == 4
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    assert any(np.abs(v).max() > 0 for v in loaded.optimizer.variables[2:])
    for one in (model, loaded):
        one.fit(x, y, batch_size=8, verbose=0)
    for kept, continued in zip(model.optimizer.variables, loaded.optimizer.variables):
        np.testing.assert_array_equal(kept, continued)
    for kept, continued in zip(model.get_weights(), loaded.get_weights()):
        np.testing.assert_array_equal(kept, continued)
