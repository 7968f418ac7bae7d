"""Datasets on disk: what comes out of the pipelines, and one line for whatever is wrong."""

import itertools
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_pspnet import data
from keras_pspnet.augment import Augmentation
from keras_pspnet.labels import CAMVID
from keras_pspnet.sources import Source, open_source


def save(array, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)


def write_folder(path, count=5, split="train", size=(9, 11)):
    """Pictures of one grey each, 10 * index; masks of the id index % 3, with one void pixel."""
    for index in range(count):
        mask = np.full(size, index % 3)
        mask[0, 0] = 255
        save(np.full((*size, 3), 10 * index), path / "images" / split / f"p{index}.png")
        save(mask, path / "masks" / split / f"p{index}.png")


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path)
    return tmp_path


def numbers(dataset):
    """Which pictures a dataset of `write_folder` holds, batch by batch."""
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


# --- load ---


def test_load_gives_float_images_and_masks_for_both_heads(folder):
    dataset = data.load("folder", folder, split="train", crop=(7, 15), batch_size=2)
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
    dataset = data.load("folder", folder, split="train", aux=False)
    (image, mask), *rest = list(dataset)
    assert image.dtype == tf.float32 and mask.dtype == tf.uint8 and len(rest) == 4
    assert np.array_equal(image[0], np.zeros((9, 11, 3)))
    assert mask[0, 0, 0] == 255 and (mask[0].numpy().ravel()[1:] == 0).all()


def test_augmented_epochs_differ_and_the_seed_repeats_them(folder):
    def load(seed, **settings):
        arguments = {"crop": (9, 9), "batch_size": 2, "augment": True, "seed": seed, **settings}
        return data.load("folder", folder, split="train", **arguments)

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
        dataset = data.load("folder", folder, split="train", crop=(9, 9), augment=True, seed=7)
        results.append(values(dataset))
    assert same(*results)


def test_augmenting_without_a_crop_is_refused(folder):
    with pytest.raises(ValueError, match="crop"):
        data.load("folder", folder, split="train", augment=True)


def test_with_aux_gives_both_heads_the_mask():
    dataset = data.with_aux(tf.data.Dataset.from_tensors(([1.0], [2])))
    ((image, masks),) = list(dataset)
    assert image.numpy() == [1] and list(masks) == ["aux", "main"]
    assert masks["aux"].numpy() == masks["main"].numpy() == [2]


# --- the steps of a training ---


def steps(source, first, last, **settings):
    arguments = {"crop": (7, 9), "batch_size": 2, "augmentation": Augmentation(), "seed": 3}
    return data.training_steps(source, first, last, **{**arguments, **settings})


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
    dataset = data.validation(source, (9, 11), 2)
    assert numbers(dataset) == [[0, 1], [2, 3], [4]] and same(values(dataset), values(dataset))
    images, masks = next(iter(dataset))
    np.testing.assert_allclose(images[1], 10, atol=1e-4)
    assert np.array_equal(masks["main"][1], source.read(1)[1])


# --- sources ---


def test_camvid_is_read_in_its_usual_layout(tmp_path):
    ids = np.arange(12).reshape(3, 4)
    for split, value in (("train", 5), ("val", 6)):
        save(np.full((3, 4, 3), value), tmp_path / split / "0001.png")
        save(ids, tmp_path / f"{split}annot" / "0001.png")
    source = open_source("camvid", tmp_path, split="val")
    assert source.labels is CAMVID and len(source) == 1
    ((name, image, mask),) = source.examples()
    assert name == str(tmp_path / "val" / "0001.png") and (image == 6).all()
    assert mask.ravel().tolist() == [*range(11), 255]


def test_a_folder_with_labels_decodes_by_them(folder):
    labels = {"names": ["a", "b"], "colors": [[1, 2, 3], [4, 5, 6]], "ids": {0: 1, 1: 0, 2: 1}}
    (folder / "labels.json").write_text(json.dumps(labels))
    source = open_source("folder", str(folder), split="train")
    assert source.labels.names == ("a", "b") and source.labels.colors[1] == (4, 5, 6)
    masks = [mask for _, _, mask in source.examples()]
    assert [int(mask[4, 4]) for mask in masks] == [1, 0, 1, 1, 0]
    assert all(mask[0, 0] == 255 for mask in masks)


def test_without_labels_the_classes_are_the_ids_of_all_splits(folder):
    save(np.zeros((2, 2, 3)), folder / "images" / "val" / "q.jpg")
    save([[7, 7], [255, 40]], folder / "masks" / "val" / "q.png")
    train = open_source("folder", folder, split="train")
    val = open_source("folder", folder, split="val")
    assert train.labels == val.labels
    assert val.labels.names == ("class_0", "class_1", "class_2", "class_7", "class_40")
    assert val.read(0)[1].tolist() == [[3, 3], [255, 4]]


