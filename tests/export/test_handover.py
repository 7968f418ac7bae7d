"""What an export leaves in its folder: it replaces older files, and nothing else."""

import os
import subprocess

import numpy as np
import pytest

import keras_pspnet
from keras_pspnet import machine
from keras_pspnet.errors import UserError
from keras_pspnet.export import deliver
from keras_pspnet.export.card import without_folders
from keras_pspnet.labels import SCENES


def test_what_is_in_the_way_is_found_before_anything_is_written(model, tmp_path):
    (tmp_path / "pspnet_float32.tflite").mkdir()
    with pytest.raises(UserError, match=r"pspnet_float32\.tflite: is in the way"):
        keras_pspnet.export_model(model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["pspnet_float32.tflite"]


def test_a_folder_that_is_no_saved_model_is_not_replaced(model, tmp_path):
    notes = tmp_path / "saved_model" / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("mine")
    with pytest.raises(UserError, match=r"saved_model/notes\.txt: is no part of a SavedModel"):
        keras_pspnet.export_model(model, tmp_path)
    assert notes.read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "typed, written",
    [
        ("keras-pspnet export /home/me/run/best.keras", "keras-pspnet export best.keras"),
        ("x --out ../secret/out/ --size 97 97", "x --out out --size 97 97"),
        (
            "x --labels=/home/me/a=b/names.json --output=logits",
            "x --labels=names.json --output=logits",
        ),
        ("x '/home/me/my pictures' . / --flip", "x 'my pictures' . / --flip"),
    ],
)
def test_a_card_names_no_folder(typed, written):
    assert without_folders(typed) == written


def test_an_export_starts_no_process(model, tmp_path, monkeypatch):
    """A child `python -c` would import modules from the user's current folder."""
    monkeypatch.setattr(subprocess, "Popen", None)
    assert keras_pspnet.export_model(model, tmp_path, formats=("float32",))["float32"].is_file()


def test_an_unfinished_export_is_cleared_away(model, tmp_path, converted_once):
    left = tmp_path / ".pspnet.ab12cd34.partial" / "saved_model"
    left.mkdir(parents=True)
    (left / "half").write_text("of an export that was killed")
    (left.parent / machine.LOCK).touch()
    keras_pspnet.export_model(model, tmp_path, formats=("saved_model",))
    assert not (tmp_path / "saved_model" / "half").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"saved_model", "saved_model.card.json"}


def test_a_path_may_hold_what_tensorflow_takes_for_a_pattern(model, tmp_path):
    out = tmp_path / "[2024] run"
    files = keras_pspnet.export_model(model, out, formats=("saved_model", "float32"))
    image = np.random.default_rng(0).integers(0, 256, (49, 57, 3), np.uint8)
    one, other = (keras_pspnet.segment(keras_pspnet.load_model(f), image) for f in files.values())
    np.testing.assert_array_equal(one, other)
    assert len(list(out.iterdir())) == 4


def test_an_older_export_is_replaced(model, tmp_path, converted_once):
    (tmp_path / "saved_model" / "variables").mkdir(parents=True)
    (tmp_path / "saved_model" / "variables" / "old").write_text("old")
    (tmp_path / "pspnet_float32.tflite").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    keras_pspnet.export_model(model, tmp_path)
    assert not (tmp_path / "saved_model" / "variables" / "old").exists()
    assert keras_pspnet.load_model(tmp_path / "pspnet_float32.tflite").labels == SCENES
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not list(tmp_path.glob(".*"))


def test_two_exports_into_one_folder_both_succeed(model, tmp_path, converted_once):
    """The second begins and ends while the first converts; another's scratch folder stays."""

    def export_meanwhile(line):
        if line.startswith("1/"):
            keras_pspnet.export_model(model, tmp_path, formats=("float32",))
            assert len(list(tmp_path.glob(".pspnet.*.partial"))) == 1  # the first one's

    keras_pspnet.export_model(model, tmp_path, formats=("saved_model",), say=export_meanwhile)
    assert {path.name for path in tmp_path.iterdir()} == {
        "saved_model", "saved_model.card.json",
        "pspnet_float32.tflite", "pspnet_float32.card.json",
    }  # fmt: skip


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_the_old_saved_model_comes_back_if_the_new_one_cannot_stand(tmp_path, monkeypatch, error):
    for name in ("new", "target"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "variables").write_text(name)
    replace = os.replace

    def fail(source, target):
        if source == tmp_path / "new":
            raise error
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(type(error)):
        deliver._replace(tmp_path / "new", tmp_path / "target")
    assert (tmp_path / "target" / "variables").read_text() == "target"


def test_whoever_stops_reading_is_no_full_disk(model, tmp_path, converted_once):
    def say(line):
        if line.startswith("1/"):
            raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        keras_pspnet.export_model(model, tmp_path / "out", say=say)
    assert not (tmp_path / "out").exists()
