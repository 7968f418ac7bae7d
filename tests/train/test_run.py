"""Training: the run folder, and that a killed run ends with the same bits."""

import csv
import json
import re
import shutil
import zipfile

import keras
import numpy as np
import pytest
from PIL import Image

import keras_pspnet
from keras_pspnet import machine
from keras_pspnet.data.datasets import open_source
from keras_pspnet.errors import UserError
from keras_pspnet.labels import SCENES
from keras_pspnet.network import losses
from keras_pspnet.network.main_head import labels_of
from keras_pspnet.train import checkpoint, recipes
from keras_pspnet.train.build import build
from keras_pspnet.train.run import Run, fit

SMALL = recipes.recipe(
    "scenes_tiny",
    crop=(49, 49),
    channels=8,
    batch_size=4,
    train_images=14,
    val_images=4,
    epochs=2,
    checkpoint_seconds=0,
)
STEPS = 6  # 14 pictures make 3 batches of 4


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that was never interrupted."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    fit(SMALL, out)
    return out


def test_the_run_folder(run):
    names = {path.name for path in run.iterdir()}
    assert names == {
        "recipe.json", "best.keras", "last.keras", "history.csv", "curves.png", "samples.png",
    }  # fmt: skip
    written = json.loads((run / "recipe.json").read_text())
    assert written == {**SMALL.to_config(), "data_dir": None}
    with open(run / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "3"), ("2", "6")]
    assert float(rows[1]["learning_rate"]) == 0
    assert float(rows[0]["learning_rate"]) == pytest.approx(0.02 * 0.5**0.9, rel=1e-5)
    for row in rows:
        assert float(row["loss"]) == pytest.approx(
            float(row["main_loss"]) + 0.4 * float(row["aux_loss"]), rel=1e-4
        )
        assert 0 <= float(row["val_main_mIoU"]) <= 1
    for name in ("curves.png", "samples.png"):
        assert min(Image.open(run / name).size) > 200


def test_best_is_the_epoch_with_the_best_validation_score(run):
    with open(run / "history.csv") as file:
        scores = [float(row["val_main_mIoU"]) for row in csv.DictReader(file)]
    _, state = checkpoint.load(run / "best.keras")
    assert state["best"] == max(scores)
    assert state["step"] == 3 * (1 + scores.index(max(scores)))


def test_the_trained_model_carries_labels_and_goes_on_training(run):
    model = keras_pspnet.load_model(run / "last.keras")
    assert labels_of(model) == SCENES
    assert int(model.optimizer.iterations) == STEPS
    images = np.zeros((1, 49, 49, 3), np.uint8)
    masks = np.zeros((1, 49, 49), np.uint8)
    model.fit(images, {"aux": masks, "main": masks}, verbose=0)


def test_a_run_that_was_cut_off_ends_with_the_same_bits(run, tmp_path, monkeypatch, capsys):
    """What is written is there, nothing else happens; `make verify` uses SIGKILL."""

    class Killed(BaseException):
        pass

    save_step, save = Run.save_step, checkpoint.save

    def save_step_and_die(self, step):
        save_step(self, step)
        if step == 5:
            raise Killed

    def save_and_die(model, path, state):
        save(model, path, state)
        if path.name == "best.keras":  # last.keras holds step 2
            raise Killed

    for changed, function in ((checkpoint, save_and_die), (Run, save_step_and_die)):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(changed, function.__name__.removesuffix("_and_die"), function)
            fit(SMALL, tmp_path, resume=changed is Run)
    (tmp_path / ".last.partial.keras").write_bytes(b"half a file")
    fit(SMALL, tmp_path, resume=True)
    said = capsys.readouterr().out
    assert re.findall(r"resuming at step (\d) of 6", said) == ["2", "5"]
    for name in ("last.keras", "best.keras", "history.csv"):
        assert (tmp_path / name).read_bytes() == (run / name).read_bytes(), name
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_resuming_nothing_starts_and_resuming_what_is_done_ends(tmp_path, capsys, eagerly):
    recipe = SMALL.change(epochs=1, train_images=4, val_images=1)
    with eagerly():
        fit(recipe, tmp_path, resume=True)
    assert f"resuming at step 0 of 1; {tmp_path} holds no run" in capsys.readouterr().out
    before = (tmp_path / "last.keras").read_bytes()
    with eagerly():
        fit(recipe, tmp_path, resume=True)
    assert "resuming at step 1 of 1" in capsys.readouterr().out
    assert (tmp_path / "last.keras").read_bytes() == before


