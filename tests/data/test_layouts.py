"""ADE20K, Cityscapes and VOC 2012 as their authors hand them out: tiny trees of each."""

import shutil

import numpy as np
import pytest
from PIL import Image

from keras_pspnet import cli
from keras_pspnet.data import pipeline
from keras_pspnet.data.datasets import open_source, splits_of
from keras_pspnet.labels import ADE20K, CITYSCAPES, VOC2012
from keras_pspnet.train.recipe_fields import Recipe
from keras_pspnet.train.recipes import recipe
from keras_pspnet.train.run import fit

SIZE = (33, 41)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def picture(number):
    return np.random.default_rng(number).integers(0, 256, (*SIZE, 3), np.uint8)


def mask(*values):
    """Rows of the values, from the top."""
    return np.resize(np.repeat(np.uint8(values), SIZE[0] // len(values)), SIZE[::-1]).T.copy()


def ade20k(root, count=2):
    for split in ("training", "validation"):
        for number in range(count):
            name = f"ADE_{split[:-3]}_{number:08d}"
            save(root / "images" / split / f"{name}.jpg", picture(number))
            save(root / "annotations" / split / f"{name}.png", mask(0, 1, 150))


def cityscapes(root, count=2):
    for split in ("train", "val"):
        for number in range(count):
            frame = f"city_{number:06d}_000019"
            save(
                root / "leftImg8bit" / split / "city" / f"{frame}_leftImg8bit.png", picture(number)
            )
            # Raw ids: 7 road, 33 bicycle, 0 unlabelled, 34 what license plates become.
            folder = root / "gtFine" / split / "city"
            save(folder / f"{frame}_gtFine_labelIds.png", mask(7, 33, 0, 34))
            save(folder / f"{frame}_gtFine_instanceIds.png", mask(9, 9))
            save(folder / f"{frame}_gtFine_color.png", picture(number))
    frame = "city_000000_000019"
    save(
        root / "gtFine" / "train" / "city" / f"{frame}_gtFine_labelTrainIds.png",
        mask(0, 18, 255, 255),
    )


def voc2012(root, count=2):
    lists = {"train": [], "val": [], "trainval": []}
    for split in ("train", "val"):
        for number in range(count):
            name = f"2007_{split}_{number}"
            save(root / "JPEGImages" / f"{name}.jpg", picture(number))
            image = Image.fromarray(mask(0, 20, 255), "P")
            image.putpalette(np.arange(768, dtype=np.uint8).tobytes())
            file = root / "SegmentationClass" / f"{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            image.save(file)
            lists[split].append(name)
            lists["trainval"].append(name)
    save(root / "JPEGImages" / "not_listed.jpg", picture(9))
    folder = root / "ImageSets" / "Segmentation"
    folder.mkdir(parents=True)
    for split, names in lists.items():
        (folder / f"{split}.txt").write_text("\n".join(names) + "\n")


TREES = {"ade20k": ade20k, "cityscapes": cityscapes, "voc2012": voc2012}
MASKS = {"ade20k": "annotations", "cityscapes": "gtFine", "voc2012": "SegmentationClass"}
LABELS = {"ade20k": ADE20K, "cityscapes": CITYSCAPES, "voc2012": VOC2012}


@pytest.fixture
def tree(tmp_path, request):
    TREES[request.param](tmp_path)
    return request.param, tmp_path


each = pytest.mark.parametrize("tree", TREES, indirect=True)


@each
def test_masks_become_class_ids(tree):
    name, root = tree
    for split in ("train", "val"):
        source = open_source(name, root, split=split)
        assert len(source) == 2 and source.labels == LABELS[name]
        for index in range(2):
            image, classes = source.read(index)
            assert image.shape == (*SIZE, 3)
            expected = {
                "ade20k": mask(255, 0, 149),
                "cityscapes": mask(0, 18, 255, 255),
                "voc2012": mask(0, 20, 255),
            }
            assert np.array_equal(classes, expected[name])


@each
def test_a_step_is_trained_from_each(tree, tmp_path, eagerly):
    name, root = tree
    recipe = Recipe(
        name,
        backbone="resnet14_narrow",
        channels=8,
        crop=(33, 33),
        batch_size=2,
        epochs=1,
        class_weights=True,
    )
    out = tmp_path / "run"
    with eagerly():
        model = fit(recipe, out, data_dir=root)
    assert model.get_layer("main").labels == LABELS[name]
    assert (out / "best.keras").is_file() and model.optimizer.iterations == 1
    batch = next(iter(pipeline.load(name, root, split="val", crop=(33, 33))))
    assert batch[1]["main"].shape == (1, 33, 33)


@each
def test_look_shows_each(tree, tmp_path, capsys):
    name, root = tree
    assert cli.main(["look", "--dataset", name, "--data-dir", str(root)]) == 0
    said = capsys.readouterr().out
    assert "train: 2 good pairs" in said and "val: 2 good pairs" in said


@each
def test_a_missing_mask_and_a_missing_dataset_get_one_line(refused, tree, tmp_path):
    name, root = tree
    gone = [f for f in sorted((root / MASKS[name]).rglob("*.png")) if "val" in str(f)]
    stem = gone[-1].stem.split("_gtFine")[0]
    for file in gone:
        if file.name.startswith(stem):
            file.unlink()
    message = refused(open_source(name, root, split="val").paired)
    assert "no mask of this name" in message and str(root) in message
    assert "no split 'night'" in refused(open_source, name, root, split="night") or (
        name == "cityscapes"
    )
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in refused(open_source, name, tmp_path / "empty", split="train")
    assert str(tmp_path / "empty") in refused(splits_of, name, tmp_path / "empty")


@each
def test_a_missing_folder_of_masks_is_called_so(refused, tree):
    name, root = tree
    folder = root / MASKS[name]
    shutil.rmtree(folder)
    for make in (None, folder / "training", folder / "train"):
        if make is not None:
            make.mkdir(parents=True)
        message = refused(open_source, name, root, split="train")
        assert "masks" in message and "pictures" not in message and str(folder) in message


def test_a_missing_folder_of_camvids_masks_is_called_so(refused, tmp_path):
    save(tmp_path / "train/a.png", picture(0))
    message = refused(open_source, "camvid", tmp_path, split="train")
    assert message == f"{tmp_path}/trainannot: no such folder; expected one with masks"
    (tmp_path / "trainannot").mkdir()
    (tmp_path / "trainannot/.DS_Store").touch()
    message = refused(open_source, "camvid", tmp_path, split="train")
    assert message.startswith(f"{tmp_path}/trainannot: no masks in this folder; expected a PNG")


def test_the_folders_of_the_archives_are_found(tmp_path):
    ade20k(tmp_path / "a" / "ADEChallengeData2016")
    assert len(open_source("ade20k", tmp_path / "a", split="val")) == 2
    voc2012(tmp_path / "v" / "VOCdevkit" / "VOC2012")
    assert splits_of("voc2012", tmp_path / "v") == ["train", "val", "trainval"]
    assert len(open_source("voc2012", tmp_path / "v", split="trainval")) == 4


def test_voc_with_the_masks_of_sbd(tmp_path, refused, eagerly):
    voc2012(tmp_path)
    assert "ClassAug" in refused(open_source, "voc2012", tmp_path, split="train_aug")
    for name in ("2007_train_0", "2007_val_0", "2008_more"):
        save(tmp_path / "JPEGImages" / f"{name}.jpg", picture(3))
        save(tmp_path / "SegmentationClassAug" / f"{name}.png", mask(1, 2))
    assert splits_of("voc2012", tmp_path)[-1] == "train_aug"
    source = open_source("voc2012", tmp_path, split="train_aug").paired()
    assert [name[-14:-4] for name in source.names] == ["07_train_0", "/2008_more"]
    assert np.array_equal(source.read(0)[1], mask(1, 2))
    small = {"backbone": "resnet14_narrow", "channels": 8, "crop": (33, 33), "batch_size": 2}
    small = recipe("voc2012_resnet50", epochs=1, **small)
    with eagerly():
        model = fit(small, tmp_path / "run", data_dir=tmp_path)
    assert model.optimizer.iterations == 1  # of both pictures of train_aug
    # A list, here with paths as in published ones, says which.
    lines = "/JPEGImages/2008_more.jpg /SegmentationClassAug/2008_more.png\n"
    (tmp_path / "ImageSets" / "Segmentation" / "trainaug.txt").write_text(lines)
    assert len(open_source("voc2012", tmp_path, split="train_aug")) == 1


def test_a_listed_picture_that_is_not_there_is_named(tmp_path, refused):
    voc2012(tmp_path)
    with open(tmp_path / "ImageSets" / "Segmentation" / "train.txt", "a") as file:
        file.write("2099_nowhere\n")
    message = refused(open_source("voc2012", tmp_path, split="train").paired)
    assert "2099_nowhere.jpg" in message and "lists it" in message


def test_raw_ids_of_cityscapes_that_do_not_exist_are_named(tmp_path, refused):
    cityscapes(tmp_path)
    folder = tmp_path / "gtFine" / "val" / "city"
    save(folder / "city_000001_000019_gtFine_labelIds.png", mask(7, 99))
    source = open_source("cityscapes", tmp_path, split="val")
    message = refused(source.read, 1)
    assert "99" in message and "city_000001" in message
