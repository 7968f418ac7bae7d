"""TensorFlow Datasets, by builders that stand in for those with a download."""

import io
import socket

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from keras_pspnet import cli
from keras_pspnet.data import pipeline
from keras_pspnet.data.datasets import open_source, splits_of
from keras_pspnet.errors import raise_first

PICTURE = tfds.features.Image(encoding_format="png")
MASK = tfds.features.Image(shape=(None, None, 1), encoding_format="png")


def labeled(labels):
    return tfds.features.LabeledImage(labels=labels, encoding_format="png")


def prepare(folder, name, features, examples, shards=1):
    """Writes a dataset as TFDS does; its builder is forgotten, as in another process.

    Args:
        name: of the class; the dataset's is the same in snake_case.
        examples: split -> list of examples.
    """

    def info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def generators(self, _):
        return {split: iter(list(enumerate(found))) for split, found in examples.items()}

    body = {
        "VERSION": tfds.core.Version("4.0.0"),
        "__module__": __name__,
        "_info": info,
        "_split_generators": generators,
        "_generate_examples": None,
    }
    with tfds.core.registered.skip_registration():
        builder = type(name, (tfds.core.GeneratorBasedBuilder,), body)(data_dir=folder)
    config = tfds.download.DownloadConfig(num_shards=shards)
    builder.download_and_prepare(download_config=config)


def png(array, cut=None):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return io.BytesIO(stream.getvalue()[:cut])


def grey(index, size=(6, 8)):
    """A picture that says its number; a flat one survives JPEG."""
    return np.full((*size, 3), 20 * index, np.uint8)


def pairs(masks, key="mask"):
    return [
        {"image": grey(index, mask.shape[:2]), key: mask[..., None]}
        for index, mask in enumerate(masks)
    ]


def trimap(index):
    return np.random.default_rng(index).integers(1, 4, (6, 8), np.uint8)


def pet(index):
    """An example of oxford_iiit_pet 4.0.0, with all its features."""
    return {
        "file_name": f"{index}.jpg",
        "head_bbox": tfds.features.BBox(0.0, 0.0, 1.0, 1.0),
        "image": grey(index),
        "label": index % 37,
        "segmentation_mask": trimap(index)[..., None],
        "species": index % 2,
    }


PET = {
    "file_name": tfds.features.Text(),
    "head_bbox": tfds.features.BBoxFeature(),
    "image": tfds.features.Image(encoding_format="jpeg"),
    "label": tfds.features.ClassLabel(num_classes=37),
    "segmentation_mask": tfds.features.Image(shape=(None, None, 1), use_colormap=True),
    "species": tfds.features.ClassLabel(num_classes=2),
}


def mask_of(value):
    mask = np.full((6, 8), value, np.uint8)
    mask[0] = 255
    return mask


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """TFDS's data_dir with a dataset for each question."""
    folder = tmp_path_factory.mktemp("tfds")
    prepare(folder, "OxfordIiitPet", PET, {
        "train": [pet(index) for index in range(5)],
        "test": [pet(index) for index in (5, 6)],
    })  # fmt: skip
    numbered = {"image": PICTURE, "mask": MASK}
    prepare(folder, "Numbered", numbered, {
        "train": pairs([mask_of(value) for value in (3, 7, 3, 3, 7, 3, 3, 7, 3)]),
        "validation": pairs([mask_of(3)] * 4),
        "test": pairs([mask_of(9), mask_of(7), mask_of(9)]),
    }, shards=3)  # fmt: skip
    named = {"image": PICTURE, "mask": labeled(["sky", "sea", "sand"])}
    bad_size = {"image": grey(1, (6, 9)), "mask": mask_of(0)[..., None]}
    cut = {"image": grey(2), "mask": png(mask_of(0), -30)}
    prepare(folder, "Named", named, {
        "train": pairs([mask_of(0), mask_of(2)]),
        "test": [*pairs([mask_of(1), mask_of(3)]), bad_size, cut],
    })  # fmt: skip
    unnamed = {"image": PICTURE, "mask": labeled(None)}
    prepare(folder, "Unnamed", unnamed, {"train": pairs([mask_of(4), mask_of(6)])})
    counted = {"image": PICTURE, "mask": labeled(3)}
    prepare(folder, "Counted", counted, {"train": pairs([mask_of(0)])})
    for name, count in (("Single", 1), ("Many", 300)):
        masks = {"image": PICTURE, "mask": labeled(count)}
        prepare(folder, name, masks, {"train": pairs([mask_of(0)])})
    deep = tfds.features.Image(shape=(None, None, 1), dtype=np.uint16, encoding_format="png")
    prepare(folder, "Deep", {"image": PICTURE, "mask": deep}, {
        "train": pairs([mask_of(0).astype(np.uint16)] * 2)
    })  # fmt: skip
    colour = {"image": PICTURE, "mask": tfds.features.Image(encoding_format="png")}
    prepare(folder, "Colour", colour, {"train": [{"image": grey(0), "mask": grey(1)}]})
    three = {"image": PICTURE, "mask": MASK, "depth": MASK}
    example = {"image": grey(0), "mask": mask_of(0)[..., None], "depth": mask_of(0)[..., None]}
    prepare(folder, "Three", three, {"train": [example]})
    prepare(folder, "Words", {"text": tfds.features.Text()}, {"train": [{"text": "a"}]})
    return folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def connect(*_):
        pytest.fail("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", connect)


