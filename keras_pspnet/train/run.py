"""fit(): from a recipe to a run folder with a trained, measured model."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_pspnet import visualize
from keras_pspnet.data import pipeline
from keras_pspnet.data.augment import Augmentation
from keras_pspnet.data.datasets import open_source
from keras_pspnet.data.pairs import Source
from keras_pspnet.errors import UserError, raise_first
from keras_pspnet.files import temporary_beside, write_bytes, write_json
from keras_pspnet.inference.load import as_predictor
from keras_pspnet.inference.segment import segment
from keras_pspnet.progress import Meter, clock, track
from keras_pspnet.train import checkpoint
from keras_pspnet.train.build import at_full_resolution, build
from keras_pspnet.train.history import SCORE, curves, write_history
from keras_pspnet.train.recipe_fields import Recipe
from keras_pspnet.train.run_folder import check_run, check_same

PICTURE_SECONDS = 60.0

SAMPLES = 6

FINE_COST = 2.6
"""A step at output stride 8 in steps at 16, measured on EfficientNet-Lite0; for estimates alone."""


def fit(recipe: Recipe, out, *, data_dir=None, resume: bool = False) -> keras.Model:
    """Trains a recipe and leaves a run folder.

    The folder holds `recipe.json` (which also says where the data are, for an export's
    calibration), `best.keras` (by main-head mIoU on the validation split), `last.keras`,
    `history.csv`, `curves.png` and `samples.png`. On one machine the same recipe
    gives the same bits, however often the run was killed and resumed; for that TensorFlow's
    operations are made deterministic, for the whole process; it must also run one operation at a
    time, which can only be said before its import: TF_NUM_INTEROP_THREADS=1. The command line
    says it.

    Args:
        recipe: what to train.
        out: the run folder.
        data_dir: the dataset's folder.
        resume: go on where the run in `out` was left; with nothing there, start.

    Returns:
        The model as it is after the last step.

    Raises:
        UserError: a folder that may not be used, a dataset that cannot be read.
    """
    out = Path(out)
    check_run(recipe, out, resume)
    tf.config.experimental.enable_op_determinism()
    train = open_source(recipe.dataset, data_dir, split=recipe.train_split, size=recipe.crop)
    val = open_source(recipe.dataset, data_dir, split="val", size=recipe.crop)
    train, val = train.first(recipe.train_images), val.first(recipe.val_images)
    if len(train) < recipe.batch_size and not train.unpaired:
        raise UserError(
            f"batch_size={recipe.batch_size}: there are only {len(train)} training pictures"
        )
    check = "checking pictures and masks"
    survey = train.survey(lambda numbers: track(numbers, check, len(train)))
    raise_first(survey.errors + val.survey().errors)
    pixels = survey.pixels[: len(train.labels)]
    if not pixels.any():
        raise UserError(f"{recipe.dataset}: all masks to train on are void; expected class ids")
    run = Run(recipe, out, train, val, data_dir)
    try:
        run.begin(pixels, resume)
        return run.train()
    except UserError:
        if not run.last.exists():  # nothing to go on with: leave nothing
            for name in ("recipe.json", "best.keras"):
                (out / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                out.rmdir()
        raise


class Run:
    """One training: what it reads, where it is, what it writes."""

    def __init__(self, recipe: Recipe, out: Path, train: Source, val: Source, data_dir):
        self.recipe, self.out, self.train_source, self.val_source = recipe, out, train, val
        self.data_dir = data_dir and str(Path(data_dir).resolve())
        self.steps_per_epoch = len(train) // recipe.batch_size
        self.steps = self.steps_per_epoch * recipe.epochs
        self.last = out / "last.keras"

    def begin(self, pixels, resume: bool) -> None:
        """Builds the model, or takes it and everything else from `last.keras`."""
        # Also when resuming: whatever draws from the global seed draws the same.
        keras.utils.set_random_seed(self.recipe.seed)
        self.state = {"step": 0, "history": [], "best": None, "coarse": self._coarse(0)}
        self.state["recipe"] = self.recipe.to_config()
        if resume:
            for file in (self.last, self.out / "best.keras"):
                temporary_beside(file).unlink(missing_ok=True)
                file.with_name(f".{file.stem}.partial.keras").unlink(missing_ok=True)
        if resume and self.last.exists():
            self.model, self.state = checkpoint.load(self.last)
            check_same(self.out, self.state["recipe"], self.recipe.to_config())
            if self.state["best"] is not None and not (self.out / "best.keras").exists():
                raise UserError(f"{self.out}: its best.keras is gone; put it back, or train anew")
            # A loaded model makes its metrics at the first batch; they are restored later.
            self.model.evaluate(self._validation().take(1), verbose=0)
        else:
            try:
                labels = self.train_source.labels
                self.model = build(self.recipe, labels, pixels, self.steps, self._coarse(0))
            except (ValueError, TypeError) as error:
                reason = str(error).splitlines()[0]
                raise UserError(f"recipe: the network cannot be built: {reason}") from error
        if resume:
            anew = "" if self.last.exists() else f"; {self.out} holds no run to go on with"
            print(f"resuming at step {self.state['step']} of {self.steps}{anew}", flush=True)
        write_json(self.out / "recipe.json", {**self.recipe.to_config(), "data_dir": self.data_dir})

    def train(self) -> keras.Model:
        """The epochs that are left, then the pictures."""
        start = self.pictured = time.monotonic()
        meter = Meter("training step", self.steps, self.state["step"], self._cost)
        try:
            while self.state["step"] < self.steps:
                self._epoch(meter)
        except KeyboardInterrupt:
            meter.say(f"{self.out}: --resume goes on at step {self.state['step']}")
            raise
        finally:
            meter.close()
        self._pictures()
        best = self.state["best"]
        print(f"{self.out}: main-head mIoU {best:.4f} at best, {clock(time.monotonic() - start)}")
        return self.model

    def _epoch(self, meter) -> None:
        """One epoch, or what is left of it."""
        first, recipe = self.state["step"], self.recipe
        epoch = first // self.steps_per_epoch
        if self.state["coarse"] and not self._coarse(epoch):
            self.model = at_full_resolution(self.model, self.recipe, self.train_source.labels)
            self.state = {**self.state, "coarse": False}
        end = (epoch + 1) * self.steps_per_epoch
        batches = pipeline.training_steps(
            self.train_source,
            first,
            end,
            crop=recipe.crop,
            batch_size=recipe.batch_size,
            augmentation=Augmentation(
                recipe.scales, recipe.rotation, blur_share=recipe.blur_share, color=recipe.color
            ),
            seed=recipe.seed,
            fit=recipe.resize_to_crop,
        )
        callback = _Steps(self, end, meter)
        history = self.model.fit(
            batches,
            validation_data=self._validation(),
            initial_epoch=epoch,
            epochs=epoch + 1,
            callbacks=[callback],
            shuffle=False,
            verbose=0,
        ).history
        row = {"epoch": epoch + 1, "step": end}
        row["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row |= {name: values[-1] for name, values in sorted(history.items())}
        best = self.state["best"]
        improved = best is None or row[SCORE] > best
        self.state = {
            **self.state,
            "step": end,
            "history": [*self.state["history"], row],
            "best": row[SCORE] if improved else best,
        }
        # In this order: a run that is killed in between makes this epoch's end once more.
        if improved:
            checkpoint.save(self.model, self.out / "best.keras", self.state)
        checkpoint.save(self.model, self.last, self.state)
        write_history(self.out / "history.csv", self.state["history"])
        meter.say(
            f"epoch {epoch + 1}/{recipe.epochs}  loss {row['loss']:.4f}  "
            f"validation: loss {row['val_loss']:.4f}, main-head mIoU {row[SCORE]:.4f}"
        )
        if time.monotonic() - self.pictured > PICTURE_SECONDS:
            self.pictured = time.monotonic()
            self._pictures()

    def _cost(self, step: int) -> float:
        """What so many steps cost, in coarse steps."""
        coarse = min(step, self.recipe.coarse_epochs * self.steps_per_epoch)
        return coarse + FINE_COST * (step - coarse)

    def _coarse(self, epoch: int) -> bool:
        return epoch < self.recipe.coarse_epochs

    def _validation(self):
        recipe = self.recipe
        return pipeline.validation(
            self.val_source, recipe.crop, recipe.batch_size, recipe.resize_to_crop
        )

    def save_step(self, step: int) -> None:
        """A checkpoint within an epoch."""
        self.state = {**self.state, "step": step}
        checkpoint.save(self.model, self.last, self.state)

    def _pictures(self) -> None:
        write_history(
            self.out / "history.csv", self.state["history"]
        )  # it may be behind last.keras
        write_bytes(self.out / "curves.png", curves(self.state["history"]))
        visualize.save_png(self.out / "samples.png", samples(self.model, self.val_source))


class _Steps(keras.callbacks.Callback):
    """Between steps: progress, and a checkpoint when the last one is old."""

    def __init__(self, run: Run, end: int, meter: Meter):
        super().__init__()
        self.run, self.end, self.meter = run, end, meter
        self.step = run.state["step"]
        self.saved = time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        if self.step % self.run.steps_per_epoch:  # resumed within an epoch
            checkpoint.restore_metrics(self.model, self.run.state)

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if not np.isfinite(logs["loss"]):
            raise UserError(
                f"{self.run.out}: the loss is no longer a number at step {self.step}; train anew "
                "with a lower learning_rate"
            )
        self.meter.advance(f"loss {logs['loss']:.4f}")
        # The end of an epoch has a checkpoint of its own, after the validation.
        old = time.monotonic() - self.saved > self.run.recipe.checkpoint_seconds
        if old and self.step < self.end:
            self.run.model = self.model  # under JAX, asking for it puts the state of the step in
            self.run.save_step(self.step)
            self.saved = time.monotonic()


def samples(model, source: Source) -> np.ndarray:
    """A sheet of pictures with truth and prediction."""
    network = as_predictor(model)
    table = []
    for _, image, mask in source.first(SAMPLES).examples():
        prediction = segment(network, image)
        table.append([image, visualize.overlay(image, mask, source.labels, 0.8)])
        table[-1].append(visualize.overlay(image, prediction, source.labels, 0.8))
    return visualize.rows(table, ["picture", "truth", "prediction"], labels=source.labels)
