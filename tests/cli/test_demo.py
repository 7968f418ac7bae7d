"""The demo's own code, at small settings; `make verify` runs the whole from a bare clone."""

import json
import subprocess

import numpy as np
import pytest
from PIL import Image

from keras_pspnet.cli import demo
from keras_pspnet.train import recipes, run


def test_the_demo_leaves_a_report_and_a_picture(tmp_path, monkeypatch, capsys, eagerly):
    def fit(*arguments, **named):
        with eagerly():  # not the evaluations, of 100 pictures
            return run.fit(*arguments, **named)

    monkeypatch.setattr(demo, "fit", fit)
    settings = {"crop": (49, 49), "channels": 8, "train_images": 16, "val_images": 4, "epochs": 1}
    monkeypatch.setitem(recipes.RECIPES, "scenes", recipes.recipe("scenes", **settings))
    monkeypatch.setattr(demo, "RECIPE", {"jaccard": 0.5})
    report = demo.run(tmp_path)
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert set(report) >= {"mIoU_keras", "mIoU_tflite", "pixel_agreement", "seconds"}
    assert report["pixel_agreement"] >= 0.999
    assert report["mIoU_tflite"] == pytest.approx(report["mIoU_keras"], abs=1e-3)
    assert report["images"] == 100 and 0 < report["mIoU_keras"] < 1
    overview = np.asarray(Image.open(tmp_path / "overview.png"))
    assert overview.shape[0] > 6 * 185 and overview.shape[1] > 5 * 185
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {"best.keras", "last.keras", "curves.png", "samples.png", "export"}
    printed = capsys.readouterr().out
    assert "resuming at step 0 of 2" in printed  # one that was interrupted goes on
    assert "equal pixels" in printed


def test_the_child_does_not_run_what_lies_in_the_working_folder(tmp_path, monkeypatch):
    for name in ("numpy", "json", "PIL"):
        (tmp_path / f"{name}.py").write_text("open('executed', 'w').close()\nraise SystemExit(7)\n")
    monkeypatch.chdir(tmp_path)
    demo.without_tensorflow("--version")
    with pytest.raises(subprocess.CalledProcessError):
        demo.without_tensorflow("paint")
    assert not (tmp_path / "executed").exists()
