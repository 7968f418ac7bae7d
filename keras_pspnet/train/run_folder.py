"""Check that a training may use a run folder."""

import json
from pathlib import Path

from keras_pspnet.errors import UserError
from keras_pspnet.files import read_bytes
from keras_pspnet.train.recipe_fields import Recipe


def check_run(recipe: Recipe, out, resume: bool) -> None:
    """Check that a training may use a run folder, and that a new one finds its backbone's weights.

    Raises:
        UserError: the folder holds a run and `resume` is False, or a run of another recipe.
    """
    weights = Path(recipe.backbone_weights or "imagenet")
    if not resume and weights.name != "imagenet" and not weights.is_file():
        raise UserError(f"recipe: backbone_weights={weights}: no such file; give one, or imagenet")
    out = Path(out)
    file = out / "recipe.json"
    if not resume:
        if file.exists() or (out / "last.keras").exists():
            raise UserError(f"{out}: holds a run already; add --resume, or choose another --out")
    elif file.exists():
        try:
            before = dict(json.loads(read_bytes(file)))
        except (ValueError, TypeError) as error:
            raise UserError(f"{file}: not a recipe ({error}); choose another --out") from error
        before.pop("data_dir", None)
        check_same_recipe(out, before, recipe)


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
    for name, value in now.items():
        if before.get(name, value) != value:
            raise UserError(
                f"{out}: its run has {name}={before[name]}, not {value}; "
                "resume with the same recipe and --set, or choose another --out"
            )
