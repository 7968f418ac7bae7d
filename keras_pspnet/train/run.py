"""Train a recipe: check what is asked for, open the run folder, run the training."""

import contextlib
import functools
from pathlib import Path

import keras
import tensorflow as tf

from keras_pspnet.data import pipeline
from keras_pspnet.data.broken import Broken
from keras_pspnet.errors import UserError
from keras_pspnet.machine import locked
from keras_pspnet.train import recipes, run_folder
from keras_pspnet.train.callbacks import UserCallbacks
from keras_pspnet.train.devices import open_devices
from keras_pspnet.train.loop import Run
from keras_pspnet.train.picture_check import PictureCheck
from keras_pspnet.train.recipe_fields import Recipe
from keras_pspnet.train.splits import about, fingerprint, open_splits
from keras_pspnet.train.start import follow, read_start


def fit(
    recipe: Recipe | str,
    out,
    *,
    data_dir=None,
    start=None,
    teacher=None,
    resume: bool = False,
    devices=None,
    skip_broken: int = 0,
    callbacks=(),
    augmentation=None,
) -> keras.Model:
    """Train a recipe and write a run folder.

    The folder holds `recipe.json` (with the data folder, for an export's calibration, `start` and
    `teacher`), `best.keras` (best main-head mIoU on the validation split), `last.keras`,
    `history.csv`, `curves.png`, `samples.png` and `survey.json` (what a check of the data found).

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
            reduce_channels, channels, detail, dropout and align_corners become those of this
            network, and backbone_weights None.
        teacher: a trained network whose probabilities this one learns too (distillation), given as
            `start`. It knows all classes of the data by name; its backbone, size and other classes
            may be any. See `network.distillation`.
        resume: continue the run in `out`; start at step 0 if there is none.
        devices: number of devices of this host, or "all"; None takes one. With KERAS_BACKEND=jax
            and `jax.distributed` initialized, the devices of each process; None then takes all.
            The recipe's batch is the batch of all devices together.
        skip_broken: number of broken pictures, masks and pairs to go on past, see `Broken`.
        callbacks: Keras callbacks, one or a list. They see the whole training as that of one
            `model.fit`; one that sets `model.stop_training` ends the run. Their state is not kept:
            in a resumed run they begin anew.
        augmentation: an `Augmentation`, or a function that is called as one (image, mask and seed
            as tensors), instead of the recipe's; it is tried on the first pair. A run is resumed
            with the same bits if the same seed gives the same result.

    Returns:
        The model after the last step, with the weights that are scored (fields `ema` and
        `norm_batches`); after EarlyStopping(restore_best_weights=True) what that
        restored. Of a finished run that is resumed, what last.keras holds: the last step. After a
        training on several devices a copy for one.

    Raises:
        UserError: no such recipe, a folder that may not be used, as while another training uses it,
            a dataset or a start that cannot be read, a callback that is none of Keras's or sets the
            learning rate, an augmentation that fails or returns no pair, a loss that is not finite,
            devices that are not there, another process of the training that has ended.
    """
    recipe = recipes.recipe(recipe) if isinstance(recipe, str) else recipe
    users = UserCallbacks(callbacks)
    start, teacher = read_start(start), read_start(teacher)
    recipe = follow(recipe, start)
    out = Path(out)
    if not (augmentation is None or callable(augmentation)):
        raise UserError(f"augmentation: {augmentation!r}; expected an Augmentation or a function")
    group = open_devices(devices, recipe.batch_size)
    if group.number > 1 and (recipe.norm_batches or teacher):
        what = "a teacher" if teacher else f"norm_batches={recipe.norm_batches}"
        raise UserError(f"{what} on {group.number} devices: expected one device, or none of it")
    watch = group.watch()
    try:
        # The processes of one training are one owner.
        with locked(out, "a training") if group.writes else contextlib.nullcontext():
            networks = (start, teacher)
            model = _fit(
                recipe, out, data_dir, networks, resume, skip_broken, users, augmentation, group
            )
    except Exception:
        watch.close()
        raise
    watch.done()
    return model


def _fit(
    recipe, out, data_dir, networks, resume, skip_broken, users, augmentation, group
) -> keras.Model:
    """Train as `fit` describes; the run folder is locked."""
    start, teacher = networks
    run_folder.check_run(recipe, out, resume, start, teacher)
    tf.config.experimental.enable_op_determinism()
    train, val = open_splits(recipe, data_dir)
    if teacher:
        teacher.check_teaches(train.labels)
    data = fingerprint(train, val, data_dir)
    goes_on = resume and run_folder.is_resumable(recipe, out, data, start, teacher)
    sources, broken = {"train": train, "val": val}, Broken(skip_broken, recipe.crop)
    notes = [*train.notes, *val.notes]
    if goes_on:
        notes += [run_folder.moved_data(out, data_dir), run_folder.other_machine(out)]
    for note in filter(None, dict.fromkeys(notes)):
        print(note, flush=True)
    told = functools.partial(about, recipe, (train, val))
    check = PictureCheck(out, sources, broken, told, group.writes)
    train, val = (broken.source(split, source) for split, source in sources.items())
    check.begin(needs_all=recipe.class_weights or recipe.copy_paste > 0)
    pixels = check.surveys["train"].pixels[: len(train.labels)]
    if augmentation is not None:
        pipeline.check_augmentation(train, augmentation, recipe.seed)
    run = Run(recipe, out, train, val, data, check, start, users, group, augmentation, teacher)
    if goes_on and (users.callbacks or augmentation):
        print(
            "note: the bits of the uninterrupted run need the same augmentation; callbacks begin "
            "anew, without the state that they had",
            flush=True,
        )
    written = (out / "recipe.json", out / "best.keras", check.file) if group.writes else ()
    new = [path for path in written if not path.exists()]
    try:
        if resume and group.writes:
            run_folder.remove_partials(out)
        with group.scope():
            run.begin(pixels, resume, goes_on)
        if group.writes:
            run_folder.write_recipe(recipe, out, data_dir, start, teacher)
        check.keep()
        with broken.in_one_line():
            return run.train()
    except Exception:
        if new and not run.last.exists():  # nothing to resume: remove what this call wrote
            for path in new:
                path.unlink(missing_ok=True)
        raise
    finally:
        check.close()
