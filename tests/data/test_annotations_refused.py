"""Odd and hostile annotation files: each gets one line that names the file, or is read right."""

import base64
import io
import json
import shutil

import numpy as np
import pytest
from annotation_kinds import (
    KINDS,
    SIZE,
    as_polygon,
    coco,
    label_studio,
    labelme,
    picture,
    save,
    truth,
    write,
    yolo,
)
from PIL import Image

from keras_pspnet.data.datasets import open_source, splits_of
from keras_pspnet.errors import UserError, raise_first


def use(root):
    """Read everything; raises the first error."""
    for split in splits_of("folder", root):
        source = open_source("folder", root, split=split).paired()
        raise_first(source.survey().errors)


def edited(file, change):
    content = json.loads(file.read_text())
    changed = change(content)
    file.write_text(json.dumps(content if changed is None else changed))


# --- COCO ---


@pytest.fixture
def boards(tmp_path):
    """Roboflow's layout, and the file that is edited."""
    coco(as_polygon, "roboflow")(tmp_path)
    return tmp_path, tmp_path / "train/_annotations.coco.json"


def first(content, **change):
    content["annotations"][0].update(change)


RUNS = {"size": list(SIZE), "counts": [SIZE[0] * SIZE[1]]}
COCO = {
    "a list": (lambda content: [content], "not COCO's form"),
    "no images": (lambda content: content.pop("images") and content, "not COCO's form"),
    "images of text": (lambda content: content.update(images=["a.jpg"]), "not COCO's form"),
    "no ids": (lambda content: content["images"][0].pop("id") and None, "not COCO's form"),
    "NaN": (lambda content: first(content, segmentation=[[1, 1, 5, 5, float("nan"), 2]]), "p0.jpg"),
    "huge": (lambda content: first(content, segmentation=[[1, 1, 5, 5, 1e300, 2]]), "p0.jpg"),
    "endless": (lambda content: first(content, segmentation=[[1, 1, 5, 5, 10**400, 2]]), "p0.jpg"),
    "odd": (lambda content: first(content, segmentation=[[1, 1, 5, 5, 2]]), "a polygon"),
    "flat": (lambda content: first(content, segmentation=[1, 1, 5, 5, 2, 2]), "a polygon"),
    "two points": (lambda content: first(content, segmentation=[[1, 1, 5, 5]]), "of 2 points"),
    "a text": (lambda content: first(content, segmentation="abc"), "polygon"),
    "a box": (lambda content: first(content, segmentation=[]), "a box without a polygon"),
    "no counts": (lambda content: first(content, segmentation={"size": [1, 2]}), "run lengths"),
    "short runs": (
        lambda content: first(content, segmentation={**RUNS, "counts": [5]}),
        "do not fill 32x24",
    ),
    "swapped runs": (
        lambda content: first(content, segmentation={**RUNS, "size": list(SIZE)[::-1]}),
        "run lengths for 24x32 pixels in a picture of 32x24",
    ),
    "size of runs": (lambda content: first(content, segmentation={**RUNS, "size": 7}), "size 7"),
    "size": (lambda content: content["images"][0].update(height=999), "32x999 pixels, p0.jpg has"),
    "no size": (lambda content: content["images"][0].update(height="x"), "no numbers"),
    "category": (lambda content: first(content, category_id=99), "category 99 is used"),
    "no name": (lambda content: content["categories"][1].pop("name") and None, "'name'"),
    "line break": (
        lambda content: content["categories"][1].update(name="a\nb"),
        "not one line of text",
    ),
    "category twice": (
        lambda content: content["categories"][0].update(id=3),
        "category 3 is there 2 times",
    ),
    "image twice": (lambda content: content["images"][0].update(id=1), "image 1 is there 2 times"),
    "file twice": (
        lambda content: content["images"][0].update(file_name="p1.jpg"),
        "file 'p1.jpg' is there 2 times",
    ),
    "file twice in other words": (
        lambda content: content["images"][0].update(file_name="x/p1.jpg"),
        "is another's too",
    ),
    "not there": (
        lambda content: content["images"][0].update(file_name="q.jpg"),
        "q.jpg: the pict",
    ),
    "nobody's": (lambda content: first(content, image_id=77), "image_id 77"),
    "id of a list": (lambda content: first(content, image_id=[1]), "not COCO's form"),
}


