"""export/release.py: every format, its card, and the program that devices run."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

import keras_pspnet
from keras_pspnet import scenes
from keras_pspnet.export.converters import widen
from keras_pspnet.export.delegate import delegation
from keras_pspnet.export.formats import FORMATS, available_formats
from keras_pspnet.labels import SCENES

ROOT = Path(__file__).parents[2]
SIZE = (49, 57)
WITHOUT_TENSORFLOW = (
    "import runpy, sys; sys.modules['tensorflow'] = sys.modules['keras'] = None; "
    "sys.modules['keras_pspnet'] = None; sys.argv = sys.argv[1:]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)

spec = importlib.util.spec_from_file_location("release", ROOT / "export" / "release.py")
release = importlib.util.module_from_spec(spec)
spec.loader.exec_module(release)


def run(*arguments):
    return subprocess.run(list(map(str, arguments)), capture_output=True, text=True)


@pytest.fixture(scope="module")
def model(seen_network):
    return seen_network(channels=32)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """The model, two dark pictures, and the folder that release.py makes of them."""
    folder = tmp_path_factory.mktemp("release")
    model.save(folder / "model.keras")
    (folder / "pictures").mkdir()
    for index in range(2):
        image, _ = scenes.scene(index, split="val", size=(90, 120))
        image = image // 3 + 20  # 20..105: no excuse to take that for the range of a byte
        Image.fromarray(image).save(folder / "pictures" / f"scene{index}.png")
    done = run(
        sys.executable, ROOT / "export" / "release.py", folder / "model.keras",
        "--out", folder / "device", "--calibration", folder / "pictures",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def cards(folder):
    return {
        name: json.loads((folder / "device" / f"{Path(file).stem}.card.json").read_text())
        for name, file in FORMATS.items()
    }


@pytest.fixture(scope="module")
def images(folder):
    return np.stack(
        [
            np.asarray(Image.open(folder / "pictures" / f"scene{index}.png").resize(SIZE[::-1]))
            for index in range(2)
        ]
    )


def test_the_folder_for_the_device_team(folder):
    names = {path.name for path in (folder / "device").iterdir()}
    files = list(FORMATS.values())
    cards = [f"{Path(file).stem}.card.json" for file in files]
    assert names == {"README.md", "segment.py", *files, *cards}
    text = (folder / "device" / "README.md").read_text()
    assert "uint8 RGB (1, 49, 57, 3)" in text and "sky, building" in text
    assert all(f"| {file} | " in text for file in files)
    card = json.loads((folder / "device" / "pspnet_float32.card.json").read_text())
    assert card["agreement_on"] == "2 given pictures"
    assert card["command"] == "release.py model.keras --out device --calibration pictures"


def test_a_device_without_tensorflow_segments_pictures(folder):
    device, out = folder / "device", folder / "out"
    done = run(
        sys.executable, "-c", WITHOUT_TENSORFLOW, device / "segment.py",
        device / "pspnet_float32.tflite", *sorted((folder / "pictures").iterdir()), "--out", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    model = keras_pspnet.load_model(device / "pspnet_float32.tflite")
    for index, line in enumerate(lines):
        found = np.asarray(Image.open(out / f"scene{index}_classes.png"))
        expected = keras_pspnet.segment(model, folder / "pictures" / f"scene{index}.png")
        np.testing.assert_array_equal(found, expected)
        shown = ", ".join(SCENES.names[i] for i in np.unique(expected))
        assert line.split(": ")[1].split(" ms, ")[1] == shown
        overlay = Image.open(out / f"scene{index}_overlay.png")
        assert overlay.mode == "RGB" and overlay.height > 360
    assert len(lines) == 2 and len(list(out.iterdir())) == 4


@pytest.mark.parametrize(
    "change, message",
    [
        ("text as model", "not a .tflite file"),
        ("truncated model", "damaged"),
        ("no model", "No such file"),
        ("no picture", "no such file; expected pictures"),
        ("folder as picture", "a folder; expected pictures"),
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
    elif change == "folder as picture":
        picture.unlink()
        picture.mkdir()
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


def test_a_device_without_its_runtime_is_told_what_to_install(folder):
    missing = "import sys; sys.modules['ai_edge_litert'] = sys.modules['tflite_runtime'] = None; "
    segment = ROOT / "export" / "on_device" / "segment.py"
    done = run(sys.executable, "-c", missing + WITHOUT_TENSORFLOW, segment)
    assert done.returncode == 2 and not done.stdout
    assert len(done.stderr.splitlines()) == 1 and "pip install numpy 'pillow>=10.1'" in done.stderr


@pytest.mark.parametrize("name", FORMATS)
def test_each_file_takes_camera_bytes_and_gives_class_ids(folder, cards, images, name):
    file = folder / "device" / FORMATS[name]
    network = keras_pspnet.load_model(file)
    assert (network.output, network.size, network.labels) == ("classes", SIZE, SCENES)
    classes = network(images)
    assert classes.dtype == np.uint8 and classes.shape == (2, *SIZE)
    assert cards[name]["format"] == name and cards[name]["agreement_on"] == "2 given pictures"
    if file.suffix == ".onnx":
        (result,) = onnxruntime.InferenceSession(str(file)).get_outputs()
        assert result.shape == [1, *SIZE]
    if file.suffix == ".tflite":
        interpreter = Interpreter(str(file))
        assert interpreter.get_signature_list() == {
            "serving_default": {"inputs": ["image"], "outputs": ["classes"]}
        }
        spec = interpreter.get_signature_runner().get_input_details()["image"]
        # Whatever the calibration pictures hold, as these dark ones.
        assert spec["dtype"] == np.uint8 and spec["quantization"] in ((0.0, 0), (1.0, 0))
        assert not any("Flex" in operator for operator in cards[name]["operators"])


def test_the_cards_say_how_near_each_is(cards):
    agreement = {name: card["agreement"] for name, card in cards.items()}
    assert min(agreement[name] for name in ("saved_model", "float32", "onnx")) > 0.9999
    assert agreement["float16"] > 0.995
    assert min(agreement[name] for name in ("dynamic", "int8", "int16")) > 0.9
    sizes = {name: card["bytes"] / cards["float32"]["bytes"] for name, card in cards.items()}
    assert sizes["float16"] < 0.55 and max(sizes["int8"], sizes["dynamic"], sizes["int16"]) < 0.4
    assert cards["float32"]["long_convolutions"] == {}  # this one has none


def test_the_delegate_takes_all_that_it_can(model, tmp_path):
    """Scores at the network's size; what a new TensorFlow or LiteRT could quietly undo."""
    even = keras_pspnet.build_pspnet(
        12, input_shape=(89, 89, 3), backbone="resnet14_narrow", channels=32
    )
    even.set_weights(model.get_weights())
    names = ("float32", "float16", "int8", "int16", "onnx", "int8")  # one of them twice
    files = keras_pspnet.export_model(
        even, tmp_path, formats=names, output="logits", calibration="scenes"
    )
    for file in files.values():
        logits = keras_pspnet.load_model(file)(np.zeros((1, 89, 89, 3), np.uint8))
        assert logits.dtype == np.float32 and logits.shape == (1, 89, 89, 12)
    # 12 rows become 89: a scale of 89 / 12, rounded to float32, makes 88 of them.
    onnx.checker.check_model(files["onnx"], full_check=True)
    assert delegation(files["float32"]) == (1, ["CAST"])
    assert delegation(files["float16"]) == (1, ["CAST"])
    assert delegation(files["int8"]) == (1, ["CAST"])


