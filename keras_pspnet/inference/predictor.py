"""Wrap a model of any file format as a function."""

import dataclasses
import threading
from collections.abc import Callable

import numpy as np

from keras_pspnet.errors import UserError
from keras_pspnet.labels import LabelSet

PIXEL_BYTES = 600
"""Memory that a PSPNet-50 needs for each pixel of a picture."""


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A model of any file format: maps uint8 pictures (B, H, W, 3) to class ids or scores.

    Args:
        run: maps uint8 (B, H, W, 3) to float32 scores (B, H, W, C) or class ids (B, H, W), a new
            array, which may be changed.
        output: what `run` returns: "logits", "probabilities" or "classes".
        labels: the classes.
        size: (H, W) of the pictures that `run` takes; None for any size.
        stride: the network's output stride, used where `size` is None.
        floats: True if `run` also takes float32 pictures in 0..255.
        turn: held while `run` runs. Several threads may call one Predictor, which serves them one
            after the other: a LiteRT interpreter keeps its tensors between calls, and the memory
            stays that of one call, however many threads wait. `run` itself uses several cores.
    """

    run: Callable[[np.ndarray], np.ndarray]
    output: str
    labels: LabelSet
    size: tuple[int, int] | None = None
    stride: int = 8
    floats: bool = False
    turn: threading.Lock = dataclasses.field(
        default_factory=threading.Lock, repr=False, compare=False
    )

    def __call__(self, images) -> np.ndarray:
        with self.turn:
            return self.run(np.asarray(images))

    def with_labels(self, labels: LabelSet) -> "Predictor":
        """Return the same model with other names for its classes.

        Raises:
            UserError: another number of labels than the model has classes.
        """
        check_number(self.labels, labels)
        return dataclasses.replace(self, labels=labels)


def check_classes(model: LabelSet, data: LabelSet, named: bool = True) -> None:
    """Check that the classes of a model and of a dataset have the same names in the same order.

    Args:
        model: the model's classes. Without names (class_0, class_1, ...) their number alone counts.
        data: the classes of the dataset.
        named: False if nobody has named them; then their number alone counts.

    Raises:
        UserError: they differ; the message shows the first difference.
    """
    check_number(model, data)
    if not named or LabelSet.numbered(len(model)).names in (model.names, data.names):
        return
    for number, (ours, theirs) in enumerate(zip(model.names, data.names)):
        if ours != theirs:
            order = ", the same names in another order" * (set(model.names) == set(data.names))
            raise UserError(
                f"class {number} is {ours!r} in the model and {theirs!r} in the dataset{order}; "
                "if the model's names are wrong, --labels NAME|FILE says what they are"
            )


def check_number(model: LabelSet, labels: LabelSet) -> None:
    """Check that there are as many labels as the model has classes.

    Raises:
        UserError: the numbers differ; the message names the first class that one has alone.
    """
    if len(labels) == len(model):
        return
    more, fewer, where = model, labels, "the model"
    if len(labels) > len(model):
        more, fewer, where = labels, model, "the labels"
    first, first_is = next(name for name in more.names if name not in fewer.names), ""
    unnamed = {all(name.startswith("class_") for name in one.names) for one in (model, labels)}
    if len(unnamed) == 1:  # numbers say nothing beside names
        first_is = f" ({first!r} is in {where} alone)"
    raise UserError(
        f"the model has {len(model)} classes, the labels are {len(labels)}{first_is}; expected the "
        "same number"
    )
