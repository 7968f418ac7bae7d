"""The generated scenes: repeatable, complete, and the same drawings in every world."""

import numpy as np
import pytest

from keras_pspnet import scenes
from keras_pspnet.errors import UserError
from keras_pspnet.scenes import drawings

VOID = scenes.LABELS.ignore


@pytest.fixture(scope="module")
def some():
    return scenes.scenes(60, split="val")


def test_same_arguments_same_scene():
    first, second = scenes.scene(7, split="val"), scenes.scene(7, split="val")
    assert np.array_equal(first[0], second[0]) and np.array_equal(first[1], second[1])
    for other in (scenes.scene(7), scenes.scene(10, split="val")):
        assert not np.array_equal(first[0], other[0])


# split, index: mean colour, then the share of each class in thousandths.
DRAWN = {
    ("train", 0): ((128.5, 117.9, 136.3), {0: 159, 1: 173, 2: 489, 3: 124, 4: 34, 255: 20}),
    ("train", 1): ((148.8, 156.1, 160.0), {0: 347, 5: 531, 6: 63, 7: 31, 255: 28}),
    ("train", 2): ((101.5, 97.5, 93.4), {8: 259, 9: 624, 10: 88, 11: 22, 255: 7}),
    ("val", 0): ((139.8, 151.3, 146.4), {0: 98, 1: 225, 2: 414, 3: 186, 4: 25, 255: 51}),
    ("val", 1): ((102.0, 103.4, 111.8), {0: 267, 5: 605, 6: 88, 7: 10, 255: 30}),
    ("val", 2): ((101.3, 106.3, 101.2), {4: 16, 8: 301, 9: 613, 10: 60, 11: 4, 255: 6}),
}


@pytest.mark.parametrize(("split", "index"), DRAWN)
def test_a_scene_stays_what_it_was(split, index):
    """Published scores are those of these scenes; Pillow may move an edge by a pixel."""
    image, mask = scenes.scene(index, split=split)
    color, shares = DRAWN[split, index]
    np.testing.assert_allclose(image.mean((0, 1)), color, atol=0.3)
    found = dict(zip(*np.unique(mask, return_counts=True)))
    assert list(found) == list(shares)
    counted = [1000 * count / mask.size for count in found.values()]
    np.testing.assert_allclose(counted, list(shares.values()), atol=1)


def test_a_batch_is_its_scenes(some):
    image, mask = scenes.scene(41, split="val")
    assert np.array_equal(some[0][41], image) and np.array_equal(some[1][41], mask)


@pytest.mark.parametrize("size", [(33, 33), (65, 97), (185, 185), (249, 161)])
def test_sizes_and_types(size):
    for index in range(6):
        image, mask = scenes.scene(index, size=size)
        assert image.shape == (*size, 3) and mask.shape == size
        assert image.dtype == mask.dtype == np.uint8
        assert image.std() > 5
        assert set(np.unique(mask)) <= {*range(len(scenes.LABELS)), VOID}


def test_every_class_occurs_and_some_void(some):
    share = np.bincount(some[1].ravel(), minlength=256) / some[1].size
    assert (share[: len(scenes.LABELS)] > 0.003).all()
    assert 0.01 < share[VOID] < 0.08


def test_worlds_do_not_mix(some):
    own = (
        {drawings.SKY, drawings.BUILDING, drawings.ROAD, drawings.CAR, drawings.POLE},
        {drawings.SKY, drawings.WATER, drawings.BOAT, drawings.BUOY},
        {drawings.WALL, drawings.FLOOR, drawings.POLE, drawings.BED, drawings.PILLOW},
    )
    for index, mask in enumerate(some[1]):
        assert set(np.unique(mask)) - {VOID} <= own[index % 3]


def draw(thing, label, seed=3):
    """One drawing on an empty canvas: picture and mask as arrays."""
    canvas = drawings.Canvas(np.random.default_rng(1), (185, 185), drawings.SKY, drawings.ROAD)
    canvas.rng = np.random.default_rng(seed)
    thing(canvas, 90, 150, 70, label)
    return np.array(canvas.picture), np.array(canvas.mask)


@pytest.mark.parametrize(
    ("thing", "one", "other"),
    [
        (drawings.vehicle, drawings.CAR, drawings.BOAT),
        (drawings.post, drawings.POLE, drawings.BUOY),
        (drawings.slab, drawings.CAR, drawings.BOAT),
    ],
)
def test_same_drawing_other_label(thing, one, other):
    (picture, mask), (picture2, mask2) = draw(thing, one), draw(thing, other)
    assert np.array_equal(picture, picture2)
    assert np.array_equal(mask == one, mask2 == other) and (mask == one).sum() > 100


def test_a_pillow_has_the_colours_of_its_bed():
    drawn = (draw(drawings.slab, drawings.BED, seed) for seed in range(20))
    beds = [(picture, mask) for picture, mask in drawn if (mask == drawings.PILLOW).any()]
    assert len(beds) > 8
    for picture, mask in beds:
        pillow = {tuple(color) for color in picture[mask == drawings.PILLOW]}
        assert len(pillow) == 2
        assert pillow <= {tuple(color) for color in picture[mask == drawings.BED]}


def test_surfaces_have_the_same_statistics(some):
    """Neither brightness nor roughness tells road, water and floor apart."""
    values = []
    for index, (image, mask) in enumerate(zip(*some)):
        surface = mask == (drawings.ROAD, drawings.WATER, drawings.FLOOR)[index % 3]
        step = np.abs(np.diff(image.astype(float), axis=1))[surface[:, 1:] & surface[:, :-1]]
        values.append((image[surface].mean(), step.mean()))
    worlds = np.array(values).reshape(-1, 3, 2)
    means = worlds.mean(0)
    assert (np.ptp(means, axis=0) < worlds.std((0, 1))).all()


def test_things_have_a_void_rim(some):
    things = (drawings.CAR, drawings.BOAT, drawings.POLE, drawings.BUOY, drawings.PILLOW)
    for mask in some[1]:
        thing = np.isin(mask, things)
        for one, other in ((mask[1:], thing[:-1]), (mask[:, 1:], thing[:, :-1])):
            assert set(np.unique(one[other])) <= {*things, VOID}


def test_a_size_that_is_none_is_refused(refused):
    assert "size 240 is not (H, W)" in refused(scenes.scene, 0, size=240)


def test_unknown_split():
    with pytest.raises(UserError, match="no split 'test'; expected one of train, val") as error:
        scenes.scene(0, split="test")
    assert "\n" not in str(error.value)
