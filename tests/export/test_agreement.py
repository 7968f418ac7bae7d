"""Compare files with the Keras model on pictures and masks that are made for it."""

import dataclasses

import keras
import numpy as np
import pytest

import keras_pspnet
from keras_pspnet.export import agreement, deliver
from keras_pspnet.export.formats import MIN_AGREEMENT
from keras_pspnet.inference.predictor import Predictor
from keras_pspnet.labels import LabelSet

SIZE = (4, 6)
LABELS = LabelSet(("left", "right"))


def painted(boundary):
    """Class 0 up to a column, class 1 from there on."""
    return np.broadcast_to((np.arange(SIZE[1]) >= boundary).astype(np.uint8), SIZE)


def predictor(boundary, output="classes"):
    def run(images):
        classes = np.stack([painted(boundary)] * len(images))
        return classes if output == "classes" else np.eye(2, dtype=np.float32)[classes]

    return Predictor(run, output, LABELS, SIZE)


@pytest.mark.parametrize("output", ["classes", "logits", "probabilities"])
def test_the_share_of_equal_pixels_and_both_scores(output):
    images, mask = [np.zeros((*SIZE, 3), np.uint8)] * 2, painted(3).copy()
    mask[0] = 255  # void: it counts for no score
    pictures = agreement.ComparisonPictures(
        images, [mask] * 2, [painted(3)[None]] * 2, predictor(3), "two"
    )
    result = pictures.compare(predictor(2, output), "a.tflite")
    assert result["agreement"] == 5 / 6 and result["agreement_on"] == "two"
    assert result["mIoU"] == {"keras": 1.0, "file": pytest.approx((2 / 3 + 3 / 4) / 2)}
    without = dataclasses.replace(pictures, masks=[mask, None])
    result = without.compare(predictor(2, output), "a.tflite")
    assert result["mIoU"] is None and result["IoU_by_class"] is None


NAMES = ("road", "sky", "pole", "car", "tree", "sign", "bus")


def mapped(classes):
    """A predictor of a file that gives this map, (10, 20), for every picture."""
    return Predictor(lambda _: classes[None], "classes", LabelSet(NAMES), classes.shape)


def pictures_of(classes, masks=(None,)):
    """One comparison picture on which the Keras model gives this map."""
    images = [np.zeros((*classes.shape, 3), np.uint8)] * len(masks)
    expected = [classes[None]] * len(masks)
    return agreement.ComparisonPictures(images, list(masks), expected, mapped(classes), "some")


@pytest.fixture
def street():
    """Half road, half sky, and a pole of two pixels: 1 % of 200."""
    classes = np.repeat([[0], [1]], 5, 0).repeat(20, 1)
    classes[4:6, 7] = 2
    return classes


def test_a_file_that_is_equal_has_no_warnings(street):
    result = pictures_of(street).compare(mapped(street), "a.tflite")
    assert result["warnings"] == []
    given = {"road": 1.0, "sky": 1.0, "pole": 1.0}
    assert result["agreement_by_class"] == {**dict.fromkeys(NAMES), **given}


def test_a_rare_class_that_vanishes_is_warned_of(street):
    file = np.where(street == 2, 0, street)
    result = pictures_of(street).compare(mapped(file), "a.tflite")
    assert result["agreement"] == 0.99
    assert result["agreement_by_class"]["pole"] == 0.0
    assert result["agreement_by_class"]["road"] == 1.0
    assert result["warnings"] == ["1 class loses more than 3 points of equal pixels: pole to 0.0%"]


def test_with_masks_a_rare_class_is_warned_of_by_its_iou(street):
    truth = street.copy()
    truth[3, 7] = 2  # the Keras model misses a third of the pole
    file = np.where(street == 2, 0, street)
    result = pictures_of(street, [truth]).compare(mapped(file), "a.tflite")
    assert result["IoU_by_class"]["pole"] == {"keras": 2 / 3, "file": 0.0}
    assert result["IoU_by_class"]["car"] == {"keras": None, "file": None}
    assert result["mIoU"]["file"] < result["mIoU"]["keras"] - 0.2
    assert result["warnings"] == ["1 class loses more than 3 points of IoU: pole 0.667 -> 0.000"]
    # What the file loses to the Keras model is no loss where the masks say that it is none.
    wrong = pictures_of(street, [file]).compare(mapped(file), "a.tflite")
    assert wrong["agreement_by_class"]["pole"] == 0.0 and wrong["warnings"] == []


@pytest.mark.parametrize("changed, warned", [(3, False), (4, True)])
def test_three_points_are_the_limit(changed, warned):
    classes = np.repeat([[0], [1]], 5, 0).repeat(20, 1)
    file = classes.copy()
    file[0, :changed] = 1  # of 100 pixels of road
    result = pictures_of(classes).compare(mapped(file), "a.tflite")
    assert result["agreement_by_class"]["road"] == 1 - changed / 100
    assert bool(result["warnings"]) == warned


def test_five_classes_are_named_and_the_others_counted():
    classes = np.tile(np.arange(7), (10, 3))[:, :20]
    file = np.where(classes == 6, 0, 6)
    under, lost = pictures_of(classes).compare(mapped(file), "a.tflite")["warnings"]
    assert under == "only 0.0000% of the pixels equal the Keras model's"
    assert lost.startswith("7 classes lose more than 3 points of equal pixels: ")
    assert lost.count(" to ") == 5 and lost.endswith(" and 2 more")


