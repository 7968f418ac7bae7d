"""First epochs at twice the output stride: nothing is lost at the switch, however it is resumed."""

import csv
import json
import re
import zipfile

import keras
import numpy as np
import pytest

from keras_pspnet.data.datasets import open_source
from keras_pspnet.data.pairs import Source
from keras_pspnet.images import resize_image, resize_nearest
from keras_pspnet.labels import CAMVID, LabelSet
from keras_pspnet.network.main_head import labels_of
from keras_pspnet.train import build as building
from keras_pspnet.train import checkpoint, recipes, splits
from keras_pspnet.train import loop as running
from keras_pspnet.train.build import at_full_resolution, build, build_network
from keras_pspnet.train.run import Run, fit

SMALL = recipes.recipe(
    "scenes_tiny",
    crop=(33, 33),
    channels=4,
    batch_size=2,
    train_images=5,
    val_images=2,
    jaccard=0.5,
    bins=2,
    epochs=2,
    coarse_epochs=1,
    checkpoint_seconds=0,
)
STEPS = 4  # 5 pictures make 2 batches of 2


def side(model):
    """The height of the map on which the pyramid stands."""
    return model.get_layer("ppm").input.shape[1]


# --- the switch ---


@pytest.fixture(scope="module")
def source():
    return open_source("scenes", split="train", size=SMALL.crop).first(4)


@pytest.fixture(scope="module")
def models(source):
    """A coarse network with a value of its own in every variable, and what became of it."""
    coarse = build(
        SMALL, source.labels, source.survey().pixels[: len(source.labels)], STEPS, coarse=True
    )
    coarse.optimizer.build(coarse.trainable_variables)
    rng = np.random.default_rng(0)
    for variable in (*coarse.variables, *coarse.optimizer.variables):
        if "int" in variable.dtype:
            variable.assign(rng.integers(2, 1000, variable.shape))
        else:
            variable.assign(rng.uniform(0.1, 0.4, variable.shape))
    return coarse, at_full_resolution(coarse, SMALL)


def test_the_map_is_finer(models):
    coarse, fine = models
    assert (side(coarse), side(fine)) == (3, 5)
    assert fine.input.shape == (None, 33, 33, 3)
    assert fine.output["main"].shape == (None, 33, 33, 12)


def values(variables):
    """By path, without the numbers that Keras counts up in a process."""
    return [
        (re.sub(r"seed_generator(_\d+)?/", "seed/", variable.path), np.asarray(variable.value))
        for variable in variables
    ]


@pytest.mark.parametrize("part", ["model", "optimizer"])
def test_every_variable_is_carried_over(models, part):
    coarse, fine = models if part == "model" else (model.optimizer for model in models)
    before, after = values(coarse.variables), values(fine.variables)
    assert [path for path, _ in before] == [path for path, _ in after]
    for (path, one), (_, other) in zip(before, after, strict=True):
        assert one.dtype == other.dtype and np.array_equal(one, other), path
    paths = " ".join(path for path, _ in before)
    if part == "optimizer":
        assert int(fine.iterations) > 1
        assert paths.count("momentum") == len(models[1].trainable_variables)
        assert fine.multipliers == coarse.multipliers and len(set(fine.multipliers)) == 2
    else:  # what a step moves that no gradient moves
        assert "seed/seed_generator_state" in paths and "moving_mean" in paths


def test_what_was_compiled_is_carried_over(models, source):
    coarse, fine = models
    assert fine.get_compile_config() == coarse.get_compile_config()
    main, aux = (fine.get_compile_config()["loss"][head]["config"] for head in ("main", "aux"))
    assert (main["jaccard"], main["ohem_threshold"]) == (0.5, 0.7) and aux["jaccard"] == 0
    assert main["class_weights"] and main["class_weights"] == aux["class_weights"]
    assert labels_of(fine) == source.labels


def test_the_refined_network_is_the_fine_network_with_these_weights(models, source):
    coarse, fine = models
    other = build_network(SMALL, source.labels)
    other.set_weights(coarse.get_weights())
    image = source.read(0)[0][None]
    expected = other.predict(image, verbose=0)["main"]
    assert np.array_equal(fine.predict(image, verbose=0)["main"], expected)
    assert not np.allclose(coarse.predict(image, verbose=0)["main"], expected, rtol=1e-3)


# --- a run ---


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that was never interrupted; it notes the map's height at each step and trace."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    sides, save_step = [], Run.save_step
    traced, train_step = [], keras.Model.train_step

    def noted(self, step):
        sides.append((step, side(self.model), self.state["coarse"]))
        save_step(self, step)

    def noted_trace(self, data):
        traced.append(side(self))
        return train_step(self, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "save_step", noted)
        patch.setattr(keras.Model, "train_step", noted_trace)
        fit(SMALL, out)
    return out, sides, traced


def test_the_first_epochs_are_coarse_and_the_rest_are_fine(run):
    out, sides, _ = run
    assert sides == [(1, 3, True), (3, 5, False)]
    model, state = checkpoint.load(out / "last.keras")
    assert side(model) == 5 and state["coarse"] is False and state["step"] == STEPS
    assert int(model.optimizer.iterations) == STEPS


def test_the_step_of_each_network_is_traced_once(run):
    assert run[2] == [3, 5]


def test_the_learning_rate_does_not_see_the_switch(run):
    with open(run[0] / "history.csv") as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    assert rates == pytest.approx([SMALL.learning_rate * 0.5**0.9, 0], rel=1e-5)


