"""Train a recipe: the training loop and the files of the run folder."""

import functools
import time
from pathlib import Path

import keras
import tensorflow as tf

from keras_pspnet.data import pipeline
from keras_pspnet.data.augment import Augmentation
from keras_pspnet.data.broken import Broken
from keras_pspnet.data.pairs import Source
from keras_pspnet.errors import UserError
from keras_pspnet.machine import locked
from keras_pspnet.progress import Meter, clock
from keras_pspnet.train import checkpoint, recipes
from keras_pspnet.train.build import at_full_resolution, build
from keras_pspnet.train.callbacks import StepCallback, UserCallbacks
from keras_pspnet.train.history import SCORE, write_history
from keras_pspnet.train.picture_check import PictureCheck
from keras_pspnet.train.pictures import draw
from keras_pspnet.train.recipe_fields import Recipe
from keras_pspnet.train.run_folder import (
    check_run,
    is_resumable,
    moved_data,
    other_machine,
    this_machine,
    write_recipe,
)
from keras_pspnet.train.splits import about, fingerprint, open_splits, sees_crops
from keras_pspnet.train.start import Start, follow, read_start

PICTURE_SECONDS = 60.0
"""Minimum time between two updates of the pictures in the run folder."""

FINE_COST = 2.6
"""Cost of a step at output stride 8, in steps at 16; measured on EfficientNet-Lite0. It only
affects the estimate of the time left."""


def fit(
    recipe: Recipe | str,
    out,
    *,
    data_dir=None,
    start=None,
    resume: bool = False,
    skip_broken: int = 0,
    callbacks=(),
    augmentation=None,
) -> keras.Model:
    """Train a recipe and write a run folder.

    The folder holds `recipe.json` (with the data folder, for an export's calibration, and `start`),
    `best.keras` (best main-head mIoU on the validation split), `last.keras`, `history.csv`,
    `curves.png` and `samples.png`.

    On one machine the same recipe gives the same bytes, however often the run was killed and
    resumed. For that, this function makes TensorFlow's operations deterministic for the whole
    process. They must also run one after the other, which has to be set before TensorFlow is
    imported: TF_NUM_INTEROP_THREADS=1. The command `train` sets it.

    Args:
        recipe: the recipe, or its name, see `recipes.RECIPES`.
        out: the run folder.
        data_dir: the dataset's folder. `recipe.json` keeps an absolute path as it is and a
            relative one relative to `out`.
        start: a trained network to start from: its .keras file, its run folder, preset:NAME or a
            keras.Model, see `with_classes`. The recipe's fields backbone, bins, pooling,
            reduce_channels, channels, dropout and align_corners become those of this network, and
            backbone_weights None.
        resume: continue the run in `out`; start at step 0 if there is none.
        skip_broken: number of broken pictures, masks and pairs to go on past, see `Broken`.
        callbacks: Keras callbacks, one or a list. They see the whole training as that of one
            `model.fit`; one that sets `model.stop_training` ends the run. Their state is not kept:
            in a resumed run they begin anew.
        augmentation: an `Augmentation`, or a function that is called as one (image, mask and seed
            as tensors), instead of the recipe's; it is tried on the first pair. A run is resumed
            with the same bits if the same seed gives the same result.

    Returns:
        The model after the last step; after EarlyStopping(restore_best_weights=True) what that
        restored. Of a finished run that is resumed, what last.keras holds: the last step.

    Raises:
        UserError: no such recipe, a folder that may not be used, as while another training uses it,
            a dataset or a start that cannot be read, a callback that is none of Keras's or sets the
            learning rate, an augmentation that fails or returns no pair, a loss that is not finite.
    """
    recipe = recipes.recipe(recipe) if isinstance(recipe, str) else recipe
    users = UserCallbacks(callbacks)
    start = read_start(start)
    recipe = follow(recipe, start)
    out = Path(out)
    if not (augmentation is None or callable(augmentation)):
        raise UserError(f"augmentation: {augmentation!r}; expected an Augmentation or a function")
    with locked(out, "a training"):
        return _fit(recipe, out, data_dir, start, resume, skip_broken, users, augmentation)


