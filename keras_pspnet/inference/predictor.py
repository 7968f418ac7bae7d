"""A model from any kind of file, as one callable."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from keras_pspnet.errors import UserError
from keras_pspnet.labels import LabelSet


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A network, whatever file it came from: uint8 (B, H, W, 3) -> array.

    Args:
        run: uint8 (B, H, W, 3) -> (B, H, W, C) float32 or (B, H, W) class ids.
        output: "logits", "probabilities" or "classes".
        labels: what the classes are called.
        size: (H, W) that the network takes; None for any.
        stride: with size None, the network's output stride.
        floats: it takes float32 pictures in 0..255 as well as uint8.
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
        """Whether labels fit.

        Raises:
            UserError: another number of labels than the network has classes.
        """
        if len(labels) != len(self.labels):
            raise UserError(
                f"the model has {len(self.labels)} classes, the labels are {len(labels)}; expected "
                "as many"
            )
