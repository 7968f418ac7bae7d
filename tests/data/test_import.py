"""`keras-pspnet import`: any annotated folder becomes the plain layout."""

import json

import numpy as np
import pytest
from annotation_kinds import (
    KINDS,
    NAMES,
    as_palette,
    as_polygon,
    coco,
    masks_of,
    picture,
    save,
    truth,
    write,
)
from PIL import Image

from keras_pspnet import cli
from keras_pspnet.data.datasets import open_source
from keras_pspnet.images import read_image, read_mask


def run(capsys, *arguments):
    """(exit code, lines of stdout, stderr) of an import."""
    code = cli.main(["import", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err


def test_what_was_recognised_and_counted_is_printed(tmp_path, capsys):
    KINDS["Roboflow"](tmp_path / "a")
    code, lines, error = run(capsys, tmp_path / "a", "--out", tmp_path / "b")
    assert code == 0 and not error
    assert lines[0] == f"{tmp_path / 'a'}: COCO JSON in Roboflow's folders"
    assert lines[-1] == f"{tmp_path / 'b'}: 2 train, 1 val, 3 classes; names in labels.json"


def test_masks_are_of_one_channel_and_8_bits(tmp_path, capsys):
    masks_of(as_palette, {"names": NAMES})(tmp_path / "a")
    run(capsys, tmp_path / "a", "--out", tmp_path / "b")
    for file in (tmp_path / "b/masks").glob("*/*"):
        with Image.open(file) as image:
            assert image.mode == "L" and image.format == "PNG"


@pytest.mark.parametrize("high, void", [(255, False), (9, True)])
def test_ids_become_0_to_n_and_void_becomes_255(tmp_path, capsys, high, void):
    """Masks of {0, 255}, whose void is 254, and masks of other values with void."""

    def values(mask):
        mask = np.where(mask > 0, high, 0).astype(np.uint8)
        mask[0] = 255 * void
        return mask

    masks_of(values)(tmp_path / "a")
    assert run(capsys, tmp_path / "a", "--out", tmp_path / "b")[0] == 0
    config = json.loads((tmp_path / "b/labels.json").read_text())
    assert set(config) == {"names", "colors", "ignore"} and config["ignore"] == 255
    mask, _ = read_mask(tmp_path / "b/masks/val/p2.png")
    expected = (truth(2) > 0).astype(np.uint8)
    expected[0] = 255 * void
    np.testing.assert_array_equal(mask, expected)
    source = open_source("folder", tmp_path / "b", split="val").paired()
    np.testing.assert_array_equal(source.read(0)[1], expected)


def test_pixels_in_no_polygon_can_be_void(tmp_path, capsys):
    KINDS["Roboflow"](tmp_path / "a")
    run(capsys, tmp_path / "a", "--out", tmp_path / "b", "--uncovered", "void")
    mask, _ = read_mask(tmp_path / "b/masks/val/p2.png")
    np.testing.assert_array_equal(mask, np.array([255, 0, 1], np.uint8)[truth(2)])
    masks_of(lambda mask: mask)(tmp_path / "c")
    code, _, error = run(capsys, tmp_path / "c", "--out", tmp_path / "d", "--uncovered", "void")
    assert code == 2 and "holds masks" in error and not (tmp_path / "d").exists()


@pytest.mark.parametrize("turn", [3, 6])
def test_the_mask_of_a_turned_picture_fits_it_with_and_without_exif(tmp_path, capsys, turn):
    coco(as_polygon, "roboflow")(tmp_path / "a")
    exif = Image.Exif()
    exif[0x0112] = turn
    file = tmp_path / "a/train/p0.jpg"
    Image.fromarray(picture(0)).save(file, exif=exif)
    source = open_source("folder", tmp_path / "a", split="train")
    _, expected = source.read(0)
    assert run(capsys, tmp_path / "a", "--out", tmp_path / "b")[0] == 0
    read = open_source("folder", tmp_path / "b", split="train").paired()
    np.testing.assert_array_equal(read.read(0)[1], expected)
    assert read.survey().turned == 0
    files = tmp_path / "b/images/train/p0.jpg", tmp_path / "b/masks/train/p0.png"
    with Image.open(files[0]) as one, Image.open(files[1]) as other:
        assert one.size == other.size  # of the stored pixels


def test_pictures_of_one_name_in_two_folders_keep_apart(tmp_path, capsys):
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "leaf"}]}
    for number, folder in enumerate("ab"):
        save(picture(number), tmp_path / f"s/images/{folder}/x.png")
        image = {"id": number, "file_name": f"{folder}/x.png", "height": 24, "width": 32}
        box = [[number, 0, 9, 0, 9, 9, number, 9]]
        content["images"].append(image)
        content["annotations"].append({"image_id": number, "category_id": 1, "segmentation": box})
    write(tmp_path / "s/annotations/train.json", content)
    write(tmp_path / "s/annotations/val.json", content | {"annotations": []})
    assert run(capsys, tmp_path / "s", "--out", tmp_path / "o")[0] == 0
    source = open_source("folder", tmp_path / "o", split="train").paired()
    assert len(source) == 2
    for name, image, mask in source.examples():
        number = 0 if np.array_equal(image, picture(0)) else 1
        assert np.array_equal(image, picture(number)) and mask[:9, number:9].all(), name
        assert mask.sum() == 9 * (9 - number)


@pytest.mark.parametrize("trouble", ["not empty", "a file", "no source", "bad", "unreadable"])
def test_nothing_is_left_of_an_import_that_fails(tmp_path, capsys, trouble):
    source, out = tmp_path / "a", tmp_path / "new" / "b"
    KINDS["CVAT"](source)
    if trouble == "not empty":
        write(out / "mine.txt", "mine")
    elif trouble == "a file":
        write(out, "mine")
    elif trouble == "no source":
        source = tmp_path / "nowhere"
    elif trouble == "bad":
        (source / "SegmentationClass/p1.png").unlink()
    else:
        file = source / "JPEGImages/p1.png"
        file.write_bytes(file.read_bytes()[:300])
    before = sorted(tmp_path.rglob("*"))
    code, _, error = run(capsys, source, "--out", out)
    assert code == 2 and len(error.splitlines()) == 1
    named = {"no source": "nowhere", "bad": "p1", "unreadable": "p1.png"}.get(trouble, str(out))
    assert named in error and sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_may_be_imported_to(tmp_path, capsys):
    KINDS["ids"](tmp_path / "a")
    (tmp_path / "b").mkdir()
    assert run(capsys, tmp_path / "a", "--out", tmp_path / "b")[0] == 0
    assert read_image(tmp_path / "b/images/val/p2.png").shape == (24, 32, 3)
