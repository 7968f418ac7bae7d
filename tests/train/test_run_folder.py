"""What a training may not do to a run folder, and with which data a run is resumed."""

import json
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from keras_pspnet import cli
from keras_pspnet.cli import commands
from keras_pspnet.errors import UserError
from keras_pspnet.machine import LOCK
from keras_pspnet.train import recipes
from keras_pspnet.train.run_folder import check_run, is_resumable, moved_data
from keras_pspnet.train.splits import fingerprint, open_splits
from keras_pspnet.train.state import STATE

RECIPE = recipes.recipe("scenes_tiny", dataset="folder", batch_size=2, crop=(49, 49), epochs=3)


@pytest.fixture
def data(folder):
    """The folder of tests/conftest.py with val as train, in a folder of its own."""
    data = folder / "data"
    for kind in ("images", "masks"):
        shutil.copytree(folder / kind / "train", data / kind / "train")
        shutil.copytree(folder / kind / "train", data / kind / "val")
    return data


def now(data, recipe=RECIPE):
    return fingerprint(*open_splits(recipe, data), data)


ROW = dict.fromkeys(("epoch", "loss", "val_loss", "main_mIoU", "val_main_mIoU", "learning_rate"), 1)


def checkpoint(file, **state):
    """A file with a training state; no test here loads its model."""
    file.parent.mkdir(exist_ok=True)
    state = {"recipe": RECIPE.to_config(), "history": [], "best": None, "step": 1, **state}
    state |= {"coarse": False, "seeds": [], "metrics": []}
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(STATE, json.dumps(state))


def add_pair(data, split, name, label):
    Image.new("RGB", (11, 9)).save(data / "images" / split / f"{name}.png")
    Image.fromarray(np.full((9, 11), label, np.uint8)).save(data / "masks" / split / f"{name}.png")


def more_pictures(data):
    add_pair(data, "train", "q", 0)
    return "its run has 5 pictures in train, the data now 6"


def fewer_in_val(data):
    for kind in ("images", "masks"):
        (data / kind / "val" / "p4.png").unlink()
    return "its run has 5 pictures in val, the data now 4"


def another_name(data):
    for kind in ("images", "masks"):
        (data / kind / "train" / "p0.png").rename(data / kind / "train" / "q0.png")
    return "the pictures in train have other names"


def new_class(data):
    Image.fromarray(np.full((9, 11), 7, np.uint8)).save(data / "masks" / "train" / "p0.png")
    return "its run has 3 classes, the data now 4"


def another_id(data):
    for split in ("train", "val"):
        for file in (data / "masks" / split).iterdir():
            mask = np.array(Image.open(file))
            mask[mask == 2] = 7
            Image.fromarray(mask).save(file)
    return "class 2 of its run is 'class_2', of the data now 'class_7'"


def named(data):
    (data / "labels.json").write_text('{"names": ["road", "car", "sky"]}')
    return "class 0 of its run is 'class_0', of the data now 'road'"


def repainted(data):
    """A mask of as many bytes: only its pixels differ."""
    file = data / "masks" / "train" / "p4.png"
    before, mask = file.stat().st_size, np.array(Image.open(file))
    mask[1:] = np.roll(mask, 1)[1:] + 1
    mask[-1, -1] = 1
    for level in range(10):
        Image.fromarray(mask).save(file, compress_level=level)
        if file.stat().st_size == before:
            break
    return f"{file} has changed since its run began"


def other_pictures(data):
    for name in ("p3", "p1"):
        Image.new("RGB", (11, 9), "red").save(data / "images" / "val" / f"{name}.png")
    return f"{data / 'images' / 'val' / 'p1.png'} and 1 more have changed since its run began"


CHANGES = [more_pictures, fewer_in_val, another_name, new_class, another_id, named, repainted]
CHANGES += [other_pictures]


@pytest.mark.parametrize("change", CHANGES)
def test_other_data_are_not_resumed_with(data, tmp_path, refused, change):
    out = tmp_path / "run"
    checkpoint(out / "last.keras", data=now(data))
    assert is_resumable(RECIPE, out, now(data))
    says = change(data)
    message = refused(is_resumable, RECIPE, out, now(data))
    assert message.startswith(f"{out}: {says}") and "train anew with another --out" in message