@pytest.mark.parametrize("wrong, warned", [(10, False), (11, True)])
def test_under_95_percent_is_warned_of(wrong, warned):
    classes = np.zeros((10, 20), int)
    classes[9, 19] = 1
    file = classes.copy()
    file[0, :wrong] = 1
    masks = [np.full((10, 20), 255, np.uint8)]  # no class can lose anything
    result = pictures_of(classes, masks).compare(mapped(file), "a.tflite")
    expected = ["only 94.5000% of the pixels equal the Keras model's"] if warned else []
    assert result["warnings"] == expected


def test_one_class_alone_proves_little(street):
    empty = np.full_like(street, 3)
    pictures = pictures_of(empty, [None, None])
    (warning,) = pictures.warnings()
    assert warning == (
        "the Keras model predicts car alone on all 2 pictures; agreement there proves little"
    )
    assert pictures.compare(mapped(empty), "a.tflite")["warnings"] == [warning]
    pictures.expected[1] = street[None]
    assert pictures.warnings() == []


def tiny():
    image = keras.Input((*SIZE, 3))
    return keras.Model(image, keras.layers.Conv2D(2, 1)(image))


@pytest.mark.parametrize(
    "mask, says",
    [
        (np.full((8, 9), 2, np.uint8), "the mask of picture 1: label 2 is out of range"),
        (np.full((9, 8), 0, np.uint8), r"the mask of picture 1: its shape is (9, 8)"),
    ],
)
def test_a_mask_that_does_not_fit_is_found_before_anything_is_converted(refused, mask, says):
    image, good = np.zeros((8, 9, 3), np.uint8), np.full((8, 9), 255, np.uint8)
    image[0] = 255
    pairs = [(image, good), (image, mask)]
    message = refused(agreement.ComparisonPictures.read, pairs, tiny(), LABELS, "pictures")
    assert says in message


def test_a_warning_of_pictures_that_show_nothing_stands_in_the_card():
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    given = [noise, np.zeros_like(noise)]
    pictures = agreement.ComparisonPictures.read(given, tiny(), LABELS, "pictures")
    expected = "1 of 2 calibration pictures show nothing: picture 1 is one colour (0 0 0)"
    assert pictures.warnings()[0] == expected
    assert expected in pictures.compare(predictor(2), "a.tflite")["warnings"]


def test_what_is_refused_is_what_was_promised():
    least = {"saved_model": 0.999, "float32": 0.999, "float16": 0.99, "dynamic": 0.5}
    assert {**least, "int8": 0.5, "int16": 0.5, "onnx": 0.999} == MIN_AGREEMENT


def test_a_format_has_its_bar_without_being_asked(refused, tmp_path, monkeypatch):
    model = keras_pspnet.build_pspnet(
        2, input_shape=(49, 49, 3), backbone="resnet14_narrow", channels=8, bins=(1,)
    )
    found = {"agreement": 0.9989, "mIoU": None, "warnings": []}
    monkeypatch.setattr(deliver.ComparisonPictures, "compare", lambda *_, **__: found)
    message = refused(keras_pspnet.export_model, model, tmp_path / "out", formats=("saved_model",))
    assert "only 99.8900% of the pixels" in message and not (tmp_path / "out").exists()


def test_exact_files_are_compared_on_few_pictures_with_every_class():
    images = [np.full((*SIZE, 3), number, np.uint8) for number in range(32)]
    expected = [painted(6)[None]] * 31 + [painted(3)[None]]  # only the last shows the class "right"
    pictures = agreement.ComparisonPictures(images, [None] * 32, expected, predictor(3), "32 such")
    seen = []

    def run(batch):
        seen.append(int(batch[0, 0, 0, 0]))
        return expected[seen[-1]]

    file = Predictor(run, "classes", LABELS, SIZE)
    result = pictures.compare(file, "a.tflite", exact=True)
    assert seen == [0, 4, 8, 12, 16, 20, 24, 28, 31]
    assert result["agreement_by_class"] == {"left": 1.0, "right": 1.0}
    assert result["agreement_on"] == "9 of 32 such"
    seen.clear()
    assert pictures.compare(file, "a.tflite")["agreement_on"] == "32 such" and len(seen) == 32


def test_with_masks_a_file_runs_once_a_picture_and_the_keras_model_once_for_all_files():
    images = [np.full((*SIZE, 3), number, np.uint8) for number in range(3)]
    runs = {"keras": 0, "file": 0}

    def counting(name):
        def run(batch):
            runs[name] += 1
            return painted(3)[None]

        return Predictor(run, "classes", LABELS, SIZE)

    pictures = agreement.ComparisonPictures(
        images, [painted(3)] * 3, [painted(3)[None]] * 3, counting("keras"), "three"
    )
    for _ in range(2):
        result = pictures.compare(counting("file"), "a.tflite", exact=True)
        assert result["mIoU"] == {"keras": 1.0, "file": 1.0}
    assert runs == {"keras": 3, "file": 6}
