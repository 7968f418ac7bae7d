"""Augmenting a large picture around its crop alone gives what augmenting it whole gives."""

import numpy as np
import pytest
import tensorflow as tf

from keras_pspnet.data import augment, augment_window
from keras_pspnet.data.augment import Augmentation, crop
from keras_pspnet.data.augment_window import augment_and_crop

RNG = np.random.default_rng(0)


def pair(height, width):
    """A smooth picture with some noise, and a mask of blobs of the ids 0..3 and void."""
    rows, columns = np.mgrid[:height, :width] / 9.0
    waves = np.stack([np.sin(rows + c) + np.cos(columns * (c + 1) / 2) for c in range(3)], -1)
    image = 127 + 55 * waves + RNG.normal(0, 4, waves.shape)
    mask = np.array([0, 1, 2, 3, 255], np.uint8)[((waves[..., 0] + 2) * 1.24).astype(int)]
    return image.clip(0, 255).astype(np.uint8), mask


def both_ways(monkeypatch, augmentation, image, mask, size, seeds):
    """Yield the results with a window and without, for each seed."""

    for seed in seeds:
        seed, results = tf.constant([seed, 0], tf.int64), []
        for limit in (0, 10**9):
            monkeypatch.setattr(augment_window, "WHOLE_PIXELS", limit)
            results += [p.numpy() for p in augment_and_crop(augmentation, image, mask, size, seed)]
        yield results


CASES = {
    "as the authors": (Augmentation(), (160, 210), (33, 41)),
    "far turns": (Augmentation((0.4, 2.5), 180.0, 1.0), (150, 110), (25, 31)),
    "often padded": (Augmentation((0.2, 1.0), 45.0), (70, 90), (49, 33)),
    "smaller than the crop": (Augmentation(), (20, 30), (81, 97)),
    "a strip": (Augmentation(), (3, 400), (5, 9)),
    "scales only": (Augmentation((0.3, 3.0), 0, 0, 0, 0), (121, 83), (17, 17)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_window_gives_what_the_whole_picture_gives(monkeypatch, case):
    augmentation, picture, size = CASES[case]
    image, mask = pair(*picture)
    filled = 0
    for one, ids, expected, expected_ids in both_ways(
        monkeypatch, augmentation, image, mask, size, range(30)
    ):
        assert one.shape == (*size, 3) and one.dtype == np.float32 and ids.dtype == np.uint8
        np.testing.assert_allclose(one, expected, atol=0.05)
        assert (ids != expected_ids).mean() <= 0.002  # a rounding at the middle of two pixels
        filled += (ids == 255).mean()
    assert filled > 0


def test_colours_change_about_the_mean_of_the_whole_picture(monkeypatch):
    image, mask = pair(320, 400)
    image[:, :200] //= 4  # a dark half: the mean of a crop says little
    colored = Augmentation(color=0.5)
    differences = []
    for one, _, expected, _ in both_ways(monkeypatch, colored, image, mask, (33, 41), range(12)):
        differences.append(np.abs(one - expected).max())
    assert max(differences) < 0.7, differences


def test_the_whole_of_a_large_picture_is_not_augmented(monkeypatch):
    height, width = 513, 512
    assert height * width > augment_window.WHOLE_PIXELS
    image, mask = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)
    for name in ("rescale", "rotate"):
        monkeypatch.setattr(augment, name, lambda *_: pytest.fail("augmented whole"))
    result, ids = augment_and_crop(
        Augmentation(rotation_share=1), image, mask, (33, 41), tf.constant([1, 0], tf.int64)
    )
    assert result.shape == (33, 41, 3) and ids.shape == (33, 41)


@pytest.mark.parametrize("size", [(360, 480), (512, 512)])
def test_other_pictures_are_augmented_whole_bit_by_bit(size):
    image, mask = pair(*size)
    seed, augmentation = tf.constant([1, 0], tf.int64), Augmentation(color=0.3)
    result, ids = augment_and_crop(augmentation, image, mask, (97, 129), seed)
    augmented = augmentation(image.astype(np.float32), mask, seed)
    expected, expected_ids = crop(*augmented, (97, 129), seed + [0, 1])
    assert np.array_equal(result, expected) and np.array_equal(ids, expected_ids)


def test_an_augmentation_of_ones_own_gets_the_whole_picture(monkeypatch):
    monkeypatch.setattr(augment_window, "WHOLE_PIXELS", 0)
    image, mask = pair(60, 70)
    seen = []

    class Mine(Augmentation):
        def __call__(self, image, mask, seed):
            seen.append((image.dtype, image.shape, mask.shape))
            return image[:20], mask[:20]

    for mine in (Mine(), lambda image, mask, seed: Mine()(image, mask, seed)):
        seed = tf.constant([1, 0], tf.int64)
        result, ids = augment_and_crop(mine, image, mask, (20, 70), seed)
        np.testing.assert_allclose(result, image[:20], atol=1e-4)
        assert np.array_equal(ids, mask[:20])
    assert seen == [(tf.float32, (60, 70, 3), (60, 70))] * 2
