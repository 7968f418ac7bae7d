"""One's own folder: what annotation tools write gives the masks of the plain layout."""

import json

import numpy as np
import pytest
from annotation_kinds import (
    COLORS,
    KINDS,
    NAMES,
    SIZE,
    as_palette,
    as_polygon,
    coco,
    cvat,
    masks_of,
    picture,
    reordered,
    save,
    truth,
    write,
)
from PIL import Image

from keras_pspnet.data import splitting
from keras_pspnet.data.datasets import open_source, splits_of
from keras_pspnet.data.folder import read_layout
from keras_pspnet.data.plain_copy import write_plain


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_masks_of_the_plain_layout(tmp_path, kind):
    KINDS[kind](tmp_path)
    assert splits_of("folder", tmp_path) == ["train", "val"]
    numbers = {"train": [0, 1], "val": [2]}
    for split in numbers:
        source = open_source("folder", tmp_path, split=split).paired()
        assert set(source.labels.names) == set(NAMES) and source.labels.names[0] == "background"
        assert len(source) == len(numbers[split])
        for number, (name, image, mask) in zip(numbers[split], source.examples()):
            assert f"p{number}" in name and image.shape == (*SIZE, 3)
            np.testing.assert_array_equal(reordered(source.labels, mask), truth(number))


@pytest.mark.parametrize("kind", KINDS)
def test_import_writes_the_plain_layout(tmp_path, kind):
    KINDS[kind](tmp_path / "source")
    write_plain(read_layout(tmp_path / "source"), tmp_path / "out")
    plain = tmp_path / "out"
    labels = json.loads((plain / "labels.json").read_text())
    assert set(labels) == {"names", "colors", "ignore"}
    for number, split in enumerate(("train", "train", "val")):
        with Image.open(plain / f"masks/{split}/p{number}.png") as image:
            assert image.mode in ("L", "P")
            mask = np.asarray(image)
        order = np.array([NAMES.index(name) for name in labels["names"]], np.uint8)
        np.testing.assert_array_equal(order[mask], truth(number))
        (copied,) = (plain / f"images/{split}").glob(f"p{number}.*")
        (original,) = (f for f in (tmp_path / "source").rglob(f"p{number}.*")
                       if f.suffix == copied.suffix and "mask" not in str(f)
                       and "Class" not in str(f))  # fmt: skip
        assert copied.read_bytes() == original.read_bytes()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_palette_masks_without_names_have_their_palette_as_colours_and_no_class_for_void(tmp_path):
    def void_border(mask):
        mask = mask.copy()
        mask[0] = 255
        return as_palette(mask)

    masks_of(void_border)(tmp_path)
    source = open_source("folder", tmp_path, split="train")
    assert source.labels.names == ("class_0", "class_1", "class_2") and not source.named
    assert source.labels.colors == COLORS
    assert (source.read(0)[1][0] == 255).all()


@pytest.mark.parametrize("high", [1, 255])
@pytest.mark.parametrize("grey_rgb", [False, True])
def test_two_values_are_background_and_object(tmp_path, high, grey_rgb):
    def binary(mask):
        values = np.where(mask > 0, high, 0).astype(np.uint8)
        return np.repeat(values[..., None], 3, 2) if grey_rgb else values

    masks_of(binary)(tmp_path)
    source = open_source("folder", tmp_path, split="val")
    assert source.labels.names == ("background", "object")
    np.testing.assert_array_equal(source.read(0)[1], truth(2) > 0)


