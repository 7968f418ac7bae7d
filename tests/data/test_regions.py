"""Polygons and run lengths become pixels."""

import numpy as np
import pytest
from annotation_kinds import compressed
from matplotlib.path import Path as Outline

from keras_pspnet.data.regions import Region, decode_rle, paint, polygon, run_lengths


def inside(points, size):
    """The pixels whose centre matplotlib finds inside."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    centres = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], 1)
    return Outline(points, closed=False).contains_points(centres).reshape(size)


@pytest.mark.parametrize("seed", range(20))
def test_a_polygon_has_the_pixels_whose_centre_it_holds(seed):
    random = np.random.default_rng(seed)
    size, count = (40, 50), random.integers(3, 12)
    angles = np.sort(random.random(count)) * 2 * np.pi  # star-shaped: no edge crosses another
    radii = random.random(count) * 30 + 3  # some of it outside of the picture
    points = np.stack([20 + radii * np.cos(angles), 25 + radii * np.sin(angles)], 1)
    mask = paint([Region(1, (points,))], size, 0)
    np.testing.assert_array_equal(mask == 1, inside(points, size))


def test_a_polygon_that_crosses_itself_has_a_hole():
    points = [(0, 0), (8, 0), (8, 8), (0, 8), (0, 0), (2, 2), (6, 2), (6, 6), (2, 6), (2, 2)]
    mask = paint([Region(1, (points,))], (8, 8), 0)
    expected = np.ones((8, 8))
    expected[2:6, 2:6] = 0
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("shift", [(-30, 0), (30, 0), (0, -30), (0, 30), (1e5, -1e5)])
def test_a_polygon_outside_of_the_picture_has_no_pixels(shift):
    points = np.array([(1, 1), (9, 1), (9, 9), (1, 9)]) + shift
    assert not paint([Region(1, (points,))], (12, 14), 0).any()


def test_small_regions_lie_over_large_ones_in_any_order():
    large = Region(1, ([(0, 0), (10, 0), (10, 10), (0, 10)],))
    small = Region(2, rle=[33, 3, 7, 3, 54])
    tiny = Region(3, inside=np.eye(10, dtype=bool) & (np.arange(10) == 4))
    expected = np.ones((10, 10), np.uint8)
    expected[3:6, 3:5] = 2
    expected[4, 4] = 3
    for regions in ([large, small, tiny], [tiny, small, large], [small, tiny, large]):
        np.testing.assert_array_equal(paint(regions, (10, 10), 7), expected)


@pytest.mark.parametrize(
    "points",
    [
        [(0, 0), (1, 1)],
        [(0, 0), (1, 1), (float("nan"), 2)],
        [(0, 0), (1, 1), (1e9, 2)],
        [(0, 0), (1, 1), (10**400, 2)],
        [(0, 0), (1, 1), ("x", 2)],
        [(0, 0), (1, 1), (1, 2, 3)],
        None,
        7,
    ],
)
def test_what_is_no_polygon_gets_one_line(refused, points):
    assert "polygon" in refused(polygon, points)


@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_are_read_in_both_forms(seed):
    random = np.random.default_rng(seed)
    mask = random.random((17, 23)) < 0.3 * seed
    flat = np.concatenate([[False], mask.T.ravel()])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff([0, *edges, mask.size]).tolist()
    for form in (counts, compressed(counts)):
        np.testing.assert_array_equal(decode_rle(run_lengths(form), mask.shape), mask)


def test_the_compressed_form_is_the_one_of_coco():
    """By hand, of cocoapi's rleToString: 63 -> "o1", 5 -> "5", 6 -> "6", 3 - 5 = -2 -> "N"."""
    assert run_lengths("o156N") == [63, 5, 6, 3]


@pytest.mark.parametrize("counts", [None, 7, {"a": 1}, [1, -1], [1, 2.5], ["1"], "\n", "~" * 20])
def test_what_are_no_run_lengths_gets_one_line(refused, counts):
    assert "run lengths" in refused(run_lengths, counts)


@pytest.mark.parametrize("counts", [[5], [5, 8], [10**30]])
def test_run_lengths_that_do_not_fill_the_picture_are_refused(refused, counts):
    assert "do not fill 3x4 pixels" in refused(decode_rle, counts, (4, 3))
