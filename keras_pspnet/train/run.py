"""Train a recipe: the training loop and the files of the run folder."""

import contextlib
import time
from pathlib import Path

import keras
import tensorflow as tf

from keras_pspnet.data import pipeline
from keras_pspnet.data.augment import Augmentation
from keras_pspnet.data.pairs import Source
from keras_pspnet.errors import UserError, raise_first
from keras_pspnet.progress import Meter, clock, track
from keras_pspnet.train import checkpoint, recipes, run_folder
from keras_pspnet.train.accumulate import in_parts
from keras_pspnet.train.build import at_full_resolution, build
from keras_pspnet.train.callbacks import StepCallback, UserCallbacks
from keras_pspnet.train.devices import Devices, open_devices
from keras_pspnet.train.history import SCORE, write_history
from keras_pspnet.train.pictures import draw
from keras_pspnet.train.recipe_fields import Recipe
from keras_pspnet.train.splits import about, exceeds, fingerprint, open_splits
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
    devices=None,
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
        devices: number of devices of this host, or "all"; None takes one. With KERAS_BACKEND=jax
            and `jax.distributed` initialized, the devices of each process; None then takes all.
            The recipe's batch is the batch of all devices together.
        callbacks: Keras callbacks, one or a list. They see the whole training as that of one
            `model.fit`; one that sets `model.stop_training` ends the run. Their state is not kept:
            in a resumed run they begin anew.
        augmentation: an `Augmentation`, or a function that is called as one (image, mask and seed
            as tensors), instead of the recipe's; it is tried on the first pair. A run is resumed
            with the same bits if the same seed gives the same result.

    Returns:
        The model after the last step; after EarlyStopping(restore_best_weights=True) what that
        restored. Of a finished run that is resumed, what last.keras holds: the last step. After a
        training on several devices a copy for one.

    Raises:
        UserError: no such recipe, a folder that may not be used, a dataset or a start that cannot
            be read, a callback that is none of Keras's or sets the learning rate, an augmentation
            that fails or returns no pair, a loss that is not finite, devices that are not there,
            another process of the training that has ended.
    """
    recipe = recipes.recipe(recipe) if isinstance(recipe, str) else recipe
    users = UserCallbacks(callbacks)
    start = read_start(start)
    recipe = follow(recipe, start)
    out = Path(out)
    if not (augmentation is None or callable(augmentation)):
        raise UserError(f"augmentation: {augmentation!r}; expected an Augmentation or a function")
    run_folder.check_run(recipe, out, resume, start)
    group = open_devices(devices, recipe.batch_size)
    watch = group.watch()
    tf.config.experimental.enable_op_determinism()
    train, val = open_splits(recipe, data_dir)
    data = fingerprint(train, val, data_dir)
    goes_on = resume and run_folder.is_resumable(recipe, out, data, start)
    check = "checking pictures and masks"
    surveys = [train.survey(lambda numbers: track(numbers, check, len(train))), val.survey()]
    raise_first(surveys[0].errors + surveys[1].errors)
    pixels = surveys[0].pixels[: len(train.labels)]
    if not pixels.any():
        raise UserError(f"{recipe.dataset}: all masks to train on are void; expected class ids")
    crops = not recipe.resize_to_crop and exceeds(surveys[1], recipe.crop)
    notes = [*train.notes, *val.notes, *about(recipe, (train, val), surveys, crops)]
    notes += [run_folder.moved_data(out, data_dir)] if goes_on else []
    for note in filter(None, dict.fromkeys(notes)):
        print(note, flush=True)
    if augmentation is not None:
        pipeline.check_augmentation(train, augmentation, recipe.seed)
    run = Run(recipe, out, train, val, data, crops, start, users, group, augmentation)
    if goes_on and (users.callbacks or augmentation):
        print(
            "note: the bits of the uninterrupted run need the same augmentation; callbacks begin "
            "anew, without the state that they had",
            flush=True,
        )
    written = (out / "recipe.json", out / "best.keras") if group.writes else ()
    new = [path for path in written if not path.exists()]
    try:
        if resume and group.writes:
            run_folder.remove_partials(out)
        with group.scope():
            run.begin(pixels, resume, goes_on)
        if group.writes:
            run_folder.write_recipe(recipe, out, data_dir, start)
        model = run.train()
        watch.done()
        return model
    except Exception:
        watch.close()
        if new and not run.last.exists():  # nothing to resume: remove what this call wrote
            for path in new:
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                out.rmdir()
        raise


class Run:
    """A training in progress: its recipe, sources, model, state and run folder.

    Args:
        recipe, out: see `fit`.
        train, val: the pictures.
        data: their fingerprint, see `splits.fingerprint`.
        crops: whether the validation sees crops of larger pictures.
        start: the network to start from, or None.
        users: the user's callbacks.
        group: the devices.
        augmentation: see `fit`.
    """

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        train: Source,
        val: Source,
        data,
        crops: bool,
        start: Start | None,
        users: UserCallbacks,
        group: Devices,
        augmentation=None,
    ):
        self.recipe, self.out, self.train_source, self.val_source = recipe, out, train, val
        self.data, self.crops, self.start, self.users = data, crops, start, users
        self.group = group
        self.augmentation = augmentation or Augmentation(
            recipe.scales, recipe.rotation, blur_share=recipe.blur_share, color=recipe.color
        )
        self.steps_per_epoch = len(train) // recipe.step_size
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
            model, self.state = checkpoint.load(self.last)
            self.model = self.group.built(model)
            # A loaded model creates its metrics at the first batch; they are restored later.
            self.model.evaluate(self._validation().take(1), verbose=0)
        else:
            self.state = {"step": 0, "history": [], "best": None, "coarse": self._is_coarse(0)}
            self.state |= {"recipe": self.recipe.to_config(), "data": self.data}
            self.state["start"] = self.start and self.start.sha256
            labels, coarse = self.train_source.labels, self.state["coarse"]
            start = self.start and self.start.load()
            try:
                model = build(self.recipe, labels, pixels, self.steps, coarse, start)
                self.model = self.group.built(model)
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
        model = self.group.alone(self.model)
        self._draw(model)
        self.users.end()
        where = " on centre crops" * self.crops
        taken = clock(time.monotonic() - start)
        print(f"{self.out}: main-head mIoU {self.state['best']:.4f} at best{where}, {taken}")
        return model

    def _epoch(self, meter: Meter) -> None:
        """Train one epoch, or the rest of it, then validate and write checkpoints."""
        first, recipe = self.state["step"], self.recipe
        epoch = first // self.steps_per_epoch
        if self.state["coarse"] and not self._is_coarse(epoch):
            self.model = self.group.built(at_full_resolution(self.model, recipe))
            self.state = {**self.state, "coarse": False}
        end = (epoch + 1) * self.steps_per_epoch
        batches = pipeline.training_steps(
            self.train_source,
            first,
            end,
            crop=recipe.crop,
            batch_size=recipe.step_size,
            augmentation=self.augmentation,
            seed=recipe.seed,
            resize_to_crop=recipe.resize_to_crop,
            part=self.group.part,
        )
        in_parts(self.model, recipe.accumulate)
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
        if improved and self.group.writes:
            checkpoint.save(self.model, self.out / "best.keras", self.state)
        if self.group.writes:
            checkpoint.save(self.model, self.last, self.state)
            write_history(self.out / "history.csv", self.state["history"])
        meter.say(
            f"epoch {epoch + 1}/{recipe.epochs}  loss {row['loss']:.4f}  "
            f"validation: loss {row['val_loss']:.4f}, main-head mIoU {row[SCORE]:.4f}"
        )
        if self.model.stop_training:
            meter.say(f"a callback ended the training at step {steps.step} of {self.steps}")

    def _cost(self, step: int) -> float:
        """Return the cost of the first `step` steps, in coarse steps."""
        coarse = min(step, self.recipe.coarse_epochs * self.steps_per_epoch)
        return coarse + FINE_COST * (step - coarse)

    def _is_coarse(self, epoch: int) -> bool:
        return epoch < self.recipe.coarse_epochs

    def _validation(self):
        recipe = self.recipe
        return pipeline.validation(
            self.val_source, recipe.crop, recipe.batch_size, recipe.resize_to_crop, self.group.part
        )

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
