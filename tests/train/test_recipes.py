"""The table of recipes, and what its fields take."""

import numpy as np
import pytest

from keras_pspnet import train
from keras_pspnet.network import backbones
from keras_pspnet.train.recipe_fields import BACKBONES, Recipe, parse_texts
from keras_pspnet.train.recipes import RECIPES
from keras_pspnet.train.run_folder import check_run

WRONG = {  # FIELD=VALUE, as `--set` takes it -> what the message says
    "epoch=3": "no field 'epoch'; expected one of dataset, backbone,",
    "epochs=many": "epochs=many; expected int from 1 to 1000000",
    "epochs=1.5": "epochs=1.5; expected int",
    "epochs=True": "epochs=True; expected int",
    "epochs=0": "epochs=0; expected int from 1",
    "bins=(0,)": "bins=(0,); expected whole numbers from 1 to 1000, as 1,2,3,6",
    "output_stride=9": "expected one of 8, 16, 32",
    "pooling=min": "expected one of average, max",
    "scales=(2,1)": "smaller one first",
    "scales=1,nan": "expected two numbers from 0.01 to 100, as 0.5,2.0",
    "seed=-1": "seed=-1; expected int from 0",
    "learning_rate=1e400": "learning_rate=inf; expected float",
    "learning_rate=fast": "learning_rate=fast; expected float",
    "crop=49.5,49": "crop=(49.5, 49); expected two whole numbers from 17",
    "batch_size=-1": "expected int from 1",
    "crop=97": "crop=97; expected two whole numbers from 17 to 8192, as 473,473",
    "crop=a,b": "crop=a,b; expected two whole numbers",
    "crop=17,100000": "expected two whole numbers from 17 to 8192, as 473,473",
    "crop=8192,8192": "crop=(8192, 8192) has more than 16777216 pixels",
    "crop=3,3": "crop=(3, 3); expected two whole numbers from 17 to 8192, as 473,473",
    "backbone=nosuch": "backbone=nosuch; expected one of resnet50, resnet101,",
    "class_weights=2": "class_weights=2; expected bool",
    "resize_to_crop=2": "expected bool",
    "train_images=0": "train_images=0; expected int | None from 1",
    "dropout=none": "dropout=None; expected float",
    "dataset=none": "dataset=None; expected str",
    "color=1": "color=1; expected float from 0 to 0.99",
    "color=-0.1": "color",
    "jaccard=-1": "jaccard",
    "dice=-1": "dice",
    "focal=-1": "focal=-1; expected float from 0 to 100",
    "coarse_epochs=-1": "coarse_epochs",
    "ema=0.9": "ema=0.9 needs norm_batches, as 16",
    "ema=1 norm_batches=8": "ema=1; expected float from 0 to 0.999999",
    "copy_paste=1.1": "copy_paste=1.1; expected float from 0 to 1",
    "detail=-1": "detail=-1; expected int from 0",
    "patience=0": "patience=0; expected int | None from 1 to 1000000",
    "least_steps=-1": "least_steps=-1; expected int from 0",
    "coarse_epochs=1.5": "expected int",
    "epochs=2 coarse_epochs=3": "expected at most epochs=2",
    "batch_size=1": "expected batch_size=2 or more, or bins without 1",
    "output_stride=32 coarse_epochs=1": "coarse_epochs needs output_stride=8 or 16",
}


def texts(line):
    return dict(setting.split("=") for setting in line.split())


@pytest.mark.parametrize("setting", WRONG)
def test_wrong_values_are_named(refused, setting):
    message = refused(train.recipe, "scenes_tiny", **parse_texts(texts(setting)))
    assert message.startswith("recipe: ") and WRONG[setting] in message


def test_a_recipe_with_other_values():
    recipe = train.recipe("scenes", epochs=4, crop=(65, 65), learning_rate=1, bins=2)
    assert (recipe.epochs, recipe.crop, recipe.bins) == (4, (65, 65), (2,))
    assert type(recipe.learning_rate) is float and recipe.batch_size == RECIPES["scenes"].batch_size
    assert train.recipe("scenes") == RECIPES["scenes"] and RECIPES["scenes"].epochs != 4
    numpys = train.recipe("scenes", epochs=np.int64(4), dropout=np.float32(0.25), crop=[65, 65])
    assert (
        numpys.to_config()
        == train.recipe("scenes", epochs=4, dropout=0.25, crop=(65, 65)).to_config()
    )
    assert type(numpys.epochs) is int


def test_a_batch_of_one_is_taken_where_no_batch_norm_sees_a_single_value():
    for changes in ({"bins": (2, 3, 6)}, {"reduce_channels": False}, {"bins": ()}):
        assert train.recipe("scenes", batch_size=1, **changes).batch_size == 1