@pytest.mark.parametrize("what", COCO)
def test_coco_that_is_none_gets_one_line(refused, boards, what):
    root, file = boards
    change, says = COCO[what]
    edited(file, change)
    if what == "line break":
        edited(root / "valid/_annotations.coco.json", change)
    message = refused(use, root)
    assert says in message and str(root) in message and len(message) < 500


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"images": 1' + "0" * 5000 + "}"])
def test_json_that_is_none_gets_one_line(refused, boards, text):
    root, file = boards
    file.write_text(text)
    assert refused(use, root).startswith(f"{file}: not ")


def test_labels_json_beside_coco_must_have_every_category(refused, boards):
    root, _ = boards
    write(root / "labels.json", {"names": ["background", "leaf"]})
    assert "the class 'bug' is not in labels.json" in refused(use, root)
    write(root / "labels.json", {"names": ["leaf", "bug"]})
    assert "names no background" in refused(use, root)
    write(root / "labels.json", {"names": ["leaf", "bug"], "uncovered": "nothing"})
    assert "uncovered is 'nothing'" in refused(use, root)
    write(root / "labels.json", {"names": ["bug", "leaf", "background"]})
    mask = open_source("folder", root, split="val").read(0)[1]
    np.testing.assert_array_equal(mask, np.array([2, 1, 0], np.uint8)[truth(2)])


def test_two_files_for_one_split_are_refused(refused, boards):
    root, _ = boards
    shutil.copytree(root / "valid", root / "val")
    message = refused(use, root)
    assert "is the split 'val' too" in message


def test_key_points_and_captions_of_coco_are_passed_over(tmp_path):
    KINDS["COCO runs"](tmp_path)
    folder = tmp_path / "annotations"
    shutil.copy(folder / "instances_train2017.json", folder / "person_keypoints_train2017.json")
    write(folder / "captions_train2017.json", {"images": [], "annotations": []})
    use(tmp_path)
    source = open_source("folder", tmp_path, split="train")
    assert len(source) == 2 and source.labels.names == ("background", "leaf", "bug")


@pytest.mark.parametrize("name", ["result.json", "annotations/instances_default.json"])
def test_one_coco_file_beside_a_folder_of_pictures_is_split_by_the_reader(tmp_path, name):
    """As Label Studio and CVAT write it."""
    coco(as_polygon, "roboflow")(tmp_path / "a")
    root, content = tmp_path / "b", {"images": [], "annotations": []}
    (root / "images").mkdir(parents=True)
    for file in (tmp_path / "a").glob("*/*.json"):
        part = json.loads(file.read_text())
        for image in part["images"]:
            shutil.copy(file.with_name(image["file_name"]), root / "images")
        content["images"] += part["images"]
        content["annotations"] += part["annotations"]
    write(root / name, content | {"categories": part["categories"]})
    found = {}
    for split in ("train", "val"):
        source = open_source("folder", root, split=split).paired()
        assert source.labels.names == ("background", "leaf", "bug")
        found |= {name: mask for name, _, mask in source.examples()}
    assert len(found) == 3
    for file, mask in found.items():
        np.testing.assert_array_equal(mask, truth(int(file[-5])))


def test_pictures_that_no_coco_file_lists_are_told(boards):
    root, _ = boards
    save(picture(), root / "train/more.png")
    assert (
        "left out, as no file lists them: 1 picture"
        in open_source("folder", root, split="val").notes
    )


