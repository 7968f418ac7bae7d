"""Datasets on disk: what a split holds, and one line for whatever is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_pspnet.data.datasets import open_source, splits_of
from keras_pspnet.errors import raise_first
from keras_pspnet.labels import CAMVID


def save(array, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)


def pixels(source):
    """The pixels of each class; raises the first error of the survey."""
    survey = source.survey()
    raise_first(survey.errors)
    return survey.pixels[: len(source.labels)]


def test_camvid_is_read_in_its_usual_layout(tmp_path):
    ids = np.arange(12).reshape(3, 4)
    for split, value in (("train", 5), ("val", 6)):
        save(np.full((3, 4, 3), value), tmp_path / split / "0001.png")
        save(ids, tmp_path / f"{split}annot" / "0001.png")
    source = open_source("camvid", tmp_path, split="val")
    assert source.labels is CAMVID and len(source) == 1
    ((name, image, mask),) = source.examples()
    assert name == str(tmp_path / "val" / "0001.png") and (image == 6).all()
    assert mask.ravel().tolist() == [*range(11), 255]


def test_a_folder_with_labels_decodes_by_them(folder):
    labels = {"names": ["a", "b"], "colors": [[1, 2, 3], [4, 5, 6]], "ids": {0: 1, 1: 0, 2: 1}}
    (folder / "labels.json").write_text(json.dumps(labels))
    source = open_source("folder", str(folder), split="train")
    assert source.labels.names == ("a", "b") and source.labels.colors[1] == (4, 5, 6)
    masks = [mask for _, _, mask in source.examples()]
    assert [int(mask[4, 4]) for mask in masks] == [1, 0, 1, 1, 0]
    assert all(mask[0, 0] == 255 for mask in masks)


def test_without_labels_the_classes_are_the_ids_of_all_splits(folder):
    save(np.zeros((2, 2, 3)), folder / "images" / "val" / "q.jpg")
    save([[7, 7], [255, 40]], folder / "masks" / "val" / "q.png")
    train = open_source("folder", folder, split="train")
    val = open_source("folder", folder, split="val")
    assert train.labels == val.labels
    assert val.labels.names == ("class_0", "class_1", "class_2", "class_7", "class_40")
    assert val.read(0)[1].tolist() == [[3, 3], [255, 4]]


def test_the_first_pictures_and_all(folder):
    source = open_source("folder", folder, split="train")
    assert source.first(2).names == source.names[:2] and source.first(None).names == source.names


def test_checking_counts_the_pixels_of_each_class(folder):
    counts = pixels(open_source("folder", folder, split="train"))
    assert counts.tolist() == [2 * 98, 2 * 98, 98]


def edit(folder, what):
    """Breaks a good folder; returns the file that a message must name."""
    picture, mask = folder / "images/train/p1.png", folder / "masks/train/p1.png"
    if what == "no mask":
        mask.unlink()
        return picture
    if what == "no picture":
        picture.unlink()
        return mask
    if what == "another size":
        save(np.zeros((9, 12)), mask)
        return mask
    if what == "out of range":
        save(np.full((9, 11), 9), mask)
        return mask
    if what == "a colour mask":
        save(np.full((9, 11, 3), [200, 10, 30]), mask)
        return mask
    file = picture if what == "truncated picture" else mask
    noise = np.random.default_rng(0).integers(0, 3, (9, 11, 3))
    save(noise if file == picture else noise[..., 0], file)
    file.write_bytes(file.read_bytes()[:-30])
    return file


def use(folder):
    pixels(open_source("folder", folder, split="train"))


BROKEN = ("no mask", "no picture", "another size", "a colour mask", "truncated picture")
BROKEN += ("truncated mask",)


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("what", BROKEN)
def test_a_bad_pair_gets_one_line_with_its_file(refused, folder, what, labels):
    if labels:
        (folder / "labels.json").write_text('{"names": ["a", "b", "c"]}')
    edit(folder, what)
    message = refused(use, folder)
    assert "p1.png" in message and "more" not in message


@pytest.mark.parametrize("what", [*BROKEN, "out of range"])
def test_the_bad_file_is_named_in_full(refused, folder, what):
    (folder / "labels.json").write_text('{"names": ["a", "b", "c"]}')
    file = edit(folder, what)
    message = refused(use, folder)
    assert message.startswith(f"{file}: ")
    if what == "another size":
        assert "12x9" in message and "11x9" in message
    if what == "a colour mask":
        assert "(200, 10, 30)" in message and '"colors"' in message
    if what == "out of range":
        assert "label 9" in message and "0..2" in message and "255" in message


def spoil(folder):
    """Breaks 4 of the 5 pairs, each in its own way; the good one is p3, of class 0."""
    (folder / "labels.json").write_text('{"names": ["a", "b", "c"]}')
    masks = folder / "masks/train"
    (masks / "p0.png").rename(masks / "q.png")
    save(np.zeros((9, 12)), masks / "p1.png")
    save(np.full((9, 11), 77), masks / "p2.png")
    (masks / "p4.png").write_bytes((masks / "p4.png").read_bytes()[:-30])
    return [folder / "images/train/p0.png", masks / "q.png"], [
        masks / f"p{index}.png" for index in (1, 2, 4)
    ]


def test_what_has_no_other_half_is_kept_apart(refused, folder):
    halves, _ = spoil(folder)
    source = open_source("folder", folder, split="train")  # no error yet
    assert source.names == tuple(str(folder / f"images/train/p{n}.png") for n in (1, 2, 3, 4))
    says = ("no mask of this name", "no picture of this name")
    assert len(source.unpaired) == 2
    for error, file, words in zip(source.unpaired, halves, says):
        assert str(error).startswith(f"{file}: {words}")
    message = refused(source.paired)
    assert message == f"{source.unpaired[0]} (and 1 more bad pair)"
    assert refused(source.first(1).paired) == message


def test_a_whole_source_is_paired(folder):
    source = open_source("folder", folder, split="train")
    assert source.unpaired == () and source.paired() is source


def test_a_survey_finds_every_bad_pair_and_counts_the_others(refused, folder):
    halves, bad = spoil(folder)
    source, seen = open_source("folder", folder, split="train"), []

    def progress(indices):
        for index in indices:
            seen.append(index)
            yield index

    survey = source.survey(progress=progress)
    assert seen == [0, 1, 2, 3]
    assert [str(error).split(": ")[0] for error in survey.errors] == [str(f) for f in halves + bad]
    assert survey.good == [2] and source.names[2].endswith("p3.png")
    assert survey.sizes == {(9, 11): 1}
    assert survey.pixels[[0, 255]].tolist() == [98, 1] and survey.pixels.sum() == 99
    assert survey.pictures[[0, 255]].tolist() == [1, 1] and survey.pictures.sum() == 2
    assert refused(pixels, source) == f"{survey.errors[0]} (and 4 more bad pairs)"


def test_a_survey_counts_pixels_pictures_and_sizes(folder):
    mask = np.full((4, 6), 2)
    mask[:, :2] = 0
    save(np.zeros((4, 6, 3)), folder / "images/train/z.png")
    save(mask, folder / "masks/train/z.png")
    survey = open_source("folder", folder, split="train").survey()
    assert not survey.errors and survey.good == [0, 1, 2, 3, 4, 5]
    assert survey.sizes == {(9, 11): 5, (4, 6): 1}
    expected = {0: (2 * 98 + 8, 3), 1: (2 * 98, 2), 2: (98 + 16, 2), 255: (5, 5)}
    for value in range(256):
        assert (survey.pixels[value], survey.pictures[value]) == expected.get(value, (0, 0))


def test_more_bad_pairs_are_counted(refused, folder):
    (folder / "labels.json").write_text('{"names": ["a", "b"]}')  # p2 holds id 2
    edit(folder, "another size")
    save(np.full((9, 11), 77), folder / "masks/train/p4.png")
    message = refused(use, folder)
    assert "p1.png" in message and message.endswith("(and 2 more bad pairs)")


def test_two_pictures_of_one_name_get_one_line(refused, folder):
    save(np.zeros((9, 11, 3)), folder / "images/train/p1.jpg")
    assert "has the same name" in refused(use, folder)


def test_two_masks_of_one_name_get_one_line(refused, folder):
    save(np.ones((9, 11)), folder / "masks/train/p1.bmp")
    assert "p1" in refused(use, folder)


@pytest.mark.parametrize("part", ["images", "masks"])
def test_an_empty_folder_gets_one_line(refused, folder, part):
    for file in (folder / part / "train").iterdir():
        file.unlink()
    assert str(folder / part / "train") in refused(use, folder)


def test_one_mask_that_cannot_be_read_does_not_hide_the_labels(refused, folder):
    file = edit(folder, "truncated mask")
    source = open_source("folder", folder, split="train")
    assert source.labels.names == ("class_0", "class_1", "class_2")
    assert refused(pixels, source).startswith(f"{file}: not a readable mask")


def test_masks_of_which_none_can_be_read_say_why(refused, folder):
    for file in folder.glob("masks/*/*"):
        save(np.zeros((9, 11, 2)), file)
    message = refused(use, folder)
    assert message.startswith(f"{folder / 'masks/train/p0.png'}: a mask of mode LA; expected")
    assert message.endswith("(and 5 more bad pairs)")


@pytest.mark.parametrize("void", [True, False])
def test_masks_of_one_class_say_what_to_do(refused, folder, void):
    for file in folder.glob("masks/*/*"):
        mask = np.full((9, 11), 7)
        if void:
            mask[2:4] = 255
        save(mask, file)
    message = refused(use, folder)
    assert message.startswith(f"{folder / 'masks'}: the masks hold 7")
    assert ("and void (255)" in message) == void
    if not void:
        assert "What is not the object is a class too" in message
        return
    advice = message[message.index("{") :]
    (folder / "labels.json").write_text(advice)  # what it advises works
    counts = pixels(open_source("folder", folder, split="train"))
    assert counts.tolist() == [5 * (99 - 22), 5 * 22]


def test_masks_with_nothing_but_void_get_one_line(refused, folder):
    for file in folder.glob("masks/*/*"):
        save(np.full((9, 11), 255), file)
    assert "only void" in refused(use, folder)


@pytest.mark.parametrize("content", ["{", '{"names": []}', '{"names": ["a"], "ignore": 1e999}'])
def test_a_damaged_labels_file_gets_one_line(refused, folder, content):
    (folder / "labels.json").write_text(content)
    assert str(folder / "labels.json") in refused(use, folder)


@pytest.mark.parametrize(
    "name, path, split, says",
    [
        ("folder", True, "test", "test"),
        ("camvid", True, "train", "train"),
        ("folder", "none", "train", "none: no such folder"),
        (
            "folder",
            "masks",
            "train",
            "no data set that is known; expected images/train/ and masks/train/",
        ),
        ("folder", None, "train", "--data-dir"),
        ("imagenet", True, "train", "scenes, camvid, ade20k, cityscapes, voc2012, folder"),
        ("scenes", None, "test", "train, val"),
    ],
)
def test_what_is_not_there_gets_one_line(refused, folder, name, path, split, says):
    path = folder if path is True else path and folder / path
    assert says in refused(open_source, name, path, split=split)


def test_the_splits_of_a_folder_are_those_of_its_pictures(folder):
    for name in ("test", "val", "a", ".cache"):
        (folder / "images" / name).mkdir(exist_ok=True)
    (folder / "images" / "notes.txt").touch()
    assert splits_of("folder", str(folder)) == ["train", "val", "a", "test"]


def test_camvid_is_split_by_drive(tmp_path, refused):
    frames = {"train": ["0001TP_1", "0006R0_f1", "0016E5_1"], "val": ["0016E5_2"]}
    for split, stems in frames.items():
        for folder in (split, f"{split}annot"):
            (tmp_path / folder).mkdir()
            for stem in stems:
                Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / folder / f"{stem}.png")

    def stems(split):
        source = open_source("camvid", tmp_path, split=split).paired()
        assert [source.read(index)[1].max() for index in range(len(source))] == [0] * len(source)
        return [Path(name).stem for name in source.names]

    assert stems("train+val") == [*frames["train"], *frames["val"]]
    assert stems("clip:0016E5") == ["0016E5_1", "0016E5_2"]
    assert stems("not-clip:0016E5") == ["0001TP_1", "0006R0_f1"]
    assert "clip:0001TP, not-clip:0001TP" in refused(stems, "clip:Seq05VD")
    assert "not-clip:0006R0" in refused(stems, "drive:0006R0")
    (tmp_path / "valannot" / "0016E5_2.png").unlink()
    assert "no masks in this folder" in refused(stems, "clip:0016E5")


def test_the_splits_of_camvid_have_masks_beside_them(tmp_path):
    for name in ("val", "valannot", "train", "trainannot", "test", "lost_annot"):
        (tmp_path / name).mkdir()
    assert splits_of("camvid", tmp_path) == ["train", "val"]


def test_the_splits_of_the_scenes():
    assert splits_of("scenes") == ["train", "val"]


@pytest.mark.parametrize(
    "name, path, says",
    [
        ("folder", "none", "none: no such folder"),
        ("folder", "masks", "no data set that is known; expected images/train/ and masks/train/"),
        ("camvid", "masks", "no split in it; expected train/ and trainannot/"),
        ("ade20k", "masks", "no split in it; expected images/training/ and annotations/training/"),
        ("cityscapes", "masks", "no split in it; expected leftImg8bit/train/CITY/"),
        ("voc2012", "masks", "no split in it; expected JPEGImages/, SegmentationClass/"),
        ("folder", None, "--data-dir"),
        ("scenes", "masks", "leave --data-dir out"),
        ("imagenet", None, "scenes, camvid, ade20k, cityscapes, voc2012, folder, tfds:BUILDER"),
    ],
)
def test_a_dataset_without_splits_gets_one_line(refused, folder, name, path, says):
    assert says in refused(splits_of, name, path and folder / path)
