"""The commands as a user types them: what they print and what they write."""

import json

import numpy as np
import pytest
from PIL import Image

import keras_pspnet
from keras_pspnet import cli, scenes
from keras_pspnet.labels import SCENES


@pytest.mark.parametrize("name", ["model.keras", "saved_model", "pspnet_float32.tflite"])
def test_evaluate_scores_every_kind_of_model_the_same(model, tmp_path, capsys, name, data):
    arguments = ["evaluate", str(model / name), "--dataset", "folder", "--data-dir", str(data)]
    assert cli.main([*arguments, "--json", str(tmp_path / "scores.json")]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert set(scores) >= {
        "mIoU", "mIoU_all", "mean_accuracy", "pixel_accuracy", "classes", "images", "seconds",
    }  # fmt: skip
    assert scores["images"] == 2 and list(scores["classes"]) == list(SCENES.names)
    assert f"mIoU {scores['mIoU']:.4f}" in capsys.readouterr().out
    # An independent count, at the pictures' own size.
    found = keras_pspnet.load_model(model / name)
    equal = total = 0
    for index in range(2):
        image, mask = scenes.scene(index, split="val", size=(60, 80))
        classes = keras_pspnet.segment(found, image)
        equal += int((classes == mask)[mask != 255].sum())
        total += int((mask != 255).sum())
    assert scores["pixel_accuracy"] == pytest.approx(equal / total)


def test_predict_writes_class_ids_and_overlays(model, tmp_path, capsys, data):
    out = tmp_path / "out"
    folder = data / "images" / "val"
    command = ["predict", str(model / "model.keras"), str(folder), "--out", str(out)]
    assert cli.main(command) == 0
    names = {"0_classes.png", "0_overlay.png", "1_classes.png", "1_overlay.png"}
    assert {path.name for path in out.iterdir()} == names
    ids = Image.open(out / "0_classes.png")
    expected = keras_pspnet.segment(
        keras_pspnet.load_model(model / "model.keras"), folder / "0.png"
    )
    np.testing.assert_array_equal(np.asarray(ids), expected)
    assert ids.getpalette()[: 3 * 12] == [value for color in SCENES.colors for value in color]
    assert Image.open(out / "0_overlay.png").height >= 480


def test_predict_keeps_pictures_of_one_name_apart(model, tmp_path):
    image, _ = scenes.scene(0, size=(49, 49))
    for name in ("a.png", "a.jpg"):
        Image.fromarray(image).save(tmp_path / name)
    command = ["predict", str(model / "pspnet_float32.tflite"), str(tmp_path), "--out"]
    assert cli.main([*command, str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_train_and_resume_from_the_command_line(tmp_path, capsys):
    run = tmp_path / "run"
    settings = ["crop=49,49", "channels=8", "batch_size=2", "train_images=2", "val_images=1"]
    arguments = ["train", "scenes_tiny", "--out", str(run), "--set", *settings, "epochs=1"]
    assert cli.main(arguments) == 0
    assert "epoch 1/1" in capsys.readouterr().out
    assert cli.main([*arguments, "--resume"]) == 0
    assert "resuming at step 1 of 1" in capsys.readouterr().out


def test_train_on_a_folder(tmp_path, data, eagerly):
    settings = ["dataset=folder", "crop=49,49", "channels=8", "batch_size=2", "epochs=1"]
    command = ["train", "scenes_tiny", "--data-dir", str(data), "--out", str(tmp_path / "run")]
    with eagerly():
        assert cli.main([*command, "--set", *settings]) == 0
    assert (tmp_path / "run" / "best.keras").exists()
