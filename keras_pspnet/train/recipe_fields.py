"""The settings of a training: field names, defaults, types and ranges."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import numbers
import typing

from keras_pspnet.errors import UserError

BACKBONES = "resnet50 resnet101 resnet152 resnet269 resnet14_narrow efficientnet_lite0 mobilenet_v2"
"""network.backbones.NAMES; importing them would import Keras."""

NETWORK_FIELDS = ["bins", "pooling", "reduce_channels", "channels", "dropout", "align_corners"]
"""The fields that say what the network is like behind its backbone."""

IN_WORDS = {"tuple[int, int]": "two whole numbers", "tuple[int, ...]": "whole numbers"}
IN_WORDS |= {"tuple[float, float]": "two numbers"}
"""Types of fields as messages call them."""


def _number(default, least, most):
    """Declare a field of one or more numbers from `least` to `most`."""
    return dataclasses.field(default=default, metadata={"range": (least, most)})


def _choice(*options):
    """Declare a field that takes one of `options`; the first is the default."""
    return dataclasses.field(default=options[0], metadata={"options": options})


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Every setting that decides what a training computes.

    The defaults are the authors' (paper section 5.1; semseg config/ade20k/ade20k_pspnet50.yaml)
    where they have one.

    Args:
        dataset: dataset name, see `datasets.open_source`.
        backbone, backbone_weights, output_stride, bins, pooling, reduce_channels, channels,
            dropout, align_corners: see `build_pspnet`. A backbone of None is that of the network
            that a training starts from, if it has no name.
        crop: (H, W) of training and validation pictures, in pixels.
        train_split, val_split: splits to train and to validate on.
        train_images, val_images: use the first so many pictures of the split; None uses all.
        batch_size: pictures that are computed at once, 2 or more where a pyramid branch of one
            region has a batch norm. A step takes `accumulate` times as many; an epoch leaves out an
            incomplete last step.
        accumulate: number of batches whose gradients add up to one step, see `accumulate.in_parts`.
            Memory is that of one batch, the step that of a batch so many times as large, up to
            batch norm, hard pixels (OHEM), Jaccard and Dice, which see each batch by itself.
        precision: "bfloat16" or "float16" computes most layers in half precision (Keras's policies
            mixed_bfloat16 and mixed_float16), float16 with a dynamic loss scale. Weights, means and
            variances of batch norm, the pyramid's pooling, dropout, logits and losses stay float32.
        epochs: passes over the training pictures.
        coarse_epochs: number of first epochs at twice the output stride. They take about a third
            of the time; the weights have the same shapes.
        freeze: "backbone" keeps the weights of the backbone, and the statistics of its batch norms,
            as they are; None trains all layers.
        learning_rate: initial rate; it decays to 0 per step with power 0.9 ("poly").
        head_multiplier: learning-rate factor of the layers outside the backbone.
        momentum: of SGD.
        decay: L2 weight decay, added to the gradient.
        aux_weight: weight of the auxiliary loss (paper table 2: 0.4 is best).
        resize_to_crop: True resizes each picture to `crop` before augmentation, as evaluation
            does; use it for pictures of many sizes. False takes pictures at their own size.
        scales, rotation, blur_share, color: augmentation, see `augment.Augmentation`.
        class_weights: True weighs classes by the square root of median frequency / frequency.
        jaccard, dice: weights of the soft Jaccard and the soft Dice loss in the main loss, see
            `losses.VoidCrossentropy`.
        focal: exponent of the focal loss in the main loss, see `losses.VoidCrossentropy`; 0 is the
            cross-entropy.
        ohem_threshold: OHEM threshold of the main loss, see `losses.VoidCrossentropy`; None
            turns OHEM off.
        seed: seed of initial weights, picture order, augmentation and dropout.
        checkpoint_seconds: write `last.keras` after the first step that ends this many seconds
            after the previous checkpoint.

    Raises:
        UserError: a value of another type, out of its range, or values that exclude each other.
    """

    dataset: str
    backbone: str | None = _choice(*BACKBONES.split(), None)
    backbone_weights: str | None = None
    output_stride: int = _choice(8, 16, 32)
    bins: tuple[int, ...] = _number((1, 2, 3, 6), 1, 1000)
    pooling: str = _choice("average", "max")
    reduce_channels: bool = True
    channels: int = _number(512, 2, 100_000)
    dropout: float = _number(0.1, 0, 0.99)
    align_corners: bool = True
    crop: tuple[int, int] = _number((473, 473), 17, 100_000)
    train_split: str = "train"
    val_split: str = "val"
    train_images: int | None = _number(None, 1, 10**9)
    val_images: int | None = _number(None, 1, 10**9)
    batch_size: int = _number(16, 1, 100_000)
    accumulate: int = _number(1, 1, 1000)
    precision: str = _choice("float32", "bfloat16", "float16")
    epochs: int = _number(100, 1, 10**6)
    coarse_epochs: int = _number(0, 0, 10**6)
    freeze: str | None = _choice(None, "backbone")
    learning_rate: float = _number(0.01, 1e-12, 1e6)
    head_multiplier: float = _number(10.0, 1e-6, 1e6)
    momentum: float = _number(0.9, 0, 0.9999)
    decay: float = _number(1e-4, 0, 1)
    aux_weight: float = _number(0.4, 0, 1e6)
    resize_to_crop: bool = False
    scales: tuple[float, float] = _number((0.5, 2.0), 0.01, 100)
    rotation: float = _number(10.0, 0, 180)
    blur_share: float = _number(0.5, 0, 1)
    color: float = _number(0.0, 0, 0.99)
    class_weights: bool = False
    jaccard: float = _number(0.0, 0, 1e6)
    dice: float = _number(0.0, 0, 1e6)
    focal: float = _number(0.0, 0, 100)
    ohem_threshold: float | None = _number(None, 1e-6, 1)
    seed: int = _number(0, 0, 2**31 - 1)
    checkpoint_seconds: float = _number(60.0, 0, 10**9)

    def __post_init__(self):
        types = typing.get_type_hints(Recipe)
        for field in dataclasses.fields(self):
            value = _checked(field, types[field.name], getattr(self, field.name))
            object.__setattr__(self, field.name, value)  # frozen
        if self.batch_size == 1 and 1 in self.bins and self.reduce_channels:
            raise UserError(
                "recipe: batch_size=1 gives the batch norm of the pyramid's bin of 1 a single "
                "value a channel; expected batch_size=2 or more, or bins without 1, as bins=2,3,6"
            )
        if self.coarse_epochs > self.epochs:
            raise UserError(
                f"recipe: coarse_epochs={self.coarse_epochs}; expected at most epochs={self.epochs}"
            )
        if self.coarse_epochs and self.output_stride == 32:
            raise UserError("recipe: coarse_epochs needs output_stride=8 or 16")
        if self.scales[0] > self.scales[1]:
            raise UserError(f"recipe: scales={self.scales}; expected the smaller one first")

    @property
    def step_size(self) -> int:
        """The number of pictures of a training step."""
        return self.batch_size * self.accumulate

    @property
    def dtype_policy(self) -> str:
        """The name of the Keras dtype policy of the network."""
        return "float32" if self.precision == "float32" else f"mixed_{self.precision}"

    def to_config(self) -> dict:
        """Return the fields as JSON values, as in recipe.json."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }

    def change(self, /, **changes) -> Recipe:
        """Return a copy with other values in some fields.

        If `epochs` changes and `coarse_epochs` is not given, the share of coarse epochs is kept.

        Raises:
            UserError: no such field, or a value that the field does not take.
        """
        names = [field.name for field in dataclasses.fields(self)]
        unknown = [name for name in changes if name not in names]
        if unknown:
            raise UserError(f"recipe: no field {unknown[0]!r}; expected one of {', '.join(names)}")
        if "epochs" in changes and "coarse_epochs" not in changes:
            epochs = dataclasses.replace(self, epochs=changes["epochs"], coarse_epochs=0).epochs
            changes["coarse_epochs"] = epochs * self.coarse_epochs // self.epochs
        return dataclasses.replace(self, **changes)


def parse_texts(texts: dict[str, str]) -> dict:
    """Convert field texts, as in `--set FIELD=VALUE`, to values for `Recipe.change`.

    "none", "true" and "false" may have any case; a text that is no Python literal stays text.
    """
    words, values = {"none": None, "true": True, "false": False}, {}
    for name, text in texts.items():
        values[name] = words.get(text.lower(), text)
        is_text = Recipe.__annotations__.get(name, "").startswith("str")
        if values[name] is text and not is_text:
            with contextlib.suppress(ValueError, SyntaxError):
                values[name] = ast.literal_eval(text)
    return values


def _checked(field, kind, value):
    """Return a field's value converted to its type; raise UserError if the field cannot take it."""
    options, limits = field.metadata.get("options"), field.metadata.get("range")
    try:
        typed = _converted(kind, value)
        items = typed if isinstance(typed, tuple) else () if typed is None else (typed,)
        if options and typed not in options:
            raise ValueError
        if limits and not all(limits[0] <= item <= limits[1] for item in items):
            raise ValueError
        return typed
    except (TypeError, ValueError, OverflowError) as error:
        words = IN_WORDS.get(field.type, field.type)
        expected = f"one of {', '.join(map(str, options))}" if options else words
        if limits:
            expected += f" from {limits[0]} to {limits[1]}"
        if isinstance(field.default, tuple):
            expected += f", as {','.join(map(str, field.default))}"
        raise UserError(f"recipe: {field.name}={value}; expected {expected}") from error


def _converted(kind, value):
    """Return a value as `kind`, an annotation of Recipe; raise TypeError if it is of another type.

    Lists pass as tuples, a single number as a tuple of one, whole numbers as floats.
    """
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        items = value if isinstance(value, (tuple, list)) else (value,)
        if arguments[1] is not Ellipsis and len(items) != len(arguments):
            raise TypeError
        return tuple(_converted(arguments[0], item) for item in items)
    if arguments:  # kind | None
        return None if value is None else _converted(arguments[0], value)
    accepted = {int: numbers.Integral, float: numbers.Real}.get(kind, kind)
    if not isinstance(value, accepted) or isinstance(value, bool) != (kind is bool):
        raise TypeError
    return kind(value)
