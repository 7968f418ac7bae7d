"""Label Studio's PNG for each region, with its exported JSON."""

import json
import shutil

import numpy as np
import pytest
from annotation_kinds import SIZE, label_studio, save, truth, write

from keras_pspnet.data import splitting
from keras_pspnet.data.datasets import open_source, splits_of


@pytest.fixture
def root(tmp_path):
    label_studio(tmp_path)
    return tmp_path


def masks(root):
    """Number of the picture -> mask, of both splits."""
    found = {}
    for split in ("train", "val"):
        source = open_source("folder", root, split=split).paired()
        found |= {int(name[-5]): mask for name, _, mask in source.examples()}
    return found


@pytest.mark.parametrize("form", ["JSON", "JSON-MIN", "local files", "other names"])
def test_regions_become_the_mask_of_their_picture(root, form):
    file = root / "project-1.json"
    tasks = json.loads(file.read_text())
    if form == "JSON-MIN":
        tasks = [{"id": task["id"], "annotator": 1, **task["data"]} for task in tasks]
    elif form == "local files":
        for number, task in enumerate(tasks):
            task["data"]["image"] = f"/data/local-files/?d=street%2F1a2b3c4d-p{number}.png"
    elif form == "other names":  # the pictures as they were before they were uploaded
        for picture in (root / "images").iterdir():
            picture.rename(picture.with_name(picture.name[9:]))
    write(file, tasks)
    found = masks(root)
    assert sorted(found) == [0, 1, 2]
    for number, mask in found.items():
        np.testing.assert_array_equal(mask, truth(number))


def test_pngs_in_masks_are_recognised_where_the_json_is_there(root):
    (root / "pngs").rename(root / "masks")
    assert len(masks(root)) == 3


def test_labels_are_in_alphabetical_order(root):
    (root / "labels.json").unlink()
    source = open_source("folder", root, split="val")
    assert source.labels.names == ("background", "bug", "leaf")
    assert source.notes[0] == f"{root}: Label Studio's PNG for each region"


def test_tasks_without_a_png_are_told(root):
    for file in (root / "pngs").glob("task-8-*"):
        file.unlink()
    assert "left out, as they have no PNG: 1 task" in open_source("folder", root, split="val").notes


@pytest.mark.parametrize(
    "what, says",
    [
        ("no json", "no JSON that names the picture of each task"),
        ("no task", "the JSON has no task 7"),
        ("no picture", "the picture of task 7, 1a2b3c4d-p0.png, is not there"),
        ("two annotations", "task 7 has several annotations"),
        ("another size", "is 9x5 pixels, its picture 32x24"),
        ("other labels", "the class 'bug' is not in labels.json"),
    ],
)
def test_what_does_not_fit_gets_one_line(refused, root, what, says):
    first = root / "pngs" / "task-7-annotation-0-by-1-tag-leaf-0.png"
    tasks = json.loads((root / "project-1.json").read_text())
    if what == "no json":
        (root / "project-1.json").unlink()
    elif what == "no task":
        write(root / "project-1.json", tasks[1:])
    elif what == "no picture":
        (root / "images/1a2b3c4d-p0.png").unlink()
    elif what == "two annotations":
        shutil.copy(first, first.with_name(first.name.replace("annotation-0", "annotation-5")))
    elif what == "another size":
        save(np.zeros((5, 9), np.uint8), first)
    else:
        write(root / "labels.json", {"names": ["background", "leaf"]})
    assert says in refused(masks, root)


def test_a_label_may_hold_hyphens_and_brushes_soft_edges(root):
    for file in (root / "pngs").glob("*-tag-bug-*"):
        soft = np.full(SIZE, 127, np.uint8)
        soft[0, 0] = 128
        save(soft, file.with_name(file.name.replace("-bug-", "-lady-bug-2-")))
        file.unlink()
    write(root / "labels.json", {"names": ["background", "leaf", "lady-bug-2"]})
    expected = (truth(0) > 0).astype(np.uint8)
    expected[0, 0] = 2
    np.testing.assert_array_equal(masks(root)[0], expected)


def test_what_was_put_before_a_name_does_not_hide_its_clip(root):
    assert splitting.group_of("1a2b3c4d-clip7_0001") == "clip7"
    assert splits_of("folder", root) == ["train", "val"]