def pixels(source):
    """The pixels of each class; raises the first error of the survey."""
    survey = source.survey()
    raise_first(survey.errors)
    return survey.pixels[: len(source.labels)]


def by_number(source):
    """The number that each picture says -> its mask."""
    found = {}
    for _, image, mask in source.examples():
        number = int(image[0, 0, 0]) // 20
        assert image.dtype == np.uint8 and np.array_equal(image, grey(number, mask.shape))
        found[number] = mask
    return found


@pytest.mark.parametrize("split, numbers", [("train", range(5)), ("val", (5, 6)), ("test", (5, 6))])
def test_the_trimaps_of_the_pets_become_two_classes_and_void(folder, split, numbers):
    source = open_source("tfds:oxford_iiit_pet", folder, split=split)
    assert source.labels.names == ("pet", "background") and source.unpaired == ()
    assert len(source) == len(numbers)
    masks = by_number(source)
    assert sorted(masks) == list(numbers)
    for number, mask in masks.items():
        assert np.array_equal(mask, np.array([9, 0, 1, 255])[trimap(number)])
    counts = pixels(source)
    trimaps = np.stack([trimap(number) for number in numbers])
    assert counts.tolist() == [(trimaps == 1).sum(), (trimaps == 2).sum()]


def test_ids_are_found_in_the_masks_of_all_splits(folder):
    for split, count in (("train", 9), ("val", 4), ("validation", 4), ("test", 3)):
        source = open_source("tfds:numbered", folder, split=split)
        assert source.labels.names == ("class_3", "class_7", "class_9")
        assert len(source) == count
    masks = by_number(source)
    for number, value in ((0, 2), (1, 1), (2, 2)):
        assert (masks[number][1:] == value).all() and (masks[number][0] == 255).all()


def test_a_labeled_image_has_names(folder):
    source = open_source("tfds:named", folder, split="train")
    assert source.labels.names == ("sky", "sea", "sand") and source.labels.ids is None
    assert pixels(source).tolist() == [40, 0, 40]
    assert open_source("tfds:counted", folder, split="train").labels.names == ("0", "1", "2")


def test_a_labeled_image_without_labels_has_the_ids_found(folder):
    source = open_source("tfds:unnamed", folder, split="train")
    assert source.labels.names == ("class_4", "class_6") and pixels(source).tolist() == [40, 40]
    assert len(source.notes) == 1 and "nobody has named the 2 classes" in source.notes[0]


