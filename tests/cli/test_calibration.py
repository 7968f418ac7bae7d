"""What a model is calibrated on when nothing is said: pictures of its own training."""

import json
import socket
import zipfile

import numpy as np
import pytest
from PIL import Image

from keras_pspnet import cli, scenes
from keras_pspnet.cli import calibration, commands
from keras_pspnet.export.calibration import read_pictures
from keras_pspnet.export.formats import COMMAND_FORMATS
from keras_pspnet.labels import SCENES, LabelSet


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


@pytest.fixture
def model(run):
    return run.parent / "best.keras"


def test_a_spread_of_the_training_data_with_its_masks(model, capsys):
    choice = calibration.choose(model, None, None)
    assert choice.formats == [*COMMAND_FORMATS] and choice.source == "training pictures"
    sample = choice.for_model(LabelSet(("even", "odd")))
    assert len(sample) == 32
    assert [file.suffix for file, _ in sample] == [".png"] * 32
    assert all(mask.shape == (65, 65) and mask.max() == 1 for _, mask in sample)
    assert capsys.readouterr().out == "no --calibration: using 32 training pictures\n"


@pytest.mark.parametrize("names", [("even", "odd", "new"), ("odd", "even")])
def test_masks_of_other_classes_than_the_models_are_left_out(model, capsys, names):
    sample = calibration.choose(model, None, ["int8"]).for_model(LabelSet(names))
    assert len(sample) == 32 and all(file.parent.name == "train" for file in sample)
    assert "without masks, as their classes changed" in capsys.readouterr().out


@pytest.mark.parametrize(
    "trouble, why",
    [
        ("no run", "no --calibration: "),
        ("no data", "no --calibration and no training data ("),
        ("damaged", "no --calibration and no training data ({run}: not the recipe of a training"),
        ("no fields", "no --calibration and no training data ({run}: not the recipe of a training"),
    ],
)
def test_without_pictures_int8_is_left_out_or_refused(run, model, capsys, refused, trouble, why):
    if trouble == "no run":
        run.unlink()
    elif trouble == "no data":
        (run.parent / "images").rename(run.parent / "elsewhere")
    else:
        run.write_text("{" if trouble == "damaged" else "{}")
    choice = calibration.choose(model, None, None)
    assert choice.formats == ["saved_model", "float32", "float16", "dynamic"]
    assert choice.for_model(LabelSet(("even", "odd"))) is None
    said = capsys.readouterr().out
    assert said.startswith(why.format(run=run)) and said.count("\n") == 1
    assert said.endswith(": int8 is left out, files are compared on 8 generated scenes\n")

    message = refused(calibration.choose, model, None, ["float32", "int8"])
    assert message.startswith("int8 needs calibration pictures") and "--calibration DIR" in message
    assert ("and there is no training data" in message) == (trouble != "no run")
    assert not capsys.readouterr().out

    choice = calibration.choose(model, None, ["float32"])
    assert choice.formats == ["float32"] and choice.pictures is None
    assert "left out" not in capsys.readouterr().out


def test_training_pictures_that_show_nothing_are_refused(run, model, refused):
    for file in (run.parent / "images" / "train").iterdir():
        Image.new("RGB", (65, 65)).save(file)
    message = refused(calibration.choose, model, None, None)
    first = run.parent / "images" / "train" / "0.png"
    assert f"training picture {first} is one colour (0 0 0), and the other 31" in message


def test_a_training_picture_that_shows_nothing_is_named(run, model):
    black = run.parent / "images" / "train" / "0.png"
    Image.new("RGB", (65, 65)).save(black)
    sample, said = calibration.choose(model, None, None).for_model(LabelSet(("even", "odd"))), []
    read_pictures(sample, (65, 65), "training pictures", said.append)
    assert said == [
        f"WARNING: 1 of 32 calibration pictures show nothing: {black} is one colour (0 0 0)"
    ]


@pytest.mark.parametrize("crop, size", [([57, 65], (57, 65)), (None, (185, 185))])
def test_scenes_are_of_the_recipes_crop(tmp_path, crop, size):
    recipe = {"dataset": "scenes", "data_dir": None, "train_split": "train", "train_images": 3}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe | ({"crop": crop} if crop else {})))
    sample, labels = calibration.training_sample(tmp_path / "recipe.json")
    assert labels == SCENES and len(sample) == 3  # all that it was trained on
    for index, pair in enumerate(sample):
        for found, drawn in zip(pair, scenes.scene(index, split="train", size=size)):
            np.testing.assert_array_equal(found, drawn)


