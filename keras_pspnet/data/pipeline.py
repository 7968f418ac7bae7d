"""Build tf.data pipelines of batches for training and validation."""

import tensorflow as tf

from keras_pspnet.data.augment import PAIR, Augmentation, trouble_of
from keras_pspnet.data.augment import crop as crop_pair
from keras_pspnet.data.augment_window import augment_and_crop
from keras_pspnet.data.broken import OUT_OF_RANGE
from keras_pspnet.data.datasets import open_source
from keras_pspnet.data.pairs import Source
from keras_pspnet.errors import UserError
from keras_pspnet.images import check_size, resize_image, resize_nearest
from keras_pspnet.labels import IGNORE
from keras_pspnet.machine import cores


def load(
    name,
    path=None,
    *,
    split,
    crop=None,
    batch_size=1,
    augment=False,
    seed=0,
    aux=True,
    resize_to_crop=False,
    shuffle=None,
) -> tf.data.Dataset:
    """Load a dataset as batches for `model.fit`.

    Args:
        name: the dataset's name, see `open_source`.
        path: the dataset's folder, see `open_source`.
        split: "train", "val" or another split of the dataset.
        crop: (H, W) of the images. A larger picture is cropped, to its centre or, with
            augmentation, at random; a smaller one is padded with ImageNet's mean colour and void.
            None keeps each picture's size: the pictures of a batch must then have the same size.
        batch_size: pictures per batch. With augmentation an incomplete last batch is dropped,
            without it is given too, smaller.
        augment: True for the augmentation of the authors' code, an `Augmentation`, or a function
            like one, see `check_augmentation`; needs `crop`. Every epoch has other random changes.
        seed: decides the order and the augmentation; the same seed gives the same batches.
        aux: True gives (images, {"aux": masks, "main": masks}), False (images, masks).
        resize_to_crop: True resizes each picture to `crop` before it is augmented, whatever its
            proportions, as evaluation does; for pictures of many sizes.
        shuffle: True gives every epoch another order, False the dataset's; None shuffles with
            augmentation only.

    Returns:
        A tf.data.Dataset of float32 images (B, H, W, 3) in 0..255 and uint8 masks (B, H, W); void
        is 255.

    Raises:
        UserError: no such dataset or split, a picture without a mask, fewer pictures than a batch
            needs, a `crop` or `batch_size` that is not a size, `augment` or `resize_to_crop`
            without `crop`.
    """
    check_size(crop, "crop")
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size}: expected at least 1")
    if crop is None and (augment or resize_to_crop):
        given = "augment" if augment else "resize_to_crop"
        raise UserError(f"{given} needs the size of the images; give crop=(H, W) too")
    source = open_source(name, path, split=split).paired()
    augmentation = Augmentation() if augment is True else augment
    if augmentation and len(source) < batch_size:
        raise UserError(f"{name}: {len(source)} pictures do not fill a batch of {batch_size}")
    if augmentation:
        check_augmentation(source, augmentation, seed)
    shuffle = bool(augmentation) if shuffle is None else shuffle
    keys = (
        _epochs(len(source), seed, shuffle) if augmentation or shuffle else _in_order(len(source))
    )
    dataset = _read_pairs(source, keys, crop, augmentation, resize_to_crop)
    dataset = dataset.batch(batch_size, drop_remainder=bool(augmentation))
    return (with_aux(dataset) if aux else dataset).prefetch(2)


