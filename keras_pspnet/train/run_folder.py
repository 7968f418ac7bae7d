"""Check that a training may use a run folder."""

import json
import os
from pathlib import Path

from keras_pspnet.errors import UserError
from keras_pspnet.files import read_bytes, write_json
from keras_pspnet.machine import LOCK, processor, threads
from keras_pspnet.train.recipe_fields import Recipe
from keras_pspnet.train.splits import check_same_data
from keras_pspnet.train.start import Start
from keras_pspnet.train.state import read_state

SURVEY = "survey.json"
"""The file in a run folder that keeps what `picture_check` found."""


def check_run(
    recipe: Recipe, out, resume: bool, start: Start | None = None, teacher: Start | None = None
) -> None:
    """Check that a training may use a run folder, and that a new one finds its backbone's weights.

    A new one may use a folder that holds nothing but its own recipe.json and survey: that run ended
    before its first checkpoint.

    Raises:
        UserError: the folder holds a run and `resume` is False, a run of another recipe, start or
            teacher, or a best.keras that the training would replace and that is not of its run.
    """
    weights = Path(recipe.backbone_weights or "imagenet")
    if not resume and weights.name != "imagenet" and not weights.is_file():
        raise UserError(f"recipe: backbone_weights={weights}: no such file; give one, or imagenet")
    out = Path(out)
    file, best = out / "recipe.json", out / "best.keras"
    begun = (out / "last.keras").exists()
    if not resume and (begun or (file.exists() and not _never_began(file, recipe))):
        raise UserError(f"{out}: holds a run already; add --resume, or choose another --out")
    if file.exists():
        before = _read_recipe(file)
        before.pop("data_dir", None)
        for name, network in (("start", start), ("teacher", teacher)):
            check_same_network(out, name, (before.pop(name, None) or {}).get("sha256"), network)
        check_same_recipe(out, before, recipe)
    if best.exists() and not begun and not (file.exists() and _ends_first_epoch(best)):
        raise UserError(
            f"{best}: a training here would replace it, and no last.keras says that it is of the "
            "same run; move it, or choose another --out"
        )


def _never_began(file: Path, recipe: Recipe) -> bool:
    """Return whether a run folder holds nothing but its recipe, and what a kill left half-written.

    The recipe must be one of this version; `check_same_recipe` compares the values.
    """
    others = {other.name for other in file.parent.iterdir()} - {file.name, LOCK, SURVEY}
    alone = all(name.startswith(".") and ".partial" in name for name in others)
    return alone and set(recipe.to_config()) <= set(_read_recipe(file))


def _ends_first_epoch(best: Path) -> bool:
    """Return whether best.keras is of a run that was killed before it wrote its last.keras."""
    try:
        return len(read_state(best)["history"]) == 1
    except (UserError, TypeError):
        return False


def _read_recipe(file: Path) -> dict:
    try:
        config = dict(json.loads(read_bytes(file)))
        if not isinstance(config.get("data_dir"), (str, type(None))):
            raise TypeError("data_dir is no text")
        if config.get("start") is not None and not isinstance(config["start"]["sha256"], str):
            raise TypeError("start has no SHA-256")
        return config
    except UserError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{file}: not a recipe ({error}); choose another --out") from error


def check_same_recipe(out, before: dict, recipe: Recipe) -> None:
    """Check that a run was made with this recipe.

    Args:
        out: the run folder, for the message.
        before: the run's recipe, as `Recipe.to_config` returns it.

    Raises:
        UserError: another field value, which it names, or fields of another version.
    """
    now = recipe.to_config()
    unknown = sorted(set(before) - set(now))
    if unknown:
        raise UserError(
            f"{out}: its run was made by another version of keras_pspnet (recipe fields "
            f"{', '.join(unknown)}) and cannot be resumed; train anew with another --out"
        )
    # A run of an earlier version did what the default of a new field says.
    before = {**Recipe(recipe.dataset).to_config(), **before}
    for name, value in now.items():
        if before[name] != value:
            raise UserError(
                f"{out}: its run has {name}={before[name]}, not {value}; "
                "resume with the same recipe and --set, or choose another --out"
            )


