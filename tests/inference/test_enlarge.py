"""The best class of each pixel, against the argmax of all resized scores."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_pspnet.inference import enlarge
from keras_pspnet.inference.enlarge import best_classes, places, resize_scores, softmax

SIDES = st.integers(1, 23)


def scores_of(kind, size, classes, seed):
    rng = np.random.default_rng(seed)
    scores = rng.random((*size, classes)).astype(np.float32)
    if kind == "ties":
        return np.round(scores * 3) / 3
    if kind == "nearly equal":  # they differ by one and two steps of float32
        return (0.5 + rng.integers(-2, 3, scores.shape) * 2.0**-24).astype(np.float32)
    return softmax(scores * 12) if kind == "clear" else scores


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["noise", "ties", "nearly equal", "clear"]),
    st.tuples(SIDES, SIDES),
    st.tuples(SIDES, SIDES),
    st.sampled_from([1, 2, 3, 5, 20]),
    st.integers(0, 10**6),
    st.sampled_from([1, 300, 2**22]),
)
def test_classes_and_values_are_those_of_all_resized_scores(
    kind, size, new, classes, seed, at_once
):
    scores = scores_of(kind, size, classes, seed)
    resized = resize_scores(scores, new)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(enlarge, "AT_ONCE", at_once)
        found, values = best_classes(scores, *map(places, size, new), True)
        assert np.array_equal(found, best_classes(scores, *map(places, size, new))[0])
    assert np.array_equal(found, resized.argmax(-1))
    assert np.array_equal(values, resized.max(-1))


def test_the_first_of_equal_classes_wins_everywhere():
    scores = np.full((5, 7, 30), 1 / 30, np.float32)
    assert not best_classes(scores, places(5, 40), places(7, 3))[0].any()


def test_beyond_256_classes_ids_are_whole():
    scores = np.zeros((2, 2, 300), np.float32)
    scores[..., 299] = 1
    found, values = best_classes(scores, places(2, 5), places(2, 3), True)
    assert found.dtype == np.int32 and (found == 299).all() and (values == 1).all()


def test_memory_grows_with_the_picture_and_not_with_its_classes(monkeypatch):
    monkeypatch.setattr(enlarge, "AT_ONCE", 2**18)
    size, new, classes = (30, 40), (600, 800), 150
    scores = softmax(scores_of("noise", size, classes, 0) * 9)
    tracemalloc.start()
    best_classes(scores, *map(places, size, new))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * enlarge.AT_ONCE * 4 + 8 * new[0] * new[1] < new[0] * new[1] * classes * 4 / 10


@pytest.mark.parametrize("writeable", [True, False])
def test_softmax_takes_the_place_of_its_argument_where_it_can(writeable):
    logits = np.log(np.array([[1.0, 2, 5], [4, 4, 8]]))
    kept = logits.copy()
    logits.flags.writeable = writeable
    result = softmax(logits)
    np.testing.assert_allclose(result, [[1 / 8, 2 / 8, 5 / 8], [1 / 4, 1 / 4, 1 / 2]])
    assert np.array_equal(logits, result if writeable else kept)
