"""Trainings that start from a trained network: what they take, keep, freeze and refuse."""

import json
import zipfile

import keras
import numpy as np
import pytest

import keras_pspnet
from keras_pspnet import cli
from keras_pspnet.cli import commands
from keras_pspnet.labels import SCENES, LabelSet
from keras_pspnet.network import backbones
from keras_pspnet.network.model import HEADS
from keras_pspnet.train import recipes
from keras_pspnet.train.build import build_network
from keras_pspnet.train.run import Run, fit
from keras_pspnet.train.run_folder import path_in_recipe
from keras_pspnet.train.start import Start, follow, read_start

SMALL = recipes.recipe(
    "scenes_tiny",
    crop=(33, 33),
    batch_size=2,
    train_images=5,
    val_images=2,
    epochs=2,
    coarse_epochs=1,
    checkpoint_seconds=0,
)
NAMES = ["boat", *SCENES.names[:3], "tree house"]
KEPT = [name for name in SCENES.names if name in NAMES]


def network(**changes):
    """A tiny network, as its training for other classes and sizes left it."""
    keras.utils.set_random_seed(5)
    changes = {"backbone": "resnet14_narrow", "channels": 6, "bins": (2,), **changes}
    model = keras_pspnet.build_pspnet(
        5, input_shape=(49, 65, 3), output_stride=16, aux=False, labels=NAMES, **changes
    )
    for _ in range(3):
        model(np.random.default_rng(0).uniform(0, 255, (2, 49, 65, 3)), training=True)
    return model


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def base(model, tmp_path_factory):
    """The path of such a network, without an auxiliary head."""
    path = tmp_path_factory.mktemp("base") / "base.keras"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def run(base, tmp_path_factory, eagerly):
    """A run that started from it, its backbone frozen, first coarse and then fine."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    with eagerly():
        fit(SMALL.change(freeze="backbone"), out, start=base)
    return out


def layers(path):
    return {layer.name: layer for layer in keras_pspnet.load_model(path).layers}


def test_a_frozen_backbone_stays_bit_by_bit_and_the_heads_learn(run, base):
    before, after = layers(base), layers(run / "last.keras")
    frozen = [name for name in before if before[name].weights and not name.startswith(HEADS)]
    assert len(frozen) == 38 and any("bn" in name for name in frozen)
    for name in frozen:  # with the moving statistics, through the switch to the full resolution
        for one, other in zip(before[name].get_weights(), after[name].get_weights(), strict=True):
            np.testing.assert_array_equal(one, other, err_msg=name)
        assert not after[name].trainable  # as Keras keeps it
    for name in ("ppm", "cls_0", "cls_1", "cls_4"):
        assert after[name].trainable
        assert not np.array_equal(before[name].get_weights()[0], after[name].get_weights()[0])


def test_the_recipe_of_the_run_tells_the_truth(run, base):
    written = json.loads((run / "recipe.json").read_text())
    assert written.pop("start") == {"path": str(base), "sha256": read_start(base).sha256}
    assert written.pop("data_dir") is None
    expected = SMALL.change(freeze="backbone", bins=2, channels=6)
    assert written == expected.to_config() and expected != SMALL.change(freeze="backbone")


def test_the_network_is_that_of_the_start_for_the_classes_of_the_data(model):
    recipe = follow(SMALL, read_start(model))
    for coarse, side in ((True, 3), (False, 5)):
        built = build_network(recipe, SCENES, coarse, model)
        assert built.get_layer("ppm").input.shape[1] == side
        assert list(built.output) == ["aux", "main"]
        for name in ("layer4_0_conv2", "layer4_0_bn2", "ppm", "cls_0"):
            for one, other in zip(
                model.get_layer(name).get_weights(), built.get_layer(name).get_weights()
            ):
                np.testing.assert_array_equal(one, other)
        kernel, old = built.get_layer("cls_4").get_weights()[0], model.get_layer("cls_4")
        for name in KEPT:
            row, before = SCENES.names.index(name), NAMES.index(name)
            np.testing.assert_array_equal(kernel[..., row], old.get_weights()[0][..., before])
        assert all(layer.trainable for layer in built.layers)


def test_a_run_with_a_start_that_was_killed_ends_with_the_same_bits(
    run, base, model, tmp_path, monkeypatch, capsys, refused, eagerly
):
    class Killed(BaseException):
        pass

    recipe, save_step = SMALL.change(freeze="backbone"), Run.save_step

    def save_step_and_die(self, step):
        save_step(self, step)
        if step == 3:  # the first one that is not coarse
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed), eagerly():
        patch.setattr(Run, "save_step", save_step_and_die)
        fit(recipe, tmp_path, start=base)
    keras.utils.set_random_seed(77)  # another process has drawn other numbers
    says = capsys.readouterr().out
    names = f"keeps {len(KEPT)} of 12 classes by name: {', '.join(KEPT)}"
    assert says.count(f"starting from {base}: {names}\n") == 1
    message = refused(fit, recipe, tmp_path, start=model, resume=True)  # not the file's bytes
    assert f"{tmp_path}: its run has the start with the SHA-256" in message
    assert "not a model (" in message
    with eagerly():
        fit(recipe, tmp_path, start=base, resume=True)
    for name in ("last.keras", "best.keras", "history.csv"):
        assert (tmp_path / name).read_bytes() == (run / name).read_bytes(), name
    assert (tmp_path / "recipe.json").read_bytes() == (run / "recipe.json").read_bytes()


def test_a_run_from_scratch_does_not_go_on_from_a_start(tmp_path, base, refused):
    recipe = SMALL.change(channels=6, bins=2)
    (tmp_path / "recipe.json").write_text(json.dumps({**recipe.to_config(), "data_dir": None}))
    message = refused(fit, recipe, tmp_path, start=base, resume=True)
    assert "its run has no start, not" in message
    assert not (tmp_path / "last.keras").exists()


# --- the recipe follows the network, before TensorFlow is imported ---


def start(**plan):
    plan = {
        "backbone": "resnet50", "output_stride": 8, "bins": [2, 3], "pooling": "max",
        "reduce_channels": False, "detail": 0, "channels": 64, "dropout": 0.2,
        "align_corners": False, **plan,
    }  # fmt: skip
    return Start("old.keras", "old.keras", "0" * 64, plan, LabelSet.numbered(3))


def test_fields_follow_the_network():
    recipe = follow(recipes.recipe("folder_lite0"), start())
    assert (recipe.backbone, recipe.backbone_weights) == ("resnet50", None)
    assert (recipe.bins, recipe.pooling, recipe.reduce_channels) == ((2, 3), "max", False)
    assert (recipe.channels, recipe.dropout, recipe.align_corners) == (64, 0.2, False)
    for name in ("crop", "output_stride", "coarse_epochs", "learning_rate"):
        assert getattr(recipe, name) == getattr(recipes.recipe("folder_lite0"), name)
    own = {"blocks": [1, 1, 1, 1], "width": 4, "stem": [2, 2, 2]}
    recipe = follow(recipe, start(backbone=own, dropout=None))
    assert recipe.backbone is None and recipe.dropout == 0.2  # a dropout without a rate
    assert follow(SMALL, None) is SMALL


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"backbone": "resnet101"}, "has backbone=resnet50"),
        ({"channels": 512}, "channels=512 contradicts the network of old.keras, which has"),
        ({"bins": (1, 2, 3, 6)}, "has bins=(2, 3)"),
        ({"dropout": 0.1}, "has dropout=0.2"),
        ({"backbone_weights": "imagenet"}, "has backbone_weights=None"),
    ],
)  # fmt: skip
def test_settings_that_contradict_the_network_are_refused(refused, changes, says):
    message = refused(follow, recipes.recipe("folder_lite0", **changes), start(), changes)
    assert says in message and "or train without a start" in message
    same = {"backbone": "resnet50", "channels": 64, "epochs": 3}
    assert follow(recipes.recipe("folder_lite0", **same), start(), same).epochs == 3


def test_a_network_on_a_keras_model_keeps_its_output_stride(refused):
    on_keras = start(backbone=None, output_stride=16)
    says = "old.keras: its network stands on a keras.Model and keeps its output stride; set "
    for changes in ({}, {"output_stride": 16}):  # folder_lite0 is coarse at first
        message = refused(follow, recipes.recipe("folder_lite0", **changes), on_keras)
        assert message == says + "output_stride=16 coarse_epochs=0"
    recipe = recipes.recipe("folder_lite0", output_stride=16, coarse_epochs=0)
    assert follow(recipe, on_keras).backbone is None


def test_random_weights_are_not_frozen(refused):
    message = refused(follow, SMALL.change(freeze="backbone"), None)
    assert "freeze=backbone would keep random weights" in message
    recipe = recipes.recipe("folder_lite0", freeze="backbone")
    assert follow(recipe, None) is recipe  # ImageNet's
    assert "name a backbone" in refused(follow, SMALL.change(backbone=None), None)


def test_what_no_training_can_start_from(refused, tmp_path, base):
    assert "no such file" in refused(read_start, tmp_path / "nowhere.keras")
    text = tmp_path / "text.keras"
    text.write_text("no model")
    assert "text.keras: not a model" in refused(read_start, text)
    assert "not a model of build_pspnet" in refused(read_start, keras.Sequential())
    for drop, says in (("plan", "of an earlier version"), ("name", "not a model of build_pspnet")):
        changed = tmp_path / f"{drop}.keras"
        with zipfile.ZipFile(base) as old, zipfile.ZipFile(changed, "w") as new:
            config = json.loads(old.read("config.json"))
            for layer in config["config"]["layers"]:
                if layer["config"]["name"] == "main":
                    layer["config"].pop(drop)
            new.writestr("config.json", json.dumps(config))
        message = refused(read_start, changed)
        assert message.startswith(f"{changed}: ") and says in message


def test_a_file_and_its_model_are_known_alike(base, model):
    of_file, of_model = read_start(base), read_start(keras_pspnet.load_model(base))
    assert of_file.plan == of_model.plan and of_file.labels == of_model.labels
    assert of_model.sha256 == read_start(model).sha256 != of_file.sha256
    assert (of_file.path, of_model.path) == (str(base), None)


def test_a_preset_is_a_start(tmp_path):
    found = read_start("preset:scenes")
    assert found.labels == SCENES and found.plan["backbone"] == "resnet14_narrow"
    assert found.kept(SCENES).startswith("starting from preset:scenes: keeps 12 of 12 classes")
    assert path_in_recipe(found.path, tmp_path) == "preset:scenes"


def test_classes_that_are_kept_are_said():
    old = start()
    assert old.kept(LabelSet(("a", "b"))) == (
        "starting from old.keras: no class has a name of the start's: its classifier starts fresh"
    )
    assert old.kept(LabelSet(("a", "class_2"))).endswith(": keeps 1 of 2 classes by name: class_2")
    many = Start("m", None, "", {}, LabelSet.numbered(20)).kept(LabelSet.numbered(30))
    assert "keeps 20 of 30 classes by name: class_0, class_1" in many
    assert many.endswith("class_7, ...")


def test_the_command_refuses_before_tensorflow(base, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        commands.quiet, "quiet_tensorflow", lambda: pytest.fail("TensorFlow comes later")
    )
    command = ["train", "scenes_tiny", "--out", str(tmp_path / "run"), "--start"]
    assert cli.main([*command, str(base), "--set", "channels=16"]) == 2
    error = capsys.readouterr().err
    assert "channels=16 contradicts" in error and error.count("\n") == 1
    assert cli.main([*command, "nowhere.keras"]) == 2
    assert "nowhere.keras: no such file" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_command_starts_from_a_file(base, tmp_path, monkeypatch, capsys):
    """recipe.json keeps a path relative to the run, as that of the data."""
    monkeypatch.chdir(base.parent)
    monkeypatch.setattr(Run, "train", lambda self: self.model)
    for quiet in ("quiet_tensorflow", "make_training_repeatable"):
        monkeypatch.setattr(commands.quiet, quiet, lambda: None)
    changes = ["crop=33,33", "batch_size=2", "train_images=2", "val_images=1", "epochs=1"]
    out = base.parent / "runs" / "one"
    command = ["train", "scenes_tiny", "--out", str(out), "--start", "base.keras", "--set"]
    assert cli.main([*command, *changes]) == 0
    assert "starting from base.keras: keeps" in capsys.readouterr().out
    written = json.loads((out / "recipe.json").read_text())
    assert written["start"]["path"] == "../../base.keras"
    assert (written["channels"], written["bins"]) == (6, [2])


def test_a_resnet_without_a_name_is_started_from():
    model = network(backbone=backbones.ResNet((1, 1, 1, 1), 4))
    recipe = follow(SMALL, read_start(model))
    assert recipe.backbone is None
    built = build_network(recipe, SCENES, False, model)
    assert built.get_layer("layer4_0_conv1").filters == 4 * 8
