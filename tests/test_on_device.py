"""export/release.py and the program that devices run, as commands."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import keras_pspnet
from keras_pspnet import scenes
from keras_pspnet.contract import FORMATS
from keras_pspnet.labels import SCENES
from keras_pspnet.model import set_labels

ROOT = Path(__file__).parent.parent
WITHOUT_TENSORFLOW = (
    "import runpy, sys; sys.modules['tensorflow'] = sys.modules['keras'] = None; "
    "sys.modules['keras_pspnet'] = None; sys.argv = sys.argv[1:]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


def run(*arguments):
    return subprocess.run(list(map(str, arguments)), capture_output=True, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, two pictures, and the folder that release.py makes of them."""
    folder = tmp_path_factory.mktemp("release")
    keras.utils.set_random_seed(3)
    model = keras_pspnet.build_pspnet(
        12, input_shape=(49, 49, 3), backbone="resnet14_narrow", channels=8
    )
    set_labels(model, SCENES)
    model.save(folder / "model.keras")
    (folder / "pictures").mkdir()
    for index in range(2):
        image, _ = scenes.scene(index, split="val", size=(90, 120))
        Image.fromarray(image).save(folder / "pictures" / f"scene{index}.png")
    done = run(
        sys.executable, ROOT / "export" / "release.py", folder / "model.keras",
        "--out", folder / "device", "--calibration", folder / "pictures",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_the_folder_for_the_device_team(folder):
    names = {path.name for path in (folder / "device").iterdir()}
    files = list(FORMATS.values())
    cards = [f"{Path(file).stem}.card.json" for file in files]
    assert names == {"README.md", "segment.py", *files, *cards}
    text = (folder / "device" / "README.md").read_text()
    assert "uint8 RGB (1, 49, 49, 3)" in text and "sky, building" in text
    assert all(f"| {file} | " in text for file in files)
    card = json.loads((folder / "device" / "pspnet_float32.card.json").read_text())
    assert card["agreement_on"] == "2 given pictures"
    assert card["command"].startswith("release.py")


def test_a_device_without_tensorflow_segments_pictures(folder):
    device, out = folder / "device", folder / "out"
    done = run(
        sys.executable, "-c", WITHOUT_TENSORFLOW, device / "segment.py",
        device / "pspnet_float32.tflite", *sorted((folder / "pictures").iterdir()), "--out", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2 and " ms" in done.stdout
    model = keras_pspnet.load_model(device / "pspnet_float32.tflite")
    for index in range(2):
        found = np.asarray(Image.open(out / f"scene{index}_classes.png"))
        expected = keras_pspnet.segment(model, folder / "pictures" / f"scene{index}.png")
        np.testing.assert_array_equal(found, expected)
        overlay = Image.open(out / f"scene{index}_overlay.png")
        assert overlay.mode == "RGB" and overlay.height > 360
    assert not list(out.glob("*.partial"))


@pytest.mark.parametrize(
    "change, message",
    [
        ("text as model", "not a .tflite file"),
        ("truncated model", "damaged"),
        ("no model", "No such file"),
        ("no picture", "no such picture"),
        ("truncated picture", "not a readable picture"),
        ("file as out", "cannot be written"),
    ],
)
def test_what_is_wrong_is_one_line(folder, tmp_path, change, message):
    model, picture, out = tmp_path / "m.tflite", tmp_path / "p.png", tmp_path / "out"
    shutil.copy(folder / "device" / "pspnet_float32.tflite", model)
    shutil.copy(folder / "pictures" / "scene0.png", picture)
    if change == "text as model":
        model.write_text("this is no model, only text")
    elif change == "truncated model":
        model.write_bytes(model.read_bytes()[:20_000])
    elif change == "no model":
        model.unlink()
    elif change == "no picture":
        picture.unlink()
    elif change == "truncated picture":
        picture.write_bytes(picture.read_bytes()[:2000])
    elif change == "file as out":
        out.write_text("")
    segment = ROOT / "export" / "on_device" / "segment.py"
    done = run(sys.executable, segment, model, picture, "--out", out)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if not line.startswith("INFO:")]
    assert len(lines) == 1 and message in lines[0], done.stderr
    assert out.is_file() or not out.exists()
