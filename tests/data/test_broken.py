"""Broken pairs are gone past up to a limit; labels out of range are found in the pipeline."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from keras_pspnet.data import pipeline
from keras_pspnet.data.broken import Broken
from keras_pspnet.data.pairs import Source
from keras_pspnet.data.survey import Survey
from keras_pspnet.errors import UserError
from keras_pspnet.labels import LabelSet


def source_of(bad: set, count=6, unpaired=()):
    """Pairs of 4x5 pixels of class 1; reading those of `bad` is an error."""

    def read(index):
        if index in bad:
            raise UserError(f"p{index}.png: cannot be read")
        return np.full((4, 5, 3), index, np.uint8), np.ones((4, 5), np.uint8)

    names = tuple(f"p{index}.png" for index in range(count))
    return Source(names, LabelSet(("a", "b")), read, tuple(unpaired))


def test_broken_pairs_are_counted_named_and_void():
    sources = {"train": source_of({1, 4}), "val": source_of({0})}
    broken = Broken(3, (8, 9))
    (line,) = broken.check(sources, {split: of.survey() for split, of in sources.items()})
    assert line.startswith("warning: 3 broken of at most 3: p1.png: cannot")
    assert line.count("cannot be read") == 3
    train = broken.source("train", sources["train"])
    image, mask = train.read(4)
    assert image.shape == (8, 9, 3) and image.dtype == np.uint8 and (mask == 255).all()
    assert image[0, 0].tolist() == [124, 116, 104]  # ImageNet's mean colour
    image, mask = train.read(5)
    assert image.shape == (4, 5, 3) and (mask == 1).all()
    assert len(train) == 6 and train.names == sources["train"].names


def test_one_more_than_the_limit_is_an_error_that_holds_all(refused):
    missing = UserError("p7.png: no mask of this name")
    source = source_of({1, 4}, unpaired=[missing])
    surveys = {"train": source.survey()}
    assert not Broken(3, (8, 8)).check({"train": source_of(set())}, {"train": Survey()})
    assert Broken(3, (8, 8)).check({"train": source}, surveys)
    message = refused(Broken(2, (8, 8)).check, {"train": source}, surveys)
    assert message == "p7.png: no mask of this name (and 2 more bad pairs)"
    for limit in (-1, 1.5, True):
        assert "expected a whole number" in refused(Broken, limit, (8, 8))


def test_what_breaks_after_the_check_counts_too(capsys, refused):
    bad = set()
    broken = Broken(1, (8, 8))
    train = broken.source("train", source_of(bad))
    train.read(2)
    bad |= {2, 3}
    assert (train.read(2)[1] == 255).all() and (train.read(2)[1] == 255).all()
    assert capsys.readouterr().out == ("warning: 1 broken of at most 1: p2.png: cannot be read\n")
    assert refused(train.read, 3) == "p3.png: cannot be read"


def test_a_pair_that_breaks_within_a_pipeline_is_one_line():
    broken = Broken(0, (8, 8))
    train = broken.source("train", source_of({2}, count=4))
    with pytest.raises(UserError, match=r"^p2.png: cannot be read$"), broken.in_one_line():
        list(pipeline.validation(train, (8, 8), 2))
    with pytest.raises(KeyError), Broken(0, (8, 8)).in_one_line():
        raise KeyError


@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_a_label_out_of_range_is_an_error_where_the_data_enters(dtype):
    mask = np.array([[[0, 4, 255]]], dtype)
    dataset = tf.data.Dataset.from_tensors((np.zeros((1, 1, 3, 3), np.float32), mask))
    ((_, masks),) = pipeline.with_aux(dataset, 5)
    assert np.array_equal(masks["main"], mask) and np.array_equal(masks["aux"], mask)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"range, expected 0\.\.3.*\[4\]"):
        list(pipeline.with_aux(dataset, 4))
    list(pipeline.with_aux(dataset))  # nobody has said how many classes there are
    list(pipeline.with_aux(dataset, 300))


def test_an_augmentation_that_invents_a_label_is_one_line():
    def invents(image, mask, seed):
        return image, mask + 1

    source = dataclasses.replace(source_of(set()), labels=LabelSet(("a",)))
    steps = {"crop": (8, 8), "batch_size": 2, "augmentation": invents, "seed": 0}
    with (
        pytest.raises(UserError, match=r"^augmentation: a label is out of range.* it is 2$"),
        Broken(0, (8, 8)).in_one_line(),
    ):
        list(pipeline.training_steps(source, 0, 1, **steps))


def test_the_names_of_a_step_are_those_of_its_batch():
    source = source_of(set(), count=7)
    steps = {"crop": (4, 5), "batch_size": 2, "augmentation": None, "seed": 3}
    batches = list(pipeline.training_steps(source, 2, 5, **steps))
    for step, (images, _) in enumerate(batches, start=2):
        names = pipeline.names_of_step(source, step, batch_size=2, seed=3)
        assert names == [f"p{int(image[0, 0, 0])}.png" for image in images.numpy()]
