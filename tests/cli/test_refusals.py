"""What is wrong gets one line and exit code 2, and leaves nothing behind."""

import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_pspnet import cli, scenes


def fails(capfd, *arguments):
    """Runs a command that must fail as promised; returns its one line."""
    capfd.readouterr()
    try:
        code = cli.main([str(argument) for argument in arguments])
    except SystemExit as end:  # argparse
        code = end.code
    err = capfd.readouterr().err
    assert code == 2, err
    lines = [line for line in err.splitlines() if not line.startswith("INFO:")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["paint"],
        ["train", "scenes"],
        ["evaluate", "MODEL"],
        ["export", "MODEL", "--out", "OUT", "--size", "1"],
    ],
)
def test_wrong_arguments(capfd, arguments):
    assert "keras-pspnet" in fails(capfd, *arguments)


@pytest.mark.parametrize(
    "content", ["missing", "text", "empty", "truncated", "other zip", "damaged zip", "folder"]
)
@pytest.mark.parametrize("command", ["evaluate", "predict", "export"])
def test_what_is_no_model(model, tmp_path, capfd, command, content):
    file = tmp_path / "model.keras"
    if content == "text":
        file.write_text("this is a text file, and not a short one\n" * 10)
    elif content == "empty":
        file.touch()
    elif content == "truncated":
        file.write_bytes((model / "model.keras").read_bytes()[:50_000])
    elif content == "other zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("readme.txt", "hello")
    elif content == "damaged zip":  # in the list of what it holds
        data = (model / "model.keras").read_bytes()
        place = data.rindex(b"PK\1\2")
        file.write_bytes(data[:place] + b"XX" + data[place + 2 :])
    elif content == "folder":
        file.mkdir()
    picture = tmp_path / "picture.png"
    Image.fromarray(scenes.scene(0, size=(49, 49))[0]).save(picture)
    rest = {
        "evaluate": ["--dataset", "scenes", "--json", tmp_path / "out" / "scores.json"],
        "predict": [picture, "--out", tmp_path / "out"],
        "export": ["--out", tmp_path / "out"],
    }[command]
    assert "model.keras" in fails(capfd, command, file, *rest)
    assert not (tmp_path / "out").exists()


def test_damaged_models_that_look_whole(model, tmp_path, capfd):
    """The outside is right, the inside is not: found out while loading."""
    tflite = bytearray((model / "pspnet_float32.tflite").read_bytes())
    (tmp_path / "a.tflite").write_bytes(tflite[:30_000])
    with zipfile.ZipFile(tmp_path / "b.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("metadata.json", "{}")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "saved_model.pb").write_bytes(b"nonsense")
    says = {"a.tflite": "cannot be loaded", "b.keras": "a .keras file with the", "c": "is damaged"}
    for name, said in says.items():
        line = fails(capfd, "evaluate", tmp_path / name, "--dataset", "scenes")
        assert name in line and (said in line or "ended the process" in line)


def test_models_that_are_not_ours(model, tmp_path, capfd):
    import tensorflow as tf

    image = keras.Input((8, 8, 3))
    dense = keras.Model(image, keras.layers.Dense(2, name="main")(image))
    dense.save(tmp_path / "other.keras")
    dense.export(tmp_path / "other", verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "other"))
    (tmp_path / "other.tflite").write_bytes(converter.convert())
    for name in ("other.keras", "other", "other.tflite"):
        line = fails(capfd, "evaluate", tmp_path / name, "--dataset", "scenes")
        assert "build_pspnet" in line or "export_model" in line


def test_settings_add_up_and_long_paths_are_one_line(model, tmp_path, capfd):
    out = tmp_path / "run"
    twice = ["--set", "dataset=nowhere", "--set", "epochs=1"]
    assert "nowhere" in fails(capfd, "train", "scenes_tiny", "--out", out, *twice)
    assert "too long" in fails(capfd, "evaluate", "x" * 300, "--dataset", "scenes")
    assert "leave --data-dir out" in fails(
        capfd, "evaluate", model / "model.keras", "--dataset", "scenes", "--data-dir", tmp_path
    )


def test_a_strip_of_a_picture_makes_a_strip_of_an_overlay(model, tmp_path):
    Image.fromarray(np.zeros((2, 1500, 3), np.uint8)).save(tmp_path / "strip.png")
    command = ["predict", str(model / "pspnet_float32.tflite"), str(tmp_path / "strip.png")]
    assert cli.main([*command, "--out", str(tmp_path / "out")]) == 0
    assert max(Image.open(tmp_path / "out" / "strip_overlay.png").size) < 3000


def too_large_for_numpy(_):
    np.empty((2**40, 2**20), np.uint8)


def too_large_for_tensorflow(_):
    raise tf.errors.ResourceExhaustedError(None, None, "OOM\nin a kernel")


@pytest.mark.parametrize("call", [too_large_for_numpy, too_large_for_tensorflow])
def test_too_little_memory_is_one_line(capsys, call):
    assert cli.run("program", call, None) == 2
    assert capsys.readouterr().err.startswith("program: not enough memory; take smaller pictures")


