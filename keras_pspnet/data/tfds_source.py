"""TensorFlow Datasets with a picture and a mask in each example."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import socket
import textwrap
import urllib.request
from pathlib import Path

from keras_pspnet.data.pairs import Source, labels_in, read_pair
from keras_pspnet.errors import UserError
from keras_pspnet.labels import IGNORE, LabelSet

PREFIX = "tfds:"

LABELS = {
    # Its trimaps: 1 foreground, 2 background, 3 not classified (the dataset's README).
    "oxford_iiit_pet": LabelSet(
        ("pet", "background"), ((220, 90, 60), (70, 110, 160)), ids={1: 0, 2: 1, 3: IGNORE}
    ),
}

REFUSED = {  # looked up in TFDS 4.9.10
    "scene_parse150": "its masks number the instances of 100 things, they are not the 150 classes "
    "of ADE20K; get ADEChallengeData2016 and use the folder layout",
    "voc": "it holds boxes, no masks; get VOC 2012 itself and use the folder layout",
    "cityscapes": "its masks hold raw label ids, not the 19 classes; use the folder layout with "
    'the "ids" of labels.json',
}


def open_builder(name: str, path, split: str) -> Source:
    """One split of a TFDS builder, prepared (and downloaded) where it is not yet.

    The encoded pictures of the split stay in memory: TFDS reads its files in order only.

    Args:
        name: "tfds:BUILDER" or "tfds:BUILDER/CONFIG"; its features must hold one picture of 3
            channels and one mask of 1 channel.
        path: TFDS's data_dir; None for its own (~/tensorflow_datasets).
        split: "train", "val" or one of the builder's; "val" is "validation" or else "test".

    Raises:
        UserError: TFDS is not installed; no such builder, split or features; a builder that is
            known to hold no semantic masks; no network for a download.
    """
    builder = _builder(name, path)
    image_key, mask_key = _features(name, builder.info.features)
    _prepare(name, builder, path)
    splits = _splits(builder)
    if split not in splits:
        raise UserError(f"{name}: no split {split!r}; expected one of {', '.join(splits)}")
    return _source(name, builder, splits[split], image_key, mask_key)


def splits_of(name: str, path) -> list[str]:
    """ "train", "val" and what else the builder has; see `open_builder`."""
    builder = _builder(name, path)
    _features(name, builder.info.features)
    _prepare(name, builder, path)
    taken, names = set(), []
    for split, own in _splits(builder).items():
        if own not in taken:  # "val" stands for "validation" or "test"
            taken.add(own)
            names.append(split)
    return names


def _builder(name, path):
    builder = name.removeprefix(PREFIX)
    family = builder.split("/")[0].split(":")[0]
    if family in REFUSED:
        raise UserError(f"{name}: {REFUSED[family]}")
    if importlib.util.find_spec("tensorflow_datasets") is None:
        raise UserError(
            f"{name}: tensorflow-datasets is not installed; run: "
            "pip install 'keras-pspnet[datasets]'"
        )
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(builder, data_dir=path)
    except Exception as error:  # TFDS raises many kinds, some with pages of text
        raise UserError(
            f"{name}: TFDS has no such dataset that can be used ({_first_line(error)})"
        ) from error


def _prepare(name, builder, path) -> None:
    if Path(builder.data_dir).exists():
        return
    place = Path(path or builder.data_dir)
    before = {folder for folder in (*place.parents, place, *place.rglob("*")) if folder.is_dir()}
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it tells of each of many attempts
    try:
        # TFDS tries for minutes; without names for addresses there is no network at all.
        if not urllib.request.getproxies():
            socket.getaddrinfo("www.tensorflow.org", 443)
        builder.download_and_prepare()
    except Exception as error:
        for folder in sorted(place.rglob("*"), reverse=True) + [place, *place.parents]:
            if folder.is_dir() and folder not in before:
                with contextlib.suppress(OSError):  # it holds what was downloaded
                    folder.rmdir()
        raise UserError(
            f"{name}: is not in {place} and cannot be downloaded ({_first_line(error)}); "
            "connect, or give --data-dir with the prepared dataset"
        ) from error


def _first_line(error) -> str:
    lines = str(error).strip().splitlines() or [""]
    text = f"{type(error).__name__}: {lines[0]}".rstrip(": ")
    return textwrap.shorten(text, 200, placeholder=" ...")


def _splits(builder) -> dict[str, str]:
    """What a split is called here -> what it is called there."""
    own = list(builder.info.splits)
    splits = {name: name for name in own}
    held_out = next((name for name in ("val", "validation", "test") if name in own), None)
    named = {"train": "train"} if "train" in own else {}
    if held_out:
        named["val"] = held_out
    return named | splits


def _features(name, features) -> tuple[str, str]:
    """The keys of the picture and of the mask."""
    import tensorflow_datasets as tfds

    channels = {
        key: feature.shape[-1]
        for key, feature in sorted(features.items())  # a prepared one's order is not fixed
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


def _source(name, builder, split, image_key, mask_key) -> Source:
    pairs = list(_encoded(builder, split, image_key, mask_key))
    names = tuple(f"{name}/{split}/{index}" for index in range(len(pairs)))
    labels = LABELS.get(builder.name) or _labels(name, builder, mask_key)

    def read(index):
        picture, mask = map(io.BytesIO, pairs[index])
        return read_pair(picture, mask, labels, (names[index], f"{names[index]} {mask_key}"))

    return Source(names, labels, read)


def _labels(name, builder, mask_key) -> LabelSet:
    """The names that the feature has, or the ids found in the masks of all splits."""
    feature = builder.info.features[mask_key]
    if getattr(feature, "num_classes", None):  # a LabeledImage that knows its labels
        return LabelSet(tuple(feature.names))
    masks = (
        (io.BytesIO(mask), f"{name}/{split}/{index} {mask_key}")
        for split in builder.info.splits
        for index, (mask,) in enumerate(_encoded(builder, split, mask_key))
    )
    return labels_in(masks, name)


def _encoded(builder, split, *keys):
    """The bytes of some features of each example, in an order that is always the same."""
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