def test_a_file_without_its_package_is_refused_in_one_line(model, tmp_path, monkeypatch, refused):
    for package in ("tf2onnx", "ai_edge_quantizer"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert set(available_formats()) == set(FORMATS) - {"int16", "onnx"}
    message = refused(keras_pspnet.export_model, model, tmp_path / "out", formats=("onnx",))
    assert "tf2onnx and onnxruntime" in message and "keras-pspnet[mobile]" in message
    assert not (tmp_path / "out").exists()


def test_ranges_are_widened_picture_by_picture():
    ranges = {}
    for low, high in ((-1.0, 2.0), (-3.0, 1.0), (0.0, 5.0)):
        widen(ranges, {"x": {"min": np.array([[low]]), "max": np.array([[high]])}, "y": {}})
    assert ranges == {"x": {"min": -3.0, "max": 5.0}, "y": {}}


@pytest.mark.parametrize(
    "name, text",
    [
        ("README.md", "# PSPNet, my notes on 12 classes\n"),
        ("README.md", ""),
        ("segment.py", '"""Segment pictures my own way."""\n'),
    ],
)
def test_a_file_of_somebody_else_is_not_replaced(folder, tmp_path, capsys, name, text):
    (tmp_path / name).write_text(text)
    arguments = [folder / "model.keras", "--out", tmp_path, "--calibration", folder / "pictures"]
    assert release.main(list(map(str, arguments))) == 2
    assert f"{name}: is in the way" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == text


def test_an_older_release_is_replaced(folder, tmp_path, monkeypatch):
    for name in ("README.md", "segment.py"):
        first_line = (folder / "device" / name).read_text().splitlines()[0]
        (tmp_path / name).write_text(f"{first_line}\nold\n")

    def export(options):
        for card in (folder / "device").glob("*.card.json"):
            shutil.copy(card, tmp_path)
        return FORMATS

    monkeypatch.setattr(release.commands, "export", export)
    arguments = [folder / "model.keras", "--out", tmp_path, "--calibration", folder / "pictures"]
    assert release.main(list(map(str, arguments))) == 0
    for name in ("README.md", "segment.py"):
        assert (tmp_path / name).read_text() == (folder / "device" / name).read_text()


def test_the_readme_passes_the_warnings_on(folder, tmp_path, monkeypatch):
    def export(options):
        for file in (folder / "device").glob("*.card.json"):
            card = json.loads(file.read_text()) | {"warnings": []}
            card["warnings"] += ["it is bad", "a pole is gone"] * (card["format"] == "int8")
            (tmp_path / file.name).write_text(json.dumps(card))
        return FORMATS

    monkeypatch.setattr(release.commands, "export", export)
    assert release.main(["model", "--out", str(tmp_path), "--calibration", "scenes"]) == 0
    lines = (tmp_path / "README.md").read_text().splitlines()
    warnings = [f"Warning: pspnet_int8.tflite: {text}." for text in ("it is bad", "a pole is gone")]
    assert [line for line in lines if line.startswith("Warning")] == warnings


def benchmark(*arguments):
    return run(sys.executable, ROOT / "export" / "benchmark.py", *arguments)


def test_files_are_measured_in_turns(folder, cards, tmp_path):
    files = [folder / "device" / FORMATS[name] for name in ("float32", "int8")]
    settings = {"threads": 1, "warmup": 1, "runs": 3}
    options = [word for name, value in settings.items() for word in (f"--{name}", value)]
    done = benchmark(*files, *options, "--json", tmp_path / "deeper" / "figures.json")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "deeper" / "figures.json").read_text())
    rows = figures.pop("files")
    assert figures == settings and set(rows) == set(map(str, files))
    for file, name in zip(files, ("float32", "int8")):
        row, (low, high) = rows[str(file)], rows[str(file)]["milliseconds_10_90"]
        assert 0 < low <= row["milliseconds"] <= high and str(file) in done.stdout
        assert row["bytes"] == file.stat().st_size and row["peak_bytes"] > 0
        delegate = cards[name]["delegate"]
        assert (row["partitions"], row["outside"]) == (delegate["partitions"], delegate["outside"])


@pytest.mark.parametrize(
    "options, message",
    [
        (["--runs", 0], "--runs 0: expected at least 1"),
        (["{file}"], "given twice"),
        (["{folder}/device/pspnet.onnx"], "is a .onnx file; expected a .tflite file"),
        (["--json", "{folder}"], "is a folder; expected the name of a file"),
    ],
)
def test_what_cannot_be_measured_is_one_line(folder, options, message):
    file = folder / "device" / "pspnet_int8.tflite"
    done = benchmark(file, *(str(x).format(file=file, folder=folder) for x in options))
    assert done.returncode == 2 and not done.stdout
    assert len(done.stderr.splitlines()) == 1 and message in done.stderr


@pytest.mark.parametrize("size", [97, (97,), (0, 97), (97.5, 97), "97 97"])
def test_a_size_that_is_none_is_refused(model, tmp_path, refused, size):
    message = refused(keras_pspnet.export_model, model, tmp_path / "out", size=size)
    assert "is not (H, W) in pixels" in message and not (tmp_path / "out").exists()