def check_augmentation(source: Source, augmentation, seed=0) -> None:
    """Try an augmentation of a user's own on the first pair, as a training does.

    Raises:
        UserError: it fails within tf.data, or returns anything else than an image (H, W, 3) float32
            in 0..255 and a mask (H, W) uint8 of class ids and 255, both of one size.
    """
    if type(augmentation) is Augmentation:
        return
    before, _ = source.read(0)

    def augmented(index):
        image, mask = _read_pair(source.read, index)
        pair = augmentation(tf.cast(image, tf.float32), mask, tf.stack([index + seed, 0]))
        if pair is None:  # which tf.data cannot hold
            return index
        return tuple(pair) if isinstance(pair, list) else pair

    try:
        dataset = tf.data.Dataset.range(1).map(augmented)
        pair = next(iter(dataset))
    except Exception as error:  # whatever a user's function raises, in a graph
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
        kind = f"{type(error).__name__}: "
        reason = lines[-1 if lines[0].startswith("in user code") else 0].removeprefix(kind)
        raise UserError(
            f"augmentation: fails on the first pair ({kind}{reason[:160]}); it runs in a graph of "
            f"tf.data: use TensorFlow's operations, and return {PAIR}"
        ) from error
    trouble = trouble_of(pair, len(source.labels), before)
    if trouble:
        raise UserError(f"augmentation: {trouble}; expected {PAIR}")


def training_steps(
    source: Source,
    first: int,
    last: int,
    *,
    crop,
    batch_size,
    augmentation,
    seed,
    resize_to_crop=False,
    paste=None,
    part=None,
) -> tf.data.Dataset:
    """Return the batches of the training steps `first` to `last` - 1, with masks for both heads.

    A batch depends only on the seed and the number of its step, so that a resumed training gets
    the same batches. An epoch drops an incomplete last batch.

    Args:
        crop: (H, W) of the images.
        augmentation: an `Augmentation`, or None; without it the centre is cropped.
        resize_to_crop: True resizes each picture to `crop` before it is augmented.
        paste: a `CopyPaste`, or None.
        part: see `validation`.
    """
    positions, rows = _positions(first, last, batch_size, part)
    keys = _keys(positions, len(source), batch_size, seed)
    dataset = _read_pairs(source, keys, crop, augmentation, resize_to_crop, paste)
    dataset = dataset.batch(rows, drop_remainder=True)
    return _private_threads(with_aux(dataset).prefetch(2))


def names_of_step(source: Source, step: int, *, batch_size, seed) -> list[str]:
    """Return the names of the pictures that `training_steps` gives to a step, from 0."""
    places, _ = _positions(step, step + 1, batch_size, None)
    return [source.names[int(i)] for i, _ in _keys(places, len(source), batch_size, seed)]


def _keys(positions, count, batch_size, seed):
    """Return keys (index, seed) of the pictures at the places of a training's order."""
    pictures = count // batch_size * batch_size

    def key(position):
        epoch, place = position // pictures, position % pictures
        return _permuted(place, [seed, epoch], count), position + (seed << 32)

    return positions.map(key)


