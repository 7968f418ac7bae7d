"""Datasets as batches: what comes out of the pipelines, in which order."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from keras_pspnet.data import pipeline
from keras_pspnet.data.augment import Augmentation
from keras_pspnet.data.datasets import open_source
from keras_pspnet.data.pairs import Source
from keras_pspnet.images import resize_image, resize_nearest
from keras_pspnet.labels import LabelSet


def numbers(dataset):
    """Which pictures a dataset of the fixture `folder` holds, batch by batch."""
    return [[round(float(image[4, 4, 0]) / 10) for image in batch[0]] for batch in dataset]


def flat(batches):
    return list(itertools.chain.from_iterable(batches))


def values(dataset):
    return [[np.asarray(part) for part in tf.nest.flatten(batch)] for batch in dataset]


def same(one, other):
    return len(one) == len(other) and all(
        a.shape == b.shape and np.array_equal(a, b)
        for x, y in zip(one, other)
        for a, b in zip(x, y)
    )


# --- an augmentation of a user's own ---


def as_it_is(image, mask, seed):
    return image, mask


def through_numpy(image, mask, seed):
    return np.flip(np.asarray(image), 1), mask


@pytest.mark.parametrize(
    "own, says",
    [
        (lambda i, m, s: (i / 255, m), "its image has values in 0.03922..0.03922;"),
        (lambda i, m, s: (tf.cast(i, tf.uint8), m), "returns an image (9, 11, 3) uint8;"),
        (lambda i, m, s: (i[..., 0], m), "returns an image (9, 11) float32;"),
        (lambda i, m, s: (i, m[..., None]), "returns a mask (9, 11, 1) uint8;"),
        (lambda i, m, s: (i, tf.cast(m, tf.int32)), "returns a mask (9, 11) int32;"),
        (lambda i, m, s: (i[:5], m), "returns an image (5, 11, 3) and a mask (9, 11);"),
        (lambda i, m, s: (i, m + 3), "returns a mask with the id 4, of 3 classes;"),
        (lambda i, m, s: (i, m, s), "returns 3 values;"),
        (lambda i, m, s: i, "returns no pair of tensors;"),
        (lambda i, m, s: None, "returns no pair of tensors;"),
        (through_numpy, "fails on the first pair (NotImplementedError: Cannot convert a symbolic"),
        (lambda i: i, "fails on the first pair (TypeError: "),
        (lambda i, m, s: (tf.reshape(i, (1, 1, 3)), m), "fails on the first pair (InvalidArgument"),
    ],
)
def test_an_own_augmentation_is_tried_on_the_first_pair(folder, refused, own, says):
    source = open_source("folder", folder, split="train").first(5)
    pairs = Source(source.names, source.labels, lambda index: source.read(index + 1))
    message = refused(pipeline.check_augmentation, pairs, own)
    assert message.startswith(f"augmentation: {says}")
    assert message.endswith(pipeline.PAIR)


def test_what_an_own_augmentation_may_do(folder, refused):
    source = open_source("folder", folder, split="train")

    def half(image, mask, seed):
        if seed[1] < 0:  # of tensors: autograph turns it into a graph
            image = -image
        return [image[::2], mask[::2]]

    for own in (as_it_is, half, Augmentation(color=0.5)):
        pipeline.check_augmentation(source, own)  # the first picture is black
    given = {"split": "train", "crop": (5, 7), "shuffle": False, "batch_size": 5}
    images, _ = next(iter(pipeline.load("folder", folder, augment=half, **given)))
    assert images.shape == (5, 5, 7, 3)
    own = lambda image, mask, seed: image  # noqa: E731
    assert "no pair" in refused(pipeline.load, "folder", folder, augment=own, **given)


# --- load ---


def test_load_gives_float_images_and_masks_for_both_heads(folder):
    dataset = pipeline.load("folder", folder, split="train", crop=(7, 15), batch_size=2)
    images, masks = dataset.element_spec
    assert images == tf.TensorSpec((None, 7, 15, 3), tf.float32)
    assert masks == dict.fromkeys(("aux", "main"), tf.TensorSpec((None, 7, 15), tf.uint8))
    batches = list(dataset)
    assert [len(batch[0]) for batch in batches] == [2, 2, 1]
    assert numbers(dataset) == [[0, 1], [2, 3], [4]]
    for _, masks in batches:
        assert np.array_equal(masks["aux"], masks["main"])
    images, masks = batches[1]
    expected = np.full((7, 15), 255)  # two rows off each side's centre; two void columns a side
    expected[:, 2:13] = 0  # picture 3 has id 0
    assert np.array_equal(masks["main"][1], expected)
    np.testing.assert_allclose(images[1][:, 2:13], 30, atol=1e-4)
    np.testing.assert_allclose(images[1][0, 0], (123.675, 116.28, 103.53), rtol=1e-6)


def test_load_without_the_auxiliary_head_and_crop(folder):
    dataset = pipeline.load("folder", folder, split="train", aux=False)
    (image, mask), *rest = list(dataset)
    assert image.dtype == tf.float32 and mask.dtype == tf.uint8 and len(rest) == 4
    assert np.array_equal(image[0], np.zeros((9, 11, 3)))
    assert mask[0, 0, 0] == 255 and (mask[0].numpy().ravel()[1:] == 0).all()


def test_augmented_epochs_differ_and_the_seed_repeats_them(folder):
    def load(seed, **settings):
        arguments = {"crop": (9, 9), "batch_size": 2, "augment": True, "seed": seed, **settings}
        return pipeline.load("folder", folder, split="train", **arguments)

    dataset = load(1)
    first, second = values(dataset), values(dataset)
    assert len(first) == 2 and not same(first, second)
    again = load(1)
    assert same(first, values(again)) and same(second, values(again))
    assert not same(first, values(load(2)))
    # With nothing to draw but the order, every epoch is another order of all pictures.
    still = load(1, augment=Augmentation((1, 1), 0, 0, 0, 0), batch_size=1)
    epochs = [flat(numbers(still)) for _ in range(4)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_the_seed_of_load_alone_decides(folder):
    results = []
    for seed in (1, 2):
        tf.random.set_seed(seed)
        dataset = pipeline.load("folder", folder, split="train", crop=(9, 9), augment=True, seed=7)
        results.append(values(dataset))
    assert same(*results)


@pytest.mark.parametrize("argument", ["augment", "resize_to_crop"])
def test_what_needs_a_crop_is_refused_without_it(refused, folder, argument):
    message = refused(pipeline.load, "folder", folder, split="train", **{argument: True})
    assert message == f"{argument} needs the size of the images; give crop=(H, W) too"


def test_shuffling_gives_each_epoch_another_order_by_the_seed(folder):
    def epochs(seed):
        dataset = pipeline.load("folder", folder, split="train", shuffle=True, seed=seed)
        assert dataset.cardinality() == 5
        return [flat(numbers(dataset)) for _ in range(4)]

    first = epochs(1)
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in first)
    assert len({tuple(epoch) for epoch in first}) > 2
    assert epochs(1) == first != epochs(2)


def test_shuffling_without_augmentation_keeps_the_pictures_and_the_last_batch(folder):
    plain, shuffled = (
        pipeline.load("folder", folder, split="train", crop=(7, 15), batch_size=3, shuffle=shuffle)
        for shuffle in (None, True)
    )
    assert [len(images) for images, _ in shuffled] == [3, 2]

    def pairs(dataset):
        unbatched = dataset.unbatch().as_numpy_iterator()
        return sorted((image.tobytes(), masks["main"].tobytes()) for image, masks in unbatched)

    assert pairs(plain) == pairs(shuffled)


def test_an_augmented_dataset_may_keep_its_order(folder):
    augment = Augmentation((1, 1), 0, 0, 0, 0, color=0.03)  # a shift by less than a picture's grey
    dataset = pipeline.load(
        "folder", folder, split="train", crop=(9, 11), augment=augment, batch_size=2, shuffle=False
    )
    first, second = values(dataset), values(dataset)
    assert numbers(dataset) == [[0, 1], [2, 3]] and not same(first, second)


def test_load_resizes_whole_pictures_to_the_crop(monkeypatch):
    source, size = striped(), (20, 24)
    monkeypatch.setattr(pipeline, "open_source", lambda *_, **__: source)
    still = Augmentation((1, 1), 0, 0, 0, 0)
    for augment in (False, still):
        dataset = pipeline.load(
            "folder", split="train", crop=size, augment=augment, shuffle=False, resize_to_crop=True
        )
        for (image, masks), (picture, mask) in zip(
            dataset, map(source.read, range(3)), strict=True
        ):
            np.testing.assert_allclose(image[0], resize_image(picture, size), atol=1e-3)
            assert np.array_equal(masks["main"][0], resize_nearest(mask, size))


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"crop": 33}, "crop 33 is not (H, W)"),
        ({"crop": (33, 0)}, "crop (33, 0) is not (H, W)"),
        ({"batch_size": 0}, "batch_size=0: expected at least 1"),
    ],
)
def test_a_batch_of_no_size_is_refused(refused, wrong, says):
    assert says in refused(pipeline.load, "scenes", split="val", **wrong)


def test_with_aux_gives_both_heads_the_mask():
    dataset = pipeline.with_aux(tf.data.Dataset.from_tensors(([1.0], [2])))
    ((image, masks),) = list(dataset)
    assert image.numpy() == [1] and list(masks) == ["aux", "main"]
    assert masks["aux"].numpy() == masks["main"].numpy() == [2]


@pytest.mark.parametrize("half", ["images", "masks"])
def test_half_a_pair_is_refused(refused, folder, half):
    (folder / half / "train" / "p3.png").unlink()
    message = refused(pipeline.load, "folder", folder, split="train")
    assert "p3.png: no " in message and "more" not in message


# --- the steps of a training ---


def test_batches_are_those_of_recorded_trainings():
    """Values of the pipeline that the recorded trainings used: order, draws and pixels."""
    load = pipeline.load("scenes", split="train", crop=(65, 65), batch_size=4, augment=True, seed=0)
    source, settings = open_source("scenes", split="train"), {"crop": (97, 129), "batch_size": 4}
    training = pipeline.training_steps(
        source,
        3,
        4,
        augmentation=Augmentation(color=0.3),
        seed=1,
        resize_to_crop=True,
        **settings,
    )
    for dataset, means, counts, pixel in (
        (
            load,
            [136.2336706287151, 169.496427410359, 123.31279472456411, 102.3243971288557],
            [3361, 0, 0, 0, 242],
            [90.4758529663086, 91.47571563720703, 76.2118911743164],
        ),
        (
            training,
            [103.77394484355817, 112.14338133812026, 122.67394859033291, 184.33599078849272],
            [5261, 0, 0, 0, 2600],
            [179.2109832763672, 207.22442626953125, 149.64096069335938],
        ),
    ):
        images, masks = next(dataset.as_numpy_iterator())
        np.testing.assert_allclose(images.mean((1, 2, 3), np.float64), means, rtol=1e-6)
        found = np.bincount(masks["main"].ravel(), minlength=256)[[0, 1, 2, 3, 255]]
        assert found.tolist() == counts
        np.testing.assert_allclose(images[-1, -7, -9], pixel, rtol=1e-5)


def steps(source, first, last, **settings):
    arguments = {"crop": (7, 9), "batch_size": 2, "augmentation": Augmentation(), "seed": 3}
    return pipeline.training_steps(source, first, last, **{**arguments, **settings})


def test_a_resumed_training_sees_what_it_would_have_seen(folder):
    source = open_source("folder", folder, split="train")
    whole = values(steps(source, 0, 7))
    assert len(whole) == 7
    for first in (1, 4, 6):
        assert same(values(steps(source, first, 7)), whole[first:])
    assert not same(values(steps(source, 0, 7, seed=4)), whole)


def test_the_steps_do_not_depend_on_a_global_seed(folder):
    source, results = open_source("folder", folder, split="train"), []
    for seed in (1, 2):
        tf.random.set_seed(seed)
        results.append(values(steps(source, 0, 3)))
    assert same(*results)


@pytest.mark.parametrize("batch_size, count", [(1, 5), (2, 4), (5, 5)])
def test_an_epoch_visits_a_picture_at_most_once_in_another_order_each(folder, batch_size, count):
    source = open_source("folder", folder, split="train")
    per_epoch = 5 // batch_size
    dataset = steps(source, 0, 6 * per_epoch, augmentation=None, batch_size=batch_size)
    batches = numbers(dataset)
    epochs = [
        flat(batches[start : start + per_epoch]) for start in range(0, len(batches), per_epoch)
    ]
    assert len(epochs) == 6
    assert all(len(epoch) == count and len(set(epoch)) == count for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 2
    assert {index for epoch in epochs for index in epoch} == {0, 1, 2, 3, 4}


def test_the_same_picture_is_augmented_anew_in_every_epoch(folder):
    source = open_source("folder", folder, split="train").first(1)
    batches = values(steps(source, 0, 4, batch_size=1, crop=(20, 20)))
    assert not any(same([a], [b]) for a, b in itertools.combinations(batches, 2))


def test_validation_is_every_picture_in_order(folder):
    source = open_source("folder", folder, split="train")
    dataset = pipeline.validation(source, (9, 11), 2)
    assert numbers(dataset) == [[0, 1], [2, 3], [4]] and same(values(dataset), values(dataset))
    images, masks = next(iter(dataset))
    np.testing.assert_allclose(images[1], 10, atol=1e-4)
    assert np.array_equal(masks["main"][1], source.read(1)[1])
    centre = pipeline.validation(source, (5, 5), 2)
    _, masks = next(iter(centre))
    assert np.array_equal(masks["main"][1], source.read(1)[1][2:7, 3:8])


def striped():
    """A source of three pictures of noise, each of another size, with masks of stripes."""
    rng = np.random.default_rng(0)
    pairs = []
    for height, width in ((9, 30), (40, 21), (16, 16)):
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        pairs.append((image, (np.indices((height, width)).sum(0) // 3 % 4).astype(np.uint8)))
    pairs[0][1][:3] = 255
    return Source(("a", "b", "c"), LabelSet.numbered(4), pairs.__getitem__)


def test_resizing_brings_whole_pictures_to_the_crop_as_evaluation_does():
    source, size = striped(), (20, 24)
    expected = [
        (resize_image(image, size), resize_nearest(mask, size))
        for image, mask in map(source.read, range(3))
    ]
    still = Augmentation((1, 1), 0, 0, 0, 0)
    settings = {"crop": size, "batch_size": 3, "augmentation": still, "seed": 0}
    for dataset in (
        pipeline.validation(source, size, 3, resize_to_crop=True),
        pipeline.training_steps(source, 0, 1, **settings, resize_to_crop=True),
    ):
        ((images, masks),) = list(dataset)
        for image, mask in expected:  # a training takes them in an order of its own
            place = int(np.abs(images - image).mean((1, 2, 3)).argmin())
            np.testing.assert_allclose(images[place], image, atol=1e-3)
            assert np.array_equal(masks["main"][place], mask)
            assert np.array_equal(masks["aux"][place], mask)


def test_without_resizing_the_centre_is_taken():
    source = striped()
    ((_, masks),) = list(pipeline.validation(source, (9, 15), 3))
    assert np.array_equal(masks["main"][0], source.read(0)[1][:, 7:22])


def test_threads_of_its_own_change_no_batch_and_no_order(folder, monkeypatch):
    source = open_source("folder", folder, split="train")
    own = values(steps(source, 0, 9)), values(pipeline.validation(source, (9, 11), 2))
    threads = steps(source, 0, 1).options().threading.private_threadpool_size
    assert threads >= 2
    monkeypatch.setattr(pipeline, "_private_threads", lambda dataset: dataset)
    assert steps(source, 0, 1).options().threading.private_threadpool_size is None
    assert same(own[0], values(steps(source, 0, 9)))
    assert same(own[1], values(pipeline.validation(source, (9, 11), 2)))
