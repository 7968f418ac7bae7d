"""What a checkpoint keeps of annotated data: a changed file of any format is noticed and named."""

import json

import numpy as np
import pytest
from annotation_kinds import KINDS, label_studio, write
from PIL import Image

from keras_pspnet.data.datasets import open_source
from keras_pspnet.train.splits import check_same_data, fingerprint


def now(root):
    return fingerprint(*(open_source("folder", root, split=s) for s in ("train", "val")), root)


ANNOTATIONS = {
    "COCO polygons": ("annotations/instances_train2017.json", b"[4, 3, 21", b"[5, 3, 21"),
    "LabelMe in splits": ("train/p0.json", b"[4, 3]", b"[5, 3]"),
    "YOLO train/images": ("train/labels/p0.txt", b"0.125", b"0.126"),
    "Roboflow masks": ("train/p0_mask.png", None, None),
    "Label Studio": ("pngs/task-7-annotation-0-by-1-tag-bug-2.png", None, None),
    "CVAT": ("SegmentationClass/p0.png", None, None),
}


@pytest.mark.parametrize("kind", ANNOTATIONS)
def test_a_changed_annotation_is_named(tmp_path, refused, kind):
    (KINDS | {"Label Studio": label_studio})[kind](tmp_path / "data")
    before = json.loads(json.dumps(now(tmp_path / "data")))
    check_same_data("run", before, now(tmp_path / "data"))
    name, old, new = ANNOTATIONS[kind]
    file = tmp_path / "data" / name
    if old is None:
        mask = np.array(Image.open(file))
        mask[-1] = mask[7]
        Image.fromarray(mask).save(file)
    else:
        content = file.read_bytes()
        assert old in content
        file.write_bytes(content.replace(old, new, 1))
    message = refused(check_same_data, "run", before, now(tmp_path / "data"))
    assert f"{file} has changed since its run began" in message


def test_what_is_in_no_polygon_belongs_to_the_data(tmp_path, refused):
    KINDS["Roboflow"](tmp_path / "data")
    labels = {"names": ["background", "leaf", "bug"]}
    write(tmp_path / "data/labels.json", labels)
    before = now(tmp_path / "data")
    write(tmp_path / "data/labels.json", labels | {"uncovered": "void"})
    message = refused(check_same_data, "run", before, now(tmp_path / "data"))
    assert "what is in no polygon is background in its run, void in the data now" in message


def test_a_text_that_comes_to_a_picture_of_yolo_is_noticed(tmp_path, refused):
    KINDS["YOLO train/images"](tmp_path / "data")
    text = tmp_path / "data/train/labels/p1.txt"
    content = text.read_bytes()
    text.unlink()
    before = json.loads(json.dumps(now(tmp_path / "data")))
    check_same_data("run", before, now(tmp_path / "data"))
    text.write_bytes(content)
    message = refused(check_same_data, "run", before, now(tmp_path / "data"))
    assert f"{text} has changed since its run began" in message
