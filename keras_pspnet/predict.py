"""From a picture of any size to its class ids, around any network."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

import numpy as np
from PIL import Image

from keras_pspnet.files import UserError, read_image
from keras_pspnet.labels import LabelSet

MEAN = (124, 116, 104)
"""RGB that pads pictures: the ImageNet mean of augment.MEAN, rounded to a pixel."""


@dataclasses.dataclass(frozen=True)
class Network:
    """A network, whatever file it came from: uint8 (B, H, W, 3) -> array.

    Args:
        run: uint8 (B, H, W, 3) -> (B, H, W, C) float32 or (B, H, W) class ids.
        output: "logits", "probabilities" or "classes".
        labels: what the classes are called.
        size: (H, W) that the network takes; None for any.
        stride: with size None, the network's output stride.
    """

    run: Callable[[np.ndarray], np.ndarray]
    output: str
    labels: LabelSet
    size: tuple[int, int] | None = None
    stride: int = 8

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


def segment(network: Network, image: np.ndarray) -> np.ndarray:
    """The class ids of one picture, at its own size.

    The picture is resized to the network's size and the probabilities back to the picture's; a
    network of any size takes the picture as it is, padded to n * stride + 1.

    Args:
        image: (H, W, 3) uint8 RGB.

    Returns:
        (H, W) class ids, uint8, or int32 beyond 256 classes.
    """
    height, width = image.shape[:2]
    if network.size is None:
        result = network(pad_to_stride(image, network.stride)[None])[0, :height, :width]
    else:
        result = network(resize_image(image, network.size)[None])[0]
    dtype = np.uint8 if len(network.labels) <= 256 else np.int32
    if network.output == "classes":
        return resize_nearest(result, (height, width)).astype(dtype)
    if result.shape[:2] != (height, width):
        scores = softmax(result) if network.output == "logits" else result
        result = resize_scores(scores, (height, width))
    return result.argmax(-1).astype(dtype)


def as_picture(image) -> np.ndarray:
    """A picture as uint8 RGB (H, W, 3), from a path or from an array of numbers in 0..255.

    Raises:
        UserError: a path that is no readable picture, an array of another shape.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(image)
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
        raise UserError(f"the picture has shape {image.shape}; expected (H, W, 3) RGB in 0..255")
    if image.dtype != np.uint8:
        image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return image


def pad_to_stride(image, stride):
    """Pads a picture at the bottom and the right with the mean, to n * stride + 1 each way."""
    rows, columns = (-(side - 1) % stride for side in image.shape[:2])
    padded = np.empty((image.shape[0] + rows, image.shape[1] + columns, 3), np.uint8)
    padded[:] = MEAN
    padded[: image.shape[0], : image.shape[1]] = image
    return padded


def resize_image(image, size):
    """A uint8 picture resized to (H, W), bilinear, antialiased where it shrinks."""
    if image.shape[:2] == tuple(size):
        return image
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


def resize_nearest(classes, size):
    """Class ids resized to (H, W) without inventing any."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, classes.shape)
    )
    return classes[rows[:, None], columns]


def resize_scores(scores, size):
    """(h, w, C) float scores resized to (H, W, C): bilinear, half-pixel, as cv2.INTER_LINEAR."""
    for axis, new in enumerate(size):
        old = scores.shape[axis]
        source = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(source).astype(int)
        high = np.minimum(low + 1, old - 1)
        shape = [1, 1, 1]
        shape[axis] = new
        share = (source - low).astype(scores.dtype).reshape(shape)
        scores = scores.take(low, axis) * (1 - share) + scores.take(high, axis) * share
    return scores


def softmax(logits):
    """Probabilities along the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)
