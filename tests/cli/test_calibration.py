"""What a model is calibrated on when nothing is said: pictures of its own training."""

import json
import socket

import numpy as np
import pytest
from PIL import Image

from keras_pspnet import scenes
from keras_pspnet.cli import commands
from keras_pspnet.labels import LabelSet


@pytest.fixture
def run(tmp_path):
    """recipe.json of a run on a folder of 40 pictures."""
    for kind in ("images", "masks"):
        (tmp_path / kind / "train").mkdir(parents=True)
    for index in range(40):
        image, mask = scenes.scene(index, split="train", size=(65, 65))
        Image.fromarray(image).save(tmp_path / "images" / "train" / f"{index}.png")
        Image.fromarray(mask % 2).save(tmp_path / "masks" / "train" / f"{index}.png")
    (tmp_path / "labels.json").write_text(json.dumps({"names": ["even", "odd"]}))
    recipe = {"dataset": "folder", "data_dir": str(tmp_path), "train_split": "train"}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    return tmp_path / "recipe.json"


def test_a_spread_of_the_training_data_with_its_masks(run, capsys):
    sample = commands.training_sample(run, LabelSet(("even", "odd")))
    assert len(sample) == 32
    assert all(image.shape == (65, 65, 3) and mask.max() == 1 for image, mask in sample)
    assert capsys.readouterr().out == "no --calibration: using 32 training pictures\n"


@pytest.mark.parametrize("names", [("even", "odd", "new"), ("odd", "even")])
def test_masks_of_other_classes_than_the_models_are_left_out(run, capsys, names):
    sample = commands.training_sample(run, LabelSet(names))
    assert len(sample) == 32 and all(np.shape(image) == (65, 65, 3) for image in sample)
    assert "without masks, as their classes changed" in capsys.readouterr().out


@pytest.mark.parametrize("trouble", ["no run", "no data", "damaged"])
def test_without_training_data_it_says_so(run, capsys, trouble):
    if trouble == "no run":
        run.unlink()
    elif trouble == "no data":
        (run.parent / "images").rename(run.parent / "elsewhere")
    else:
        run.write_text("{")
    assert commands.training_sample(run, LabelSet(("even", "odd"))) is None
    assert "8 generated scenes" in capsys.readouterr().out


def test_a_relative_data_folder_is_relative_to_the_run_folder(run, tmp_path, monkeypatch):
    elsewhere = tmp_path / "runs" / "one"
    elsewhere.mkdir(parents=True)
    recipe = {"dataset": "folder", "data_dir": "../..", "train_split": "train"}
    (elsewhere / "recipe.json").write_text(json.dumps(recipe))
    monkeypatch.chdir(elsewhere.parent)
    assert len(commands.training_sample(elsewhere / "recipe.json", LabelSet(("even", "odd")))) == 32


def test_nothing_is_downloaded_to_calibrate_on(tmp_path, monkeypatch, capsys):
    tfds = pytest.importorskip("tensorflow_datasets")
    tried = []
    builder = tfds.core.DatasetBuilder
    monkeypatch.setattr(builder, "download_and_prepare", lambda self: tried.append(self))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [])
    recipe = {"dataset": "tfds:oxford_iiit_pet", "data_dir": "data", "train_split": "train"}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    assert commands.training_sample(tmp_path / "recipe.json", LabelSet(("a", "b"))) is None
    said = capsys.readouterr().out
    assert not tried and not (tmp_path / "data").exists()
    assert f"tfds:oxford_iiit_pet: is not in {tmp_path / 'data'}" in said and "8 generated" in said
