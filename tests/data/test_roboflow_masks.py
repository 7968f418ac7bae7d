"""Roboflow's masks: _classes.csv names their values; what is no such export gets one line."""

import numpy as np
import pytest
from annotation_kinds import roboflow_masks, truth, write

from keras_pspnet.data.datasets import open_source, splits_of


def use(root):
    """Pair everything; raises the first error."""
    for split in splits_of("folder", root):
        open_source("folder", root, split=split).paired()


@pytest.mark.parametrize(
    "table, says",
    [
        ("", "no classes; expected lines of Pixel Value, Class"),
        ("Pixel Value, Class\nx, leaf", "line 2: 'x, leaf'; expected Pixel Value, Class"),
        ("Pixel Value, Class\n\n0, a\n0, b", "line 4: '0, b'; expected"),
        ("Pixel Value, Class\n256, a", "line 2: '256, a'; expected"),
        ("Pixel Value, Class\n1", "line 2: '1'; expected"),
        ("Pixel Value, Class\n0, a\n1, a\n2, b", "the name 'a' appears twice"),
        ("\n".join(["h", *(f"{value}, n{value}" for value in range(256))]), "256 values"),
    ],
)  # fmt: skip
def test_a_classes_csv_that_is_none_gets_one_line(refused, tmp_path, table, says):
    roboflow_masks(tmp_path)
    for split in ("train", "valid"):
        write(tmp_path / split / "_classes.csv", table)
    assert says in refused(use, tmp_path)


def test_roboflows_masks_of_other_values_names_and_orders(refused, tmp_path):
    roboflow_masks(tmp_path)
    for split in ("train", "valid"):
        write(tmp_path / split / "_classes.csv", "v, c\n2, bug\n0, void\n1, leaf\n255, x, y\n")
    source = open_source("folder", tmp_path, split="val")
    assert source.labels.names == ("leaf", "bug", "x, y")  # in the order of their values
    np.testing.assert_array_equal(source.read(0)[1], np.array([255, 0, 1], np.uint8)[truth(2)])
    write(tmp_path / "labels.json", {"names": ["bug", "x, y", "leaf"]})
    source = open_source("folder", tmp_path, split="val")
    np.testing.assert_array_equal(source.read(0)[1], np.array([255, 2, 0], np.uint8)[truth(2)])
    write(tmp_path / "labels.json", {"names": ["bug", "leaf"]})
    assert "the class 'x, y' is not in labels.json" in refused(use, tmp_path)
    (tmp_path / "labels.json").unlink()
    write(tmp_path / "valid/_classes.csv", "v, c\n0, a\n1, b\n2, c\n")
    assert "valid/_classes.csv: other classes than" in refused(use, tmp_path)


def test_lost_files_among_roboflows_masks_are_named(refused, tmp_path):
    roboflow_masks(tmp_path)
    (tmp_path / "train/p0.jpg").unlink()
    assert f"{tmp_path}/train/p0_mask.png: no picture of this name" in refused(use, tmp_path)
    (tmp_path / "train/p0_mask.png").unlink()
    (tmp_path / "valid/p2_mask.png").unlink()  # the only one
    assert f"{tmp_path}/valid/p2.jpg: no mask of this name" in refused(use, tmp_path)


def test_roboflows_classification_export_holds_no_masks(refused, tmp_path):
    roboflow_masks(tmp_path, "filename, leaf, bug")
    for file in tmp_path.rglob("*_mask.png"):
        file.unlink()
    assert "no data set that is known" in refused(use, tmp_path)
