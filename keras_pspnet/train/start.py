"""Read the trained networks that a training starts from or learns from, without TensorFlow."""

from __future__ import annotations

import dataclasses
import hashlib
import os

from keras_pspnet.errors import UserError
from keras_pspnet.files import read_bytes
from keras_pspnet.inference.load import check_model, layer_configs, load_model
from keras_pspnet.inference.presets import model_file
from keras_pspnet.labels import LabelSet
from keras_pspnet.train.recipe_fields import NETWORK_FIELDS, Recipe

SHOWN = 8
"""Maximum number of class names in a line."""


@dataclasses.dataclass(frozen=True)
class Start:
    """Hold what is known of a trained network, that a training starts from or of its teacher.

    Args:
        name: what messages call it.
        path: its file or folder as the user gave it; None for a keras.Model.
        sha256: SHA-256 of the file's bytes, or of a keras.Model's weights.
        plan: with what arguments it was built, see `network.layers.Upsample`.
        labels: its classes.
        model: the keras.Model; None for a file.
    """

    name: str
    path: str | None
    sha256: str
    plan: dict
    labels: LabelSet
    model: object = None

    def kept(self, labels: LabelSet) -> str:
        """Return one line that says what a training starts from and what it keeps of it."""
        names = [name for name in labels.names if name in self.labels.names]
        if not names:
            kept = "no class has a name of the start's: its classifier starts fresh"
        else:
            kept = f"keeps {len(names)} of {len(labels)} classes by name: "
            kept += ", ".join(names[:SHOWN]) + ", ..." * (len(names) > SHOWN)
        return f"starting from {self.name}: {kept}"

    def load(self):
        """Return the keras.Model."""
        return load_model(self.path) if self.model is None else self.model

    def check_teaches(self, labels: LabelSet) -> None:
        """Raise UserError unless the network, a teacher, knows all classes by name."""
        unknown = [name for name in labels.names if name not in self.labels.names]
        if unknown:
            raise UserError(
                f"{self.name}: a teacher has to know all classes by name, and lacks "
                f"{', '.join(unknown[:SHOWN])}; train one on the same classes"
            )


def read_start(start) -> Start | None:
    """Return what is known of the network that a training starts from.

    Args:
        start: None; a .keras file, a run folder or preset:NAME; a keras.Model; or a Start.

    Raises:
        UserError: it cannot be read, is no model of `build_pspnet`, or is one of a version that did
            not keep how its networks were built.
    """
    if start is None or isinstance(start, Start):
        return start
    read = _read_file if isinstance(start, (str, os.PathLike)) else _read_model
    found = read(start)
    if not found.plan:
        raise UserError(
            f"{found.name}: of an earlier version of keras_pspnet, which did not keep how its "
            "network was built; train or convert it again"
        )
    return found


def _read_file(path) -> Start:
    path = os.fspath(path)
    check_model(path, "keras")
    file = model_file(path)
    digest = hashlib.sha256(read_bytes(file)).hexdigest()
    try:
        configs = layer_configs(file)
        main, classes = configs["main"], configs["cls_4"]["filters"]
        given = main.get("labels")
        labels = LabelSet.from_config(given) if given else LabelSet.numbered(classes)
        plan = _plan(main)
        if plan and not {"backbone", "output_stride", *NETWORK_FIELDS} <= set(plan):
            raise ValueError("its plan is damaged")
        return Start(path, path, digest, plan, labels)
    except Exception as error:  # a damaged file can raise anything
        raise UserError(f"{path}: not a model of build_pspnet; give one to start from") from error


def _read_model(model) -> Start:
    from keras_pspnet.network.main_head import check_ours, labels_of

    check_ours(model, "start")
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(weight.path.encode() + weight.numpy().tobytes())
    plan = _plan(model.get_layer("main").get_config())
    return Start("a model", None, digest.hexdigest(), plan, labels_of(model), model)


def _plan(main: dict) -> dict:
    """Return how a network was built, from its layer `main`; {} if that was not kept."""
    plan = main.get("plan")
    return {"detail": 0, **plan} if plan else {}  # earlier files have no branch for thin things


def follow(recipe: Recipe, start: Start | None, given=()) -> Recipe:
    """Return a recipe whose fields describe the network that it starts from.

    Args:
        given: names of the fields that the user has set; these must agree with the network.

    Raises:
        UserError: a field that the user has set says something else, or the network cannot have
            the recipe's output stride.
    """
    if start is None:
        if recipe.backbone is None:
            raise UserError("recipe: backbone=None is for a training with a start; name a backbone")
        if recipe.freeze and recipe.backbone_weights is None:
            raise UserError(
                f"recipe: freeze={recipe.freeze} would keep random weights; give a start, or "
                "backbone_weights"
            )
        return recipe
    backbone = start.plan["backbone"]
    stride = start.plan["output_stride"]
    if backbone is None and (recipe.output_stride != stride or recipe.coarse_epochs):
        raise UserError(
            f"{start.name}: its network stands on a keras.Model and keeps its output stride; set "
            f"output_stride={stride} coarse_epochs=0"
        )
    plan = start.plan
    fields = {name: plan[name] for name in NETWORK_FIELDS if plan[name] is not None}
    fields["backbone"] = backbone if isinstance(backbone, str) else None
    followed = recipe.change(**fields, backbone_weights=None)
    for name in (*fields, "backbone_weights"):
        mine, its = getattr(recipe, name), getattr(followed, name)
        if name in given and mine != its:
            raise UserError(
                f"recipe: {name}={mine} contradicts the network of {start.name}, which has "
                f"{name}={its}; leave {name} out, or train without a start"
            )
    return followed