def _fit(recipe, out, data_dir, start, resume, skip_broken, users, augmentation) -> keras.Model:
    """Do what `fit` says, in a run folder of one's own."""
    check_run(recipe, out, resume, start)
    tf.config.experimental.enable_op_determinism()
    train, val = open_splits(recipe, data_dir)
    data = fingerprint(train, val, data_dir)
    goes_on = resume and is_resumable(recipe, out, data, start)
    sources, broken = {"train": train, "val": val}, Broken(skip_broken, recipe.crop)
    notes = [*train.notes, *val.notes]
    notes += [moved_data(out, data_dir), other_machine(out)] if goes_on else []
    for note in filter(None, dict.fromkeys(notes)):
        print(note, flush=True)
    check = PictureCheck(out, sources, broken, functools.partial(about, recipe, (train, val)))
    train, val = (broken.source(split, source) for split, source in sources.items())
    check.begin(needs_all=recipe.class_weights)
    pixels = check.surveys["train"].pixels[: len(train.labels)]
    if augmentation is not None:
        pipeline.check_augmentation(train, augmentation, recipe.seed)
    run = Run(recipe, out, train, val, data, check, start, users, augmentation)
    if goes_on and (users.callbacks or augmentation):
        print(
            "note: the bits of the uninterrupted run need the same augmentation; callbacks begin "
            "anew, without the state that they had",
            flush=True,
        )
    written = (out / "recipe.json", out / "best.keras", check.file)
    new = [path for path in written if not path.exists()]
    try:
        if resume:
            for partial in out.glob(".*.partial*"):  # left by a killed run
                if partial.is_file():  # an export's is a folder
                    partial.unlink()
        run.begin(pixels, resume, goes_on)
        write_recipe(out, recipe, data_dir, start)
        check.keep()
        with broken.in_one_line():
            return run.train()
    except Exception:
        if not run.last.exists():  # nothing to resume: remove what this call wrote
            for path in new:
                path.unlink(missing_ok=True)
        raise
    finally:
        check.close()