@pytest.mark.parametrize("used", [["background"], []])
def test_annotations_of_the_background_alone_get_the_remedy(refused, boards, used):
    root, _ = boards
    for file in root.glob("*/*.json"):

        def change(content):
            for one in content["categories"]:
                one["name"] = "background"
            content["annotations"] = content["annotations"][: len(used)]

        edited(file, change)
    message = refused(use, root)
    said = "no class but 'background' is used" if used else "no class is used"
    assert message.startswith(f"{root}: {said}; annotate objects of a class of their own")


# --- LabelMe ---


@pytest.fixture
def shapes(tmp_path):
    labelme("{split}/{stem}")(tmp_path)
    return tmp_path, tmp_path / "train/p0.json"


def shape(content, **change):
    content["shapes"][0].update(change)


LABELME = {
    "NaN": (lambda content: shape(content, points=[[0, 0], [float("nan"), 1]]), "p0.json"),
    "huge": (lambda content: shape(content, points=[[0, 0], [1e200, 1]]), "p0.json"),
    "endless circle": (
        lambda content: shape(content, points=[[0, 0], [1e999, 1]], shape_type="circle"),
        "p0.json",
    ),
    "three points": (lambda content: shape(content, points=[[0, 0]] * 3), "of 3 points"),
    "no points": (lambda content: content["shapes"][0].pop("points") and None, "'points'"),
    "no label": (lambda content: content["shapes"][0].pop("label") and None, "'label'"),
    "line break": (lambda content: shape(content, label="a\nb"), "not one line"),
    "a new kind": (lambda content: shape(content, shape_type="cuboid"), "'cuboid'"),
    "size": (lambda content: content.update(imageHeight=999), "32x999 pixels"),
    "no size": (lambda content: content.update(imageHeight=[1]), "no numbers"),
    "a shape of text": (lambda content: content.update(shapes=["leaf"]), "not LabelMe's form"),
    "a mask of text": (lambda content: shape(content, shape_type="mask", mask="***"), "its mask"),
    "a mask nowhere": (
        lambda content: shape(
            content, shape_type="mask", mask="", points=[[float("nan"), 0], [1, 1]]
        ),
        "p0.json",
    ),
}


@pytest.mark.parametrize("what", LABELME)
def test_labelme_that_is_none_gets_one_line(refused, shapes, what):
    root, file = shapes
    change, says = LABELME[what]
    edited(file, change)
    message = refused(use, root)
    assert says in message and str(root) in message


def test_labelme_with_its_picture_inside_alone_gets_one_line(refused, shapes):
    root, file = shapes
    (root / "train/p0.jpg").unlink()
    edited(file, lambda content: content.update(imageData="AAAA"))
    assert refused(use, root).startswith(f"{file}: no picture of this name beside it")


def test_a_picture_without_its_labelme_file_is_named(refused, shapes):
    root, file = shapes
    file.unlink()
    assert f"{root / 'train/p0.jpg'}: no p0.json beside it" in refused(use, root)


def test_points_and_lines_are_told(shapes):
    root, _ = shapes
    notes = open_source("folder", root, split="train").notes
    assert "left out, as points and lines have no area: 3 shapes" in notes


