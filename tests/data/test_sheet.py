"""The sheet of samples that `look` draws."""

import numpy as np
import pytest

from keras_pspnet.data import inspect
from keras_pspnet.data.pairs import Source
from keras_pspnet.labels import LabelSet


def of_one_class(sizes, bad=()):
    """A source of grey pictures of these sizes; their masks are all of class 1, which is red."""
    labels = LabelSet(("a", "b"), ((0, 0, 200), (200, 0, 0)))

    def read(index):
        assert index not in bad
        shape = sizes[index]
        return np.full((*shape, 3), 100, np.uint8), np.full(shape, 1, np.uint8)

    return Source(tuple(map(str, range(len(sizes)))), labels, read)


def red(sheet):
    """The share of a sheet that is class 1 over grey; overlays count in 256ths."""
    return (sheet == (169, 30, 30)).all(-1).mean()


@pytest.mark.parametrize("count, rows", [(1, 1), (2, 1), (3, 2), (8, 4), (30, 4)])
def test_the_sheet_shows_up_to_eight_pairs(count, rows):
    sheet = inspect.sheet("title", of_one_class([(20, 30)] * count), list(range(count)))
    tile = 185 * 278
    assert red(sheet) * sheet[..., 0].size / tile == pytest.approx(min(count, 8), rel=0.02)
    assert sheet.shape[0] // 193 == rows


def test_the_sheet_shows_good_pairs_only():
    bad = set(range(40)) - {3, 17}
    sheet = inspect.sheet("title", of_one_class([(20, 30)] * 40, bad), [3, 17])
    assert red(sheet) * sheet[..., 0].size / (185 * 278) == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 900), (1000, 1500)])
def test_a_strip_or_a_photograph_fits_its_tile(size):
    sheet = inspect.sheet("title", of_one_class([size, (20, 30)]), [0, 1])
    assert sheet.shape[0] < 300 and sheet.shape[1] < 2000
    assert red(sheet) * sheet[..., 0].size > 0.98 * 185 * 278
    expected = {(1, 1): (185, 185), (1, 3000): (1, 400), (3000, 1): (185, 1), (2, 900): (1, 400)}
    source = of_one_class([size])
    height, width = expected.get(size, (185, 278))
    for tile, color in zip(inspect.fit_tile(*source.read(0), source.labels), (100, (169, 30, 30))):
        assert tile.shape == (185, width, 3)
        assert (tile[:height] == color).all() and (tile[height:] == 255).all()


def test_void_is_striped_and_a_black_class_is_not():
    labels = LabelSet(("background", "leaf"), ((0, 0, 0), (200, 0, 0)))
    mask = np.zeros((160, 200), np.uint8)
    mask[:, 100:] = 255
    _, shown = inspect.fit_tile(np.full((160, 200, 3), 100, np.uint8), mask, labels)
    grey = (shown == inspect.STRIPES).all(-1)
    half = shown.shape[1] // 2
    assert not grey[:, :half].any() and 0.2 < grey[:185, half:].mean() < 0.3
