"""Run the steps and epochs of a training, and write its files."""

import time
from pathlib import Path

import keras

from keras_pspnet.data import pipeline
from keras_pspnet.data.augment import Augmentation
from keras_pspnet.data.copy_paste import CopyPaste, rare_classes
from keras_pspnet.data.pairs import Source
from keras_pspnet.errors import UserError, reason_of
from keras_pspnet.network.distillation import distil
from keras_pspnet.network.main_head import labels_of
from keras_pspnet.network.transfer import with_classes
from keras_pspnet.progress import Meter, clock
from keras_pspnet.train import checkpoint, estimate
from keras_pspnet.train.accumulate import in_parts
from keras_pspnet.train.build import at_full_resolution, build
from keras_pspnet.train.callbacks import StepCallback, UserCallbacks
from keras_pspnet.train.devices import Devices
from keras_pspnet.train.estimate import FINE_COST
from keras_pspnet.train.history import SCORE, write_history
from keras_pspnet.train.picture_check import PictureCheck
from keras_pspnet.train.pictures import draw
from keras_pspnet.train.recipe_fields import Recipe
from keras_pspnet.train.run_folder import this_machine
from keras_pspnet.train.scored_weights import ScoredWeights
from keras_pspnet.train.splits import sees_crops
from keras_pspnet.train.start import Start
from keras_pspnet.train.state import one_line

PICTURE_SECONDS = 60.0
"""Minimum time between two updates of the pictures in the run folder."""


