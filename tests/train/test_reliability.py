"""Trainings survive their data: values that are no numbers, broken pictures, large folders."""

import json
import os

import keras
import numpy as np
import pytest
from PIL import Image

from keras_pspnet.data import pipeline
from keras_pspnet.train import checkpoint, picture_check, recipes, run_folder
from keras_pspnet.train.picture_check import PictureCheck
from keras_pspnet.train.run import fit
from keras_pspnet.train.splits import open_splits

SMALL = recipes.recipe(
    "scenes_tiny",
    dataset="folder",
    crop=(49, 49),
    channels=8,
    batch_size=2,
    epochs=2,
    class_weights=False,
    checkpoint_seconds=1000,
)


@pytest.fixture
def data(tmp_path):
    """A folder of 6 pairs to train on, 3 to validate on."""
    folder = tmp_path / "data"
    draw = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True)
        for index in range(count):
            mask = np.zeros((49, 49), np.uint8)
            mask[10 : 20 + index] = 1
            picture = draw.integers(60, 120, (49, 49, 3)).astype(np.uint8) + 40 * mask[..., None]
            Image.fromarray(picture).save(folder / "images" / split / f"p{index}.png")
            Image.fromarray(mask).save(folder / "masks" / split / f"p{index}.png")
    (folder / "labels.json").write_text('{"names": ["ground", "thing"]}')
    return folder


def cut(file):
    file.write_bytes(file.read_bytes()[:-400])


def test_a_loss_that_is_no_number_names_the_pictures_of_its_batch(refused, data, tmp_path):
    train, _ = open_splits(SMALL, data)
    names = pipeline.names_of_step(train, 1, batch_size=2, seed=SMALL.seed)
    poison = Poison("on_train_batch_begin", 2)
    message = refused(fit, SMALL, tmp_path / "run", data_dir=data, callbacks=[poison])
    assert "the loss is no longer a number at step 2" in message
    assert ", ".join(names) in message and message.count(".png") == len(names) == 2
    assert not (tmp_path / "run").exists()


class Poison(keras.callbacks.Callback):
    """Puts NaN into the classifier at a call of a method, as a step that diverges does."""

    def __init__(self, method, number):
        super().__init__()
        self.left = number
        setattr(self, method, self.count)

    def count(self, *args, **kwargs):
        self.left -= 1
        if not self.left:
            kernel = self.model.get_layer("cls_4").kernel
            kernel.assign(np.full(kernel.shape, np.nan))


def test_a_validation_loss_that_is_no_number_keeps_the_last_good_checkpoint(
    refused, data, tmp_path
):
    out = tmp_path / "run"
    message = refused(fit, SMALL, out, data_dir=data, callbacks=[Poison("on_test_begin", 2)])
    assert "the validation loss is no longer a number at step 6" in message
    assert message.endswith(f"; {out / 'last.keras'} holds step 3") and "p0.png" in message
    for name in ("last.keras", "best.keras"):
        model, state = checkpoint.load(out / name)
        assert state["step"] == 3 and len(state["history"]) == 1
        assert all(np.isfinite(weights).all() for weights in model.get_weights())
    before = (out / "last.keras").read_bytes()
    kernel = model.trainable_variables[0]
    kernel.assign(np.full(kernel.shape, np.inf))
    assert "no longer finite at step 3" in refused(
        checkpoint.save, model, out / "last.keras", state
    )
    assert (out / "last.keras").read_bytes() == before


def test_broken_pictures_are_gone_past_when_asked(refused, data, tmp_path, capsys):
    bad = data / "images" / "train" / "p1.png"
    cut(bad)
    recipe, out = SMALL.change(epochs=1), tmp_path / "run"
    assert refused(fit, recipe, out, data_dir=data).startswith(str(bad)) and not out.exists()
    cut(data / "masks" / "val" / "p0.png")
    assert "(and 1 more bad pair)" in refused(fit, recipe, out, data_dir=data, skip_broken=1)
    capsys.readouterr()
    fit(recipe, out, data_dir=data, skip_broken=2)
    said = capsys.readouterr().out
    assert f"warning: 2 broken of at most 2: {bad}: " in said and "p0.png" in said
    assert checkpoint.read_state(out / "last.keras")["step"] == 3
    fit(recipe, out, data_dir=data, skip_broken=2, resume=True)
    assert "2 broken of at most 2" in capsys.readouterr().out


def test_a_survey_is_kept_while_sizes_and_times_hold(data, tmp_path, monkeypatch):
    recipe, out = SMALL.change(epochs=1), tmp_path / "run"
    fit(recipe, out, data_dir=data)
    kept = json.loads((out / "survey.json").read_text())["surveys"]["train"]
    assert sum(kept["pixels"]) == 6 * 49 * 49 and kept["good"] == list(range(6))
    looked = []
    looks = PictureCheck._looks

    def counted(self):
        looked.append(1)
        return looks(self)

    monkeypatch.setattr(PictureCheck, "_looks", counted)
    fit(recipe, out, data_dir=data, resume=True)
    assert not looked
    os.utime(data / "masks" / "train" / "p3.png", (1, 1))
    fit(recipe, out, data_dir=data, resume=True)
    assert looked == [1]
    (out / "survey.json").write_text("{}")
    fit(recipe, out, data_dir=data, resume=True)
    assert looked == [1, 1]


def test_a_check_that_takes_long_goes_on_beside_the_training(
    refused, data, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(picture_check, "PATIENCE", -1.0)
    recipe = SMALL.change(epochs=1)
    fit(recipe, tmp_path / "a", data_dir=data)
    assert "the check of the pictures goes on beside the training" in capsys.readouterr().out
    kept = json.loads((tmp_path / "a" / "survey.json").read_text())["surveys"]
    assert len(kept["train"]["good"]) == 6 and len(kept["val"]["good"]) == 3
    monkeypatch.setattr(picture_check, "PATIENCE", 100.0)
    fit(recipe, tmp_path / "b", data_dir=data)
    fit(recipe.change(class_weights=True), tmp_path / "c", data_dir=data)
    assert "goes on beside" not in capsys.readouterr().out
    a, b = ((tmp_path / name / "last.keras").read_bytes() for name in "ab")
    assert a == b
    cut(data / "images" / "train" / "p5.png")
    monkeypatch.setattr(picture_check, "PATIENCE", -1.0)
    assert "p5.png" in refused(fit, recipe, tmp_path / "d", data_dir=data)


def test_a_run_that_is_resumed_elsewhere_says_that_bits_may_differ(
    data, tmp_path, monkeypatch, capsys
):
    recipe, out = SMALL.change(epochs=1), tmp_path / "run"
    monkeypatch.setattr(run_folder, "threads", lambda: 2)
    fit(recipe, out, data_dir=data)
    fit(recipe, out, data_dir=data, resume=True)
    assert "note: the run began on" not in capsys.readouterr().out
    monkeypatch.setattr(run_folder, "threads", lambda: 96)
    fit(recipe, out, data_dir=data, resume=True)
    said = capsys.readouterr().out
    assert "note: the run began on 2 threads of" in said and "this is 96 threads of" in said
