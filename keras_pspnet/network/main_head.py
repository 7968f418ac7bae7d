"""Read and change what a finished model holds at its main head: labels, output stride."""

from pathlib import Path

import keras

from keras_pspnet.errors import UserError
from keras_pspnet.labels import LabelSet
from keras_pspnet.network.layers import Upsample


def labels_of(model: keras.Model) -> LabelSet:
    """Return the LabelSet of a model, or class_0, class_1, ... if it has none."""
    main = model.get_layer("main")
    return main.labels or LabelSet.numbered(main.output.shape[-1])


def set_labels(model: keras.Model, labels: LabelSet) -> None:
    """Store a LabelSet in a model; saving, cloning and exporting keep it.

    Raises:
        ValueError: The number of labels is not the model's number of classes.
    """
    main = model.get_layer("main")
    if len(labels) != main.output.shape[-1]:
        raise ValueError(f"{len(labels)} labels for {main.output.shape[-1]} classes")
    main.labels = labels


def main_network(model: keras.Model) -> keras.Model:
    """Return the network without its auxiliary head; both share their weights."""
    return keras.Model(model.input, model.get_layer("main").output, name="pspnet")


def output_stride_of(model: keras.Model) -> int:
    """Return the input pixels per step of the main head's feature map.

    Args:
        model: A network whose H or W is None.
    """
    scores = keras.Model(model.input, model.get_layer("cls_4").output)
    axis = 1 + model.input.shape[1:3].index(None)
    # From the difference of two sizes: constant paddings of a backbone cancel out.
    sides = (1025, 2049)
    steps = [
        scores.compute_output_shape((1, *(n or side for n in model.input.shape[1:3]), 3))[axis]
        for side in sides
    ]
    return (sides[1] - sides[0]) // (steps[1] - steps[0])


def check_ours(model, name) -> None:
    """Check that a model was made by `build_pspnet`.

    Args:
        model: Any object.
        name: Name or path for the error message.

    Raises:
        UserError: It was not.
    """
    layers = {layer.name: layer for layer in getattr(model, "layers", ())}
    if not isinstance(layers.get("main"), Upsample):
        is_path = isinstance(model, (str, Path))
        hint = f"; load it with keras_pspnet.load_model({str(model)!r})" * is_path
        raise UserError(f"{name}: a {type(model).__name__}, not a model of build_pspnet{hint}")