class Run:
    """A training in progress: its recipe, sources, model, state and run folder.

    Args:
        recipe, out: see `fit`.
        train, val: the pictures.
        data: their fingerprint, see `splits.fingerprint`.
        check: the check of the pictures, which may still go on.
        start: the network to start from, or None.
        users: the user's callbacks.
        group: the devices.
        augmentation: see `fit`.
        teacher: the network to learn from, or None.
    """

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        train: Source,
        val: Source,
        data,
        check: PictureCheck,
        start: Start | None,
        users: UserCallbacks,
        group: Devices,
        augmentation=None,
        teacher: Start | None = None,
    ):
        self.recipe, self.out, self.train_source, self.val_source = recipe, out, train, val
        self.data, self.check, self.start, self.users = data, check, start, users
        self.group, self.teacher = group, teacher
        self.augmentation = augmentation or Augmentation(
            recipe.scales, recipe.rotation, blur_share=recipe.blur_share, color=recipe.color
        )
        self.steps_per_epoch = len(train) // recipe.step_size
        self.epochs, self.coarse_epochs = recipe.lengths(len(train))
        self.steps = self.steps_per_epoch * self.epochs
        self.last = out / "last.keras"
        self.scored, self.paste = ScoredWeights(recipe), None

    def begin(self, pixels, resume: bool, goes_on: bool) -> None:
        """Load model and state from `last.keras`, or make them.

        Args:
            pixels: number of training pixels of each class.
            resume: whether the user asked to resume.
            goes_on: whether `last.keras` is there to be resumed, see `run_folder.is_resumable`.
        """
        if self.recipe.copy_paste:
            share, pictures = self.recipe.copy_paste, len(self.train_source)
            self.paste = CopyPaste(share, rare_classes(pixels), pictures)
        if self.teacher:
            labels, size = self.train_source.labels, (*self.recipe.crop, 3)
            network = with_classes(self.teacher.load(), labels, input_shape=size, aux=False)
            self.teacher_network = network
        # Also when resuming: what draws from the global seed must draw the same.
        keras.utils.set_random_seed(self.recipe.seed)
        if goes_on:
            model, self.state = checkpoint.load(self.last)
            self.model = self.group.built(model)
            # A loaded model creates its metrics at the first batch; they are restored later.
            with one_line(self.last):
                made = model.input.shape[1:3], len(labels_of(model))
                if made != (self.recipe.crop, len(self.train_source.labels)):
                    raise ValueError(f"its network is of another size or other classes: {made}")
                self.model.evaluate(self._validation().take(1), verbose=0)
        else:
            self.state = {"step": 0, "history": [], "best": None, "coarse": self.coarse_epochs > 0}
            self.state |= {"recipe": self.recipe.to_config(), "data": self.data}
            self.state |= {"start": self.start and self.start.sha256, "machine": this_machine()}
            self.state |= {"teacher": self.teacher.sha256} if self.teacher else {}
            labels, coarse = self.train_source.labels, self.state["coarse"]
            start = self.start and self.start.load()
            try:
                model = build(self.recipe, labels, pixels, self.steps, coarse, start)
                self.model = self.group.built(model)
            except (ValueError, TypeError) as error:
                raise UserError(
                    f"recipe: the network cannot be built: {reason_of(error)}"
                ) from error
            if self.start:
                print(self.start.kept(labels), flush=True)
            if self.teacher:
                print(f"learning from {self.teacher.name} too", flush=True)
            lengths = (len(self.train_source), len(self.val_source))
            print(estimate.line(self.recipe, *lengths, self.group.on_cpu), flush=True)
        if resume:
            anew = "" if goes_on else f"; {self.out} holds no run to go on with"
            anew = "; the run ended there" if self.state.get("stopped") else anew
            print(f"resuming at step {self.state['step']} of {self.steps}{anew}", flush=True)

    def train(self) -> keras.Model:
        """Train the remaining epochs, write the pictures, and return the model."""
        start = self.drawn = time.monotonic()
        meter = Meter("training step", self.steps, self.state["step"], self._cost)
        try:
            self.users.begin(self.model, self.steps_per_epoch, self.epochs)
            while self.state["step"] < self.steps and not self.state.get("stopped"):
                with self.group.scope():
                    self._epoch(meter)
                if time.monotonic() - self.drawn > PICTURE_SECONDS:
                    self.drawn = time.monotonic()
                    self._draw(self.group.alone(self.model))
        except KeyboardInterrupt:
            meter.say(f"{self.out}: --resume goes on at step {self.state['step']}")
            raise
        finally:
            meter.close()
        self.check.tell(wait=True)
        model = self.group.alone(self.model)
        self._draw(model)
        self.users.end()
        where = " on centre crops" * sees_crops(self.recipe, self.check.surveys["val"])
        taken = clock(time.monotonic() - start)
        print(f"{self.out}: main-head mIoU {self.state['best']:.4f} at best{where}, {taken}")
        return model

    def _epoch(self, meter: Meter) -> None:
        """Train one epoch, or the rest of it, then validate and write checkpoints."""
        first, recipe = self.state["step"], self.recipe
        epoch = first // self.steps_per_epoch
        if self.state["coarse"] and epoch >= self.coarse_epochs:
            self.model = self.group.built(at_full_resolution(self.model, recipe))
            self.state = {**self.state, "coarse": False}
        end = (epoch + 1) * self.steps_per_epoch
        batches = self._batches(first, end, recipe.step_size)
        in_parts(self.model, recipe.accumulate)
        if self.teacher:
            distil(self.model, self.teacher_network)
        steps = StepCallback(self, end, meter)
        self.users.first = first % self.steps_per_epoch
        history = self.model.fit(
            batches,
            validation_data=self._validation(),
            initial_epoch=epoch,
            epochs=epoch + 1,
            callbacks=[steps, self.users] if self.users.callbacks else [steps],
            shuffle=False,
            verbose=0,
        ).history
        row = {"epoch": epoch + 1, "step": steps.step}
        row["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row |= {name: values[-1] for name, values in sorted(history.items())}
        best = self.state["best"]
        improved = best is None or row[SCORE] > best
        self.state = {
            **self.state,
            "step": steps.step,
            "history": [*self.state["history"], row],
            "best": row[SCORE] if improved else best,
        }
        stopped = "a callback ended the training" if self.model.stop_training else None
        if not stopped and steps.step < self.steps and self._is_out_of_patience():
            stopped = f"no better score in {recipe.patience} epochs (patience): the training ends"
        if stopped:
            self.state["stopped"] = True
        # best.keras first: a run killed between the two repeats the end of this epoch.
        if improved and self.group.writes:
            checkpoint.save(self.model, self.out / "best.keras", self.state)
        if steps.step < self.steps and not stopped:
            self.scored.give_back()
        if self.group.writes:
            checkpoint.save(self.model, self.last, self.state)
            write_history(self.out / "history.csv", self.state["history"])
        meter.say(
            f"epoch {epoch + 1}/{self.epochs}  loss {row['loss']:.4f}  "
            f"validation: loss {row['val_loss']:.4f}, main-head mIoU {row[SCORE]:.4f}"
        )
        if stopped:
            meter.say(f"{stopped} at step {steps.step} of {self.steps}")

    def _cost(self, step: int) -> float:
        """Return the cost of the first `step` steps, in coarse steps, to estimate the time left."""
        coarse = min(step, self.coarse_epochs * self.steps_per_epoch)
        return coarse + FINE_COST * (step - coarse)

    def _is_out_of_patience(self) -> bool:
        scores = [row[SCORE] for row in self.state["history"][self.coarse_epochs :]]
        if self.recipe.patience is None or not scores:
            return False
        return len(scores) - 1 - scores.index(max(scores)) >= self.recipe.patience

    def _validation(self):
        recipe = self.recipe
        return pipeline.validation(
            self.val_source, recipe.crop, recipe.batch_size, recipe.resize_to_crop, self.group.part
        )

    def _batches(self, first: int, end: int, batch_size: int):
        recipe = self.recipe
        return pipeline.training_steps(
            self.train_source,
            first,
            end,
            crop=recipe.crop,
            batch_size=batch_size,
            augmentation=self.augmentation,
            seed=recipe.seed,
            resize_to_crop=recipe.resize_to_crop,
            paste=self.paste,
            part=self.group.part,
        )

    def take_scored_weights(self, model, step: int) -> None:
        """Put the weights that are scored after a step into the model, see `ScoredWeights`."""
        end, number = step * self.recipe.accumulate, self.recipe.norm_batches
        batches = self._batches(max(end - number, 0), end, self.recipe.batch_size) if number else ()
        self.scored.take(model, (images for images, _ in batches))

    def save_step(self, step: int) -> None:
        """Write a checkpoint within an epoch."""
        self.state = {**self.state, "step": step}
        checkpoint.save(self.model, self.last, self.state)

    def _draw(self, model) -> None:
        if not self.group.writes:
            return
        # A run killed after writing last.keras has an older history.csv.
        write_history(self.out / "history.csv", self.state["history"])
        draw(self.out, self.state["history"], model, self.val_source)
