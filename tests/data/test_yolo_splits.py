"""YOLO's pictures are read from where data.yaml says."""

import shutil

import numpy as np
import pytest
from annotation_kinds import truth, write, yolo

from keras_pspnet.data.datasets import open_source, splits_of
from keras_pspnet.data.folder import read_layout

SPLIT_FIRST = yolo("{split}/images/{stem}{suffix}", "{split}/labels/{stem}.txt")
IMAGES_FIRST = yolo("images/{split}/{stem}{suffix}", "labels/{split}/{stem}.txt")
NAMES = "names: [leaf, bug]\n"


def made(root, build, text, **lists):
    """A data set in `root` / d, with this data.yaml and lists of pictures."""
    build(root / "d")
    write(root / "d/data.yaml", f"{text}\n{NAMES}")
    for name, lines in lists.items():
        write(root / f"d/{name}.txt", lines)
    return root / "d"


def found(root):
    """{split: numbers of its pictures}; each mask must be its picture's."""
    numbers = {}
    for split in splits_of("folder", root):
        source = open_source("folder", root, split=split).paired()
        numbers[split] = [int(name[-5]) for name in source.names]
        for number, (_, _, mask) in zip(numbers[split], source.examples()):
            np.testing.assert_array_equal(mask, truth(number))
    return numbers


def notes(root):
    return "\n".join(read_layout(root).notes)


USUAL = {"train": [0, 1], "val": [2]}
SWAPPED = {"train": [2], "val": [0, 1]}


@pytest.mark.parametrize(
    "build, text, expected",
    [
        # Roboflow's, one level too high.
        (SPLIT_FIRST, "train: ../train/images\nval: ../val/images", USUAL),
        (SPLIT_FIRST, "train: ../val/images\nval: ../train/images", SWAPPED),
        (SPLIT_FIRST, "train: val/images\nvalid: train/images", SWAPPED),
        (SPLIT_FIRST, "train: [val/images]\nvalidation: [./train/images/]", SWAPPED),
        (SPLIT_FIRST, "train: val\nval: train", SWAPPED),  # with what lies below
        (IMAGES_FIRST, "train: images/val\nval: images/train", SWAPPED),
        (IMAGES_FIRST, "path: images\ntrain: val\nval: train\ntest:", SWAPPED),
        (IMAGES_FIRST, "path: ../datasets/mine\ntrain: images/val\nval: images/train", SWAPPED),
        # Of another machine.
        (IMAGES_FIRST, "path: /x\ntrain: /x/d/images/val\nval: C:\\d\\images\\train", SWAPPED),
        (IMAGES_FIRST, "train: images/train", USUAL),  # val lies beside it
        (IMAGES_FIRST, "train: images/train\nval: images/val\ntest: images/val",
         USUAL | {"test": [2]}),
    ],
)  # fmt: skip
def test_splits_are_where_data_yaml_says(tmp_path, build, text, expected):
    root = made(tmp_path, build, text)
    assert found(root) == expected and "not there" not in notes(root)


def test_several_folders_of_one_split_may_hold_the_same_names(tmp_path):
    root = made(tmp_path, SPLIT_FIRST, "train: [a/images, b/images]\nval: val/images")
    shutil.copytree(root / "train", root / "a")
    (root / "train").rename(root / "b")
    assert found(root) == {"train": [0, 1, 0, 1], "val": [2]}


def test_lists_of_pictures(tmp_path):
    """Relative to the list, as CVAT writes them, and of another machine."""
    lines = "./images/val/p2.jpg\n\n  data/images/train/p0.jpg\n"
    root = made(
        tmp_path, IMAGES_FIRST, "train: train.txt\nval: lists/val.txt",
        train=lines, **{"lists/val": "/content/d/images/train/p1.jpg"},
    )  # fmt: skip
    assert found(root) == {"train": [2, 0], "val": [1]}
    write(root / "train.txt", "images/val/p2.jpg\nimages/train/p0.jpg\n")
    write(root / "lists/val.txt", "images/val/p2.jpg")
    assert found(root) == {"train": [2, 0], "val": [2]}
    assert "left out, as data.yaml lists none of them: 1 picture" in notes(root)
    assert "warning: 1 of 1 pictures of val are in train too" in notes(root)


