"""Resizing and pooling in training: products of matrices, with the values of the other forms."""

import numpy as np
import pytest
import tensorflow as tf

from keras_pspnet.network.resampling import adaptive_pools, resize


def values_and_gradient(function, shape):
    """The results of a function at random values, and the gradient of their weighted sum."""
    rng = np.random.default_rng(0)
    x = tf.Variable(rng.normal(size=shape).astype(np.float32))
    with tf.GradientTape() as tape:
        results = function(x)
        total = sum(tf.reduce_sum(r * rng.normal(size=r.shape).astype(np.float32)) for r in results)
    return [*results, tape.gradient(total, x)]


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("old, new", [((5, 7), (33, 49)), ((1, 1), (4, 5)), ((6, 6), (12, 6))])
def test_training_resizes_to_the_same_values(old, new, align_corners):
    forms = [
        values_and_gradient(lambda x, t=training: [resize(x, new, align_corners, t)], (2, *old, 3))
        for training in (False, True)
    ]
    for one, other in zip(*forms):
        np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.parametrize("size", [(33, 49), (12, 6), (4, 5)])
@pytest.mark.parametrize("bins", [(1, 2, 3, 6), (5,)])
def test_training_pools_to_the_same_averages(size, bins):
    forms = [
        values_and_gradient(
            lambda x, t=training: adaptive_pools(x, bins, training=t), (2, *size, 3)
        )
        for training in (False, True)
    ]
    assert len(forms[0]) == len(bins) + 1
    for one, other in zip(*forms):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_training_takes_unknown_sizes():
    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3))])
    def both(x):
        size = 2 * tf.shape(x)[1], 17
        return [*adaptive_pools(x, (1, 2, 3), training=True), resize(x, size, training=True)]

    x = np.random.default_rng(0).normal(size=(2, 13, 9, 3)).astype(np.float32)
    expected = [*adaptive_pools(x, (1, 2, 3)), resize(x, (26, 17))]
    for found, value in zip(both(x), expected):
        np.testing.assert_allclose(found, value, atol=1e-6)
