"""A recipe: everything that decides what a training computes."""

from __future__ import annotations

import ast
import dataclasses

from keras_pspnet.errors import UserError


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training computes.

    The defaults are the authors' (paper section 5.1; semseg config/ade20k/ade20k_pspnet50.yaml)
    where they have one.

    Args:
        dataset: see `datasets.open_source`.
        backbone, backbone_weights, output_stride, bins, pooling, reduce_channels, channels,
        dropout, align_corners: see `build_pspnet`.
        crop: (H, W) of training and validation pictures.
        train_split: of the dataset, to train on; "val" is scored on.
        train_images, val_images: use only so many pictures; None for all.
        batch_size, epochs: an epoch leaves out an incomplete batch.
        learning_rate: at the start; it falls to 0 with the power 0.9 ("poly"), step by step.
        head_multiplier: factor of the learning rate outside the backbone.
        momentum, decay: of SGD; decay is L2, in the gradient.
        aux_weight: of the auxiliary loss (paper table 2: 0.4 is best).
        coarse_epochs: the first so many epochs are made at twice the output stride, at about a
            third of the cost; the weights are the same.
        resize_to_crop: True brings each picture to the size of the crop before it is augmented, as
            evaluation does; for pictures of many sizes. False takes pictures at their own size.
        scales, rotation, blur_share, color: augmentation, see `augment.Augmentation`.
        class_weights: weigh classes by the square root of median frequency / frequency.
        jaccard: weight of the soft Jaccard loss in the main loss, see `losses.VoidCrossentropy`.
        ohem_threshold: mine hard pixels in the main loss, see `losses.VoidCrossentropy`.
        seed: of the first weights, the order of pictures, augmentation and dropout.
        checkpoint_seconds: `last.keras` is never older than this while steps are made.
    """

    dataset: str
    backbone: str = "resnet50"
    backbone_weights: str | None = None
    output_stride: int = 8
    bins: tuple = (1, 2, 3, 6)
    pooling: str = "average"
    reduce_channels: bool = True
    channels: int = 512
    dropout: float = 0.1
    align_corners: bool = True
    crop: tuple = (473, 473)
    train_split: str = "train"
    train_images: int | None = None
    val_images: int | None = None
    batch_size: int = 16
    epochs: int = 100
    coarse_epochs: int = 0
    learning_rate: float = 0.01
    head_multiplier: float = 10.0
    momentum: float = 0.9
    decay: float = 1e-4
    aux_weight: float = 0.4
    resize_to_crop: bool = False
    scales: tuple = (0.5, 2.0)
    rotation: float = 10.0
    blur_share: float = 0.5
    color: float = 0.0
    class_weights: bool = False
    jaccard: float = 0.0
    ohem_threshold: float | None = None
    seed: int = 0
    checkpoint_seconds: float = 60.0

    def __post_init__(self):
        for name, (least, most) in RANGES.items():
            value = getattr(self, name)
            numbers = value if isinstance(value, tuple) else () if value is None else (value,)
            if not all(least <= number <= most for number in numbers):
                raise UserError(f"recipe: {name}={value}; expected {least} to {most}")
            if name in INTEGERS and any(type(number) is not int for number in numbers):
                raise UserError(f"recipe: {name}={value}; expected whole numbers")
            if name in ("crop", "scales") and len(numbers) != 2:
                raise UserError(f"recipe: {name}={value}; expected two numbers, as {name}=97,97")
        if self.output_stride not in (8, 16, 32):
            raise UserError(f"recipe: output_stride={self.output_stride}; expected 8, 16 or 32")
        if self.coarse_epochs > self.epochs:
            raise UserError(
                f"recipe: coarse_epochs={self.coarse_epochs}; expected at most epochs={self.epochs}"
            )
        if self.coarse_epochs and self.output_stride == 32:
            raise UserError("recipe: coarse_epochs needs output_stride=8 or 16")
        if self.pooling not in ("average", "max"):
            raise UserError(f"recipe: pooling={self.pooling}; expected average or max")
        if self.scales[0] > self.scales[1]:
            raise UserError(f"recipe: scales={self.scales}; expected the smaller one first")

    def to_config(self) -> dict:
        """Plain values, as in recipe.json."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }

    def change(self, settings) -> Recipe:
        """A copy with `field=value` settings, as `--set` takes them.

        Another number of epochs keeps the share of coarse ones, unless that is set too.

        Raises:
            UserError: no such field, or a value of another kind.
        """
        changes = {}
        kinds = {field.name: field.type for field in dataclasses.fields(self)}
        for setting in settings:
            name, equals, text = setting.partition("=")
            if not equals or name not in kinds:
                raise UserError(
                    f"--set {setting}: expected field=value with a field of {', '.join(kinds)}"
                )
            changes[name] = _parse(name, text, kinds[name])
        if "epochs" in changes and "coarse_epochs" not in changes:  # in proportion
            changes["coarse_epochs"] = changes["epochs"] * self.coarse_epochs // self.epochs
        return dataclasses.replace(self, **changes)


RANGES = {  # the least and the most of every number
    "output_stride": (8, 32),
    "bins": (1, 1000),
    "channels": (2, 100_000),
    "dropout": (0, 0.99),
    "crop": (17, 100_000),
    "train_images": (1, 10**9),
    "val_images": (1, 10**9),
    "batch_size": (1, 100_000),
    "epochs": (1, 10**6),
    "coarse_epochs": (0, 10**6),
    "learning_rate": (1e-12, 1e6),
    "head_multiplier": (1e-6, 1e6),
    "momentum": (0, 0.9999),
    "decay": (0, 1),
    "aux_weight": (0, 1e6),
    "scales": (0.01, 100),
    "rotation": (0, 180),
    "blur_share": (0, 1),
    "color": (0, 0.99),
    "jaccard": (0, 1e6),
    "ohem_threshold": (1e-6, 1),
    "seed": (0, 2**31 - 1),
    "checkpoint_seconds": (0, 10**9),
}

INTEGERS = ("bins", "crop")


def _parse(name, text, kind):
    """A value of the kind that a field's annotation names: "int", "float | None", "tuple" ..."""
    kind, _, optional = kind.partition(" | ")
    if optional and text.lower() == "none":
        return None
    if kind == "str":
        return text
    try:
        value = {"true": True, "false": False}.get(text.lower())
        value = ast.literal_eval(text) if value is None else value
        if kind == "tuple":
            value = tuple(value) if isinstance(value, (tuple, list)) else (value,)
        elif kind == "float" and type(value) is int:
            value = float(value)
    except (ValueError, SyntaxError):
        value = None
    numbers = value if isinstance(value, tuple) else (value,)
    if type(value).__name__ != kind or any(type(n) not in (int, float, bool) for n in numbers):
        default = ",".join(map(str, getattr(Recipe, name))) if kind == "tuple" else ""
        example = default and f", as {name}={default}"
        raise UserError(f"--set {name}={text}: expected a value of type {kind}{example}")
    return value
