"""The settings of a training: field names, defaults, types and ranges."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import numbers
import re
import typing

from keras_pspnet.errors import UserError

BACKBONES = "resnet50 resnet101 resnet152 resnet269 resnet14_narrow"
BACKBONES += " efficientnet_lite0 efficientnet_lite2 mobilenet_v2"
"""network.backbones.NAMES; importing them would import Keras."""

NETWORK_FIELDS = ["bins", "pooling", "reduce_channels", "channels", "detail", "dropout"]
NETWORK_FIELDS += ["align_corners"]
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


MAX_SIDE, MAX_PIXELS = 8192, 4096 * 4096
"""Largest side and number of pixels of a crop. Resizing multiplies by a (side, side) matrix."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Every setting that decides what a training computes.

    The defaults are the authors' (paper section 5.1; semseg config/ade20k/ade20k_pspnet50.yaml)
    where they have one. `keras-pspnet train --help` prints these meanings, see `field_table`; the
    page docs/training.md repeats them.

    Args:
        dataset: name of the dataset.
        backbone: name of the backbone; none is that of the network that a training starts from, if
            it has no name.
        backbone_weights: imagenet, or the path of a weight file.
        output_stride: how many times smaller the last feature map is than the picture.
        bins: grid sizes of the pyramid.
        pooling: how the pyramid pools.
        reduce_channels: true puts a 1x1 convolution into each branch of the pyramid.
        channels: width of the main head.
        detail: width of a branch at stride 4 for thin objects, which the paper has not; 0 builds
            none.
        dropout: share of the feature maps dropped before each classifier.
        align_corners: true upsamples with the corner pixels aligned, as the authors do.
        crop: height and width of the training and validation pictures, in pixels.
        train_split: split to train on.
        val_split: split to validate on.
        train_images: number of training pictures to use, from the first on; none uses all.
        val_images: number of validation pictures to use, from the first on; none uses all.
        batch_size: number of pictures in a batch, at least 2 if bins contains 1; an epoch leaves
            out an incomplete last step.
        accumulate: number of batches whose gradients make one step, for less memory.
        precision: what most layers compute in; weights, batch statistics and losses stay float32.
        epochs: how often each training picture is seen.
        least_steps: minimum number of steps of a training; with few pictures epochs are added,
            coarse ones in proportion.
        patience: number of epochs without a better score on the validation pictures after which the
            training ends, as Keras's EarlyStopping; coarse epochs do not count. none ends no
            training early.
        coarse_epochs: number of first epochs at twice the output stride. They take about a third
            of the time; the weights have the same shapes.
        freeze: backbone keeps the weights of the backbone, and the statistics of its batch norms,
            as they are; none trains all layers.
        learning_rate: rate of the first step; it falls to 0 step by step with power 0.9 ("poly").
        head_multiplier: factor of the learning rate outside the backbone.
        momentum: momentum of SGD.
        decay: L2 weight decay, added to the gradient.
        ema: momentum of the moving average of the weights (Keras's ema_momentum) that is scored
            after each epoch and kept in best.keras; 0 keeps none.
        norm_batches: number of training batches from which batch norm's statistics are computed
            anew for what is scored; 0 takes the moving averages.
        aux_weight: weight of the auxiliary loss (paper, table 2: 0.4 is best).
        resize_to_crop: true resizes each picture to the crop before augmentation, as evaluation
            does, for pictures of many sizes; false takes pictures at their own size.
        scales: least and greatest resizing factor of the augmentation.
        rotation: greatest angle of the augmentation, in degrees.
        blur_share: probability of a blur in the augmentation.
        color: greatest change of brightness, contrast and saturation in the augmentation.
        copy_paste: probability of pasting the objects of rare classes in another training picture.
        class_weights: true weighs classes by the square root of median frequency / frequency.
        jaccard: weight of the soft Jaccard loss in the main loss.
        dice: weight of the soft Dice loss in the main loss.
        focal: exponent of the focal loss in the main loss: pixels that are predicted well count
            less; 0 is the cross-entropy, 2 is usual.
        ohem_threshold: OHEM: the main loss counts only pixels whose true class has a predicted
            probability below it; none counts all.
        seed: seed of the first weights, the order of the pictures, augmentation and dropout.
        checkpoint_seconds: minimum time between two writings of last.keras, in seconds.

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
    detail: int = _number(0, 0, 100_000)
    dropout: float = _number(0.1, 0, 0.99)
    align_corners: bool = True
    crop: tuple[int, int] = _number((473, 473), 17, MAX_SIDE)
    train_split: str = "train"
    val_split: str = "val"
    train_images: int | None = _number(None, 1, 10**9)
    val_images: int | None = _number(None, 1, 10**9)
    batch_size: int = _number(16, 1, 100_000)
    accumulate: int = _number(1, 1, 1000)
    precision: str = _choice("float32", "bfloat16", "float16")
    epochs: int = _number(100, 1, 10**6)
    least_steps: int = _number(0, 0, 10**9)
    patience: int | None = _number(None, 1, 10**6)
    coarse_epochs: int = _number(0, 0, 10**6)
    freeze: str | None = _choice(None, "backbone")
    learning_rate: float = _number(0.01, 1e-12, 1e6)
    head_multiplier: float = _number(10.0, 1e-6, 1e6)
    momentum: float = _number(0.9, 0, 0.9999)
    decay: float = _number(1e-4, 0, 1)
    ema: float = _number(0.0, 0, 0.999999)
    norm_batches: int = _number(0, 0, 10**6)
    aux_weight: float = _number(0.4, 0, 1e6)
    resize_to_crop: bool = False
    scales: tuple[float, float] = _number((0.5, 2.0), 0.01, 100)
    rotation: float = _number(10.0, 0, 180)
    blur_share: float = _number(0.5, 0, 1)
    color: float = _number(0.0, 0, 0.99)
    copy_paste: float = _number(0.0, 0, 1)
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
        if self.crop[0] * self.crop[1] > MAX_PIXELS:
            raise UserError(
                f"recipe: crop={self.crop} has more than {MAX_PIXELS} pixels; crops of 473x473 or "
                "713x713 are usual"
            )
        if self.coarse_epochs > self.epochs:
            raise UserError(
                f"recipe: coarse_epochs={self.coarse_epochs}; expected at most epochs={self.epochs}"
            )
        if self.coarse_epochs and self.output_stride == 32:
            raise UserError("recipe: coarse_epochs needs output_stride=8 or 16")
        if self.ema and not self.norm_batches:
            raise UserError(
                f"recipe: ema={self.ema} needs norm_batches, as 16: batch norm's moving statistics "
                "are not those of averaged weights"
            )
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

    def lengths(self, train_images: int) -> tuple[int, int]:
        """Return the number of epochs, and of the coarse ones among them, for so many pictures."""
        steps = max(train_images // self.step_size, 1)
        epochs = max(self.epochs, -(-self.least_steps // steps))
        return epochs, epochs * self.coarse_epochs // self.epochs

    def to_config(self) -> dict:
        """Return the fields as JSON values, as in recipe.json."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }

    def change(self, /, **changes) -> Recipe:
        """Return a copy with other values in some fields.

        If `epochs` changes, the share of coarse epochs is kept unless `coarse_epochs` is given, and
        so many epochs it is, however few the pictures, unless `least_steps` is given.

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
        if "epochs" in changes:
            changes.setdefault("least_steps", 0)
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


def field_table() -> list[tuple[str, str, str, str]]:
    """Return name, default, meaning and range of each field as texts, for `train --help`.

    Defaults are spelt as `--set` takes them. The default of `dataset` is empty, and so is the range
    of a field that takes any value of its type. Meanings are those of the docstring of `Recipe`;
    they are empty under `python -OO`, which drops docstrings.
    """
    entries = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", inspect.getdoc(Recipe), flags=re.M)
    meanings = {name: " ".join(text.split()).removesuffix(".") for name, text in entries}
    return [
        (
            field.name,
            "" if field.default is dataclasses.MISSING else _spelt(field.default),
            meanings.get(field.name, ""),
            _expected(field).replace(" | None", " or none").replace("None", "none")
            if field.metadata
            else "",
        )
        for field in dataclasses.fields(Recipe)
    ]


def _spelt(value) -> str:
    """Return a value as `--set` takes it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _expected(field) -> str:
    """Return what a field takes, as "one of 8, 16, 32" or "float from 0 to 1"."""
    if "options" in field.metadata:
        return f"one of {', '.join(map(str, field.metadata['options']))}"
    words = IN_WORDS.get(field.type, field.type)
    return "{} from {} to {}".format(words, *field.metadata["range"]) if field.metadata else words


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
        expected = _expected(field)
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
