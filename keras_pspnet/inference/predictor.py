"""Wrap a model of any file format as a function."""

import dataclasses
from collections.abc import Callable

import numpy as np

from keras_pspnet.errors import UserError
from keras_pspnet.labels import LabelSet


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A model of any file format: maps uint8 pictures (B, H, W, 3) to class ids or scores.

    Args:
        run: maps uint8 (B, H, W, 3) to float32 scores (B, H, W, C) or class ids (B, H, W).
        output: what `run` returns: "logits", "probabilities" or "classes".
        labels: the classes.
        size: (H, W) of the pictures that `run` takes; None for any size.
        stride: the network's output stride, used where `size` is None.
        floats: True if `run` also takes float32 pictures in 0..255.
    """

    run: Callable[[np.ndarray], np.ndarray]
    output: str
    labels: LabelSet
    size: tuple[int, int] | None = None
    stride: int = 8
    floats: bool = False

    def __call__(self, images) -> np.ndarray:
        return self.run(np.asarray(images))

    def check_labels(self, labels: LabelSet) -> None:
        """Check that the model has as many classes as there are labels.

        Raises:
            UserError: the numbers differ.
        """
        if len(labels) != len(self.labels):
            raise UserError(
                f"the model has {len(self.labels)} classes, the labels are {len(labels)}; expected "
                "the same number"
            )