def test_a_folder_that_holds_a_run_is_refused(run):
    with pytest.raises(UserError, match="holds a run already; add --resume"):
        fit(SMALL, run)
    with pytest.raises(UserError, match="its run has seed=0, not 1"):
        fit(SMALL.change(seed=1), run, resume=True)


def test_a_folder_in_which_another_training_runs_is_refused(refused, tmp_path):
    with machine.locked(tmp_path / "run", "a training"):
        for resume in (False, True):
            message = refused(fit, SMALL, tmp_path / "run", resume=resume)
            assert "a training, process" in message and "uses this folder" in message
        assert [path.name for path in (tmp_path / "run").iterdir()] == [machine.LOCK]


def test_a_run_folder_that_was_changed_is_not_trusted(run, tmp_path):
    shutil.copytree(run, tmp_path / "a")
    (tmp_path / "a" / "recipe.json").unlink()
    with pytest.raises(UserError, match="its run has channels=8, not 16"):
        fit(SMALL.change(channels=16), tmp_path / "a", resume=True)
    (tmp_path / "a" / "best.keras").unlink()
    with pytest.raises(UserError, match=r"best\.keras is gone"):
        fit(SMALL, tmp_path / "a", resume=True)
    assert (tmp_path / "a" / "last.keras").exists()


