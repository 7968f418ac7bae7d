"""A run folder and `preset:NAME` in every command that takes MODEL."""

import hashlib
import json
import shutil

import keras
import numpy as np
import pytest
from PIL import Image

import keras_pspnet
from keras_pspnet import cli, scenes
from keras_pspnet.inference import presets


@pytest.fixture
def named(model, tmp_path, monkeypatch):
    """One tiny network as a run folder and as a preset; names that commands take."""
    run, shipped = tmp_path / "run", tmp_path / "presets"
    recipe = {"dataset": "scenes", "data_dir": None, "train_split": "train"}
    recipe |= {"crop": [49, 49], "resize_to_crop": False}
    for folder in (run, shipped):
        folder.mkdir()
    shutil.copy(model / "model.keras", run / "best.keras")
    (run / "recipe.json").write_text(json.dumps(recipe))
    file = shutil.copy(model / "model.keras", shipped / "tiny.keras")
    card = {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    card |= {"dataset": "scenes", "bytes": 1_234_567, "scores": [{"mIoU": 0.4567}]}
    card |= {"labels": {"names": ["a", "b"]}, "licence": "CC0-1.0", "recipe": recipe}
    (shipped / "tiny.card.json").write_text(json.dumps(card))
    monkeypatch.setattr(presets, "SHIPPED", (shipped,))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return {"run": str(run), "preset": "preset:tiny"}


def test_evaluate_takes_a_preset_and_predict_a_run_folder(model, named, data, tmp_path):
    folder, found = ["--dataset", "folder", "--data-dir", str(data)], []
    for name in (str(model / "model.keras"), named["preset"]):
        file = tmp_path / "scores.json"
        assert cli.main(["evaluate", name, *folder, "--json", str(file)]) == 0
        found.append({k: v for k, v in json.loads(file.read_text()).items() if k != "seconds"})
    assert found[0] == found[1]
    picture = data / "images" / "val" / "0.png"
    assert cli.main(["predict", named["run"], str(picture), "--out", str(tmp_path / "out")]) == 0
    expected = keras_pspnet.segment(keras_pspnet.load_model(model / "model.keras"), picture)
    ids = np.asarray(Image.open(tmp_path / "out" / "0_classes.png"))
    np.testing.assert_array_equal(ids, expected)


def test_export_takes_it_and_knows_its_training_pictures(named, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["export", named["preset"], "--out", str(out), "--formats", "float32"]) == 0
    assert "using 32 training pictures" in capsys.readouterr().out
    card = json.loads((out / "pspnet_float32.card.json").read_text())
    assert card["agreement"] >= 0.999 and "export preset:tiny --out out" in card["command"]
    assert keras_pspnet.load_model(out / "pspnet_float32.tflite").size == (49, 49)


def test_presets_lists_what_there_is(named, tmp_path, capsys):
    card = tmp_path / "presets" / "tiny.card.json"
    elsewhere = json.loads(card.read_text()) | {"sha256": "0" * 64, "scores": [{"mIoU": 0.5}]}
    (tmp_path / "presets" / "far.card.json").write_text(json.dumps(elsewhere))
    assert cli.main(["presets"]) == 0
    head, far, tiny, note = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "data", "classes", "size", "(MB)", "mIoU", "licence", "file"]
    cells = ["tiny", "scenes", "2", "1.2", "0.457", "CC0-1.0"]
    assert tiny.split() == [*cells, str(tmp_path / "presets" / "tiny.keras")]
    assert far.split()[4] == "0.500" and "its file is not here; fetch https://" in far
    assert "preset:NAME" in note
    assert len({line.index("0.") for line in (far, tiny)}) == 1


def test_the_scenes_come_along(tmp_path, capsys):
    assert cli.main(["presets"]) == 0
    assert "scenes" in capsys.readouterr().out
    picture, mask = scenes.scene(0, split="val")
    Image.fromarray(picture).save(tmp_path / "p.png")
    command = ["predict", "preset:scenes", str(tmp_path / "p.png"), "--out", str(tmp_path / "out")]
    assert cli.main(command) == 0
    ids = np.asarray(Image.open(tmp_path / "out" / "p_classes.png"))
    assert (ids == mask)[mask != 255].mean() > 0.9


def test_an_unknown_preset_gets_one_line_before_tensorflow(capfd, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.saving, "load_model", None)
    for command in (
        ["evaluate", "preset:nothing", "--dataset", "scenes"],
        ["predict", "preset:nothing", "p.png", "--out", str(tmp_path / "out")],
        ["export", "preset:nothing", "--out", str(tmp_path / "out")],
    ):
        assert cli.main(command) == 2
        line = capfd.readouterr().err
        assert (
            line
            == "keras-pspnet: preset 'nothing' is not known; expected one of camvid_lite0, scenes\n"
        )
    assert not (tmp_path / "out").exists()