def test_an_unknown_recipe_is_refused(refused):
    assert "scenes, scenes_tiny" in refused(train.recipe, "ade20k")


def test_values_are_checked_however_a_recipe_is_made(refused):
    assert "crop" in refused(Recipe, "scenes", crop=(97,))
    message = refused(Recipe, "scenes", momentum=1)
    assert "momentum=1; expected float from 0 to 0.9999" in message


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_its_config_as_values_and_as_texts(name):
    config = RECIPES[name].to_config()
    assert Recipe(**config) == RECIPES[name]
    written = {field: str(value) for field, value in config.items()}
    assert Recipe("other").change(**parse_texts(written)) == RECIPES[name]


def test_texts_that_look_like_numbers_stay_texts_where_a_field_wants_text():
    values = parse_texts(texts("dataset=7 backbone_weights=NONE train_split=1e5 val_images=None"))
    assert values == {
        "dataset": "7", "backbone_weights": None, "train_split": "1e5", "val_images": None,
    }  # fmt: skip
    assert parse_texts(texts("class_weights=false crop=[97,97] bins=() pooling=max")) == {
        "class_weights": False, "crop": [97, 97], "bins": (), "pooling": "max",
    }  # fmt: skip


@pytest.mark.parametrize("epochs, coarse", [(1, 0), (3, 2), (18, 12), (72, 48)])
def test_other_epochs_keep_the_share_of_coarse_ones(refused, epochs, coarse):
    recipe = train.recipe("camvid_lite0", epochs=epochs)
    assert (recipe.epochs, recipe.coarse_epochs) == (epochs, coarse)
    both = train.recipe("camvid_lite0", epochs=epochs, coarse_epochs=epochs)
    assert both.coarse_epochs == epochs
    assert "epochs=many" in refused(train.recipe, "camvid_lite0", epochs="many")


def test_few_pictures_have_more_epochs_and_many_no_fewer():
    recipe = train.recipe("scenes", batch_size=4, epochs=22, coarse_epochs=14, least_steps=600)
    assert recipe.lengths(41) == (60, 38)  # 10 steps an epoch
    assert recipe.lengths(42) == (60, 38) and recipe.lengths(44) == (55, 35)
    assert recipe.lengths(112) == recipe.lengths(100_000) == (22, 14)
    assert recipe.change(least_steps=0).lengths(4) == (22, 14)
    assert recipe.change(epochs=11).lengths(4) == (11, 7)  # who sets epochs gets them
    assert recipe.change(epochs=11, least_steps=20).lengths(4) == (20, 12)


def test_the_backbones_of_a_recipe_are_those_of_the_network():
    assert tuple(BACKBONES.split()) == backbones.NAMES


def test_a_new_run_finds_its_weights_before_the_pictures_are_read(refused, tmp_path):
    lost, out = tmp_path / "lost.pth", tmp_path / "run"
    recipe = train.recipe("folder_lite0", backbone_weights=str(lost))
    message = refused(train.fit, recipe, out, data_dir=tmp_path / "no pictures")
    assert message.startswith(f"recipe: backbone_weights={lost}: no such file")
    check_run(recipe, out, resume=True)  # a run that goes on has read them already
    lost.touch()
    check_run(recipe, out, resume=False)


def test_a_stride_of_32_without_coarse_epochs_is_fine():
    assert train.recipe("scenes", output_stride=32).output_stride == 32


def test_published_recipes_are_the_authors():
    """semseg config/*/*.yaml and tool/train.py; the paper's section 5.1."""
    code = RECIPES["ade20k_resnet50"]
    found = (code.backbone, code.crop, code.batch_size, code.epochs)
    assert found == ("resnet50", (473, 473), 16, 100)
    found = (code.learning_rate, code.head_multiplier, code.momentum, code.decay)
    assert found == (0.01, 10.0, 0.9, 1e-4)
    found = (code.scales, code.rotation, code.blur_share, code.aux_weight)
    assert found == ((0.5, 2.0), 10.0, 0.5, 0.4)
    assert (code.color, code.jaccard, code.class_weights, code.coarse_epochs) == (0, 0, False, 0)
    assert RECIPES["cityscapes_resnet101"].crop == (713, 713)
    assert RECIPES["cityscapes_resnet101"].epochs == 200
    assert RECIPES["voc2012_resnet101"].epochs == 50
    for name, pictures, iterations in (
        ("ade20k_resnet152", 20210, 150_000),
        ("ade20k_resnet269", 20210, 150_000),
        ("paper_cityscapes_resnet101", 2975, 90_000),
    ):
        assert RECIPES[name].epochs == round(iterations * 16 / pictures)
    depths = {recipe.backbone for name, recipe in RECIPES.items() if name.startswith("ade20k")}
    assert depths == {"resnet50", "resnet101", "resnet152", "resnet269"}
