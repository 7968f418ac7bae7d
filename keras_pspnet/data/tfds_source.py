"""Open datasets of TensorFlow Datasets (TFDS) whose examples hold a picture and a mask."""

import io
import logging
import socket
import textwrap
import urllib.request
from pathlib import Path

from keras_pspnet.data.mask_labels import check_classes, values_in
from keras_pspnet.data.pairs import Source, check_split, read_pair
from keras_pspnet.errors import UserError
from keras_pspnet.labels import IGNORE, LabelSet, default_void_label

PREFIX = "tfds:"

LABELS = {
    # Trimaps: 1 foreground, 2 background, 3 not classified (the dataset's README).
    "oxford_iiit_pet": LabelSet(
        ("pet", "background"), ((220, 90, 60), (70, 110, 160)), ids={1: 0, 2: 1, 3: IGNORE}
    ),
}

REFUSED = {  # as in TFDS 4.9.10
    "scene_parse150": "its masks number the instances of 100 things, not the 150 classes of "
    "ADE20K; get ADEChallengeData2016 and use --dataset ade20k",
    "voc": "it holds boxes, no masks; get VOC 2012 itself and use --dataset voc2012",
    "cityscapes": "its masks hold raw label ids, not the 19 classes; get leftImg8bit and gtFine "
    "and use --dataset cityscapes",
}


def open_builder(name: str, path, split: str, download: bool = True) -> Source:
    """Open one split of a TFDS builder; download and prepare the dataset if it is not yet.

    The encoded pictures and masks of the split stay in memory, as TFDS reads files in order only.

    Args:
        name: "tfds:BUILDER" or "tfds:BUILDER/CONFIG"; its features must hold one picture of 3
            channels and one mask of 1 channel.
        path: TFDS's data_dir; None takes TFDS's default, ~/tensorflow_datasets.
        split: "train", "val" or a split of the builder; "val" is the builder's "val",
            "validation" or "test", the first that exists.
        download: whether a dataset that is not prepared yet may be downloaded.

    Raises:
        UserError: TFDS is not installed; no such builder or split; other features; a builder in
            `REFUSED`; the download fails.
    """
    builder, image_key, mask_key = _prepared(name, path, download)
    splits = _splits(builder)
    check_split(name, split, splits)
    split = splits[split]
    pairs = list(_encoded(builder, split, image_key, mask_key))
    names = tuple(f"{name}/{split}/{index}" for index in range(len(pairs)))
    labels, notes = LABELS.get(builder.name), ()
    if labels is None:
        labels, notes = _labels(name, builder, mask_key)

    def read(index):
        picture, mask = map(io.BytesIO, pairs[index])
        return read_pair(picture, mask, labels, (names[index], f"{names[index]} {mask_key}"))

    return Source(names, labels, read, notes=notes)


def splits_of(name: str, path) -> list[str]:
    """Return "train", "val" and the builder's other splits; raises as `open_builder` does."""
    splits = _splits(_prepared(name, path)[0])
    return [split for split in splits if split == "val" or split != splits.get("val")]


def _prepared(name, path, download=True):
    """Return a builder whose files are prepared, and the keys of its picture and mask."""
    builder = name.removeprefix(PREFIX)
    family = builder.split("/")[0].split(":")[0]
    if family in REFUSED:
        raise UserError(f"{name}: {REFUSED[family]}")
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(
            f"{name}: tensorflow-datasets is not installed; run: "
            "pip install 'keras-pspnet[datasets]'"
        ) from error
    try:
        builder = tfds.builder(builder, data_dir=path)
    except Exception as error:  # TFDS raises many kinds, some with pages of text
        raise UserError(
            f"{name}: TFDS has no such dataset that can be used ({_first_line(error)})"
        ) from error

    keys = _keys(name, builder.info.features)
    if not Path(builder.data_dir).exists():
        if not download:
            raise UserError(f"{name}: is not in {path or builder.data_dir}")
        _download(name, builder, path)
    return builder, *keys


def _download(name, builder, path) -> None:
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it would report each of many retries
    try:
        # Without a network TFDS 4.9.10 retries for 3.5 minutes; looking up a name fails at once.
        if not urllib.request.getproxies():
            socket.getaddrinfo("www.tensorflow.org", 443)
        builder.download_and_prepare()
    except Exception as error:
        raise UserError(
            f"{name}: is not in {path or builder.data_dir} and cannot be downloaded "
            f"({_first_line(error)}); connect, or give --data-dir with the prepared dataset"
        ) from error


def _first_line(error) -> str:
    lines = str(error).strip().splitlines() or [""]
    text = f"{type(error).__name__}: {lines[0]}".rstrip(": ")
    return textwrap.shorten(text, 200, placeholder=" ...")


def _splits(builder) -> dict[str, str]:
    """Return our name of each split -> the builder's name."""
    own = list(builder.info.splits)
    held_out = [name for name in ("val", "validation", "test") if name in own]
    named = {"train": "train"} if "train" in own else {}
    if held_out:
        named["val"] = held_out[0]
    return named | {name: name for name in own}


def _keys(name, features) -> tuple[str, str]:
    """Return the keys of the features that are the picture and the mask."""
    import tensorflow_datasets as tfds

    channels = {
        key: feature.shape[-1]
        for key, feature in sorted(features.items())  # the order differs once prepared
        if isinstance(feature, tfds.features.Image)
    }
    pictures = [key for key, count in channels.items() if count == 3]
    masks = [key for key, count in channels.items() if count == 1]
    if len(pictures) != 1 or len(masks) != 1:
        raise UserError(
            f"{name}: expected one picture of 3 channels and one mask of 1 channel, found "
            f"{', '.join(f'{key} ({count})' for key, count in channels.items()) or 'no pictures'}"
        )
    return pictures[0], masks[0]


def _labels(name, builder, mask_key) -> tuple[LabelSet, tuple[str, ...]]:
    """Return the labels (the feature's names, else one for each id in the masks), and notes."""
    feature = builder.info.features[mask_key]
    if getattr(feature, "num_classes", None):  # a LabeledImage with labels
        labels = LabelSet(feature.names, ignore=default_void_label(len(feature.names)))
        check_classes(labels, name)
        return labels, ()
    masks = (
        (io.BytesIO(mask), f"{name}/{split}/{index} {mask_key}")
        for split in builder.info.splits
        for index, (mask,) in enumerate(_encoded(builder, split, mask_key))
    )
    values = values_in(masks, name)
    return values.labels(name), (values.meaning(),)


def _encoded(builder, split, *keys):
    """Yield the encoded bytes of the features `keys` of each example, always in the same order."""
    import tensorflow_datasets as tfds

    dataset = builder.as_dataset(
        split=split,
        decoders=tfds.decode.PartialDecoding(
            {key: True for key in keys}, {key: tfds.decode.SkipDecoding() for key in keys}
        ),
        read_config=tfds.ReadConfig(interleave_cycle_length=1),
        shuffle_files=False,
    )
    for example in dataset.as_numpy_iterator():
        yield tuple(example[key] for key in keys)