def test_camvid_as_its_authors_hand_it_out_is_split_by_clip(tmp_path):
    clips = ("0001TP_0", "0006R0_f0", "0016E5_0", "Seq05VD_f0", "0099XX_0")
    for clip in clips:
        for frame in range(3):
            save(picture(frame), tmp_path / f"701_StillsRaw_full/{clip}{frame}.png")
            colors = np.array([(0, 0, 0), (128, 128, 128), (64, 0, 64)], np.uint8)[truth(frame)]
            save(colors, tmp_path / f"LabeledApproved_full/{clip}{frame}_L.png")
    rows = "0 0 0\t\tVoid\n128 128 128\t\tSky\n64 0 64\tTunnel\n"
    write(tmp_path / "label_colors.txt", rows)
    found = {}
    for split in ("train", "val"):
        source = open_source("folder", tmp_path, split=split).paired()
        assert source.labels.names == ("Sky", "Tunnel")
        assert any("SHA-256 of their groups' names, 5 groups" in note for note in source.notes)
        found[split] = {name.split("/")[-1].split("_")[0] for name in source.names}
        expected = np.array([255, 0, 1], np.uint8)[truth(0)]
        np.testing.assert_array_equal(source.read(0)[1], expected)
    assert found["train"] and found["val"] and not found["train"] & found["val"]


def test_cvats_default_list_is_no_split(tmp_path):
    cvat(tmp_path)
    for file in (tmp_path / "ImageSets/Segmentation").iterdir():
        file.unlink()
    write(tmp_path / "ImageSets/Segmentation/default.txt", "p0\np1\np2\n")
    sizes = {split: len(open_source("folder", tmp_path, split=split)) for split in ("train", "val")}
    assert sizes["train"] + sizes["val"] == 3 and min(sizes.values()) >= 1


def test_pixels_in_no_polygon_are_void_where_labels_json_says_so(tmp_path):
    coco(as_polygon, "roboflow")(tmp_path)
    write(tmp_path / "labels.json", {"names": ["leaf", "bug"], "uncovered": "void"})
    mask = open_source("folder", tmp_path, split="train").read(1)[1]
    np.testing.assert_array_equal(mask, np.array([255, 0, 1], np.uint8)[truth(1)])
    layout = read_layout(tmp_path, "void")
    assert layout.labels.names == ("leaf", "bug")


@pytest.mark.parametrize("layout", ["flat", "train alone"])
def test_a_folder_without_val_is_split_by_the_reader(tmp_path, layout):
    between = "" if layout == "flat" else "train/"
    for number in range(30):
        save(picture(number), tmp_path / f"images/{between}p{number}.png")
        save(truth(number % 3), tmp_path / f"masks/{between}p{number}.png")

    def names(split):
        return {n.split("/")[-1] for n in open_source("folder", tmp_path, split=split).names}

    before = names("train"), names("val")
    assert len(before[0] | before[1]) == 30 and not before[0] & before[1]
    assert 2 <= len(before[1]) <= 12
    save(picture(99), tmp_path / f"images/{between}q99.png")
    save(truth(0), tmp_path / f"masks/{between}q99.png")
    assert before[0] <= names("train") and before[1] <= names("val")  # nobody was moved


@pytest.mark.parametrize(
    "stem, group",
    [
        ("0001TP_006690", "0001TP"),
        ("Seq05VD_f00000", "Seq05VD"),
        ("patient7_slice012", "patient7"),
        ("street_12_jpg.rf.3f2a", "street_12_jpg"),
        ("train0", "train0"),
        ("a", "a"),
    ],
)
def test_names_show_their_group(stem, group):
    assert splitting.group_of(stem) == group


def test_two_groups_are_on_either_side_and_one_group_is_split_by_picture():
    for names in (("a_1", "a_2", "b_1"), ("x_1", "y_1")):
        parts, _ = splitting.split({name: name for name in names})
        assert parts["train"] and parts["val"]
        sides = [{splitting.group_of(name) for name in part} for part in parts.values()]
        assert not sides[0] & sides[1]
    parts, _ = splitting.split({f"IMG_{n}": f"IMG_{n}" for n in range(50)})
    assert 4 <= len(parts["val"]) <= 18


def test_one_picture_is_to_train_on():
    for name in map(str, range(20)):
        assert splitting.split({name: name})[0] == {"train": [name], "val": []}