def test_the_first_pictures_and_all(folder):
    source = open_source("folder", folder, split="train")
    assert source.first(2).names == source.names[:2] and source.first(None).names == source.names


def test_checking_counts_the_pixels_of_each_class(folder):
    counts = open_source("folder", folder, split="train").check()
    assert counts.tolist() == [2 * 98, 2 * 98, 98]


def edit(folder, what):
    """Breaks a good folder; returns the file that a message must name."""
    picture, mask = folder / "images/train/p1.png", folder / "masks/train/p1.png"
    if what == "no mask":
        mask.unlink()
        return picture
    if what == "no picture":
        picture.unlink()
        return mask
    if what == "another size":
        save(np.zeros((9, 12)), mask)
        return mask
    if what == "out of range":
        save(np.full((9, 11), 9), mask)
        return mask
    if what == "a colour mask":
        save(np.zeros((9, 11, 3)), mask)
        return mask
    file = picture if what == "truncated picture" else mask
    noise = np.random.default_rng(0).integers(0, 3, (9, 11, 3))
    save(noise if file == picture else noise[..., 0], file)
    file.write_bytes(file.read_bytes()[:-30])
    return file


def use(folder):
    open_source("folder", folder, split="train").check()


BROKEN = ("no mask", "no picture", "another size", "a colour mask", "truncated picture")
BROKEN += ("truncated mask",)


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("what", BROKEN)
def test_a_bad_pair_gets_one_line_with_its_file(refused, folder, what, labels):
    if labels:
        (folder / "labels.json").write_text('{"names": ["a", "b", "c"]}')
    edit(folder, what)
    message = refused(use, folder)
    assert "p1.png" in message and "more" not in message


@pytest.mark.parametrize("what", [*BROKEN, "out of range"])
def test_the_bad_file_is_named_in_full(refused, folder, what):
    (folder / "labels.json").write_text('{"names": ["a", "b", "c"]}')
    file = edit(folder, what)
    message = refused(use, folder)
    assert message.startswith(f"{file}: ")
    if what == "another size":
        assert "12x9" in message and "11x9" in message
    if what == "out of range":
        assert "label 9" in message and "0..2" in message and "255" in message


def test_more_bad_pairs_are_counted(refused, folder):
    (folder / "labels.json").write_text('{"names": ["a", "b"]}')  # p2 holds id 2
    edit(folder, "another size")
    save(np.full((9, 11), 77), folder / "masks/train/p4.png")
    message = refused(use, folder)
    assert "p1.png" in message and message.endswith("(and 2 more bad pairs)")


def test_two_pictures_of_one_name_get_one_line(refused, folder):
    save(np.zeros((9, 11, 3)), folder / "images/train/p1.jpg")
    assert "has the same name" in refused(use, folder)


def test_two_masks_of_one_name_get_one_line(refused, folder):
    save(np.ones((9, 11)), folder / "masks/train/p1.bmp")
    assert "p1" in refused(use, folder)


@pytest.mark.parametrize("part", ["images", "masks"])
def test_an_empty_folder_gets_one_line(refused, folder, part):
    for file in (folder / part / "train").iterdir():
        file.unlink()
    assert str(folder / part / "train") in refused(use, folder)


def test_masks_with_nothing_but_void_get_one_line(refused, folder):
    for file in (folder / "masks/train").iterdir():
        save(np.full((9, 11), 255), file)
    assert "only void" in refused(use, folder)


@pytest.mark.parametrize("content", ["{", '{"names": []}', '{"names": ["a"], "ignore": 1e999}'])
def test_a_damaged_labels_file_gets_one_line(refused, folder, content):
    (folder / "labels.json").write_text(content)
    assert str(folder / "labels.json") in refused(use, folder)


@pytest.mark.parametrize(
    "name, path, split, says",
    [
        ("folder", True, "test", "test"),
        ("camvid", True, "train", "train"),
        ("folder", "none", "train", "none: no such folder"),
        ("folder", None, "train", "--data-dir"),
        ("imagenet", True, "train", "scenes, camvid, folder"),
        ("scenes", None, "test", "train, val"),
    ],
)
def test_what_is_not_there_gets_one_line(refused, folder, name, path, split, says):
    path = folder if path is True else path and folder / path
    assert says in refused(open_source, name, path, split=split)


def test_scenes_need_no_folder():
    source = open_source("scenes", split="val", size=(33, 41))
    image, mask = source.read(3)
    assert len(source) == 100 and image.shape == (33, 41, 3) and mask.shape == (33, 41)
    assert isinstance(source, Source) and len(set(source.names)) == 100
