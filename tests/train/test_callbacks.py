"""A user's Keras callbacks and augmentation in a training."""

import csv

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_pspnet
from keras_pspnet.data.augment import Augmentation
from keras_pspnet.labels import SCENES
from keras_pspnet.network import losses
from keras_pspnet.train import checkpoint, recipes
from keras_pspnet.train import loop as running
from keras_pspnet.train.callbacks import UserCallbacks
from keras_pspnet.train.run import Run, fit

SMALL = recipes.recipe(
    "scenes_tiny",
    crop=(33, 33),
    batch_size=2,
    train_images=5,
    val_images=2,
    epochs=3,
    checkpoint_seconds=1000,
)
STEPS = 6  # 5 pictures make 2 batches of 2


class Recorder(keras.callbacks.Callback):
    """Notes each call, the number it gets and the names of the logs."""

    def __init__(self):
        super().__init__()
        self.calls = []


def noted(name):
    def call(self, *arguments, **named):
        given = [*arguments, *named.values()]
        number = next((value for value in given if isinstance(value, int)), None)
        logs = next((value for value in given if isinstance(value, dict)), {})
        self.calls.append((name, number, sorted(logs)))

    return call


for subject in ("train", "epoch", "test", "train_batch", "test_batch"):
    for moment in ("begin", "end"):
        setattr(Recorder, f"on_{subject}_{moment}", noted(f"on_{subject}_{moment}"))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Trainings of a network of a few layers, which are compiled in no time."""
    monkeypatch.setattr(running, "build", lambda *_: network())


def network():
    image = x = keras.Input((33, 33, 3))
    for stride in (2, 4):
        x = keras.layers.Conv2D(4, 3, strides=stride, padding="same")(x)
    backbone = keras.Model(image, x)
    model = keras_pspnet.build_pspnet(
        12, input_shape=(*SMALL.crop, 3), backbone=backbone, bins=(), channels=4, labels=SCENES
    )
    loss = losses.VoidCrossentropy()
    metric = keras.metrics.MeanIoU(12, name="mIoU", sparse_y_pred=False, ignore_class=255)
    heads = {"aux": loss, "main": loss}
    model.compile("sgd", heads, metrics={"main": metric}, loss_weights={"aux": 0.4, "main": 1.0})
    return model


def test_callbacks_see_what_a_single_fit_shows_them(tmp_path):
    seen, expected = Recorder(), Recorder()
    fit(SMALL, tmp_path / "run", callbacks=[seen])
    masks, images = np.zeros((4, 33, 33), np.uint8), np.zeros((4, 33, 33, 3), np.float32)
    batches = tf.data.Dataset.from_tensor_slices((images, {"aux": masks, "main": masks})).batch(2)
    network().fit(
        batches, validation_data=batches.take(1), epochs=3, callbacks=[expected], verbose=0
    )
    assert seen.calls == expected.calls
    assert seen.params == {"verbose": 0, "epochs": 3, "steps": 2}
    names = [name for name, *_ in seen.calls]
    assert names.count("on_train_begin") == names.count("on_train_end") == 1
    assert "val_main_mIoU" in next(logs for name, _, logs in seen.calls if name == "on_epoch_end")


def test_callbacks_see_the_model_of_the_fine_epochs():
    seen, coarse, fine = Recorder(), network(), network()
    users = UserCallbacks(seen)
    users.begin(coarse, 2, 3)
    assert seen.model is coarse
    users.set_model(fine)  # as the next `model.fit` does
    assert seen.model is fine
    users.end()
    assert [name for name, *_ in seen.calls] == ["on_train_begin", "on_train_end"]


def test_early_stopping_ends_a_run_with_all_its_files(tmp_path, capsys, monkeypatch):
    stop = keras.callbacks.EarlyStopping(
        "val_main_mIoU", mode="max", min_delta=1, patience=1, restore_best_weights=True
    )
    model = fit(SMALL, tmp_path, callbacks=stop)
    said = capsys.readouterr().out
    assert f"a callback ended the training at step 4 of {STEPS}" in said
    assert {path.name for path in tmp_path.iterdir()} == {
        "recipe.json", "best.keras", "last.keras", "history.csv", "curves.png", "samples.png",
    }  # fmt: skip
    with open(tmp_path / "history.csv") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2", "4"]
    before = (tmp_path / "last.keras").read_bytes()
    last, state = checkpoint.load(tmp_path / "last.keras")
    assert state["step"] == 4 and state["stopped"]
    assert not all(map(np.array_equal, last.get_weights(), model.get_weights()))  # restored
    monkeypatch.setattr(Run, "_epoch", lambda *_: pytest.fail("it goes on"))
    fit(SMALL, tmp_path, resume=True)
    assert (tmp_path / "last.keras").read_bytes() == before


@pytest.mark.parametrize("coarse", [0, 2])
@pytest.mark.parametrize("patience", [1, 2])
def test_patience_is_that_of_early_stopping(patience, coarse):
    scores = [0.9, 0.3, 0.2, 0.4, 0.4, 0.1, 0.9, 0.8, 0.8, 0.8]
    stop = keras.callbacks.EarlyStopping(
        "score", mode="max", patience=patience, start_from_epoch=coarse
    )
    stop.set_model(network())
    stop.on_train_begin()
    run = object.__new__(Run)
    run.recipe, run.coarse_epochs = SMALL.change(patience=patience), coarse
    run.state = {"history": []}
    while not stop.model.stop_training:
        epoch = len(run.state["history"])
        run.state["history"].append({"val_main_mIoU": scores[epoch]})
        stop.on_epoch_end(epoch, {"score": scores[epoch]})
        assert run._is_out_of_patience() == bool(stop.model.stop_training)
    assert coarse + patience < len(run.state["history"]) < len(scores)


def test_patience_ends_a_run_that_was_resumed(tmp_path, capsys, monkeypatch):
    class Killed(BaseException):
        pass

    fitted = keras.Model.fit

    def fit_with_score(self, *arguments, **named):
        history = fitted(self, *arguments, **named)
        history.history["val_main_mIoU"] = [0.5]
        return history

    def draw_and_die(*_):
        raise Killed

    monkeypatch.setattr(keras.Model, "fit", fit_with_score)
    recipe = SMALL.change(patience=1)
    with monkeypatch.context() as patch:
        patch.setattr(running, "PICTURE_SECONDS", -1)
        patch.setattr(Run, "_draw", draw_and_die)
        with pytest.raises(Killed):
            fit(recipe, tmp_path)
    fit(recipe, tmp_path, resume=True)
    state = checkpoint.read_state(tmp_path / "last.keras")
    assert state["step"] == 4 and state["stopped"]
    said = capsys.readouterr().out
    assert f"no better score in 1 epochs (patience): the training ends at step 4 of {STEPS}" in said


def test_a_callback_may_stop_within_an_epoch(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = True

    fit(SMALL, tmp_path, callbacks=[Stop()])
    state = checkpoint.read_state(tmp_path / "last.keras")
    assert state["step"] == 1 and [row["step"] for row in state["history"]] == [1]


def test_a_resumed_run_says_what_is_not_kept_and_counts_its_batches(tmp_path, capsys, monkeypatch):
    class Killed(BaseException):
        pass

    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise Killed

    recipe = SMALL.change(checkpoint_seconds=0, epochs=1)
    with pytest.raises(Killed):
        fit(recipe, tmp_path, callbacks=[Kill()])
    assert checkpoint.read_state(tmp_path / "last.keras")["step"] == 1
    seen = Recorder()
    fit(recipe, tmp_path, callbacks=[seen], augmentation=Augmentation(), resume=True)
    batches = [number for name, number, _ in seen.calls if name == "on_train_batch_end"]
    assert batches == [1]
    said = capsys.readouterr().out
    assert said.count("note: ") == 1 and "callbacks begin anew, without the state" in said


def test_an_augmentation_takes_the_place_of_the_recipes(tmp_path, monkeypatch):
    given = []

    class Enough(Exception):
        pass

    def training_steps(*_, augmentation, **__):
        given.append(augmentation)
        raise Enough

    def mirror(image, mask, seed):
        return image[:, ::-1], mask[:, ::-1]

    with monkeypatch.context() as patch:
        patch.setattr(running.pipeline, "training_steps", training_steps)
        for number, own in enumerate((None, Augmentation(color=0.5), mirror)):
            with pytest.raises(Enough):
                fit(SMALL, tmp_path / str(number), augmentation=own)
    assert given == [Augmentation(SMALL.scales, SMALL.rotation), Augmentation(color=0.5), mirror]
    fit(SMALL.change(epochs=1), tmp_path / "run", augmentation=mirror)
    assert (tmp_path / "run" / "last.keras").exists()


def test_what_is_no_callback_and_no_augmentation_is_refused(refused, tmp_path):
    assert "expected Keras callbacks" in refused(fit, SMALL, tmp_path / "a", callbacks=[print])
    for callback in (
        keras.callbacks.ReduceLROnPlateau(),
        keras.callbacks.LearningRateScheduler(lambda epoch: 0.1),
    ):
        message = refused(fit, SMALL, tmp_path / "a", callbacks=callback)
        assert message.startswith(f"callbacks: {type(callback).__name__} sets the learning rate")
    own = lambda image, mask, seed: (image / 255, mask)  # noqa: E731
    assert "its image has values in 0" in refused(fit, SMALL, tmp_path / "a", augmentation=own)
    message = refused(fit, SMALL, tmp_path / "a", augmentation="flip")
    assert message.startswith("augmentation: 'flip'; expected an Augmentation or a function")
    assert not (tmp_path / "a").exists()
    assert UserCallbacks(()).callbacks == []