def check_same_network(out, name: str, before: str | None, now: Start | None) -> None:
    """Check that a run has this start, or this teacher.

    Args:
        out: the run folder, for the message.
        name: "start" or "teacher".
        before: SHA-256 of the run's, or None.

    Raises:
        UserError: it has another one, or none.
    """
    if before == (now and now.sha256):
        return
    its = f"the {name} with the SHA-256 {before[:12]}..." if before else f"no {name}"
    mine = f"{now.name} ({now.sha256[:12]}...)" if now else "none"
    raise UserError(
        f"{out}: its run has {its}, not {mine}; resume with the same {name}, or choose another "
        "--out"
    )


def is_resumable(
    recipe: Recipe, out, data: dict, start: Start | None = None, teacher: Start | None = None
) -> bool:
    """Return whether a folder holds a run to go on with, after checking that it may.

    Args:
        recipe: the recipe, which `check_run` has accepted.
        out: the run folder.
        data: what `splits.fingerprint` returns of the data.
        start, teacher: the networks to start from and to learn from, or None.

    Raises:
        UserError: a run of another recipe, start, teacher or data, a file that is no checkpoint or
            is one of an earlier version, or best.keras is gone.
    """
    out = Path(out)
    last, best = out / "last.keras", out / "best.keras"
    file = last if last.exists() else best
    if not file.exists():
        return False
    state = read_state(file)
    for name, network in (("start", start), ("teacher", teacher)):
        check_same_network(out, name, state.get(name), network)
    check_same_recipe(out, state["recipe"], recipe)
    if "data" not in state:
        raise UserError(
            f"{file}: of an earlier version of keras_pspnet, which did not keep what a run was "
            "trained on; train anew with another --out"
        )
    check_same_data(out, state["data"], data)
    if state["best"] is not None and not best.exists():
        raise UserError(f"{out}: its best.keras is gone; put it back, or train anew")
    return file is last


def remove_partials(out: Path) -> None:
    """Remove the half-written files that a killed run has left."""
    for partial in out.glob(".*.partial*"):
        if partial.is_file():  # an export's is a folder
            partial.unlink()


def write_recipe(
    recipe: Recipe, out: Path, data_dir=None, start: Start | None = None, teacher=None
) -> None:
    """Write recipe.json: the fields, the data folder, start and teacher; raises as `write_json`."""
    config = {**recipe.to_config(), "data_dir": path_in_recipe(data_dir, out)}
    for name, network in (("start", start), ("teacher", teacher)):
        if network is not None:
            place = path_in_recipe(network.path, out)
            config[name] = {"path": place, "sha256": network.sha256}
    write_json(out / "recipe.json", config)


def path_in_recipe(path, out) -> str | None:
    """Return a path as recipe.json keeps it: an absolute one as it is, others relative to the run.

    What is no path on the disk, as preset:NAME, stays as it is.
    """
    if path is None or os.path.isabs(path) or not os.path.exists(path):
        return path and str(path)
    return os.path.relpath(path, Path(out).resolve())


def moved_data(out, data_dir) -> str | None:
    """Return a note if a run that is resumed has read its data from another folder, else None."""
    file = Path(out) / "recipe.json"
    before = _read_recipe(file).get("data_dir") if file.exists() else None
    if before is None or data_dir is None:
        return None
    before = os.path.normpath(Path(out) / before)  # a relative path is relative to the run
    if os.path.realpath(before) == os.path.realpath(data_dir):
        return None
    same = "has pictures of the same names, and the same classes"
    return f"note: the run began with {before}; {data_dir} {same}"


def this_machine() -> dict:
    """Return what a checkpoint keeps of the machine: what decides in which order sums are taken."""
    return {"threads": threads(), "processor": processor()}


def other_machine(out) -> str | None:
    """Return a note if a run that is resumed began on another machine, else None."""
    before, now = read_state(Path(out) / "last.keras").get("machine"), this_machine()
    if before is None or before == now:
        return None
    one, other = ("{threads} threads of {processor}".format(**of) for of in (before, now))
    return f"note: the run began on {one}, this is {other}: the last bits of its results may differ"
