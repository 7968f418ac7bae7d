"""Pasting things of rare classes: which, where, how often, and the same again."""

import numpy as np
import pytest
import tensorflow as tf

from keras_pspnet.data import pipeline
from keras_pspnet.data.augment import Augmentation
from keras_pspnet.data.copy_paste import CopyPaste, rare_classes
from keras_pspnet.data.pairs import Source
from keras_pspnet.labels import LabelSet

PLAIN = Augmentation((1.0, 1.0), 0.0, blur_share=0.0, flip_share=0.0)


def test_the_rare_classes_of_camvid_are_its_thin_and_small_things():
    shares = [16.8, 23.3, 1.0, 31.7, 4.5, 9.7, 1.2, 1.1, 5.9, 0.6, 0.3]  # README.md of the data
    assert rare_classes(shares) == (2, 6, 7, 9, 10)
    assert rare_classes([0, 100, 100, 10]) == (3,)
    assert rare_classes([100, 100]) == rare_classes([0, 0]) == rare_classes([5]) == ()


def one(image, mask, seed, paste):
    """Paste from a picture of 7s, whose left column is of class 2 and whose right one of 1."""
    ids = np.zeros(mask.shape, np.uint8)
    ids[:, 0], ids[:, -1] = 2, 1

    def augmented(index, seed):
        return tf.fill(image.shape, 7.0), tf.constant(ids)

    return paste(image, mask, tf.cast(tf.stack(seed), tf.int64), augmented)


@pytest.mark.parametrize("classes, columns", [((2,), [0]), ((1, 2), [0, -1]), ((), [])])
def test_pixels_of_the_classes_are_pasted_with_their_labels(classes, columns):
    image, mask = np.zeros((3, 4, 3), np.float32), np.full((3, 4), 255, np.uint8)
    found, ids = one(image, mask, [1, 0], CopyPaste(1.0, classes, 5))
    expected, labels = image.copy(), mask.copy()
    for column, label in zip(columns, (2, 1)):
        expected[:, column], labels[:, column] = 7, label
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(ids, labels)


def test_it_happens_as_often_as_asked():
    image, mask = np.zeros((1, 2, 3), np.float32), np.zeros((1, 2), np.uint8)

    def happened(seed):
        return tf.reduce_any(one(image, mask, [seed, 0], paste)[1] == 2)

    for share in (0.0, 0.3, 1.0):
        paste = CopyPaste(share, (2,), 5)
        times = sum(bool(x) for x in tf.data.Dataset.range(400).map(happened))
        assert times == pytest.approx(400 * share, abs=40 * (0 < share < 1)), share


def source(pictures=6):
    """Picture i is one grey of 10 * i; its first pixel is of the rare class 1."""

    def read(index):
        mask = np.zeros((9, 9), np.uint8)
        mask[0, index] = 1
        return np.full((9, 9, 3), 10 * index, np.uint8), mask

    names = tuple(f"p{index}" for index in range(pictures))
    return Source(names, LabelSet(("all", "rare")), read)


def batches(first, last, share=1.0):
    steps = pipeline.training_steps(
        source(), first, last, crop=(9, 9), batch_size=2, augmentation=PLAIN, seed=4,
        paste=CopyPaste(share, (1,), 6),
    )  # fmt: skip
    return [(images.numpy(), masks["main"].numpy()) for images, masks in steps]


def test_a_step_depends_on_its_number_alone():
    whole = batches(0, 12)
    for (images, masks), (again, ids) in zip(whole[7:], batches(7, 12), strict=True):
        np.testing.assert_array_equal(images, again)
        np.testing.assert_array_equal(masks, ids)
    greys = [np.unique(image) for images, _ in whole for image in images]
    assert max(map(len, greys)) == 2  # its own, and that of the thing
    pasted = {(int(image[8, 8, 0]), int(value)) for images, _ in whole for image in images
              for value in np.unique(image)}  # fmt: skip
    assert len({other for own, other in pasted if other != own}) == 6  # of every picture
    for images, masks in whole:
        for image, mask in zip(images, masks):
            own, places = int(image[8, 8, 0]), np.flatnonzero(image[0, :, 0] != image[8, 8, 0])
            assert all(mask[0, place] == 1 for place in places) and mask[0, own // 10] == 1
    assert all(len(np.unique(x)) == 1 for images, _ in batches(0, 3, share=0.0) for x in images)
