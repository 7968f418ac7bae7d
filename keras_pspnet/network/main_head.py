"""What a finished model carries at its main head: labels, output stride."""

from __future__ import annotations

import keras

from keras_pspnet.errors import UserError
from keras_pspnet.labels import LabelSet


def labels_of(model: keras.Model) -> LabelSet:
    """The LabelSet that a model carries in its layer `main`, or class_0, class_1, ..."""
    main = model.get_layer("main")
    return main.labels or LabelSet.numbered(main.output.shape[-1])


def set_labels(model: keras.Model, labels: LabelSet) -> None:
    """Lets a model carry a LabelSet, through saving, cloning and export.

    Raises:
        ValueError: another number of labels than the model has classes.
    """
    main = model.get_layer("main")
    if len(labels) != main.output.shape[-1]:
        raise ValueError(f"{len(labels)} labels for {main.output.shape[-1]} classes")
    main.labels = labels


def main_network(model: keras.Model) -> keras.Model:
    """The same network, with the same weights, without the auxiliary head."""
    return keras.Model(model.input, model.get_layer("main").output, name="pspnet")


def output_stride_of(model: keras.Model) -> int:
    """Input pixels for each step of the main head's map, of a model that takes any H and W."""
    scores = keras.Model(model.input, model.get_layer("cls_4").output)
    axis = 1 + model.input.shape[1:3].index(None)
    # By the growth: what a backbone's paddings add or leave out is the same at both sizes.
    sides = (1025, 2049)
    steps = [
        scores.compute_output_shape((1, *(n or side for n in model.input.shape[1:3]), 3))[axis]
        for side in sides
    ]
    return (sides[1] - sides[0]) // (steps[1] - steps[0])


def check_ours(model, name) -> None:
    """Whether a model is one of `build_pspnet`.

    Raises:
        UserError: it is not.
    """
    from keras_pspnet.network.layers import Upsample

    layers = {layer.name: layer for layer in getattr(model, "layers", ())}
    if not isinstance(layers.get("main"), Upsample):
        raise UserError(f"{name}: {type(model).__name__}, but not one of build_pspnet")
