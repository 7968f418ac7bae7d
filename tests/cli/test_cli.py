"""The commands as a user types them: what they print, what they write, what they refuse."""

import json
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_pspnet
from keras_pspnet import cli, scenes
from keras_pspnet.labels import SCENES
from keras_pspnet.network.main_head import set_labels


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """One tiny model in every form: model.keras, saved_model/, pspnet_float32.tflite."""
    folder = tmp_path_factory.mktemp("model")
    keras.utils.set_random_seed(3)
    model = keras_pspnet.build_pspnet(
        12, input_shape=(49, 49, 3), backbone="resnet14_narrow", channels=8
    )
    set_labels(model, SCENES)
    model.save(folder / "model.keras")
    assert cli.main(["export", str(folder / "model.keras"), "--out", str(folder)]) == 0
    return folder


def dataset(folder, count=2, size=(60, 80)):
    """A dataset in the folder layout, with scenes as its pictures."""
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True)
        for index in range(count):
            image, mask = scenes.scene(index, split=split, size=size)
            Image.fromarray(image).save(folder / "images" / split / f"{index}.png")
            Image.fromarray(mask).save(folder / "masks" / split / f"{index}.png")
    (folder / "labels.json").write_text(json.dumps(SCENES.to_config()))
    return folder


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


@pytest.mark.parametrize("name", ["model.keras", "saved_model", "pspnet_float32.tflite"])
def test_evaluate_scores_every_kind_of_model_the_same(model, tmp_path, capsys, name):
    data = dataset(tmp_path / "data")
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


def test_predict_writes_class_ids_and_overlays(model, tmp_path, capsys):
    data = dataset(tmp_path / "data")
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


def test_train_on_a_folder(tmp_path):
    data = dataset(tmp_path / "data")
    settings = ["dataset=folder", "crop=49,49", "channels=8", "batch_size=2", "epochs=1"]
    command = ["train", "scenes_tiny", "--data-dir", str(data), "--out", str(tmp_path / "run")]
    assert cli.main([*command, "--set", *settings]) == 0
    assert (tmp_path / "run" / "best.keras").exists()


# --- what is wrong gets one line, exit code 2, and leaves nothing ---


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
    for name in ("a.tflite", "b.keras", "c"):
        line = fails(capfd, "evaluate", tmp_path / name, "--dataset", "scenes")
        assert name in line and "cannot be loaded" in line


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
def test_wrong_masks(model, tmp_path, capfd, command, trouble):
    data = dataset(tmp_path / "data")
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


def test_a_model_of_other_classes(model, tmp_path, capfd):
    data = dataset(tmp_path / "data")
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
