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
        images, [mask] * 2, [painted(3)] * 2, predictor(3), "two"
    )
    result = pictures.compare(predictor(2, output))
    assert result["agreement"] == 5 / 6 and result["agreement_on"] == "two"
    assert result["mIoU"] == {"keras": 1.0, "file": pytest.approx((2 / 3 + 3 / 4) / 2)}
    without = dataclasses.replace(pictures, masks=[mask, None])
    assert without.compare(predictor(2, output))["mIoU"] is None


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
    message = refused(
        agreement.ComparisonPictures.read, [(image, good), (image, mask)], tiny(), "pictures"
    )
    assert says in message


def test_what_is_refused_is_what_was_promised():
    least = {"saved_model": 0.999, "float32": 0.999, "float16": 0.99, "dynamic": 0.5}
    assert {**least, "int8": 0.5, "int16": 0.5, "onnx": 0.999} == MIN_AGREEMENT


def test_a_format_has_its_bar_without_being_asked(refused, tmp_path, monkeypatch):
    model = keras_pspnet.build_pspnet(
        2, input_shape=(49, 49, 3), backbone="resnet14_narrow", channels=8, bins=(1,)
    )
    monkeypatch.setattr(
        deliver.ComparisonPictures, "compare", lambda *_: {"agreement": 0.9989, "mIoU": None}
    )
    message = refused(keras_pspnet.export_model, model, tmp_path / "out", formats=("saved_model",))
    assert "only 99.8900% of the pixels" in message and not (tmp_path / "out").exists()
