"""The generated scenes as a dataset: drawn once, read-only, within bounds of memory."""

import weakref

import numpy as np
import pytest

from keras_pspnet.data import datasets
from keras_pspnet.data.datasets import open_source
from keras_pspnet.data.pairs import Source


def test_scenes_need_no_folder():
    source = open_source("scenes", split="val", size=(33, 41))
    image, mask = source.read(3)
    assert len(source) == 100 and image.shape == (33, 41, 3) and mask.shape == (33, 41)
    assert isinstance(source, Source) and len(set(source.names)) == 100


def test_drawn_scenes_are_read_only():
    source = open_source("scenes", split="val", size=(33, 41))
    for array in source.read(3):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.mark.parametrize("side, all_kept", [(185, True), (713, False)])
def test_drawn_scenes_are_kept_within_256_mib(monkeypatch, side, all_kept):
    drawn, alive = [], []

    def scene(index, *, split, size):
        assert split == "train"
        pair = np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8)
        drawn.append(index)
        alive.append(weakref.ref(pair[0]))
        return pair

    monkeypatch.setattr(datasets.scenes, "scene", scene)
    source = open_source("scenes", split="train", size=(side, side))
    for _ in range(2):
        for index in range(1200):
            source.read(index)
    kept = sum(picture() is not None for picture in alive)
    assert 2**27 < kept * 4 * side**2 <= 2**28
    assert (drawn == [*range(1200)]) == all_kept
    source.read(1199)
    assert len(drawn) == (1200 if all_kept else 2400)  # the last ones are kept


def test_a_size_of_scenes_that_is_none_gets_one_line(refused):
    assert "(0, 9) is not (H, W)" in refused(open_source, "scenes", split="val", size=(0, 9))
