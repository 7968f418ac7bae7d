"""Scores: by hand, by definition, and as Keras counts them."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_pspnet.labels import LabelSet
from keras_pspnet.scoring.metrics import ConfusionMatrix, evaluate

TRUTH = np.array([[0, 0, 0, 1], [1, 1, 255, 2]], np.uint8)
PREDICTION = np.array([[0, 0, 1, 1], [1, 0, 3, 1]], np.uint8)


def scores(truth, prediction, classes=4):
    matrix = ConfusionMatrix(classes)
    matrix.update(truth, prediction)
    return matrix.scores()


def test_a_small_example_by_hand():
    result = scores(TRUTH, PREDICTION)
    # class 0: 2 of 3 + 1 false; class 1: 2 of 3 + 2 false; class 2: 0 of 1; class 3: nowhere
    assert result["classes"] == {"class_0": 0.5, "class_1": 0.4, "class_2": 0.0, "class_3": None}
    assert result["mIoU"] == pytest.approx(0.9 / 3, abs=1e-12)
    assert result["mIoU_all"] == pytest.approx(0.9 / 4, abs=1e-12)
    assert result["mean_accuracy"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3, abs=1e-12)
    assert result["pixel_accuracy"] == pytest.approx(4 / 7, abs=1e-12)
    assert result["mean_precision"] == pytest.approx((2 / 3 + 2 / 4) / 2, abs=1e-12)
    assert result["mean_recall"] == result["mean_accuracy"]
    assert result["mean_F1"] == pytest.approx((4 / 6 + 4 / 7 + 0) / 3, abs=1e-12)
    assert result["fwIoU"] == pytest.approx((3 * 0.5 + 3 * 0.4) / 7, abs=1e-12)
    assert result["per_class"]["class_2"] == {
        "IoU": 0.0, "precision": None, "recall": 0.0, "F1": 0.0,
    }  # fmt: skip


def test_the_matrix_counts_truth_by_row():
    matrix = ConfusionMatrix(4)
    matrix.update(TRUTH, PREDICTION)
    assert matrix.counts.tolist() == [[2, 1, 0, 0], [1, 2, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


def test_a_class_that_is_only_predicted_counts_as_zero():
    result = scores(np.array([0, 0]), np.array([0, 1]), 3)
    assert result["mIoU"] == 0.25 and result["mean_accuracy"] == 0.5
    assert result["classes"] == {"class_0": 0.5, "class_1": 0.0, "class_2": None}


pairs = st.integers(2, 6).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        hnp.arrays(np.uint8, (5, 7), elements=st.sampled_from([*range(classes), 255])),
        hnp.arrays(np.uint8, (5, 7), elements=st.integers(0, classes - 1)),
    )
)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(pairs)
def test_the_mean_is_that_of_keras(pair):
    classes, truth, prediction = pair
    metric = keras.metrics.MeanIoU(classes, ignore_class=255)
    metric.update_state(truth, prediction)
    assert scores(truth, prediction, classes)["mIoU"] == pytest.approx(
        float(metric.result()), abs=1e-6
    )


@settings(max_examples=25, deadline=None, derandomize=True)
@given(pairs)
def test_iou_is_intersection_over_union_of_valid_pixels(pair):
    classes, truth, prediction = pair
    matrix, valid = ConfusionMatrix(classes), truth != 255
    matrix.update(truth, prediction)
    for label, value in enumerate(matrix.iou()):
        true, found = (truth == label) & valid, (prediction == label) & valid
        union = (true | found).sum()
        assert np.isnan(value) if union == 0 else value == (true & found).sum() / union


@settings(max_examples=25, deadline=None, derandomize=True)
@given(pairs)
def test_precision_recall_and_f1_by_their_definitions(pair):
    classes, truth, prediction = pair
    result, valid = scores(truth, prediction, classes), truth != 255
    columns = {"IoU": [], "precision": [], "recall": [], "F1": []}
    weighted = 0.0
    for label, row in enumerate(result["per_class"].values()):
        true, found = (truth == label) & valid, (prediction == label) & valid
        tp, fp, fn = (true & found).sum(), (~true & found).sum(), (true & ~found).sum()
        expected = {
            "IoU": (tp, tp + fp + fn),
            "precision": (tp, tp + fp),
            "recall": (tp, tp + fn),
            "F1": (2 * tp, 2 * tp + fp + fn),
        }
        assert set(row) == set(expected)
        for key, (part, whole) in expected.items():
            if whole == 0:
                assert row[key] is None
            else:
                assert row[key] == pytest.approx(part / whole, abs=1e-12)
                columns[key].append(part / whole)
        weighted += true.sum() * (row["IoU"] or 0)
    for key in ("precision", "recall", "F1"):
        mean = np.mean(columns[key]) if columns[key] else 0
        assert result[f"mean_{key}"] == pytest.approx(mean, abs=1e-12)
    assert result["fwIoU"] == pytest.approx(weighted / max(valid.sum(), 1), abs=1e-12)
    assert {name: row["IoU"] for name, row in result["per_class"].items()} == result["classes"]


def test_many_pictures_count_as_one_large_one():
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 5, (2, 6, 8, 9))
    one, many = ConfusionMatrix(5), ConfusionMatrix(5)
    one.update(truth, prediction)
    for pair in zip(truth, prediction):
        many.update(*pair)
    assert one.scores() == many.scores() and one.counts.sum() == truth.size


def test_nothing_but_void_scores_zero():
    result = scores(np.full((2, 2), 255, np.uint8), np.zeros((2, 2), np.uint8), 2)
    assert result["classes"] == {"class_0": None, "class_1": None}
    assert {result[key] for key in ("mIoU", "mIoU_all", "mean_accuracy", "pixel_accuracy")} == {0.0}


def test_what_is_predicted_at_void_pixels_does_not_matter():
    truth = np.array([0, 255, 255], np.uint8)
    assert scores(truth, np.array([0, 77, 255]), 2)["mIoU"] == 1.0


def test_shapes_and_labels_that_do_not_fit_get_one_line(refused):
    matrix = ConfusionMatrix(3)
    message = refused(matrix.update, np.zeros((2, 3), int), np.zeros((3, 2), int))
    assert "(2, 3)" in message and "(3, 2)" in message
    message = refused(matrix.update, np.array([0, 3]), np.array([0, 0]))
    assert "label 3 in a mask" in message and "0..2" in message and "255" in message
    assert "label -1 in a prediction" in refused(matrix.update, np.array([0]), np.array([-1]))
    assert not matrix.counts.any()


def test_evaluate_scores_every_picture_under_the_names_of_the_labels():
    labels = LabelSet(("a", "b", "c", "d"))
    images = [np.full((2, 4, 3), value, np.uint8) for value in (0, 1)]
    examples = [("one", images[0], TRUTH), ("two", images[1], TRUTH)]
    result = evaluate(lambda image: PREDICTION * (image[0, 0, 0] == 0), examples, labels)
    both = ConfusionMatrix(4)
    both.update(np.stack([TRUTH, TRUTH]), np.stack([PREDICTION, PREDICTION * 0]))
    assert result.pop("images") == 2 and result.pop("seconds") >= 0
    assert result == both.scores(labels) and list(result["classes"]) == ["a", "b", "c", "d"]


def test_evaluate_hands_on_every_picture_with_its_own_counts():
    labels, seen = LabelSet(("a", "b", "c", "d")), []
    images = [np.full((2, 4, 3), value, np.uint8) for value in (0, 1)]
    examples = [("one", images[0], TRUTH), ("two", images[1], PREDICTION % 3)]
    predict = lambda image: PREDICTION * (image[0, 0, 0] == 0)  # noqa: E731
    result = evaluate(predict, examples, labels, on_picture=lambda *entry: seen.append(entry))
    assert [entry[0] for entry in seen] == ["one", "two"]
    for (_, image, mask, prediction, matrix), example in zip(seen, examples):
        assert image is example[1] and mask is example[2]
        assert np.array_equal(prediction, predict(image))
        alone = ConfusionMatrix(4)
        alone.update(mask, prediction)
        assert matrix.scores(labels) == alone.scores(labels)
    plain = evaluate(predict, examples, labels)
    assert {**result, "seconds": 0} == {**plain, "seconds": 0}


def test_evaluate_names_the_picture_that_does_not_fit(refused):
    examples = [("street.png", np.zeros((2, 4, 3), np.uint8), TRUTH)]
    for prediction in (PREDICTION[:1], PREDICTION + 9):
        message = refused(evaluate, lambda _, p=prediction: p, examples, LabelSet.numbered(4))
        assert message.startswith("street.png: ")


def test_more_than_255_classes_score():
    matrix = ConfusionMatrix(300)
    matrix.update(np.array([299, 255, 65535]), np.array([299, 0, 5]))
    assert matrix.scores()["mIoU"] == pytest.approx(1 / 3)