def test_circles_and_masks_of_labelme(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(np.full((6, 5), True)).save(stream, "PNG")
    corner = {"label": "m", "points": [[-2, -3], [2, 2]], "shape_type": "mask"}
    corner["mask"] = base64.b64encode(stream.getvalue()).decode()
    circle = {"label": "c", "points": [[20, 12], [20, 17]], "shape_type": "circle"}
    for stem in "ab":
        save(picture(), tmp_path / f"{stem}.png")
        content = {"shapes": [corner, circle], "imageHeight": SIZE[0], "imageWidth": SIZE[1]}
        write(tmp_path / f"{stem}.json", content)
    source = open_source("folder", tmp_path, split="val")
    assert source.labels.names == ("background", "c", "m") and len(source) == 1
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    expected = ((rows + 0.5 - 12) ** 2 + (columns + 0.5 - 20) ** 2 < 25).astype(np.uint8)
    expected[:3, :3] = 2
    np.testing.assert_array_equal(source.read(0)[1], expected)


# --- YOLO ---


@pytest.fixture
def texts(tmp_path):
    yolo("images/{split}/{stem}{suffix}", "labels/{split}/{stem}.txt")(tmp_path)
    return tmp_path, tmp_path / "labels/train/p0.txt"


@pytest.mark.parametrize(
    "line, says",
    [
        ("0 0.1 0.1 0.5 0.5", "a box, no polygon"),
        ("0 0.1 0.1 0.5 0.5 0.9", "5 numbers"),
        ("0 nan 0.1 0.5 0.5 0.9 0.1", "coordinates in pixels"),
        ("0 1e300 0.1 0.5 0.5 0.9 0.1", "coordinates in pixels"),
        ("0 12 14 20 30 25 8", "coordinates in pixels"),
        ("9 0.1 0.1 0.5 0.5 0.9 0.1", "class 9 is not in data.yaml"),
        ("leaf 0.1 0.1 0.5 0.5 0.9 0.1", "not numbers"),
        ("0.5 0.1 0.1 0.5 0.5 0.9 0.1", "the class is 0.5; it must be an integer"),
        ("nan 0.1 0.1 0.5 0.5 0.9 0.1", "the class is nan; it must be an integer"),
    ],
)
def test_a_line_of_yolo_that_is_no_polygon_is_named(refused, texts, line, says):
    root, file = texts
    file.write_text(f"0 0.1 0.1 0.5 0.5 0.9 0.1\n\n{line}\n")
    message = refused(use, root)
    assert message.startswith(f"{file}, line 3: ") and says in message


def test_a_class_of_yolo_may_be_a_whole_number_as_a_float(texts):
    root, file = texts
    mask = open_source("folder", root, split="train").read(0)[1]
    file.write_text("".join(f"{line[0]}.0{line[1:]}\n" for line in file.read_text().splitlines()))
    np.testing.assert_array_equal(open_source("folder", root, split="train").read(0)[1], mask)


@pytest.mark.parametrize("name", ["dataset.yml", "leaves.yaml", "leaves.yml"])
def test_the_names_of_yolo_may_be_in_a_file_of_another_name(refused, texts, name):
    root, _ = texts
    (root / "data.yaml").rename(root / name)
    write(root / "tracker.yaml", "batch: 3\n")
    assert len(open_source("folder", root, split="train").labels) == 3
    write(root / "more.yaml", "names: [x]\n")
    message = refused(use, root)
    assert message.startswith(f"{root}: ") and name in message and "more.yaml" in message
    assert message.endswith("have names of classes; call the one that is meant data.yaml")


LAUGHS = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nnames: [*c, *c]\n"


@pytest.mark.parametrize(
    "text",
    ["", "names:\n", "names: []\n", "names: leaf\n", "train: x\n", "[", "names: {a: b}\n", LAUGHS,
     "names: !!python/object/apply:os.system [echo]\n", "names: [leaf, leaf]\n", "names: 7\n"],
)  # fmt: skip
def test_a_data_yaml_without_names_gets_one_line(refused, texts, text):
    root, _ = texts
    (root / "data.yaml").write_text(text)
    assert refused(use, root).startswith(f"{root / 'data.yaml'}: ")


def test_yolo_without_pictures_or_with_lost_texts_gets_one_line(refused, texts):
    root, file = texts
    file.rename(file.with_name("q.txt"))
    message = refused(use, root)
    assert f"{file.with_name('q.txt')}: no picture of this name" in message
    notes = open_source("folder", root, split="train").notes
    assert "without a text file, so without an object: 1 picture" in notes
    shutil.rmtree(root / "labels")
    assert "no pictures beside it; expected images/train/ and labels/train/" in refused(use, root)


def test_labels_json_beside_yolo_need_not_have_what_no_picture_shows(refused, texts):
    root, _ = texts
    (root / "data.yaml").write_text("names: [leaf, bug, rare]\n")
    write(root / "labels.json", {"names": ["background", "bug", "leaf"]})
    mask = open_source("folder", root, split="val").read(0)[1]
    np.testing.assert_array_equal(mask, np.array([0, 2, 1], np.uint8)[truth(2)])
    write(root / "labels.json", {"names": ["background", "leaf"]})
    assert "the class 'bug' is not in labels.json" in refused(use, root)


# --- All of them ---


def places(content, path=()):
    """The path of every value in a JSON content."""
    yield path
    if isinstance(content, (dict, list)):
        for key in content if isinstance(content, dict) else range(len(content)):
            yield from places(content[key], (*path, key))


@pytest.mark.parametrize(
    "kind, name",
    [
        ("COCO compressed runs", "annotations/instances_val2017.json"),
        ("COCO polygons", "annotations/instances_val2017.json"),
        ("LabelMe in splits", "val/p2.json"),
        ("Label Studio", "project-1.json"),
    ],
)
def test_whatever_stands_at_any_place_of_a_json_file_is_one_line(tmp_path, kind, name):
    (KINDS | {"Label Studio": label_studio})[kind](tmp_path)
    whole, refusals = (tmp_path / name).read_text(), 0
    for path in [path for path in places(json.loads(whole)) if path]:
        for value in (None, "a\nb", 1e999, -1, [[]], {}, "\0"):
            content = json.loads(whole)
            inner = content
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = value
            write(tmp_path / name, content)
            try:
                use(tmp_path)
            except UserError as error:
                refusals += 1
                assert len(str(error).splitlines()) == 1 and len(str(error)) < 600
    assert refusals > 10


@pytest.mark.parametrize("kind", ["CVAT", "Roboflow", "COCO runs", "LabelMe in splits",
                                  "YOLO train/images", "ids"])  # fmt: skip
def test_hidden_files_of_other_systems_are_passed_over(tmp_path, kind):
    KINDS[kind](tmp_path)
    expected = [open_source("folder", tmp_path, split=split).names for split in ("train", "val")]
    for file in [f for f in tmp_path.rglob("*") if f.is_file()]:
        file.with_name(f"._{file.name}").write_bytes(b"\0\5\x16\7\0")
    use(tmp_path)
    found = [open_source("folder", tmp_path, split=split).names for split in ("train", "val")]
    assert found == expected


def turned(number, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return Image.fromarray(picture(number)), exif


@pytest.mark.parametrize("stored", [True, False])
def test_coordinates_of_the_stored_pixels_are_turned_as_the_picture_is(tmp_path, stored):
    """A tool that ignores EXIF writes the stored size, and coordinates of it."""
    coco(as_polygon, "roboflow")(tmp_path)
    image, exif = turned(0, 6)
    image.save(tmp_path / "train/p0.jpg", exif=exif)  # shown as 24 wide, 32 high
    if not stored:
        file = tmp_path / "train/_annotations.coco.json"
        edited(file, lambda content: content["images"][0].update(height=SIZE[1], width=SIZE[0]))
    source = open_source("folder", tmp_path, split="train")
    picture_read, mask = source.read(0)
    assert picture_read.shape == (*SIZE[::-1], 3) and mask.shape == SIZE[::-1]
    if stored:
        np.testing.assert_array_equal(mask, np.rot90(truth(0), -1))
    assert source.survey().turned == 0


def test_coordinates_that_may_be_of_either_side_are_counted(tmp_path):
    yolo("images/{split}/{stem}{suffix}", "labels/{split}/{stem}.txt")(tmp_path)
    for orientation, count in ((1, 0), (3, 1), (6, 1)):
        image, exif = turned(0, orientation)
        image.save(tmp_path / "images/train/p0.jpg", exif=exif)
        assert open_source("folder", tmp_path, split="train").survey().turned == count