def test_export_wants_a_keras_file(model, tmp_path, capfd):
    for name in ("saved_model", "pspnet_float32.tflite"):
        line = fails(capfd, "export", model / name, "--out", tmp_path / "out")
        assert "expected a .keras file" in line


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--formats", "float32,float64"], "float64"),
        (["--formats", "float32 float64"], "float64"),
        (["--formats", ","], "no formats"),
        (["--output", "colors"], "colors"),
        (["--size", "0", "10"], "size"),
        (["--labels", "nobody"], "nobody"),
        (["--labels", "camvid"], "11 labels"),
        (["--calibration", "nowhere"], "nowhere"),
        (["--min-agreement", "2"], "min_agreement"),
    ],
)
def test_wrong_export_requests(model, tmp_path, capfd, arguments, message):
    out = tmp_path / "out"
    assert message in fails(capfd, "export", model / "model.keras", "--out", out, *arguments)
    assert not out.exists()


def test_formats_take_commas(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["export", "m.keras", "--out", "o", "--formats", "int8", "float16"])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert "unrecognized arguments: float16; --formats takes its names with commas" in error


@pytest.mark.parametrize("picture", ["missing", "text", "truncated", "empty folder"])
@pytest.mark.parametrize("command", ["predict", "export"])
def test_wrong_pictures(model, tmp_path, capfd, command, picture):
    folder = tmp_path / "pictures"
    folder.mkdir()
    file = folder / "picture.png"
    if picture == "text":
        file.write_text("no picture")
    elif picture == "truncated":
        Image.fromarray(scenes.scene(0)[0]).save(file)
        file.write_bytes(file.read_bytes()[:5000])
    target = file if picture == "missing" else folder
    given = [target] if command == "predict" else ["--calibration", target]
    line = fails(capfd, command, model / "model.keras", *given, "--out", tmp_path / "out")
    assert str(target) in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "trouble", ["mask of another size", "label out of range", "truncated PNG", "no mask"]
)
@pytest.mark.parametrize("command", ["evaluate", "train"])
def test_wrong_masks(model, tmp_path, capfd, command, trouble, data):
    split = "val" if command == "evaluate" else "train"
    file = data / "masks" / split / "1.png"
    mask = np.array(Image.open(file))
    if trouble == "mask of another size":
        Image.fromarray(mask[:-1]).save(file)
    elif trouble == "label out of range":
        mask[0, 0] = 77
        Image.fromarray(mask).save(file)
    elif trouble == "no mask":
        file.unlink()
        file = data / "images" / split / "1.png"
    else:
        file.write_bytes(file.read_bytes()[:150])
    out = tmp_path / "out"
    arguments = {
        "evaluate": [model / "model.keras", "--dataset", "folder", "--json", out / "scores.json"],
        "train": ["scenes_tiny", "--out", out, "--set", "dataset=folder", "batch_size=2"],
    }[command]
    line = fails(capfd, command, *arguments, "--data-dir", data)
    assert str(file) in line
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--dataset", "imagenet"], "imagenet"),
        (["--dataset", "scenes", "--split", "test"], "test"),
        (["--dataset", "folder"], "--data-dir"),
        (["--dataset", "camvid", "--data-dir", "nowhere"], "nowhere"),
    ],
)
def test_wrong_datasets(model, capfd, arguments, message):
    assert message in fails(capfd, "evaluate", model / "model.keras", *arguments)


def test_a_model_of_other_classes(model, tmp_path, capfd, data):
    (data / "labels.json").write_text('{"names": ["a", "b"]}')
    command = ["evaluate", model / "model.keras", "--dataset", "folder", "--data-dir", data]
    assert "12 classes" in fails(capfd, *command)


@pytest.mark.parametrize("command", ["train", "predict", "export", "evaluate", "demo"])
def test_an_output_that_cannot_be_written(model, tmp_path, capfd, command):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    picture = tmp_path / "picture.png"
    Image.fromarray(scenes.scene(0)[0]).save(picture)
    arguments = {
        "train": ["scenes_tiny", "--out", blocked / "run"],
        "predict": [model / "model.keras", picture, "--out", blocked],
        "export": [model / "model.keras", "--out", blocked / "out"],
        "evaluate": [model / "model.keras", "--dataset", "scenes", "--json", blocked / "a.json"],
        "demo": ["--out", blocked],
    }[command]
    assert str(blocked) in fails(capfd, command, *arguments)
    assert blocked.read_text() == "in the way"


def test_training_mistakes(tmp_path, capfd):
    out = tmp_path / "run"
    assert "ade20k" in fails(capfd, "train", "ade20k", "--out", out)
    assert "epochs" in fails(capfd, "train", "scenes", "--out", out, "--set", "epochs=x")
    huge = ["--set", "batch_size=5000"]
    assert "batch_size=5000" in fails(capfd, "train", "scenes_tiny", "--out", out, *huge)
    assert not out.exists()
    out.mkdir()
    (out / "recipe.json").write_text("{}")
    assert "--resume" in fails(capfd, "train", "scenes", "--out", out)
    (out / "recipe.json").write_text("not json")
    assert "recipe.json" in fails(capfd, "train", "scenes", "--out", out, "--resume")
    (out / "recipe.json").unlink()
    (out / "last.keras").write_text("no checkpoint")
    assert "last.keras" in fails(capfd, "train", "scenes", "--out", out, "--resume")
