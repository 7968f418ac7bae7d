"""From a picture of any size to class ids, around networks written out by hand."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from keras_pspnet import build_pspnet, export_model
from keras_pspnet.images import IMAGENET_MEAN, resize_image, resize_nearest
from keras_pspnet.inference import segment as segment_module
from keras_pspnet.inference.enlarge import resize_scores, softmax
from keras_pspnet.inference.load import as_predictor
from keras_pspnet.inference.model_facts import describe
from keras_pspnet.inference.predictor import Predictor, check_classes
from keras_pspnet.inference.segment import (
    Protocol,
    largest_whole,
    pad_to_stride,
    segment,
    within_memory,
)
from keras_pspnet.labels import LabelSet


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8)


def recording(result, seen):
    def run(images):
        seen.append(images)
        return result.copy() if isinstance(result, np.ndarray) else result(images)

    return run


def bilinear(scores, size):
    """Half-pixel bilinear interpolation, one output pixel at a time."""
    (height, width), result = scores.shape[:2], np.zeros((*size, scores.shape[2]))
    for row in range(size[0]):
        for column in range(size[1]):
            y = min(max((row + 0.5) * height / size[0] - 0.5, 0), height - 1)
            x = min(max((column + 0.5) * width / size[1] - 0.5, 0), width - 1)
            for r in range(height):
                for c in range(width):
                    share = max(1 - abs(y - r), 0) * max(1 - abs(x - c), 0)
                    result[row, column] += share * scores[r, c]
    return result


def test_a_picture_of_the_networks_size_passes_untouched(image):
    seen, logits = [], np.random.default_rng(1).normal(size=(1, 9, 13, 4)).astype(np.float32)
    predictor = Predictor(recording(logits, seen), "logits", LabelSet.numbered(4), (9, 13))
    result = segment(predictor, image)
    assert result.dtype == np.uint8 and np.array_equal(result, logits[0].argmax(-1))
    assert seen[0].dtype == np.uint8 and np.array_equal(seen[0], image[None])


def test_another_size_resizes_the_picture_there_and_the_probabilities_back(image):
    seen, logits = [], np.random.default_rng(1).normal(0, 3, (1, 5, 6, 3)).astype(np.float32)
    predictor = Predictor(recording(logits, seen), "logits", LabelSet.numbered(3), (5, 6))
    result = segment(predictor, image)
    powers = np.exp(logits[0].astype(np.float64))
    expected = bilinear(powers / powers.sum(-1, keepdims=True), (9, 13)).argmax(-1)
    assert np.array_equal(result, expected)
    assert np.array_equal(seen[0][0], resize_image(image, (5, 6)))
    # The example can tell: resized logits have another winner somewhere.
    assert not np.array_equal(expected, bilinear(logits[0], (9, 13)).argmax(-1))


def test_probabilities_are_not_softened_twice(image):
    scores = np.random.default_rng(1).dirichlet((0.3, 0.3, 0.3), (1, 4, 4)).astype(np.float32)
    predictor = Predictor(recording(scores, []), "probabilities", LabelSet.numbered(3), (4, 4))
    expected = bilinear(scores[0], (9, 13)).argmax(-1)
    assert np.array_equal(segment(predictor, image), expected)
    powers = np.exp(scores[0])
    twice = bilinear(powers / powers.sum(-1, keepdims=True), (9, 13)).argmax(-1)
    assert not np.array_equal(expected, twice)


def test_class_ids_are_resized_to_the_nearest(image):
    ids = np.array([[[0, 1], [2, 3]]], np.int64)
    predictor = Predictor(recording(ids, []), "classes", LabelSet.numbered(4), (2, 2))
    result = segment(predictor, image)
    # rows: (r + .5) * 2 / 9 reaches 1 at row 4 (centre .5 + 4 = 4.5), columns likewise at 6
    assert result.dtype == np.uint8
    assert np.array_equal(result, ids[0].repeat([4, 5], 0).repeat([6, 7], 1))
    assert np.array_equal(
        resize_nearest(np.arange(6).reshape(2, 3), (2, 3)), [[0, 1, 2], [3, 4, 5]]
    )


@pytest.mark.parametrize("output", ["logits", "classes"])
@pytest.mark.parametrize(
    "side, padded", [((9, 13), (9, 17)), ((8, 1), (9, 1)), ((17, 10), (17, 17))]
)
def test_an_unknown_size_is_padded_with_the_mean_and_cropped(output, side, padded):
    image = np.random.default_rng(3).integers(0, 256, (*side, 3), np.uint8)
    seen = []

    def run(images):
        scores = images.astype(np.float32)
        return scores if output == "logits" else scores.argmax(-1)

    predictor = Predictor(recording(run, seen), output, LabelSet.numbered(3), None, stride=8)
    assert np.array_equal(segment(predictor, image), image.argmax(-1))
    (batch,) = seen
    assert batch.shape == (1, *padded, 3) and batch.dtype == np.uint8
    assert np.array_equal(batch[0, : side[0], : side[1]], image)
    outside = np.ones(padded, bool)
    outside[: side[0], : side[1]] = False
    assert (batch[0][outside] == np.rint(IMAGENET_MEAN)).all()


@pytest.mark.parametrize("side", [(5, 6), (9, 13)])
@pytest.mark.parametrize("output", ["logits", "probabilities"])
@pytest.mark.parametrize("flip", [False, True])
def test_the_confidence_is_the_largest_probability(image, side, output, flip):
    given = np.random.default_rng(1).normal(0, 2, (1, *side, 4)).astype(np.float32)
    given = softmax(given) if output == "probabilities" else given
    expected = softmax(given[0].copy()) if output == "logits" else given[0]
    if flip:  # this network does not look at the picture
        expected = (expected + expected[:, ::-1]) / 2
    expected = bilinear(expected, (9, 13))
    predictor = Predictor(recording(given, []), output, LabelSet.numbered(4), side)
    classes, confidence = segment(predictor, image, flip=flip, confidence=True)
    assert classes.dtype == np.uint8 and confidence.dtype == np.float32
    assert np.array_equal(classes, expected.argmax(-1))
    np.testing.assert_allclose(confidence, expected.max(-1), atol=1e-6)
    assert np.array_equal(segment(predictor, image, flip=flip), classes)


def test_class_ids_have_no_confidence(refused, image):
    predictor = Predictor(None, "classes", LabelSet.numbered(4), (2, 2))
    message = refused(segment, predictor, image, confidence=True)
    assert message.startswith("confidence is the largest probability, the model gives class ids")
    assert message == refused(Protocol().check, predictor, True)


def test_a_model_of_any_size_looks_at_large_pictures_through_windows(monkeypatch):
    monkeypatch.setattr(segment_module, "WHOLE_BYTES", 50 * 70 * (600 + 9 * 3))
    monkeypatch.setattr(segment_module, "WINDOWS", (21, 41))
    rng, seen = np.random.default_rng(3), []

    def run(images):
        seen.append(images.shape)
        return np.asarray(images, np.float32)

    predictor = Predictor(recording(run, []), "logits", LabelSet.numbered(3), None, 16)
    assert largest_whole(predictor) == 50 * 70
    for size, crop in (((49, 55), None), ((100, 70), (33, 33)), ((20, 300), (33, 33))):
        seen.clear()
        image = rng.integers(0, 256, (*size, 3), np.uint8)
        classes, confidence = segment(predictor, image, confidence=True)
        assert np.array_equal(classes, image.argmax(-1))
        np.testing.assert_allclose(confidence, softmax(image.astype(float)).max(-1), atol=1e-6)
        assert {shape[1:3] for shape in seen} == {crop or (49, 65)}
    assert segment(predictor, image, crop=(17, 17)).shape == (20, 300)


@pytest.mark.parametrize(
    "classes, size, window",
    [
        (19, (3000, 4000), 713),
        (150, (3000, 4000), 473),
        (150, (2000, 4000), 569),  # 0.45 * 569 * (2000 + 569) * 150 * 4 bytes are 395 million
        (150, (6000, 8000), 473),
        (150, (400, 4000), 713),
    ],
)
def test_windows_are_as_large_as_what_they_share_allows(classes, size, window):
    ours = Predictor(None, "logits", LabelSet.numbered(classes))
    crop = within_memory(ours, Protocol(), size).crop
    assert crop == (min(window, size[0] + 1), window)


def test_how_far_pictures_are_taken_whole_is_said():
    predictor = Predictor(None, "logits", LabelSet.numbered(150))
    assert largest_whole(predictor) == 2**31 // (600 + 9 * 150)
    said = "whole pictures at their own size, above 1.1 megapixels in windows"
    assert describe(predictor, Protocol()) == said


def test_no_size_of_picture_is_compiled_by_xla(monkeypatch):
    # A training in the same process has made it true, and Keras then compiles nothing by XLA.
    from tensorflow.python.framework import config

    monkeypatch.setattr(config, "is_op_determinism_enabled", lambda: False)
    model = build_pspnet(3, input_shape=(None, None, 3), backbone="resnet14_narrow", channels=8)
    model.compile("sgd", loss=["mse"] * 2, jit_compile=True)
    network = as_predictor(model).run.__self__
    assert network.jit_compile is False and model.jit_compile is True
    assert network.get_layer("main") is model.get_layer("main")


def test_without_an_option_a_model_of_one_size_sees_the_whole_picture(monkeypatch, image):
    monkeypatch.setattr(segment_module, "WHOLE_BYTES", 0)
    seen, logits = [], np.zeros((1, 5, 6, 3), np.float32)
    segment(Predictor(recording(logits, seen), "logits", LabelSet.numbered(3), (5, 6)), image)
    assert [images.shape for images in seen] == [(1, 5, 6, 3)]


def test_padding_reaches_the_next_multiple_plus_one():
    for stride in (8, 16, 32):
        for side in range(1, 70):
            rows = pad_to_stride(np.zeros((side, 1, 3), np.uint8), stride).shape[0]
            assert rows == next(n for n in range(side, 200) if n % stride == 1)


def test_beyond_256_classes_the_ids_are_whole():
    scores = np.zeros((1, 2, 2, 300), np.float32)
    scores[..., 299] = 1
    predictor = Predictor(lambda images: scores, "logits", LabelSet.numbered(300), (2, 2))
    result = segment(predictor, np.zeros((2, 2, 3), np.uint8))
    assert result.dtype == np.int32 and (result == 299).all()


@pytest.mark.parametrize("model", ["best.keras", Path("best.keras")])
def test_a_path_instead_of_a_model_is_told_to_be_loaded(refused, tmp_path, image, model):
    for call, argument in ((segment, image), (export_model, tmp_path / "out")):
        message = refused(call, model, argument)
        assert message.endswith("; load it with keras_pspnet.load_model('best.keras')")
    assert not (tmp_path / "out").exists()


def test_another_number_of_labels_gets_one_line(refused):
    predictor = Predictor(None, "classes", LabelSet.numbered(3))
    check_classes(predictor.labels, LabelSet(("a", "b", "c")))
    message = refused(check_classes, predictor.labels, LabelSet.numbered(4))
    assert "3 classes" in message and "4" in message


def test_other_names_or_another_order_get_one_line_with_the_first_difference(refused):
    named = Predictor(None, "classes", LabelSet(("road", "car", "sky")))
    check_classes(named.labels, LabelSet(("road", "car", "sky"), ids={7: 0, 8: 1, 9: 2}))
    message = refused(check_classes, named.labels, LabelSet(("road", "bus", "cloud")))
    assert "class 1 is 'car' in the model and 'bus' in the dataset; " in message
    assert "--labels NAME|FILE" in message
    message = refused(check_classes, named.labels, LabelSet(("road", "sky", "car")))
    assert "class 1 is 'car' in the model and 'sky'" in message and "another order" in message
    renamed = named.with_labels(LabelSet(("road", "sky", "car")))
    check_classes(renamed.labels, LabelSet(("road", "sky", "car")))
    message = refused(named.with_labels, LabelSet(("road", "car")))
    assert "has 3 classes, the labels are 2 ('sky' is in the model alone); expected" in message
    message = refused(check_classes, named.labels, LabelSet(("road", "bus", "car", "sky")))
    assert "has 3 classes, the labels are 4 ('bus' is in the labels alone); expected" in message
    message = refused(check_classes, named.labels, LabelSet.numbered(4))
    assert message == "the model has 3 classes, the labels are 4; expected the same number"


def test_where_there_are_no_names_the_number_alone_counts(refused):
    named = Predictor(None, "classes", LabelSet(("road", "car")))
    found = LabelSet(("class_0", "class_7"), ids={0: 0, 7: 1})
    check_classes(named.labels, found, named=False)
    assert "class 0 is 'road'" in refused(check_classes, named.labels, found)
    check_classes(named.labels, LabelSet.numbered(2))
    check_classes(LabelSet.numbered(2), found)
    assert "3" in refused(check_classes, named.labels, LabelSet.numbered(3), False)


@pytest.mark.parametrize("size", [(5, 7), (9, 13), (4, 20), (1, 1), (23, 3)])
def test_resized_scores_are_those_of_tensorflow(size):
    scores = np.random.default_rng(4).normal(size=(5, 7, 3)).astype(np.float32)
    result = resize_scores(scores, size)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, tf.image.resize(scores, size), atol=2e-6)
    np.testing.assert_allclose(result, bilinear(scores, size), atol=2e-6)


def test_softmax_survives_large_logits():
    result = softmax(np.array([[1e4, 1e4, -1e4], [0, np.log(2), np.log(5)]]))
    np.testing.assert_allclose(result, [[0.5, 0.5, 0], [1 / 8, 2 / 8, 5 / 8]], atol=1e-12)
