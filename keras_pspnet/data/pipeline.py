"""Datasets as tf.data pipelines that train both heads."""

from __future__ import annotations

import os

import tensorflow as tf

from keras_pspnet.data.augment import Augmentation
from keras_pspnet.data.augment import crop as crop_pair
from keras_pspnet.data.datasets import open_source
from keras_pspnet.data.pairs import Source
from keras_pspnet.errors import UserError
from keras_pspnet.images import check_size, resize_image, resize_nearest


def load(
    name, path=None, *, split, crop=None, batch_size=1, augment=False, seed=0, aux=True
) -> tf.data.Dataset:
    """A dataset, batched for `model.fit`.

    Args:
        name: the dataset, see `datasets.open_source`.
        path: its folder on disk.
        split: "train" or "val".
        crop: (H, W) of what comes out; smaller pictures are padded with the mean and void. None
            leaves the pictures as they are: a batch then needs pictures of one size.
        batch_size: pictures a batch; with augmentation an incomplete last batch is dropped.
        augment: True for the reference's augmentation, or an `augment.Augmentation`. The pictures
            are then shuffled, and every epoch shuffles and augments anew.
        seed: the same seed gives the same batches.
        aux: True gives (images, {"aux": masks, "main": masks}), False (images, masks).

    Returns:
        Batches of float32 images (B, H, W, 3) in 0..255 and uint8 masks (B, H, W); void is 255.

    Raises:
        UserError: no such dataset or split, too few pictures for a batch, a crop that is no size.
        ValueError: `augment` without `crop`.
    """
    check_size(crop, "crop")
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size}: expected at least 1")
    source = open_source(name, path, split=split).paired()
    augmentation = Augmentation() if augment is True else augment
    if augmentation and crop is None:
        raise ValueError("`augment` changes the pictures' sizes and needs a `crop` (H, W)")
    if augmentation and len(source) < batch_size:
        raise UserError(f"{name}: {len(source)} pictures do not fill a batch of {batch_size}")
    keys = _shuffled(len(source), seed) if augmentation else _in_order(len(source))
    dataset = _pairs(source, keys, crop, augmentation)
    dataset = dataset.batch(batch_size, drop_remainder=bool(augmentation))
    return (with_aux(dataset) if aux else dataset).prefetch(2)


def training_steps(
    source: Source, first: int, last: int, *, crop, batch_size, augmentation, seed, fit=False
) -> tf.data.Dataset:
    """The batches of the steps `first` to `last` - 1 of a training.

    The batch of a step depends on the seed and the number of the step alone, so a training that is
    resumed sees what it would have seen.

    Args:
        fit: True brings each picture to the size of the crop before it is augmented.
    """
    pictures = len(source) // batch_size * batch_size  # an epoch leaves out an incomplete batch

    def key(position):
        epoch, place = position // pictures, position % pictures
        return _shuffle(place, [seed, epoch], len(source)), position + (seed << 32)

    keys = tf.data.Dataset.range(first * batch_size, last * batch_size).map(key)
    dataset = _pairs(source, keys, crop, augmentation, fit).batch(batch_size, drop_remainder=True)
    return _own_threads(with_aux(dataset).prefetch(2))


def validation(source: Source, crop, batch_size, fit=False) -> tf.data.Dataset:
    """The pictures of a split in order, for both heads: their centres, or whole with `fit`."""
    keys = _in_order(len(source))
    dataset = _pairs(source, keys, crop, None, fit).batch(batch_size)
    return _own_threads(with_aux(dataset).prefetch(2))


def _own_threads(dataset):
    """Reading goes on beside a training that runs one operation at a time."""
    options = tf.data.Options()
    options.threading.private_threadpool_size = max(os.cpu_count() or 1, 2)
    return dataset.with_options(options)


def with_aux(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Turns a pipeline of (image, mask) into one that trains both heads."""
    return dataset.map(lambda image, mask: (image, {"aux": mask, "main": mask}))


def _in_order(count):
    return tf.data.Dataset.range(count).map(lambda index: (index, index))


def _shuffled(count, seed):
    """Keys of all pictures in another order, with other seeds, each time they are iterated over."""
    generator = tf.random.Generator.from_seed(seed)  # does not depend on TensorFlow's global seed

    def epoch(_):
        number = generator.uniform_full_int((), tf.int64)
        places = tf.data.Dataset.range(count)
        return places.map(lambda place: (_shuffle(place, [seed, number], count), number + place))

    keys = tf.data.Dataset.range(1).flat_map(epoch)
    return keys.apply(tf.data.experimental.assert_cardinality(count))


def _shuffle(place, seed, count):
    """Where a permutation of 0..count - 1 puts a place, without making the permutation."""
    seed = tf.stack([tf.cast(number, tf.int64) for number in seed])
    return tf.random.experimental.index_shuffle(place, seed, count - 1)


def _pairs(source, keys, crop, augmentation, fit=False):
    """Keys (index, seed) -> augmented, cropped pairs, in parallel and in order."""

    def read(index):
        image, mask = source.read(int(index))
        if fit:
            image, mask = resize_image(image, crop), resize_nearest(mask, crop)
        return image, mask

    def pair(index, seed):
        # Reading depends on the index alone ("stateless"), so tf.data may run it in parallel.
        image, mask = tf.numpy_function(read, [index], (tf.uint8, tf.uint8), stateful=False)
        image.set_shape((None, None, 3))
        mask.set_shape((None, None))
        image = tf.cast(image, tf.float32)
        seed = tf.stack([tf.cast(seed, tf.int64), 0])
        if augmentation:
            image, mask = augmentation(image, mask, seed)
        if crop is not None:
            image, mask = crop_pair(image, mask, crop, seed + [0, 1] if augmentation else None)
        return image, mask

    return keys.map(pair, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
