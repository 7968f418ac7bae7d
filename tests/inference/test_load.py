"""Where `load_model` finds a model."""

import gc
import json
import shutil
import weakref
import zipfile

import keras
import numpy as np
import pytest

import keras_pspnet
from keras_pspnet.inference.load import check_model, load_model, read_labels
from keras_pspnet.labels import SCENES
from keras_pspnet.network.main_head import set_labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run folder."""
    folder = tmp_path_factory.mktemp("load")
    (folder / "run").mkdir()
    keras.utils.set_random_seed(3)
    model = keras_pspnet.build_pspnet(
        12, input_shape=(49, 49, 3), backbone="resnet14_narrow", channels=8
    )
    set_labels(model, SCENES)
    model.save(folder / "run" / "best.keras")
    (folder / "run" / "recipe.json").write_text(json.dumps({"dataset": "scenes"}))
    return folder


def test_a_run_folder_stands_for_its_best_network(folder):
    run = folder / "run"
    assert check_model(run) == check_model(str(run), "keras") == "keras"
    assert read_labels(run) == SCENES
    expected = load_model(run / "best.keras").get_weights()
    for found, weights in zip(load_model(run).get_weights(), expected, strict=True):
        np.testing.assert_array_equal(found, weights)


def test_a_saved_model_stays_one_whatever_stands_in_its_folder(folder, tmp_path):
    shutil.copy(folder / "run" / "best.keras", tmp_path)
    assert check_model(tmp_path) == "keras"
    (tmp_path / "saved_model.pb").touch()
    assert check_model(tmp_path) == "saved_model"


def test_a_reload_frees_the_model_before(folder):
    file = folder / "run" / "best.keras"
    gc.disable()  # it would run at some moment or other
    try:
        model = load_model(file)
        keras_pspnet.segment(model, np.zeros((60, 50, 3), np.uint8))
        before = weakref.ref(model)
        del model
        assert before() is not None  # a network is not freed by itself
        load_model(file)
        assert before() is None
    finally:
        gc.enable()


def test_messages_name_the_run_folder(folder, refused, tmp_path):
    empty = tmp_path / "run"
    empty.mkdir()
    (empty / "recipe.json").write_text("{}")
    assert refused(load_model, empty).startswith(
        f"{empty}: neither saved_model.pb nor a run's best.keras in this folder; expected a .keras"
    )
    (empty / "best.keras").write_bytes(b"text")
    assert refused(load_model, empty).startswith(f"{empty}: not a model; expected a .keras")
    (empty / "best.keras").unlink()
    with zipfile.ZipFile(empty / "best.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    assert refused(load_model, empty).startswith(f"{empty}: a .keras file with the members config")
    line = refused(check_model, folder / "run", "tflite")
    assert line == f"{folder / 'run'}: is a .keras file; expected a .tflite file"
