"""Averaged weights and batch norm's statistics anew: what is scored, kept and resumed."""

import keras
import numpy as np
import pytest

from keras_pspnet import private_api
from keras_pspnet.data import pipeline
from keras_pspnet.data.datasets import open_source
from keras_pspnet.labels import SCENES
from keras_pspnet.network.batch_norm import reestimate
from keras_pspnet.network.optimizer import PSPNetSGD
from keras_pspnet.train import build as building
from keras_pspnet.train import checkpoint, recipes
from keras_pspnet.train import loop as running
from keras_pspnet.train.devices import Devices
from keras_pspnet.train.run import fit

SMALL = recipes.recipe(
    "scenes_tiny",
    crop=(33, 33),
    batch_size=2,
    train_images=5,
    val_images=2,
    epochs=2,
    ema=0.75,
    norm_batches=3,
    checkpoint_seconds=0,
)
STEPS = 4  # 5 pictures make 2 batches of 2


@pytest.fixture(scope="module")
def averaging(tiny_network):
    """Takes the place of `build`: a network whose optimizer averages its weights."""
    return lambda *_: tiny_network(PSPNetSGD(0.05, use_ema=True, ema_momentum=SMALL.ema))


@pytest.fixture(autouse=True)
def quick(monkeypatch, averaging):
    monkeypatch.setattr(running, "build", averaging)


class Trained(keras.callbacks.Callback):
    """Notes the weights that are trained after each step."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def on_train_batch_end(self, batch, logs=None):
        weights = [np.array(v) for v in self.model.trainable_variables]
        statistics = [np.array(v) for v in self.model.weights]
        self.steps.append((weights, statistics))


@pytest.fixture(scope="module")
def run(tmp_path_factory, averaging):
    out, trained = tmp_path_factory.mktemp("runs") / "whole", Trained()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "build", averaging)
        model = fit(SMALL, out, callbacks=[trained])
    return out, trained.steps, model


def averaged(steps):
    """The moving average as Keras keeps it: that of the first step is its weights."""
    average = [np.float64(value) for value in steps[0][0]]
    for weights, _ in steps[1:]:
        average = [SMALL.ema * a + (1 - SMALL.ema) * w for a, w in zip(average, weights)]
    return average


def test_the_last_file_holds_the_averages_with_statistics_for_them(run):
    out, steps, model = run
    last, state = checkpoint.load(out / "last.keras")
    assert state["step"] == STEPS == len(steps)
    for name, found in (("kept", last), ("returned", model)):
        values = [np.array(v) for v in found.trainable_variables]
        for value, expected in zip(values, averaged(steps), strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6, err_msg=name)
    norms = [layer for layer in last.layers if "moving_mean" in str(layer.weights)]
    moving = [np.array(v) for layer in norms for v in layer.non_trainable_weights]
    source = open_source("scenes", split="train", size=SMALL.crop).first(5)
    augmentation = running.Augmentation(SMALL.scales, SMALL.rotation)
    batches = pipeline.training_steps(
        source, STEPS - 3, STEPS, crop=(33, 33), batch_size=2, augmentation=augmentation, seed=0
    )
    reestimate(last, [images for images, _ in batches])
    again = [np.array(v) for layer in norms for v in layer.non_trainable_weights]
    assert len(moving) == 4
    for value, expected in zip(moving, again, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_the_best_file_scores_what_was_validated(run):
    out, steps, _ = run
    best, state = checkpoint.load(out / "best.keras")
    after = state["step"]
    for value, expected in zip(best.trainable_variables, averaged(steps[:after]), strict=True):
        np.testing.assert_allclose(np.array(value), expected, rtol=1e-5, atol=1e-6)
    source = open_source("scenes", split="val", size=SMALL.crop).first(2)
    scores = best.evaluate(
        pipeline.validation(source, SMALL.crop, SMALL.batch_size), verbose=0, return_dict=True
    )
    assert scores["main_mIoU"] == pytest.approx(state["best"], abs=1e-6)


@pytest.mark.parametrize("where", [1, 2])
def test_a_run_that_was_cut_off_ends_with_the_same_bits(run, tmp_path, monkeypatch, where):
    """Within an epoch, and after its validation: the weights that are trained are kept."""

    class Killed(BaseException):
        pass

    save = checkpoint.save

    def save_and_die(model, path, state):
        save(model, path, state)
        if path.name == "last.keras" and state["step"] == where:
            raise Killed

    out, steps, _ = run
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_die)
        with pytest.raises(Killed):
            fit(SMALL, tmp_path)
    kept, _ = checkpoint.load(tmp_path / "last.keras")
    for value, expected in zip(kept.weights, steps[where - 1][1], strict=True):
        np.testing.assert_array_equal(np.array(value), expected)
    fit(SMALL, tmp_path, resume=True)
    for name in ("last.keras", "best.keras", "history.csv"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes(), name


def test_statistics_alone_leave_the_trained_weights(tmp_path, monkeypatch, tiny_network):
    monkeypatch.setattr(running, "build", lambda *_: tiny_network())
    trained = Trained()
    fit(SMALL.change(ema=0, epochs=1), tmp_path, callbacks=[trained])
    last, _ = checkpoint.load(tmp_path / "last.keras")
    for value, expected in zip(last.trainable_variables, trained.steps[-1][0], strict=True):
        np.testing.assert_array_equal(np.array(value), expected)
    weights = zip(last.weights, trained.steps[-1][1], strict=True)
    moving = [not np.array_equal(np.array(v), old) for v, old in weights if "moving" in v.path]
    assert len(moving) == 4 and all(moving)


def test_the_recipe_reaches_the_optimizer():
    recipe = recipes.recipe(
        "scenes_tiny", crop=(33, 33), channels=4, bins=2, ema=0.9, norm_batches=1
    )
    for precision in ("float32", "float16"):
        changed = recipe.change(precision=precision)
        model = building.build(changed, SCENES, np.ones(12), steps=4)
        optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        assert optimizer.use_ema and optimizer.ema_momentum == 0.9
        assert len(private_api.moving_averages(model.optimizer)) == len(model.trainable_variables)
    plain = building.build(recipe.change(ema=0), SCENES, np.ones(12), steps=4)
    assert not plain.optimizer.use_ema


def test_several_devices_are_refused(refused, tmp_path, monkeypatch):
    from keras_pspnet.train import run as starting

    monkeypatch.setattr(starting, "open_devices", lambda *_: Devices(2))
    message = refused(fit, SMALL, tmp_path / "run")
    assert message == "norm_batches=3 on 2 devices: expected one device, or none of it"
    assert not (tmp_path / "run").exists()