class Run:
    """A training in progress: its recipe, sources, model, state and run folder.

    Args:
        recipe, out: see `fit`.
        train, val: the pictures.
        data: their fingerprint, see `splits.fingerprint`.
        check: the check of the pictures, which may still go on.
        start: the network to start from, or None.
        users: the user's callbacks.
        augmentation: see `fit`.
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
        augmentation=None,
    ):
        self.recipe, self.out, self.train_source, self.val_source = recipe, out, train, val
        self.data, self.check, self.start, self.users = data, check, start, users
        self.augmentation = augmentation or Augmentation(
            recipe.scales, recipe.rotation, blur_share=recipe.blur_share, color=recipe.color
        )
        self.steps_per_epoch = len(train) // recipe.batch_size
        self.steps = self.steps_per_epoch * recipe.epochs
        self.last = out / "last.keras"

    def begin(self, pixels, resume: bool, goes_on: bool) -> None:
        """Load model and state from `last.keras`, or make them.

        Args:
            pixels: number of training pixels of each class.
            resume: whether the run may be resumed.
            goes_on: whether there is one to resume, see `run_folder.is_resumable`.
        """
        # A resumed run too: what draws from the global seed must draw the same.
        keras.utils.set_random_seed(self.recipe.seed)
        if goes_on:
            self.model, self.state = checkpoint.load(self.last)
            # A loaded model creates its metrics at the first batch; they are restored later.
            self.model.evaluate(self._validation().take(1), verbose=0)
        else:
            self.state = {"step": 0, "history": [], "best": None, "coarse": self._is_coarse(0)}
            self.state |= {"recipe": self.recipe.to_config(), "data": self.data}
            self.state |= {"start": self.start and self.start.sha256, "machine": this_machine()}
            labels, coarse = self.train_source.labels, self.state["coarse"]
            start = self.start and self.start.load()
            try:
                self.model = build(self.recipe, labels, pixels, self.steps, coarse, start)
            except (ValueError, TypeError) as error:
                reason = str(error).splitlines()[0]
                raise UserError(f"recipe: the network cannot be built: {reason}") from error
            if self.start:
                print(self.start.kept(labels), flush=True)
        if resume:
            anew = "" if goes_on else f"; {self.out} holds no run to go on with"
            anew = "; a callback ended the run there" if self.state.get("stopped") else anew
            print(f"resuming at step {self.state['step']} of {self.steps}{anew}", flush=True)

    def train(self) -> keras.Model:
        """Train the remaining epochs, write the pictures, and return the model."""
        start = self.drawn = time.monotonic()
        meter = Meter("training step", self.steps, self.state["step"], self._cost)
        try:
            self.users.begin(self.model, self.steps_per_epoch, self.recipe.epochs)
            while self.state["step"] < self.steps and not self.state.get("stopped"):
                self._epoch(meter)
        except KeyboardInterrupt:
            meter.say(f"{self.out}: --resume goes on at step {self.state['step']}")
            raise
        finally:
            meter.close()
        self.check.tell(wait=True)
        self._draw()
        self.users.end()
        best = self.state["best"]
        where = " on centre crops" * sees_crops(self.recipe, self.check.surveys["val"])
        taken = clock(time.monotonic() - start)
        print(f"{self.out}: main-head mIoU {best:.4f} at best{where}, {taken}")
        return self.model

    def _epoch(self, meter: Meter) -> None:
        """Train one epoch, or the rest of it, then validate and write checkpoints."""
        first, recipe = self.state["step"], self.recipe
        epoch = first // self.steps_per_epoch
        if self.state["coarse"] and not self._is_coarse(epoch):
            self.model = at_full_resolution(self.model, recipe)
            self.state = {**self.state, "coarse": False}
        end = (epoch + 1) * self.steps_per_epoch
        batches = pipeline.training_steps(
            self.train_source,
            first,
            end,
            crop=recipe.crop,
            batch_size=recipe.batch_size,
            augmentation=self.augmentation,
            seed=recipe.seed,
            resize_to_crop=recipe.resize_to_crop,
        )
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
        if self.model.stop_training:
            self.state["stopped"] = True
        # best.keras first: a run killed between the two repeats the end of this epoch.
        if improved:
            checkpoint.save(self.model, self.out / "best.keras", self.state)
        checkpoint.save(self.model, self.last, self.state)
        write_history(self.out / "history.csv", self.state["history"])
        meter.say(
            f"epoch {epoch + 1}/{recipe.epochs}  loss {row['loss']:.4f}  "
            f"validation: loss {row['val_loss']:.4f}, main-head mIoU {row[SCORE]:.4f}"
        )
        if self.model.stop_training:
            meter.say(f"a callback ended the training at step {steps.step} of {self.steps}")
        if time.monotonic() - self.drawn > PICTURE_SECONDS:
            self.drawn = time.monotonic()
            self._draw()

    def _cost(self, step: int) -> float:
        """Return the cost of the first `step` steps, in coarse steps."""
        coarse = min(step, self.recipe.coarse_epochs * self.steps_per_epoch)
        return coarse + FINE_COST * (step - coarse)

    def _is_coarse(self, epoch: int) -> bool:
        return epoch < self.recipe.coarse_epochs

    def _validation(self):
        recipe = self.recipe
        return pipeline.validation(
            self.val_source, recipe.crop, recipe.batch_size, recipe.resize_to_crop
        )

    def save_step(self, step: int) -> None:
        """Write a checkpoint within an epoch."""
        self.state = {**self.state, "step": step}
        checkpoint.save(self.model, self.last, self.state)

    def _draw(self) -> None:
        # A run killed after writing last.keras has an older history.csv.
        write_history(self.out / "history.csv", self.state["history"])
        draw(self.out, self.state["history"], self.model, self.val_source)