def plain_folder(root, *names, splits=("",)):
    for split in splits:
        for number, name in enumerate(names):
            save(picture(number), root / "images" / split / name)
            save(truth(number % 3), (root / "masks" / split / name).with_suffix(".png"))


def test_folders_beside_flat_pictures_are_told(tmp_path):
    plain_folder(tmp_path, "a.png", "b.png", "c.png")
    plain_folder(tmp_path / "images", "raw.png")
    source = open_source("folder", tmp_path, split="train").paired()
    assert len(source) == 2 and any(
        "do not share them: images, masks" in note for note in source.notes
    )


def test_pictures_outside_of_the_splits_are_told(tmp_path):
    plain_folder(tmp_path, "a.png", "b.png", splits=("", "train", "valid"))
    assert splits_of("folder", tmp_path) == ["train", "val"]
    notes = open_source("folder", tmp_path, split="val").notes
    assert "left out, as they lie outside of the splits: 2 pictures" in notes


def test_two_folders_of_one_split_are_refused(refused, tmp_path):
    plain_folder(tmp_path, "a.png", splits=("train", "val", "valid"))
    assert "valid: val is the split 'val' too" in refused(splits_of, "folder", tmp_path)


def test_pictures_in_folders_of_folders_get_one_line(refused, tmp_path):
    plain_folder(tmp_path, "a.png", splits=("train/city", "val"))
    message = refused(open_source("folder", tmp_path, split="train").paired)
    assert f"{tmp_path / 'images/train'}: no pictures in this folder, only folders" in message


def test_a_picture_that_is_not_read_is_called_what_it_is(tmp_path):
    plain_folder(tmp_path, "a.png", "b.jfif.png", "c.png", splits=("train", "val"))
    (tmp_path / "images/train/a.png").rename(tmp_path / "images/train/a.HEIC")
    source = open_source("folder", tmp_path, split="train")
    assert len(source) == 2 and [str(error) for error in source.unpaired] == [
        f"{tmp_path / 'masks/train/a.png'}: a.HEIC is there, but .heic is not read here; convert "
        "it to JPEG or PNG"
    ]


def test_one_picture_whose_mask_has_an_ending_is_paired(tmp_path):
    save(picture(), tmp_path / "images/0001TP_006690.png")
    save(truth(), tmp_path / "masks/0001TP_006690_L.png")
    source = open_source("folder", tmp_path, split="train").paired()
    assert len(source) == 1 and source.names[0].endswith("0001TP_006690.png")


def test_endings_that_differ_do_not_pair(refused, tmp_path):
    for number, ending in enumerate(("_mask", "_gt")):
        save(picture(number), tmp_path / f"images/p{number}.png")
        save(truth(number), tmp_path / f"masks/p{number}{ending}.png")
    message = refused(open_source("folder", tmp_path, split="train").paired)
    assert "no mask has the name of a picture: p0.png beside p0_mask.png" in message


def test_a_folder_is_read_once_until_it_changes(tmp_path, monkeypatch):
    from keras_pspnet.data import mask_labels

    plain_folder(tmp_path, "a.png", "b.png", splits=("train", "val"))
    read, calls = mask_labels.read_mask, []
    monkeypatch.setattr(mask_labels, "read_mask", lambda *given: calls.append(1) or read(*given))
    for split in ("train", "val", "train"):
        assert len(open_source("folder", tmp_path, split=split)) == 2
    assert len(calls) == 4
    plain_folder(tmp_path, "a.png", "b.png", "c.png", splits=("train",))
    assert len(open_source("folder", tmp_path, split="train")) == 3


def test_changed_annotations_are_read_again(tmp_path):
    KINDS["Roboflow"](tmp_path)
    assert len(open_source("folder", tmp_path, split="val").labels) == 3
    for file in tmp_path.glob("*/*.json"):
        file.write_text(file.read_text().replace('"bug"', '"leaf"'))
    assert open_source("folder", tmp_path, split="val").labels.names == ("background", "leaf")


