"""What happens between the steps of a training: ours, and that of a user's Keras callbacks."""

import time

import keras
import numpy as np

from keras_pspnet.data import pipeline
from keras_pspnet.errors import UserError
from keras_pspnet.progress import Meter
from keras_pspnet.train import checkpoint
from keras_pspnet.train.state import one_line

RATES = (keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau)
"""Callbacks that set the learning rate. An optimizer with a schedule refuses that."""

SHOWN = 16
"""Maximum number of pictures that an error names."""


class StepCallback(keras.callbacks.Callback):
    """After each step: check the loss, show progress, write a checkpoint if the last one is old.

    Args:
        run: the `loop.Run`.
        end: the number of the epoch's last step.
        meter: shows the progress.
    """

    def __init__(self, run, end: int, meter: Meter):
        super().__init__()
        self.run, self.end, self.meter = run, end, meter
        self.step = run.state["step"]
        self.saved = time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        if self.step % self.run.steps_per_epoch:  # resumed within an epoch
            with one_line(self.run.last):
                checkpoint.restore_metrics(self.model, self.run.state)

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if not np.isfinite(logs["loss"]):
            batch = {"batch_size": self.run.recipe.step_size, "seed": self.run.recipe.seed}
            names = pipeline.names_of_step(self.run.train_source, self.step - 1, **batch)
            raise self._diverged("loss", names)
        self.meter.advance(f"loss {logs['loss']:.4f}")
        self.run.check.tell()
        self.run.check.keep()
        # The last step of an epoch gets its checkpoint after the validation.
        old = time.monotonic() - self.saved > self.run.recipe.checkpoint_seconds
        if old and self.step < self.end and self.run.group.writes:
            # With the JAX backend, reading `self.model` copies the state of the step into it.
            self.run.model = self.model
            self.run.save_step(self.step)
            self.saved = time.monotonic()

    def on_test_begin(self, logs=None):
        self.run.take_scored_weights(self.model, self.step)

    def on_test_batch_end(self, batch, logs=None):
        if not np.isfinite(logs["loss"]):
            size = self.run.recipe.batch_size
            names = self.run.val_source.names[batch * size : (batch + 1) * size]
            raise self._diverged("validation loss", names)

    def _diverged(self, what: str, names) -> UserError:
        """Return the error of a loss that is not finite on the pictures of these names."""
        shown = ", ".join(names[:SHOWN]) + ", ..." * (len(names) > SHOWN)
        last = self.run.last
        kept = f"; {last} holds step {self.run.state['step']}" if last.exists() else ""
        return UserError(
            f"{self.run.out}: the {what} is no longer a number at step {self.step}, on {shown}; "
            f"look at these pictures, or train anew with a lower learning_rate{kept}"
        )


def _passed_on(name):
    """Return a method that calls the method of this name of each of the user's callbacks."""

    def call(self, *args, **kwargs):
        for callback in self.callbacks:
            getattr(callback, name)(*args, **kwargs)

    return call


class UserCallbacks(keras.callbacks.Callback):
    """Pass a training on to a user's callbacks as a single `model.fit` would.

    A training calls `model.fit` once an epoch, and changes the model at the end of the coarse
    epochs. The user's callbacks see one training: it begins and ends once.

    Args:
        callbacks: Keras callbacks, one or a list.

    Raises:
        UserError: one of them is no Keras callback, or sets the learning rate.
    """

    def __init__(self, callbacks):
        super().__init__()
        self.callbacks = keras.tree.flatten(callbacks)
        for callback in self.callbacks:
            if not isinstance(callback, keras.callbacks.Callback):
                raise UserError(
                    f"callbacks: {callback!r}; expected Keras callbacks, as "
                    "keras.callbacks.EarlyStopping(...)"
                )
            if isinstance(callback, RATES):
                raise UserError(
                    f"callbacks: {type(callback).__name__} sets the learning rate, which here "
                    "follows the recipe; leave it out, and change the recipe's learning_rate"
                )
        self.first = 0  # of the batches of an epoch that is resumed
        self.epoch_logs = None

    def begin(self, model, steps_per_epoch: int, epochs: int) -> None:
        """Call `on_train_begin` of each callback."""
        for callback in self.callbacks:
            callback.set_params({"verbose": 0, "epochs": epochs, "steps": steps_per_epoch})
        self.set_model(model)
        for callback in self.callbacks:
            callback.on_train_begin({})

    def end(self) -> None:
        """Call `on_train_end` of each callback with the logs of the last epoch."""
        for callback in self.callbacks:
            callback.on_train_end(self.epoch_logs)

    def set_model(self, model):
        if model is not self._model:
            super().set_model(model)
            for callback in self.callbacks:
                callback.set_model(model)

    def on_epoch_end(self, epoch, logs=None):
        self.epoch_logs = logs
        for callback in self.callbacks:
            callback.on_epoch_end(epoch, logs)

    def on_train_batch_begin(self, batch, logs=None):
        for callback in self.callbacks:
            callback.on_train_batch_begin(self.first + batch, logs)

    def on_train_batch_end(self, batch, logs=None):
        for callback in self.callbacks:
            callback.on_train_batch_end(self.first + batch, logs)

    on_epoch_begin = _passed_on("on_epoch_begin")
    on_test_begin = _passed_on("on_test_begin")
    on_test_end = _passed_on("on_test_end")
    on_test_batch_begin = _passed_on("on_test_batch_begin")
    on_test_batch_end = _passed_on("on_test_batch_end")