@pytest.mark.parametrize(
    "trees, below",
    [
        (["images/train", "images/val", "masks/train", "masks/val"], "images/train"),
        (["valid/images", "train/images"], "train/images"),
        (["annotations/training", "images/training", "images/validation"], "images/training"),
        (["JPEGImages", "SegmentationClass"], "JPEGImages"),
        (["LabeledApproved_full", "701_StillsRaw_full"], "701_StillsRaw_full"),
        (["trainannot", "train", "test", "testannot"], "train"),
        (["gtFine/train/bern", "leftImg8bit/train/bern"], "leftImg8bit/train/bern"),
    ],
)
def test_the_root_of_a_data_set_gets_the_folder_to_give(model, tmp_path, refused, trees, below):
    root = tmp_path / "root"
    for tree in trees:
        (root / tree).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(root / tree / "a.png")
    message = refused(calibration.choose, model, str(root), None)
    assert message == (
        f"{root}: no pictures in this folder, but below it; as calibration give a folder of "
        f"pictures, such as {root / below}"
    )
    assert message == refused(read_pictures, root, (65, 65), "given pictures", print)


def test_scenes_must_be_written_to_be_meant(model, tmp_path, monkeypatch, refused):
    choice = calibration.choose(model, "scenes", ["int8"])
    assert choice.formats == ["int8"] and choice.pictures == "scenes"
    assert choice.for_model(LabelSet(("even", "odd"))) == "scenes"
    monkeypatch.chdir(tmp_path / "images")
    (tmp_path / "images" / "train").rename("scenes")
    choice = calibration.choose(model, "./scenes", ["int8"])
    assert len(choice.pictures) == 40 and choice.source == "given pictures"


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--formats", "int8"], "int8 needs calibration pictures"),
        (["--formats", "float32,int16,int8"], "int8 and int16 need calibration pictures"),
        (["--calibration", "{black}"], "0.png is one colour (0 0 0), and the other is no better"),
        (["--calibration", "{black}", "--formats", "float32"], "0.png is one colour"),
    ],
)
def test_the_command_refuses_before_it_imports_tensorflow(
    run, monkeypatch, capsys, arguments, says
):
    black = run.parent / "black"
    black.mkdir()
    for index in range(2):
        Image.new("RGB", (65, 65)).save(black / f"{index}.png")
    run.unlink()
    with zipfile.ZipFile(run.parent / "best.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    monkeypatch.setattr(commands.quiet, "quiet_tensorflow", lambda: pytest.fail("too late"))
    arguments = [argument.format(black=black) for argument in arguments]
    out = run.parent / "out"
    assert cli.main(["export", str(run.parent / "best.keras"), "--out", str(out), *arguments]) == 2
    printed = capsys.readouterr()
    assert says in printed.err and printed.err.count("\n") == 1 and not printed.out
    assert not out.exists()


def test_a_relative_data_folder_is_relative_to_the_run_folder(run, tmp_path, monkeypatch):
    elsewhere = tmp_path / "runs" / "one"
    elsewhere.mkdir(parents=True)
    recipe = {"dataset": "folder", "data_dir": "../..", "train_split": "train"}
    (elsewhere / "recipe.json").write_text(json.dumps(recipe))
    monkeypatch.chdir(elsewhere.parent)
    sample, labels = calibration.training_sample(elsewhere / "recipe.json")
    assert len(sample) == 32 and labels.names == ("even", "odd")


def test_nothing_is_downloaded_to_calibrate_on(tmp_path, monkeypatch, capsys):
    tfds = pytest.importorskip("tensorflow_datasets")
    tried = []
    builder = tfds.core.DatasetBuilder
    monkeypatch.setattr(builder, "download_and_prepare", lambda self: tried.append(self))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [])
    recipe = {"dataset": "tfds:oxford_iiit_pet", "data_dir": "data", "train_split": "train"}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    assert calibration.choose(tmp_path / "best.keras", None, None).pictures is None
    said = capsys.readouterr().out
    assert not tried and not (tmp_path / "data").exists()
    assert f"tfds:oxford_iiit_pet: is not in {tmp_path / 'data'}" in said and "8 generated" in said