def test_a_run_that_is_cut_off_about_the_switch_ends_with_the_same_bits(
    run, tmp_path, monkeypatch, capsys
):
    """In the coarse epoch, in the switch itself, and in the epoch after it."""

    class Killed(BaseException):
        pass

    save_step, at_full_resolution = Run.save_step, building.at_full_resolution

    def save_step_and_die(self, step):
        save_step(self, step)
        raise Killed

    def refine_and_die(*arguments):
        at_full_resolution(*arguments)
        raise Killed

    places = ((1, True), (2, True), (3, False))  # killed with these in last.keras
    for number, (step, coarse) in enumerate(places):
        with monkeypatch.context() as patch:
            if step == 2:
                patch.setattr(running, "at_full_resolution", refine_and_die)
            else:
                patch.setattr(Run, "save_step", save_step_and_die)
            with pytest.raises(Killed):
                fit(SMALL, tmp_path, resume=number > 0)
        with zipfile.ZipFile(tmp_path / "last.keras") as archive:
            state = json.loads(archive.read(checkpoint.STATE))
        assert (state["step"], state["coarse"]) == (step, coarse)
        keras.utils.set_random_seed(77)  # another process has drawn other numbers
    fit(SMALL, tmp_path, resume=True)
    said = capsys.readouterr().out
    assert re.findall(r"resuming at step (\d) of 4", said) == ["1", "2", "3"]
    for name in ("last.keras", "best.keras", "history.csv"):
        assert (tmp_path / name).read_bytes() == (run[0] / name).read_bytes(), name


# --- the recipes for real pictures ---


@pytest.mark.parametrize(
    "name, labels, sides",
    [("camvid_lite0", CAMVID, (24, 31)), ("folder_lite0", LabelSet.numbered(3), (25, 25))],
)
def test_the_recipes_for_real_pictures_build(name, labels, sides):
    recipe = recipes.recipe(name)
    assert recipe.dataset == name.split("_")[0] and 0 < recipe.coarse_epochs < recipe.epochs
    assert (recipe.backbone, recipe.backbone_weights) == ("efficientnet_lite0", "imagenet")
    assert recipe.resize_to_crop == (name == "folder_lite0")
    pixels = np.arange(1, len(labels) + 1)
    coarse = build(recipe, labels, pixels, 10, coarse=True)
    assert coarse.get_layer("ppm").input.shape[1:3] == sides
    loss = coarse.get_compile_config()["loss"]["main"]["config"]
    assert loss["jaccard"] == 0.5
    assert (loss["class_weights"] is not None) == (name == "camvid_lite0")
    coarse.optimizer.build(coarse.trainable_variables)  # as its first step does
    fine = at_full_resolution(coarse, recipe)
    assert fine.get_layer("ppm").input.shape[1:3] == tuple(2 * n - 1 for n in sides)
    assert fine.output["main"].shape[1:] == (*recipe.crop, len(labels))
    for one, other in zip(coarse.weights, fine.weights, strict=True):
        assert np.array_equal(one, other)


# --- pictures brought to the crop's size ---


class Enough(Exception):
    pass


class Listener:
    """Stands where the model would; keeps the batches of one epoch."""

    def fit(self, batches, validation_data, **_):
        self.batches, self.validation = list(batches), list(validation_data)
        raise Enough


def pictures(count):
    """Pictures of several sizes, none of them the crop's."""
    rng = np.random.default_rng(count)
    pairs = []
    for height, width in [(20, 90), (70, 41), (33, 34), (60, 60)][:count]:
        image = np.repeat(np.repeat(rng.integers(0, 256, (4, 5, 3), np.uint8), 18, 0), 18, 1)
        mask = (np.indices((height, width)).sum(0) // 9 % 3).astype(np.uint8)
        pairs.append((image[:height, :width], mask))
    labels = LabelSet.numbered(3)
    return Source(tuple(map(str, range(count))), labels, pairs.__getitem__)


@pytest.mark.parametrize("whole", [True, False])
def test_a_training_sees_whole_pictures_where_the_recipe_says_so(tmp_path, monkeypatch, whole):
    sources = {"train": pictures(4), "val": pictures(3)}
    monkeypatch.setattr(splits, "open_source", lambda *_, split, **__: sources[split])
    model = Listener()
    monkeypatch.setattr(running, "build", lambda *_: model)
    recipe = SMALL.change(
        resize_to_crop=whole,
        crop=(33, 49),
        train_images=4,
        val_images=3,
        scales=(1, 1),
        rotation=0,
        blur_share=0,
        batch_size=4,
    )
    with pytest.raises(Enough):
        fit(recipe, tmp_path / "run")
    for batches, source in ((model.batches, sources["train"]), (model.validation, sources["val"])):
        ((images, masks),) = batches
        found = []
        for image, mask in map(source.read, range(len(source))):
            image, mask = resize_image(image, (33, 49)), resize_nearest(mask, (33, 49))
            for turn in (slice(None), slice(None, None, -1)):  # trainings flip
                found += [
                    bool(np.abs(got - image[:, turn]).max() < 0.01)
                    and np.array_equal(masks["main"][place], mask[:, turn])
                    and np.array_equal(masks["aux"][place], mask[:, turn])
                    for place, got in enumerate(images)
                ]
        assert sum(found) == (len(source) if whole else 0)
        assert whole == (not (masks["main"].numpy() == 255).any())  # nothing was padded