def test_the_order_is_that_of_the_files(folder):
    files = sorted(folder.glob("numbered/4.0.0/numbered-train.tfrecord-*"))
    assert len(files) == 3
    written = []
    for record in tf.data.TFRecordDataset(files).as_numpy_iterator():
        (picture,) = tf.train.Example.FromString(record).features.feature["image"].bytes_list.value
        written.append(int(np.asarray(Image.open(io.BytesIO(picture)))[0, 0, 0]) // 20)
    assert sorted(written) == list(range(9)) != written
    for seed in (1, 2):
        tf.random.set_seed(seed)
        source = open_source("tfds:numbered", folder, split="train")
        assert [int(source.read(n)[0][0, 0, 0]) // 20 for n in range(9)] == written
        assert source.names == tuple(f"tfds:numbered/train/{n}" for n in range(9))


def test_load_gives_batches_of_a_builder(folder):
    dataset = pipeline.load(
        "tfds:oxford_iiit_pet", str(folder), split="train", crop=(4, 10), batch_size=5
    )
    ((images, masks),) = list(dataset)
    assert images.dtype == tf.float32 and images.shape == (5, 4, 10, 3)
    for image, aux, mask in zip(images, masks["aux"], masks["main"]):
        number = round(float(image[2, 5, 0]) / 20)
        expected = np.full((4, 10), 255)  # a row less above and below, a void column a side
        expected[:, 1:9] = np.array([9, 0, 1, 255])[trimap(number)][1:5]
        assert np.array_equal(mask, expected) and np.array_equal(aux, expected)
        np.testing.assert_allclose(image[:, 1:9], 20 * number, atol=1e-4)


@pytest.mark.parametrize(
    "name, splits",
    [
        ("oxford_iiit_pet", ["train", "val"]),
        ("numbered", ["train", "val", "test"]),
        ("unnamed", ["train"]),
    ],
)
def test_the_splits_of_a_builder(folder, name, splits):
    assert splits_of(f"tfds:{name}", folder) == splits


# --- what cannot be used ---


@pytest.mark.parametrize(
    "name, says",
    [
        ("nothing_of_the_kind", "no such dataset"),
        ("nobody:numbered", "no such dataset"),
        ("numbered/plain", "no such dataset"),
        ("../numbered", "no such dataset"),
        ("", "no such dataset"),
        ("colour", "one mask of 1 channel, found image (3), mask (3)"),
        ("three", "one mask of 1 channel, found depth (1), image (3), mask (1)"),
        ("words", "found no pictures"),
        ("deep", "a mask of mode I;16; expected 8 bits"),
        ("counted", "no split 'val'; expected one of train"),
        ("single", "one class, '0'; expected two or more"),
        ("many", "300 classes; expected 255 at most"),
    ],
)
def test_what_is_no_dataset_of_masks_gets_one_line(refused, folder, name, says):
    split = "val" if name == "counted" else "train"
    message = refused(open_source, f"tfds:{name}", folder, split=split)
    assert message.startswith(f"tfds:{name}") and says in message and len(message) < 400


# --- on the command line ---


def run(capfd, *arguments):
    capfd.readouterr()
    code = cli.main([str(argument) for argument in arguments])
    captured = capfd.readouterr()
    return code, captured.out.splitlines(), captured.err.splitlines()


def test_look_names_what_is_bad_in_a_builder(folder, tmp_path, capfd):
    out = tmp_path / "seen"
    code, lines, errors = run(
        capfd, "look", "--dataset", "tfds:named", "--data-dir", folder, "--out", out
    )
    assert code == 2
    assert errors == [f"keras-pspnet: {folder}: 3 bad pairs, named above; fix or remove them"]
    bad = [line for line in lines if line.startswith("bad: ")]
    assert all(line.startswith("bad: tfds:named/test/") for line in bad)
    for says in (
        "label 3 is out of range",
        "is 8x6 pixels, its picture 9x6",
        "not a readable mask",
    ):
        assert sum(f" mask: {says}" in line for line in bad) == 1
    assert lines[0] == "train: 2 good pairs, 8x6 pixels"
    assert "val: 1 good pair, 8x6 pixels" in lines
    assert not out.exists()


def test_look_counts_a_builder(folder, capfd):
    code, lines, errors = run(
        capfd, "look", "--dataset", "tfds:oxford_iiit_pet", "--data-dir", folder
    )
    assert code == 0 and not errors
    for value, name in ((1, "pet"), (2, "background"), (3, "void")):
        numbers = []
        for split in (range(5), (5, 6)):
            trimaps = [trimap(number) == value for number in split]
            numbers += [f"{np.mean(trimaps):.2%}"[:-1], str(len(trimaps))]
        (line,) = (line for line in lines if f" {name} " in line)
        assert line.split(name)[1].replace("%", "").split() == numbers


def test_a_training_on_a_bad_builder_stops_before_its_first_step(folder, tmp_path, capfd):
    arguments = ("train", "folder_lite0", "--data-dir", folder, "--out", tmp_path / "run")
    settings = ("--set", "dataset=tfds:named", "batch_size=2")
    code, _, errors = run(capfd, *arguments, *settings)
    assert code == 2 and len(errors) == 1
    assert "tfds:named/test/" in errors[0] and errors[0].endswith("(and 2 more bad pairs)")
    assert not list(tmp_path.iterdir())
