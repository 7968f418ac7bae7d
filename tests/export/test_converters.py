"""What converters are given, and what does not fit into a byte."""

import numpy as np
import pytest

import keras_pspnet
from keras_pspnet.export import converters
from keras_pspnet.inference.load import load_model
from keras_pspnet.labels import LabelSet
from keras_pspnet.network.main_head import main_network

SIZE = (49, 49)


def network(classes):
    model = keras_pspnet.build_pspnet(
        classes, input_shape=(*SIZE, 3), backbone="resnet14_narrow", channels=8, bins=(1,)
    )
    return main_network(model)


@pytest.mark.parametrize("name", ["int8", "int16"])
def test_ranges_are_taken_from_every_picture_and_joined(tmp_path, monkeypatch, name):
    seen, joined = [], []
    pictures = [np.full((1, *SIZE, 3), value, np.uint8) for value in (0, 255, 100)]

    def given():
        for picture in pictures:
            seen.append(int(picture.max()))
            yield picture

    widen = converters.widen
    monkeypatch.setattr(converters, "widen", lambda *given: (joined.append(1), widen(*given)))
    labels = LabelSet.numbered(3)
    converter = converters.Converter(network(3), tmp_path, "classes", labels, given)
    assert converter.convert(name)[4:8] == b"TFL3"
    # TensorFlow looks at the first one before it begins.
    assert seen[-3:] == [0, 255, 100]
    assert len(joined) == (3 if name == "int16" else 0)


def test_more_classes_than_a_byte_holds(tmp_path):
    labels = LabelSet.numbered(257)
    converters.write_saved_model(network(257), tmp_path / "model", "classes", labels)
    model = load_model(tmp_path / "model")
    assert model(np.zeros((1, *SIZE, 3), np.uint8)).dtype == np.int32
    assert model.labels == labels