def test_a_training_that_diverges_says_so_and_leaves_nothing(tmp_path, eagerly):
    recipe = SMALL.change(learning_rate=1e6, head_multiplier=1e6, checkpoint_seconds=1000)
    with eagerly(), pytest.raises(UserError, match="no longer a number at step"):
        fit(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_learns():
    """The recipe's parts together: the loss on a few scenes falls a lot."""
    source = open_source("scenes", split="train", size=(49, 49)).first(4)
    recipe = SMALL.change(class_weights=False, ohem_threshold=None, learning_rate=0.05)
    keras.utils.set_random_seed(0)
    model = build(recipe, source.labels, source.survey().pixels[: len(source.labels)], 40)
    images, masks = (np.stack(parts) for parts in zip(*[source.read(i) for i in range(4)]))
    history = model.fit(images, {"aux": masks, "main": masks}, batch_size=4, epochs=40, verbose=0)
    assert history.history["main_loss"][-1] < 0.4 * history.history["main_loss"][0]
    assert history.history["main_mIoU"][-1] > 0.3


def test_what_a_recipe_asks_for_is_compiled():
    source = open_source("scenes", split="train", size=(49, 49)).first(4)
    model = build(SMALL, source.labels, source.survey().pixels[: len(source.labels)], 10)
    assert model.optimizer.head_multiplier == 10 and model.optimizer.decay == 1e-4
    config = model.get_compile_config()
    assert config["loss_weights"] == {"aux": 0.4, "main": 1.0}
    main, aux = (config["loss"][head]["config"] for head in ("main", "aux"))
    assert main["ohem_threshold"] == 0.7 and aux["ohem_threshold"] is None
    assert (
        main["class_weights"]
        == aux["class_weights"]
        == losses.class_weights(source.survey().pixels[: len(source.labels)])
    )


def test_masks_of_nothing_but_void_are_refused_before_the_first_step(refused, folder, tmp_path):
    (folder / "labels.json").write_text('{"names": ["a", "b", "c"]}')
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(exist_ok=True)
            for index in range(2):
                picture = np.full((9, 11), 255, np.uint8)
                Image.fromarray(picture).save(folder / kind / split / f"p{index}.png")
    for file in (folder / "masks" / "train").iterdir():
        Image.fromarray(np.full((9, 11), 255, np.uint8)).save(file)
    recipe = recipes.recipe("folder_lite0", batch_size=2, crop=(33, 33))
    out = tmp_path / "run"
    assert "are void" in refused(fit, recipe, out, data_dir=folder) and not out.exists()


@pytest.mark.parametrize("given", ["relative", "absolute"])
def test_recipe_json_holds_the_data_folder_as_it_was_given(folder, tmp_path, monkeypatch, given):
    """A relative path is kept relative to the run folder: it says nothing of the machine."""
    (folder / "images" / "val").symlink_to(folder / "images" / "train")
    (folder / "masks" / "val").symlink_to(folder / "masks" / "train")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    data_dir = ".." if given == "relative" else folder
    monkeypatch.setattr(Run, "train", lambda self: self.model)
    recipe = SMALL.change(dataset="folder", batch_size=5, epochs=1)
    fit(recipe, "runs/one", data_dir=data_dir)
    written = json.loads((tmp_path / "work" / "runs" / "one" / "recipe.json").read_text())
    assert written["data_dir"] == ("../../.." if given == "relative" else str(folder))


@pytest.mark.parametrize("file", ["recipe.json", "last.keras"])
def test_a_run_of_an_earlier_version_is_refused_in_one_line(run, refused, tmp_path, file):
    """0.1.0 called two fields fit_pictures and hard_below, and its models are no longer loaded."""
    out = tmp_path / "old"
    out.mkdir()
    names = {"resize_to_crop": "fit_pictures", "ohem_threshold": "hard_below"}
    old = {names.get(name, name): value for name, value in SMALL.to_config().items()}
    if file == "recipe.json":
        (out / file).write_text(json.dumps({**old, "data_dir": None}))
    else:
        state = {**checkpoint.read_state(run / file), "recipe": old}
        with zipfile.ZipFile(out / file, "w") as archive:
            archive.writestr(checkpoint.STATE, json.dumps(state))
            archive.writestr("config.json", "{}")
    before = (out / file).read_bytes()
    message = refused(fit, SMALL, out, resume=True)
    assert "another version of keras_pspnet (recipe fields fit_pictures, hard_below)" in message
    assert (out / file).read_bytes() == before and len(list(out.iterdir())) == 1


def test_fit_takes_the_name_of_a_recipe(monkeypatch, refused, tmp_path):
    monkeypatch.setattr(Run, "train", lambda self: self.model)
    monkeypatch.setitem(recipes.RECIPES, "small", SMALL)
    fit("small", tmp_path / "run")
    written = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert written == {**SMALL.to_config(), "data_dir": None}
    assert "'smal' is not known" in refused(fit, "smal", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_what_shows_a_training_may_fail_to_be_written_its_checkpoints_may_not(
    tmp_path, capsys, refused, run, eagerly
):
    recipe = SMALL.change(epochs=1, train_images=4, val_images=1)
    for name in ("history.csv", "curves.png", "samples.png"):
        (tmp_path / "a" / name).mkdir(parents=True)  # in the way
    with eagerly():
        fit(recipe, tmp_path / "a")
    said = capsys.readouterr().out
    for name in ("history.csv", "curves.png", "samples.png"):
        line = f"warning: {tmp_path / 'a' / name}: cannot be written: Is a directory; the training"
        assert line in said
    assert (tmp_path / "a" / "last.keras").is_file()
    (tmp_path / "b" / "last.keras").mkdir(parents=True)
    with pytest.raises(UserError, match=r"last.keras: cannot be written"):
        checkpoint.save(keras_pspnet.load_model(run), tmp_path / "b" / "last.keras", {})
