"""Trainings survive their data: values that are no numbers, broken pictures, large folders."""

import json
import os
import zipfile

import keras
import numpy as np
import pytest
from PIL import Image

from keras_pspnet.data import pipeline
from keras_pspnet.data.broken import Broken
from keras_pspnet.train import checkpoint, picture_check, recipes
from keras_pspnet.train.picture_check import PictureCheck
from keras_pspnet.train.run import Run, fit
from keras_pspnet.train.run_folder import other_machine, this_machine
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


@pytest.fixture(scope="module", autouse=True)
def untraced(eagerly):
    """What is read around the steps is under test."""
    with eagerly():
        yield


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


def check_of(data, out, about=lambda surveys: []):
    sources = dict(zip(("train", "val"), open_splits(SMALL, data)))
    return PictureCheck(out, sources, Broken(0, SMALL.crop), about, writes=True)


def test_a_survey_is_kept_while_sizes_and_times_hold(data, tmp_path):
    first = check_of(data, tmp_path)
    assert not first.whole
    first.begin(needs_all=True)
    first.keep()
    kept = check_of(data, tmp_path)
    assert kept.whole
    for split, survey in first.surveys.items():
        assert kept.surveys[split].to_config() == survey.to_config()
    assert kept.surveys["train"].pixels.sum() == 6 * 49 * 49
    assert kept.surveys["val"].sizes == {(49, 49): 3}
    os.utime(data / "masks" / "train" / "p3.png", (1, 1))
    assert not check_of(data, tmp_path).whole
    for text in ("{}", "[]", "half"):
        (tmp_path / "survey.json").write_text(text)
        assert not check_of(data, tmp_path).whole


def test_a_check_that_takes_long_goes_on_beside_the_training(
    refused, data, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(picture_check, "PATIENCE", -1.0)
    check = check_of(data, tmp_path, about=lambda surveys: [f"{len(surveys[0].good)} good"])
    check.begin(needs_all=False)
    assert "goes on beside the training" in capsys.readouterr().out
    check.tell(wait=True)
    check.tell()
    assert capsys.readouterr().out == "6 good\n"
    check.keep()
    check.close()
    assert check_of(data, tmp_path).whole
    (tmp_path / "survey.json").unlink()
    check = check_of(data, tmp_path)
    check.begin(needs_all=True)
    assert check.whole and "goes on beside" not in capsys.readouterr().out
    cut(data / "images" / "train" / "p5.png")
    monkeypatch.setattr(Run, "train", lambda self: self.check.tell(wait=True))
    assert "p5.png" in refused(fit, SMALL, tmp_path / "run", data_dir=data)
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_resumed_elsewhere_says_that_bits_may_differ(tmp_path, monkeypatch):
    state = {"step": 1, "history": [], "best": None, "recipe": {}, "coarse": False}
    state |= {"seeds": [], "metrics": []}
    with zipfile.ZipFile(tmp_path / "last.keras", "w") as archive:
        archive.writestr(checkpoint.STATE, json.dumps({**state, "machine": this_machine()}))
    assert other_machine(tmp_path) is None
    threads = this_machine()["threads"]
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "96")
    note = other_machine(tmp_path)
    assert note.startswith(f"note: the run began on {threads} threads of")
    assert "this is 96 threads of" in note
    with zipfile.ZipFile(tmp_path / "last.keras", "w") as archive:  # of an earlier version
        archive.writestr(checkpoint.STATE, json.dumps(state))
    assert other_machine(tmp_path) is None