def validation(
    source: Source, crop, batch_size, resize_to_crop=False, part=None
) -> tf.data.Dataset:
    """Return batches of all pictures in order, with masks for both heads.

    Args:
        crop: (H, W) of the images: the centre of each picture, padded where it is smaller.
        resize_to_crop: True resizes each whole picture to `crop` instead.
        part: (i, n) gives the i-th of n equal parts of each batch, for a training in n processes,
            the last batch filled up with void pictures. None gives whole batches, the last as is.
    """
    count = len(source)
    if part is None:
        dataset = _read_pairs(source, _in_order(count), crop, None, resize_to_crop)
        return _private_threads(with_aux(dataset.batch(batch_size)).prefetch(2))
    positions, rows = _positions(0, -(-count // batch_size), batch_size, part)
    keys = positions.map(lambda position: (tf.minimum(position, count - 1), position))
    dataset = _read_pairs(source, keys, crop, None, resize_to_crop)
    pairs = tf.data.Dataset.zip(dataset, positions).map(
        lambda pair, position: (pair[0], tf.where(position < count, pair[1], IGNORE))
    )
    return _private_threads(with_aux(pairs.batch(rows)).prefetch(2))


def _positions(first: int, last: int, batch_size: int, part):
    """Return the positions of pictures that one process reads for some batches.

    Args:
        first, last: numbers of the first batch and of the one after the last.
        part: see `validation`.

    Returns:
        A tf.data.Dataset of int64, and the number of them in each batch.
    """
    index, parts = part or (0, 1)
    rows = batch_size // parts
    numbers = tf.data.Dataset.range(first * rows, last * rows)
    return numbers.map(lambda n: n // rows * batch_size + index * rows + n % rows), rows


def _private_threads(dataset):
    """Give the dataset its own threads: a repeatable training runs one operation at a time."""
    options = tf.data.Options()
    options.threading.private_threadpool_size = max(cores(), 2)
    return dataset.with_options(options)


def with_aux(dataset: tf.data.Dataset, num_classes: int | None = None) -> tf.data.Dataset:
    """Turn a dataset of (image, mask) into (image, {"aux": mask, "main": mask}) for both heads.

    Args:
        num_classes: number of classes of the network. With it a label that is neither one of them
            nor void (255) is an error on every device and backend: it is found here, before a
            compiler removes checks. None checks nothing.
    """

    def both(image, mask):
        mask = mask if num_classes is None else checked_labels(mask, num_classes)
        return image, {"aux": mask, "main": mask}

    return dataset.map(both)


def checked_labels(mask, num_classes: int):
    """Return a mask of class ids and void as it is.

    Raises:
        tf.errors.InvalidArgumentError: when the dataset is read, for any other label.
    """
    labels = tf.cast(mask, tf.int32)
    wrong = tf.boolean_mask(labels, ((labels < 0) | (labels >= num_classes)) & (labels != IGNORE))
    text = f"{OUT_OF_RANGE}, expected 0..{num_classes - 1}, or {IGNORE} for void; it is"
    with tf.control_dependencies([tf.debugging.Assert(tf.size(wrong) == 0, [text, wrong[:1]])]):
        return tf.identity(mask)


def _in_order(count):
    return tf.data.Dataset.range(count).map(lambda index: (index, index))


def _epochs(count, seed, shuffle):
    """Return keys (index, seed) of all pictures; epochs have other seeds, shuffled other orders."""
    generator = tf.random.Generator.from_seed(seed)  # independent of TensorFlow's global seed

    def epoch(_):
        number = generator.uniform_full_int((), tf.int64)

        def key(place):
            return (_permuted(place, [seed, number], count) if shuffle else place), number + place

        return tf.data.Dataset.range(count).map(key)

    keys = tf.data.Dataset.range(1).flat_map(epoch)
    return keys.apply(tf.data.experimental.assert_cardinality(count))


def _permuted(place, seed, count):
    """Return the number at `place` of a random permutation of 0..count - 1."""
    seed = tf.stack([tf.cast(number, tf.int64) for number in seed])
    return tf.random.experimental.index_shuffle(place, seed, count - 1)


def _read_pair(read, index):
    """Return the tensors of a pair that a Python function reads."""
    # A pair depends on its index alone, so tf.data may read in parallel (stateful=False).
    image, mask = tf.numpy_function(
        lambda index: read(int(index)), [index], (tf.uint8, tf.uint8), stateful=False
    )
    image.set_shape((None, None, 3))
    mask.set_shape((None, None))
    return image, mask


def _read_pairs(source, keys, crop, augmentation, resize_to_crop=False, paste=None):
    """Map keys (index, seed) to augmented, cropped pairs, in parallel, keeping their order."""

    def read(index):
        image, mask = source.read(index)
        if resize_to_crop:
            image, mask = resize_image(image, crop), resize_nearest(mask, crop)
        return image, mask

    def augmented(index, seed):
        image, mask = augment_and_crop(augmentation, *_read_pair(read, index), crop, seed)
        own = type(augmentation) is not Augmentation  # files were checked when they were read
        return image, checked_labels(mask, len(source.labels)) if own else mask

    def pair(index, seed):
        if augmentation:
            seed = tf.stack([tf.cast(seed, tf.int64), 0])
            found = augmented(index, seed)
            return paste(*found, seed, augmented) if paste else found
        image, mask = _read_pair(read, index)
        return (
            crop_pair(image, mask, crop) if crop is not None else (tf.cast(image, tf.float32), mask)
        )

    return keys.map(pair, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
