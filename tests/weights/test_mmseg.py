"""What a damaged "meta" of mmsegmentation says, without building the network."""

from pathlib import Path

import numpy as np
import pytest

from keras_pspnet.labels import LabelSet
from keras_pspnet.weights.foreign import state_dict
from keras_pspnet.weights.mmseg import from_mmseg
from keras_pspnet.weights.reader import read_checkpoint

FILE = Path(__file__).parent / "checkpoints" / "mmseg.pth"


@pytest.fixture(scope="module")
def arrays():
    return state_dict(read_checkpoint(FILE), "file")


@pytest.mark.parametrize(
    "config",
    [
        "dilations=(1.2.3)",
        "pool_scales=(1" + "0" * 100 + ")",
        "pool_scales=(0, 1)",
        "pool_scales=(1" + "0" * 400 + ")",
        "mean=[1, 2]",
        "std=[0, 1, 1]",
    ],
)
def test_numbers_that_are_none_or_too_large_are_refused(refused, arrays, config):
    said = refused(from_mmseg, arrays, {"config": config})
    assert config.partition("=")[0] in said and len(said) < 200


@pytest.mark.parametrize(
    "names",
    [["a", "\ud800", "c"], [["a"], ["b", "c"], "d"], 7, {"a": 1}, [None] * 3, np.zeros((3, 2))],
)
def test_class_names_that_are_none_are_passed_over(arrays, names):
    assert from_mmseg(arrays, {"CLASSES": names}).labels == LabelSet.numbered(3)


def test_a_configuration_that_is_no_text_is_passed_over(arrays):
    nested = []
    for _ in range(5000):
        nested = [nested]
    assert from_mmseg(arrays, {"config": nested, "CLASSES": nested}).bins == (1, 2, 3, 6)


def test_an_array_of_objects_is_no_weight(refused):
    assert "expected numbers" in refused(state_dict, {"a": np.array([None])}, "file")
