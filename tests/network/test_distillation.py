"""The distance to a teacher's probabilities against numpy, and in a step of `fit`."""

import keras
import numpy as np
import pytest

import keras_pspnet
from keras_pspnet.network import losses
from keras_pspnet.network.distillation import distil, soft_label_loss

RNG = np.random.default_rng(0)
LOGITS, TEACHER = RNG.normal(0, 2, (2, 2, 5, 7, 3)).astype(np.float32)
MASKS = RNG.integers(0, 3, (2, 5, 7)).astype(np.uint8)
MASKS[0, :2] = 255


def softmax(logits):
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(-1, keepdims=True)


def test_the_distance_is_that_of_the_valid_pixels():
    own, its = softmax(LOGITS), softmax(TEACHER)
    expected = (its * np.log(its / own)).sum(-1)[MASKS != 255].mean()
    for masks in (MASKS, MASKS[..., None]):
        found = soft_label_loss(masks, LOGITS, TEACHER)
        assert float(found) == pytest.approx(expected, rel=1e-5) and expected > 0.1
    assert float(soft_label_loss(MASKS, TEACHER, TEACHER)) == pytest.approx(0, abs=1e-6)
    assert float(soft_label_loss(np.full_like(MASKS, 255), LOGITS, TEACHER)) == 0


def network(**arguments):
    image = x = keras.Input((17, 17, 3))
    for stride in (2, 4):
        x = keras.layers.Conv2D(4, 3, strides=stride, padding="same")(x)
    model = keras_pspnet.build_pspnet(
        3, input_shape=(17, 17, 3), backbone=keras.Model(image, x), bins=(), channels=4, dropout=0.0
    )
    loss = losses.VoidCrossentropy()
    weights = {"aux": 0.4, "main": 1.0}
    model.compile("sgd", {"aux": loss, "main": loss}, loss_weights=weights, **arguments)
    return model


def test_a_step_minimizes_the_sum_and_leaves_the_teacher():
    student, teacher = network(), network()
    images = RNG.uniform(0, 255, (2, 17, 17, 3)).astype(np.float32)
    masks = {head: RNG.integers(0, 3, (2, 17, 17)).astype(np.uint8) for head in ("aux", "main")}
    before = [np.array(v) for v in teacher.weights]
    soft = teacher(images, training=False)["main"]
    outputs = student(images, training=True)  # batch norm uses this batch: as the step will
    own = float(soft_label_loss(masks["main"], outputs["main"], soft))
    hard = float(student.compute_loss(images, masks, outputs))
    validated = student.evaluate(images, masks, verbose=0, return_dict=True)["loss"]
    distil(student, teacher)
    distil(student, teacher)  # each epoch does; it adds the term once
    taught = student.evaluate(images, masks, verbose=0, return_dict=True)["loss"]
    assert taught == pytest.approx(validated, rel=1e-6)
    found = student.fit(images, masks, batch_size=2, epochs=1, verbose=0).history["loss"][0]
    assert found == pytest.approx(hard + own, rel=1e-4) and own > 0.01
    assert all(map(np.array_equal, before, [np.array(v) for v in teacher.weights]))
    assert not any("teacher" in v.path for v in student.variables)
    assert len(student.trainable_variables) == len(network().trainable_variables)
