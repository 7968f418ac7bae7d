"""`keras-pspnet look`: what it recognises, and the labels.json that it writes."""

import json
import re

import numpy as np
import pytest
from annotation_kinds import KINDS, masks_of, picture, save, truth

from keras_pspnet import cli
from keras_pspnet.data.datasets import open_source
from keras_pspnet.labels import load_labels


def run(capfd, *arguments):
    """(exit code, lines of stdout, lines of stderr) of a command."""
    capfd.readouterr()
    code = cli.main([str(argument) for argument in arguments])
    captured = capfd.readouterr()
    return code, captured.out.splitlines(), captured.err.splitlines()


def written(capfd, tmp_path, *more):
    """The labels.json that `look` writes."""
    command = ["look", "--dataset", "folder", "--data-dir", tmp_path, "--write-labels", *more]
    code, lines, errors = run(capfd, *command)
    assert code == 0 and not errors and any("labels.json: the" in line for line in lines)
    code, _, errors = run(capfd, *command)
    assert code == 2 and "labels.json: is there already" in errors[0]
    return json.loads((tmp_path / "labels.json").read_text())


@pytest.mark.parametrize("kind", ["ids", "palette", "CVAT", "Roboflow", "LabelMe in splits",
                                  "YOLO train/images"])  # fmt: skip
def test_labels_that_look_writes_read_the_same(tmp_path, capfd, kind):
    KINDS[kind](tmp_path)
    (tmp_path / "labels.json").unlink(missing_ok=True)
    before = [open_source("folder", tmp_path, split=split) for split in ("train", "val")]
    masks = [source.read(0)[1] for source in before]
    config = written(capfd, tmp_path)
    after = [open_source("folder", tmp_path, split=split) for split in ("train", "val")]
    assert all(source.named for source in after) and set(config) == {"names", "colors", "ignore"}
    for one, other, mask in zip(before, after, masks):
        assert one.labels.names == other.labels.names and one.labels.colors == other.labels.colors
        assert np.array_equal(other.read(0)[1], mask)


@pytest.mark.parametrize("values", [(0, 255), (0, 3, 9), (4, 255)])
def test_labels_that_look_writes_hold_the_values_of_the_masks(tmp_path, capfd, values):
    masks_of(lambda mask: np.resize(values, 3).astype(np.uint8)[mask])(tmp_path)
    if values == (4, 255):
        code, _, errors = run(capfd, "look", "--dataset", "folder", "--data-dir", tmp_path)
        assert code == 2 and "expected two classes" in errors[0]
        return
    config = written(capfd, tmp_path)
    assert config["ids"] == {str(value): index for index, value in enumerate(values)}
    expected = np.resize(range(len(values)), 3).astype(np.uint8)[truth(2)]
    assert np.array_equal(open_source("folder", tmp_path, split="val").read(0)[1], expected)


def test_void_outside_of_polygons_is_written_down(tmp_path, capfd):
    KINDS["Roboflow"](tmp_path)
    config = written(capfd, tmp_path, "--uncovered", "void")
    assert config["uncovered"] == "void" and config["names"] == ["leaf", "bug"]
    mask = open_source("folder", tmp_path, split="val").read(0)[1]
    assert np.array_equal(mask, np.array([255, 0, 1], np.uint8)[truth(2)])
    assert load_labels(str(tmp_path / "labels.json")).names == ("leaf", "bug")


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--dataset", "scenes", "--write-labels"], "--write-labels is for --dataset folder"),
        (["--dataset", "scenes", "--uncovered", "void"], "--uncovered is for --dataset folder"),
        (["--dataset", "folder", "--data-dir", ".", "--uncovered", "void"], "holds masks, which"),
    ],
)
def test_options_of_look_that_mean_nothing_get_one_line(
    tmp_path, monkeypatch, capfd, arguments, says
):
    masks_of(lambda mask: mask)(tmp_path)
    monkeypatch.chdir(tmp_path)
    code, lines, errors = run(capfd, "look", *arguments)
    assert code == 2 and not lines and len(errors) == 1 and says in errors[0]


def test_labels_are_not_written_where_something_is_bad(tmp_path, capfd):
    root = tmp_path
    masks_of(lambda mask: mask)(root)
    (root / "images/train/p0.png").unlink()
    command = ["look", "--dataset", "folder", "--data-dir", root, "--write-labels"]
    assert run(capfd, *command)[0] == 2 and not (root / "labels.json").exists()


def test_what_was_recognised_and_how_it_was_split_are_said(tmp_path, capfd):
    for number in range(10):
        save(picture(number)[:4, :5], tmp_path / f"images/clip{number // 2}_{number}.png")
        save(np.eye(4, 5, dtype=np.uint8), tmp_path / f"masks/clip{number // 2}_{number}.png")
    code, lines, _ = run(capfd, "look", "--dataset", "folder", "--data-dir", tmp_path)
    assert code == 0 and lines[0] == f"{tmp_path}: pictures and masks without splits"
    assert lines[1] == "the masks hold 0 and 1 alone: background and object"
    found = re.fullmatch(
        rf"no val split in {re.escape(str(tmp_path))}: (\d) of 10 pictures are val, chosen by the "
        "SHA-256 of their groups' names, 5 groups",
        lines[2],
    )
    assert f"val: {found[1]} good pair" in "\n".join(lines) and int(found[1]) % 2 == 0