def test_a_line_of_a_list_that_is_no_picture_is_named(tmp_path, refused):
    root = made(tmp_path, IMAGES_FIRST, "train: train.txt", train="images/train/p0.jpg\nq.jpg\n")
    source = open_source("folder", root, split="train")
    assert refused(source.paired) == f"{root}/train.txt, line 2: q.jpg is not there; correct it"
    write(root / "train.txt", "data.yaml")
    source = open_source("folder", root, split="train")
    assert "line 1: data.yaml is no picture" in refused(source.paired)


def test_a_data_set_beside_data_yaml_is_read_anew_where_it_changes(tmp_path):
    root = made(tmp_path, SPLIT_FIRST, "path: ../other\ntrain: train/images\nval: val/images")
    SPLIT_FIRST(tmp_path / "other")
    shutil.rmtree(root / "train"), shutil.rmtree(root / "val")
    assert found(root) == USUAL
    for name in ("images/p1.jpg", "labels/p1.txt"):
        (tmp_path / "other/train" / name).unlink()
    assert found(root) == {"train": [0], "val": [2]}


@pytest.mark.parametrize(
    "text, says",
    [
        ("train: train/images\nval: pictures/v", "val: pictures/v is not there; correct it, or"),
        ("train: pictures/t\nval: elsewhere/images", "train: pictures/t is not there; correct it"),
        ('train: "\\0"\nval: elsewhere/images', "is not there; correct it"),
        (f"train: {'x' * 300}", "is not there"),
        ("train: 7", "train: expected a folder, a .txt list, or several of them"),
        ("train: {a: b}", "train: expected a folder"),
        ("train: [[a]]", "train: expected a folder"),
        ("path: [a]\ntrain: x", "path: expected a folder"),
        ("train: data.yaml", "is neither a folder nor a .txt list"),
        ("train: labels", "no pictures in "),
        ("train: train/images\nvalid: train/images\nval: train/images", "is the split 'val' too"),
    ],
)  # fmt: skip
def test_what_points_nowhere_gets_one_line(tmp_path, refused, text, says):
    root = made(tmp_path, SPLIT_FIRST, text)
    shutil.rmtree(root / "val")
    (root / "labels").mkdir()
    (root / "train").rename(root / ("train" if "train/images" in text else "elsewhere"))
    message = refused(splits_of, "folder", root)
    assert message.startswith(f"{root}/data.yaml: ") and says in message and len(message) < 600


def test_a_folder_of_the_splits_name_serves_and_is_told(tmp_path):
    root = made(tmp_path, SPLIT_FIRST, "train: pictures/t\nval: val/images\ntest: ../test/images")
    assert found(root) == USUAL
    assert f"{root}/data.yaml: train: pictures/t is not there; train/images is taken" in notes(root)
    assert "test: ../test/images is not there; there is no test split" in notes(root)


def test_two_folders_that_may_be_meant_are_refused(tmp_path, refused):
    """Another data set one level higher, as data.yaml says by its letters."""
    root = made(tmp_path, SPLIT_FIRST, "train: ../train/images\nval: ../val/images")
    SPLIT_FIRST(tmp_path)
    message = refused(splits_of, "folder", root)
    assert "../train/images is there, and train/images beside data.yaml too" in message
    shutil.rmtree(root / "train"), shutil.rmtree(root / "val")
    assert found(root) == USUAL


def test_a_split_without_any_text_is_refused(tmp_path, refused):
    root = made(tmp_path, SPLIT_FIRST, "train: train/images\nval: val/images")
    shutil.rmtree(root / "val/labels")
    message = refused(open_source("folder", root, split="val").paired)
    assert message.startswith(f"{root}/val/labels/p2.txt: no such file, nor one for another")