def test_a_change_in_the_middle_of_an_uncompressed_picture_is_noticed(data, tmp_path, refused):
    file = data / "images" / "train" / "p0.bmp"
    (file.with_suffix(".png")).unlink()
    pixels = np.zeros((60, 80, 3), np.uint8)
    Image.fromarray(pixels).save(file)
    checkpoint(tmp_path / "run" / "last.keras", data=now(data))
    pixels[-5] = 9  # rows are stored from the last to the first
    Image.fromarray(pixels).save(file)
    message = refused(is_resumable, RECIPE, tmp_path / "run", now(data))
    assert f"{file} has changed since its run began" in message


def test_a_checkpoint_without_marks_is_resumed(data, tmp_path):
    """Of a run that began before they were kept."""
    before = json.loads(json.dumps(now(data)))
    for split in ("train", "val"):
        del before[split]["marks"]
    del before["uncovered"]
    checkpoint(tmp_path / "run" / "last.keras", data=before)
    assert is_resumable(RECIPE, tmp_path / "run", now(data))


def test_the_command_says_so_before_tensorflow(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        commands.quiet, "quiet_tensorflow", lambda: pytest.fail("TensorFlow comes later")
    )
    checkpoint(tmp_path / "run" / "last.keras", data=now(data))
    says = more_pictures(data)
    changes = ["dataset=folder", "batch_size=2", "crop=49,49", "epochs=3"]
    command = ["train", "scenes_tiny", "--data-dir", str(data), "--out", str(tmp_path / "run")]
    assert cli.main([*command, "--resume", "--set", *changes]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_the_same_data_in_another_folder_are_resumed_with_and_noted(data, tmp_path):
    out, moved = tmp_path / "run", tmp_path / "moved"
    before = now(data)
    checkpoint(out / "last.keras", data=before)
    (out / "recipe.json").write_text(json.dumps({**RECIPE.to_config(), "data_dir": "../data"}))
    assert moved_data(out, data) is None
    shutil.copytree(data, moved, copy_function=shutil.copyfile)  # with other times
    assert now(moved) == before and is_resumable(RECIPE, out, now(moved))
    note = moved_data(out, moved)
    assert note == (
        f"note: the run began with {data}; {moved} has pictures of the same names, "
        "and the same classes"
    )


def test_pictures_that_a_run_does_not_use_may_come(data):
    few = RECIPE.change(train_images=4)
    before = now(data, few)
    more_pictures(data)  # sorted behind the first four
    assert now(data, few) == before


def test_a_checkpoint_of_an_earlier_version_says_so(data, tmp_path, refused):
    checkpoint(tmp_path / "run" / "last.keras")
    message = refused(is_resumable, RECIPE, tmp_path / "run", now(data))
    assert "last.keras: of an earlier version of keras_pspnet" in message


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("beside", [None, "recipe.json"])
def test_a_best_keras_of_another_run_is_not_replaced(tmp_path, refused, resume, beside):
    out = tmp_path / "run"
    checkpoint(out / "best.keras", history=[ROW, ROW], best=0.5)
    if beside:
        (out / beside).write_text(json.dumps({**RECIPE.to_config(), "data_dir": None}))
    message = refused(check_run, RECIPE, out, resume)
    if beside and not resume:
        assert "holds a run already" in message
    else:
        assert "best.keras: a training here would replace it" in message


def test_a_file_that_is_only_called_best_keras_is_not_replaced_either(tmp_path, refused):
    (tmp_path / "best.keras").write_bytes(b"a colleague's")
    (tmp_path / "recipe.json").write_text(json.dumps(RECIPE.to_config()))
    for resume in (False, True):
        refused(check_run, RECIPE, tmp_path, resume)


def test_a_run_killed_at_the_end_of_its_first_epoch_starts_again(data, tmp_path, refused):
    """It wrote best.keras and recipe.json; last.keras would have come next."""
    out = tmp_path / "run"
    checkpoint(out / "best.keras", history=[ROW], best=0.5, data=now(data))
    (out / "recipe.json").write_text(json.dumps({**RECIPE.to_config(), "data_dir": None}))
    check_run(RECIPE, out, True)
    assert is_resumable(RECIPE, out, now(data)) is False
    more_pictures(data)
    assert "6" in refused(is_resumable, RECIPE, out, now(data))


def test_a_folder_with_nothing_but_the_same_recipe_is_taken(data, tmp_path, refused):
    """A run was killed, or failed, before its first checkpoint."""
    file = tmp_path / "run" / "recipe.json"
    file.parent.mkdir()
    file.write_text(json.dumps({**RECIPE.to_config(), "data_dir": None}))
    for name in (".last.keras.1.partial", LOCK, "survey.json"):
        (file.parent / name).touch()
    for resume in (False, True):
        check_run(RECIPE, file.parent, resume)
    message = refused(check_run, RECIPE.change(epochs=9), file.parent, False)
    assert "its run has epochs=3, not 9" in message
    (file.parent / "history.csv").touch()
    assert "holds a run already" in refused(check_run, RECIPE, file.parent, False)
    (file.parent / "history.csv").unlink()
    file.write_text('{"flour": 500}')
    assert "holds a run already" in refused(check_run, RECIPE, file.parent, False)


def test_any_error_before_the_first_checkpoint_leaves_nothing(data, tmp_path, monkeypatch):
    from keras_pspnet.train.run import Run, fit

    def fail(self):
        raise RuntimeError("a callback's")

    monkeypatch.setattr(Run, "begin", lambda *_: None)
    monkeypatch.setattr(Run, "train", fail)
    with pytest.raises(RuntimeError):
        fit(RECIPE, tmp_path / "run", data_dir=data)
    assert not (tmp_path / "run").exists()


def test_a_training_that_fails_in_its_first_epoch_deletes_what_it_wrote_alone(
    data, tmp_path, monkeypatch
):
    from keras_pspnet.train.run import Run, fit

    def fail(self):
        raise UserError("diverged")

    out = tmp_path / "run"
    monkeypatch.setattr(Run, "begin", lambda *_: None)
    monkeypatch.setattr(Run, "train", fail)
    with pytest.raises(UserError, match="diverged"):
        fit(RECIPE, out, data_dir=data)
    assert not out.exists()
    checkpoint(out / "best.keras", history=[ROW], best=0.5, data=now(data))
    (out / "recipe.json").write_text(json.dumps({**RECIPE.to_config(), "data_dir": None}))
    with pytest.raises(UserError, match="diverged"):
        fit(RECIPE, out, data_dir=data, resume=True)
    assert {file.name for file in out.iterdir()} == {"best.keras", "recipe.json"}


# --- what a training says of its pictures ---


def said(monkeypatch, capsys, data, out, **changes):
    """What `fit` prints before the first step."""
    from keras_pspnet.train.run import Run, fit

    monkeypatch.setattr(Run, "begin", lambda *_: None)
    monkeypatch.setattr(Run, "train", lambda self: None)
    fit(RECIPE.change(**changes), out, data_dir=data)
    return capsys.readouterr().out


def test_validation_on_crops_of_larger_pictures_is_said(data, tmp_path, monkeypatch, capsys):
    for split in ("train", "val"):
        Image.new("RGB", (60, 40)).save(data / "images" / split / "p0.png")
        Image.new("L", (60, 40)).save(data / "masks" / split / "p0.png")
    text = said(monkeypatch, capsys, data, tmp_path / "a")
    assert text.count("validation on centre crops of 49x49 of larger pictures") == 1
    assert "--crop 49 49" in text
    for number, changes in enumerate(({"resize_to_crop": True}, {"crop": (40, 60)})):
        assert "centre crops" not in said(
            monkeypatch, capsys, data, tmp_path / f"{number}", **changes
        )


def test_the_notes_of_the_data_are_printed_once(data, tmp_path, monkeypatch, capsys):
    shutil.rmtree(data / "images" / "val")
    shutil.rmtree(data / "masks" / "val")
    text = said(monkeypatch, capsys, data, tmp_path / "run")
    assert text.count("no val split in") == 1


def test_pictures_that_exif_turns_alone_are_counted(data, tmp_path, monkeypatch, capsys):
    for split in ("train", "val"):
        exif = Image.Exif()
        exif[0x0112] = 3  # upside down: the sizes still fit
        Image.new("RGB", (11, 9)).save(data / "images" / split / "p1.png", exif=exif)
    text = said(monkeypatch, capsys, data, tmp_path / "run")
    assert text.count("warning: 2 pictures are turned by their EXIF") == 1


def test_a_field_that_a_run_lacks_has_its_default(data, tmp_path, refused):
    """The run is of a version before the field."""
    before = RECIPE.to_config()
    del before["precision"]
    checkpoint(tmp_path / "last.keras", recipe=before, data=now(data))
    assert is_resumable(RECIPE, tmp_path, now(data))
    half = RECIPE.change(precision="bfloat16")
    message = refused(is_resumable, half, tmp_path, now(data))
    assert "its run has precision=float32, not bfloat16" in message
