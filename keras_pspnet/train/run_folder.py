"""Check that a training may use a run folder."""

from __future__ import annotations

import json
from pathlib import Path

from keras_pspnet.errors import UserError
from keras_pspnet.files import read_bytes
from keras_pspnet.train.recipe_fields import Recipe


def check_run(recipe: Recipe, out, resume: bool) -> None:
    """Whether a training may use a run folder.

    Raises:
        UserError: the folder holds a run and `resume` is False; or a run of another recipe.
    """
    out = Path(out)
    file = out / "recipe.json"
    if not resume:
        if file.exists() or (out / "last.keras").exists():
            raise UserError(f"{out}: holds a run already; add --resume, or choose another --out")
        return
    if file.exists():
        try:
            before, now = dict(json.loads(read_bytes(file))), recipe.to_config()
        except (ValueError, TypeError) as error:
            raise UserError(f"{file}: not a recipe ({error}); choose another --out") from error
        check_same(out, before, now)


def check_same(out, before: dict, now: dict) -> None:
    """Whether two recipes, as `Recipe.to_config` gives them, are one.

    Raises:
        UserError: they differ; it names the first field.
    """
    for name, value in now.items():
        if before.get(name, value) != value:
            raise UserError(
                f"{out}: its run has {name}={before[name]}, not {value}; "
                "resume with the same recipe and --set, or choose another --out"
            )
