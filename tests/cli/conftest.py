"""A tiny model in every form, and a dataset in the folder layout, for the commands."""

import json

import keras
import pytest
from PIL import Image

import keras_pspnet
from keras_pspnet import cli, scenes
from keras_pspnet.inference import model_facts
from keras_pspnet.labels import SCENES
from keras_pspnet.network.main_head import set_labels


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """One tiny model in every form: model.keras, saved_model/, pspnet_float32.tflite."""
    folder = tmp_path_factory.mktemp("model")
    keras.utils.set_random_seed(3)
    model = keras_pspnet.build_pspnet(
        12, input_shape=(49, 49, 3), backbone="resnet14_narrow", channels=8
    )
    set_labels(model, SCENES)
    model.save(folder / "model.keras")
    command = ["export", str(folder / "model.keras"), "--out", str(folder)]
    assert cli.main([*command, "--formats", "saved_model,float32"]) == 0
    return folder


@pytest.fixture(scope="session")
def shared(model):
    return keras_pspnet.load_model(model / "model.keras")


@pytest.fixture
def loads(monkeypatch):
    """Makes `predict` and `evaluate` use a network that is in memory, which is traced already."""
    return lambda network: monkeypatch.setattr(model_facts, "load_model", lambda path: network)


@pytest.fixture
def network(shared, loads):
    loads(shared)
    return shared


@pytest.fixture
def data(tmp_path):
    """A dataset in the folder layout with scenes as its pictures, two of each split."""
    folder = tmp_path / "data"
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True)
        for index in range(2):
            image, mask = scenes.scene(index, split=split, size=(60, 80))
            Image.fromarray(image).save(folder / "images" / split / f"{index}.png")
            Image.fromarray(mask).save(folder / "masks" / split / f"{index}.png")
    (folder / "labels.json").write_text(json.dumps(SCENES.to_config()))
    return folder