@pytest.mark.parametrize("call", [splits_of, lambda *named: open_source(*named, split="train")])
def test_camvids_original_is_sent_to_the_folder_reader(refused, tmp_path, call):
    save(picture(), tmp_path / "701_StillsRaw_full/0001TP_006690.png")
    assert "use --dataset folder for it" in refused(call, "camvid", tmp_path)
    save(truth(), tmp_path / "LabeledApproved_full/0001TP_006690_L.png")
    message = refused(splits_of, "folder", tmp_path)
    assert message.startswith(f"{tmp_path / 'label_colors.txt'}: no such file")


def test_cvats_lists_say_what_is_lost(refused, tmp_path):
    cvat(tmp_path)
    with open(tmp_path / "ImageSets/Segmentation/train.txt", "a") as file:
        file.write("gone\n")
    message = refused(open_source("folder", tmp_path, split="train").paired)
    assert message.endswith("train.txt: gone has no picture and mask; add them or unlist it")
    save(picture(), tmp_path / "JPEGImages/more.png")
    save(np.zeros((*SIZE, 3), np.uint8), tmp_path / "SegmentationClass/more.png")
    notes = open_source("folder", tmp_path, split="val").notes
    assert "left out, as no list has them: 1 picture" in notes


@pytest.mark.parametrize("missing", ["JPEGImages", "SegmentationClass"])
def test_a_missing_folder_of_cvat_is_named(refused, tmp_path, missing):
    cvat(tmp_path)
    (tmp_path / missing).rename(tmp_path / "elsewhere")
    assert f"{tmp_path / missing}: no such folder" in refused(splits_of, "folder", tmp_path)


def test_an_empty_folder_of_masks_hides_no_annotations(tmp_path):
    KINDS["YOLO images/train"](tmp_path)
    (tmp_path / "masks").mkdir()
    assert open_source("folder", tmp_path, split="val").notes[0].endswith("YOLO segmentation text")


def test_coco_files_that_are_named_after_their_split_find_its_folder(tmp_path):
    KINDS["Roboflow"](tmp_path)
    for name in ("train", "valid"):
        file = tmp_path / name / "_annotations.coco.json"
        file.rename(tmp_path / f"{name}_annotations.json")
    source = open_source("folder", tmp_path, split="val").paired()
    assert source.names == (str(tmp_path / "valid/p2.jpg"),)
    np.testing.assert_array_equal(reordered(source.labels, source.read(0)[1]), truth(2))


@pytest.mark.parametrize("kind", ["ids", "Roboflow", "YOLO train/images"])
def test_the_folder_above_a_data_set_gets_the_one_to_give(tmp_path, refused, kind):
    KINDS[kind](tmp_path / "a/export")
    (tmp_path / "a/__MACOSX").mkdir()
    message = refused(splits_of, "folder", tmp_path / "a")
    assert message == (
        f"{tmp_path / 'a'}: no data set that is known; expected a folder such as "
        f"{tmp_path / 'a/export'}"
    )


@pytest.mark.parametrize(
    "place, name",
    [("trainannot", "camvid"), ("annotations/training", "ade20k"), ("gtFine/train", "cityscapes")],
)
def test_layouts_with_a_name_of_their_own_are_told(tmp_path, refused, place, name):
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / "images").mkdir()
    assert f"use --dataset {name}" in refused(splits_of, "folder", tmp_path)


def test_a_data_set_below_is_no_split_whatever_its_name(tmp_path, refused):
    plain_folder(tmp_path / "export", "a.png", "b.png")
    message = refused(splits_of, "folder", tmp_path)
    assert message.endswith(f"expected a folder such as {tmp_path / 'export'}")


def test_a_split_without_masks_is_named_where_splits_are_first(tmp_path, refused):
    KINDS["split first"](tmp_path)
    (tmp_path / "val/images").rename(tmp_path / "val/pictures")
    message = refused(open_source("folder", tmp_path, split="val").paired)
    assert message.startswith(f"{tmp_path / 'val/images'}: no such folder")
