"""`evaluate`: whose classes are scored, at which size, and the table of pictures."""

import csv
import json
import shutil

import keras
import numpy as np
import pytest
from PIL import Image

import keras_pspnet
from keras_pspnet import cli
from keras_pspnet.cli import commands
from keras_pspnet.inference.model_facts import Sizes, crop_notes
from keras_pspnet.inference.predictor import Predictor
from keras_pspnet.inference.segment import Protocol
from keras_pspnet.labels import SCENES, LabelSet
from keras_pspnet.network.main_head import set_labels

OTHER = [*SCENES.names[:3], "dragon", *SCENES.names[4:]]


@pytest.fixture
def no_tensorflow(monkeypatch):
    monkeypatch.setattr(
        commands.quiet, "quiet_tensorflow", lambda: pytest.fail("TensorFlow comes later")
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Makes models of given labels; None for three classes without names."""
    folder = tmp_path_factory.mktemp("small")

    def make(labels):
        file = folder / f"{hash(str(labels))}.keras"
        if not file.exists():
            keras.utils.set_random_seed(1)
            network = keras_pspnet.build_pspnet(
                len(labels or "abc"),
                input_shape=(49, 49, 3),
                backbone="resnet14_narrow",
                channels=8,
            )
            if labels:
                set_labels(network, labels)
            network.save(file)
        return file

    return make


@pytest.fixture
def unnamed(tmp_path):
    """Makes a folder without labels.json: one picture of val, whose mask holds the given values."""

    def make(*values):
        data = tmp_path / "unnamed"
        rng = np.random.default_rng(0)
        for kind, array in (
            ("images", rng.integers(0, 256, (40, 60, 3), np.uint8)),
            ("masks", rng.choice(np.array(values, np.uint8), (40, 60))),
        ):
            (data / kind / "val").mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(data / kind / "val" / "p.png")
        return data

    return make


def evaluate(model, data, *options):
    command = ["evaluate", model, "--dataset", "folder", "--data-dir", data, *options]
    return cli.main([str(word) for word in command])


def rename(data, names):
    (data / "labels.json").write_text(json.dumps({"names": list(names)}))


# --- whose classes ---


@pytest.mark.parametrize("name", ["model.keras", "saved_model", "pspnet_float32.tflite"])
def test_other_names_are_refused_before_tensorflow(model, data, capsys, no_tensorflow, name):
    rename(data, OTHER)
    assert evaluate(model / name, data) == 2
    error = capsys.readouterr().err
    difference = f"class 3 is '{SCENES.names[3]}' in the model and 'dragon' in the dataset"
    assert difference in error and "--labels NAME|FILE" in error and error.count("\n") == 1
    rename(data, SCENES.names[::-1])
    assert evaluate(model / name, data) == 2
    assert "the same names in another order" in capsys.readouterr().err


def test_labels_says_what_the_models_classes_are_called(model, network, data, tmp_path):
    rename(data, OTHER)
    options = ["--labels", data / "labels.json", "--json", tmp_path / "scores.json"]
    assert evaluate(model / "model.keras", data, *options) == 0
    assert list(json.loads((tmp_path / "scores.json").read_text())["classes"]) == OTHER


def test_labels_of_another_number_are_refused(model, data, capsys, no_tensorflow):
    assert evaluate(model / "model.keras", data, "--labels", "camvid") == 2
    assert "the model has 12 classes, the labels are 11" in capsys.readouterr().err
    command = ["predict", model / "model.keras", data / "images" / "val", "--labels", "camvid"]
    assert cli.main([*map(str, command), "--out", str(data / "out")]) == 2
    assert "the model has 12 classes, the labels are 11" in capsys.readouterr().err


FOUND = LabelSet(("class_0", "class_2", "class_7"), ids={0: 0, 2: 1, 7: 2})


def test_an_unnamed_folder_is_decoded_with_the_models_own_ids(small, unnamed, tmp_path, capsys):
    """By the ids of this folder alone, 7 would be class 1 of 2."""
    data, file = unnamed(0, 7, 255), tmp_path / "scores.json"
    assert evaluate(small(FOUND), data, "--json", file) == 0
    scores = json.loads(file.read_text())
    found = keras_pspnet.segment(
        keras_pspnet.load_model(small(FOUND)), data / "images" / "val" / "p.png"
    )
    mask = np.asarray(Image.open(data / "masks" / "val" / "p.png"))
    assert list(scores["classes"]) == list(FOUND.names)
    for name, value, label in zip(FOUND.names, (0, 2, 7), range(3)):
        true, guessed = mask == value, (found == label) & (mask != 255)
        union = (true | guessed).sum()
        expected = (true & guessed).sum() / union if union else None
        assert scores["classes"][name] == (
            expected if expected is None else pytest.approx(expected)
        )
    assert evaluate(small(FOUND), unnamed(0, 1, 2)) == 2
    error = capsys.readouterr().err
    assert "p.png: label" in error and "expected one of [0, 2, 7] or 255" in error


OBJECT = ("background", "object")


@pytest.mark.parametrize(
    "labels, value",
    [
        (LabelSet(OBJECT, ids={0: 0, 1: 1}), 255),
        (LabelSet(OBJECT, ids={0: 0, 255: 1}, ignore=254), 1),
        (LabelSet(("soil", "leaf")), 255),
    ],
)
def test_an_object_drawn_with_1_or_255_is_an_object(small, unnamed, tmp_path, labels, value):
    """To a model of masks of 0 and 1, 255 would be void: the background alone would be scored."""
    file = tmp_path / "scores.csv"
    assert evaluate(small(labels), unnamed(0, value), "--csv", file) == 0
    with open(file, newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["pixels"], row["void"]) == ("2400", "0")


def test_a_model_without_names_takes_as_many_classes(small, unnamed, capsys):
    assert evaluate(small(None), unnamed(0, 2, 7)) == 0
    capsys.readouterr()
    assert evaluate(small(None), unnamed(0, 2, 7, 9)) == 2
    assert "the model has 3 classes, the labels are 4" in capsys.readouterr().err


# --- at which size ---


@pytest.mark.parametrize(
    "options, says",
    [
        ([], "whole pictures resized to 49x49"),
        (["--flip"], "whole pictures resized to 49x49, and mirrored"),
        (["--crop", "49", "49"], "windows of 49x49, pictures at their own size"),
        (
            ["--crop", "49", "49", "--base", "70", "--scales", "0.5,1"],
            "windows of 49x49, long side 70, at scales 0.5, 1",
        ),
    ],
)
def test_the_size_is_said(model, network, data, tmp_path, capsys, options, says):
    assert evaluate(model / "model.keras", data, *options) == 0
    assert says in capsys.readouterr().out.splitlines()
    command = ["predict", model / "model.keras", data / "images" / "val", "--out", tmp_path / "out"]
    assert cli.main([*map(str, command), *options]) == 0
    assert says in capsys.readouterr().out.splitlines()


def test_predict_takes_a_sliding_window(model, network, data, tmp_path):
    picture, file = data / "images" / "val" / "0.png", model / "model.keras"
    command = ["predict", str(file), str(picture), "--out", str(tmp_path), "--crop", "49", "49"]
    assert cli.main(command) == 0
    expected = keras_pspnet.segment(network, picture, crop=(49, 49))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "0_classes.png")), expected)


def test_a_model_of_crops_that_sees_its_own_pictures_shrunk_gets_a_note(
    model, data, tmp_path, capsys
):
    run, note = tmp_path / "run", "--crop 49 49 shows them at the size of the training"
    run.mkdir()
    shutil.copy(model / "model.keras", run / "best.keras")
    recipe = {"dataset": "folder", "crop": [49, 49], "resize_to_crop": False, "data_dir": "../data"}
    network, seen = Predictor(None, "logits", SCENES, (49, 49)), Sizes()
    seen.height, seen.width = 49, 60

    def notes(name="folder", path=data, crop=None, **changes):
        (run / "recipe.json").write_text(json.dumps({**recipe, **changes}))
        return crop_notes(run / "best.keras", network, Protocol(crop), seen, (name, path))

    assert note in notes()[0]
    assert note in notes("camvid", "anywhere", dataset="camvid", data_dir="elsewhere")[0]
    assert not notes(crop=(49, 49))
    assert not notes(resize_to_crop=True)
    assert not notes("camvid")
    assert not notes(data_dir="../other") and not notes(data_dir=None)  # another folder
    (run / "recipe.json").write_text(json.dumps(recipe))
    assert evaluate(run / "best.keras", data) == 0
    assert capsys.readouterr().out.count(note) == 1


# --- the scores ---


def test_the_scores_are_printed_class_by_class(model, network, data, tmp_path, capsys):
    assert evaluate(model / "model.keras", data, "--json", tmp_path / "scores.json") == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["class", "IoU", "precision", "recall", "F1"] in lines
    for name, row in scores["per_class"].items():
        values = ["-" if value is None else f"{value:.4f}" for value in row.values()]
        assert [*name.split(), *(["absent"] if row["IoU"] is None else values)] in lines
    means = [scores[key] for key in ("mIoU", "mean_precision", "mean_recall", "mean_F1")]
    assert ["mean", *(f"{value:.4f}" for value in means)] in lines


def test_the_iou_of_contours_on_demand(model, network, data, tmp_path, capsys):
    file, page = tmp_path / "scores.json", tmp_path / "page"
    options = ["--json", file, "--report", page]
    assert evaluate(model / "model.keras", data, *options) == 0
    assert "boundary_mIoU" not in json.loads(file.read_text())
    assert evaluate(model / "model.keras", data, *options, "--boundary") == 0
    scores = json.loads(file.read_text())
    ious = [row["boundary_IoU"] for row in scores["per_class"].values()]
    assert scores["boundary_mIoU"] == pytest.approx(np.mean([x for x in ious if x is not None]))
    assert "boundary_IoU" in capsys.readouterr().out
    assert "boundary IoU" in (page / "index.html").read_text()


def test_a_line_for_each_picture(model, network, data, tmp_path):
    mask = np.array(Image.open(data / "masks" / "val" / "0.png"))
    mask[:7] = 255
    Image.fromarray(mask).save(data / "masks" / "val" / "0.png")
    Image.fromarray(mask * 0 + 255).save(data / "masks" / "val" / "1.png")
    file = tmp_path / "new" / "pictures.csv"
    assert evaluate(model / "model.keras", data, "--csv", file) == 0
    with open(file, newline="") as stream:
        first, second = csv.DictReader(stream)
    columns = ["name", "mIoU", "pixel_accuracy", "pixels", "void"]
    assert list(first) == [*columns, *(f"IoU {name}" for name in SCENES.names)]
    picture = data / "images" / "val" / "0.png"
    found = keras_pspnet.segment(network, picture)
    valid, ious = mask != 255, []
    for label, name in enumerate(SCENES.names):
        true, guessed = (mask == label) & valid, (found == label) & valid
        if (true | guessed).any():
            ious.append((true & guessed).sum() / (true | guessed).sum())
            assert float(first[f"IoU {name}"]) == pytest.approx(ious[-1])
        else:
            assert first[f"IoU {name}"] == ""
    assert first["name"] == str(picture)
    assert float(first["mIoU"]) == pytest.approx(np.mean(ious))
    assert float(first["pixel_accuracy"]) == pytest.approx((mask == found)[valid].mean())
    assert (int(first["pixels"]), int(first["void"])) == (valid.sum(), (~valid).sum())
    assert [second[column] for column in columns[1:]] == ["", "", "0", str(mask.size)]
    assert not any(second[f"IoU {name}"] for name in SCENES.names)


@pytest.mark.parametrize(
    "options, says",
    [
        (["--csv", "."], ".: is a folder; --csv takes the name of a file"),
        (["--csv", "a", "--json", "a"], "a: is written by --csv; give --json another name"),
        (
            ["--csv", "p/index.html", "--report", "p"],
            "p/index.html: is written by --report; give --csv another name",
        ),
    ],
)
def test_outputs_in_each_others_way(
    model, data, tmp_path, capsys, monkeypatch, no_tensorflow, options, says
):
    monkeypatch.chdir(tmp_path)
    assert evaluate(model / "model.keras", data, *options) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "a").exists() and not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    "names, says",
    [
        ([], ""),
        (["notes.txt"], "; 1 file that is no picture passed over"),
        (["a.txt", "b.mov", ".hidden", "dir/"], "; 2 files that are no pictures passed over"),
        (
            ["a.HEIC", "b.mov"],
            "; 2 files that are not read (as a.HEIC: convert it to JPEG or PNG) passed over",
        ),
    ],
)
def test_predict_says_what_it_passed_over(model, data, tmp_path, capsys, names, says):
    folder = data / "images" / "val"
    for name in names:
        (folder / name).mkdir() if name.endswith("/") else (folder / name).touch()
    file = model / "pspnet_float32.tflite"
    assert cli.main(["predict", str(file), str(folder), "--out", str(tmp_path / "out")]) == 0
    end = f"2 pictures, as _classes.png and _overlay.png{says}"
    assert capsys.readouterr().out.splitlines()[-2].endswith(end)
