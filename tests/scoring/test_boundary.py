"""Boundary IoU against its definition, pixel by pixel."""

import numpy as np
import pytest

from keras_pspnet.labels import LabelSet
from keras_pspnet.scoring.boundary import BoundaryIoU, boundary
from keras_pspnet.scoring.metrics import evaluate

LABELS = LabelSet(("a", "b", "c"))


def obvious(region, width):
    """A pixel of the region is on its boundary if a square of 2 width + 1 pixels leaves it."""
    result = np.zeros_like(region)
    for row, column in np.argwhere(region):
        for y in range(row - width, row + width + 1):
            for x in range(column - width, column + width + 1):
                inside = 0 <= y < region.shape[0] and 0 <= x < region.shape[1]
                result[row, column] |= not (inside and region[y, x])
    return result


def regions(seed, size=(30, 44)):
    """Class ids in blocks."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2, (5, 4)).repeat(6, 0).repeat(11, 1)[: size[0], : size[1]]


@pytest.mark.parametrize("width", [1, 2, 7, 20])
def test_a_boundary_by_its_definition(width):
    region = regions(3) == 1
    assert region.any() and not region.all()
    np.testing.assert_array_equal(boundary(region, width), obvious(region, width))


def test_the_scores_of_two_pictures_by_their_definition():
    masks, guesses = [regions(n) for n in (0, 1)], [regions(n) for n in (2, 3)]
    masks[0][:, :3] = 255
    examples = [(str(n), np.zeros((30, 44, 3), np.uint8), mask) for n, mask in enumerate(masks)]
    found, predictions = BoundaryIoU(LABELS), iter(guesses)
    scores = evaluate(lambda _: next(predictions), examples, LABELS, on_picture=found.add)
    found.add_to(scores)
    width, expected = 1, []  # 2 % of the diagonal of 53 pixels
    for label, name in enumerate("ab"):
        shared = either = 0
        for mask, guess in zip(masks, guesses):
            one, other = (obvious((x == label) & (mask != 255), width) for x in (mask, guess))
            shared, either = shared + (one & other).sum(), either + (one | other).sum()
        expected.append(shared / either)
        assert scores["per_class"][name]["boundary_IoU"] == pytest.approx(expected[-1])
    assert scores["per_class"]["c"]["boundary_IoU"] is None
    assert scores["boundary_mIoU"] == pytest.approx(np.mean(expected))


def test_a_contour_that_is_wrong_counts_more_than_in_the_plain_iou():
    mask = np.zeros((100, 100), np.uint8)
    mask[20:80, 20:80] = 1
    guess = np.roll(mask, 2, axis=1)
    found = BoundaryIoU(LABELS)
    scores = evaluate(lambda _: guess, [("p", mask, mask)], LABELS, on_picture=found.add)
    found.add_to(scores)
    row = scores["per_class"]["b"]
    assert row["IoU"] == pytest.approx(58 / 62)
    ring = 60 * 60 - 54 * 54  # 3 pixels wide: 2 % of 141
    shared = 2 * 58 * 3 + 2 * 1 * 54  # above and below; one of three columns left and right
    assert row["boundary_IoU"] == pytest.approx(shared / (2 * ring - shared))


def test_nothing_but_void():
    void, found = np.full((9, 9), 255, np.uint8), BoundaryIoU(LABELS)
    scores = evaluate(lambda _: void * 0, [("p", void, void)], LABELS, on_picture=found.add)
    found.add_to(scores)
    assert scores["boundary_mIoU"] == 0 and scores["per_class"]["a"]["boundary_IoU"] is None
