"""Make the network of a trained one for other classes, another size or output stride."""

import contextlib

import keras
import numpy as np

from keras_pspnet import private_api
from keras_pspnet.errors import UserError
from keras_pspnet.labels import LabelSet, as_labels
from keras_pspnet.network import backbones
from keras_pspnet.network.graph_copy import copy_without_weights
from keras_pspnet.network.main_head import check_ours, labels_of, main_network
from keras_pspnet.network.model import build_pspnet, check_classes_and_input

CLASSIFIERS = ("cls_4", "aux_4", "detail_cls")
"""The layers with one row of weights for each class."""

FLOAT32 = ("normalization", "cls_3", "aux_3", "main", "aux")
"""The layers that compute in float32 whatever the network's dtype policy is."""


def with_classes(
    model: keras.Model,
    labels: LabelSet | list | tuple,
    *,
    input_shape: tuple | None = None,
    output_stride: int | None = None,
    aux: bool | None = None,
    dtype: str | keras.DTypePolicy | None = None,
) -> keras.Model:
    """Build the network of a trained model for other classes, with its weights.

    The classifiers keep the rows of classes that have the same name in both; the rows of other
    classes start fresh. All other layers keep all of their weights, bit by bit. The given model
    stays as it is.

    A network on a named backbone is built anew. One on a keras.Model is copied layer by layer: its
    output stride stays, an auxiliary head can be left out but not be added, and its paddings stay
    those of the size it was built for.

    Args:
        model: A model of `build_pspnet`, trained, loaded or converted.
        labels: The new classes: a list of names or a LabelSet, at least 2.
        input_shape: (H, W, 3), H and W may be None; the model's own by default.
        output_stride: 8, 16 or 32; the model's own by default.
        aux: Whether to have an auxiliary head; as the model by default. One that the model has not
            starts fresh.
        dtype: Dtype policy of the network, as "mixed_bfloat16"; the model's own by default. What
            `build_pspnet` computes in float32 stays so.

    Returns:
        A model as of `build_pspnet`, not compiled. All of its layers are trainable.

    Raises:
        UserError: Not a model of `build_pspnet`, labels of another form, or a change that a network
            on a keras.Model cannot make.
        ValueError: `input_shape` or `output_stride` has another form, or fewer than 2 labels.
    """
    check_ours(model, "model")
    labels = as_labels(labels)
    has_aux = isinstance(model.output, dict)
    aux = has_aux if aux is None else aux
    input_shape = tuple(input_shape or model.input.shape[1:])
    check_classes_and_input(len(labels), input_shape)
    plan = model.get_layer("main").plan or {}
    policy = keras.dtype_policies.get(dtype or model.get_layer("cls_4").dtype_policy)
    if plan.get("backbone"):
        with dtype_policy(policy):
            new = _rebuilt(model, plan, labels, input_shape, output_stride, aux)
    else:
        # Files of earlier versions hold no plan.
        why = "stands on a keras.Model" if plan else "was saved by an earlier version"
        if output_stride not in (None, plan.get("output_stride")):
            raise UserError(
                f"output_stride={output_stride}: the network {why} and keeps its output stride, "
                f"{plan.get('output_stride', 'unknown')}; build another with build_pspnet"
            )
        if aux and not has_aux:
            raise UserError(
                f"aux=True: the network {why}, so its missing auxiliary head cannot be added; "
                "build another with build_pspnet"
            )
        old = model if aux or not has_aux else main_network(model)
        with dtype_policy(policy):
            new = _copied(old, labels, input_shape, policy)
    _copy_weights(model, new, labels_of(model))
    new.get_layer("main").source = model.get_layer("main").source
    return new


def _rebuilt(model, plan, labels, input_shape, output_stride, aux) -> keras.Model:
    """Build a network on a named backbone anew, with fresh weights."""
    plan = {**plan, "backbone": backbones.from_config(plan["backbone"])}
    plan["output_stride"] = output_stride or plan["output_stride"]
    # As layers: these two may be of any class.
    plan |= {"dropout": model.get_layer("cls_3"), "normalization": model.get_layer("normalization")}
    return build_pspnet(len(labels), input_shape=input_shape, aux=aux, labels=labels, **plan)


@contextlib.contextmanager
def dtype_policy(policy):
    """Make a dtype policy, or its name, Keras's own within the block."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _copied(model, labels, input_shape, policy) -> keras.Model:
    """Copy a network layer by layer, with fresh weights, for a dtype policy."""
    copies, before = {}, model.get_layer("cls_4").dtype_policy

    def call(layer, *args, **kwargs):
        if id(layer) not in copies:
            changes = {"filters": len(labels)} if layer.name in CLASSIFIERS else {}
            if policy != before == getattr(layer, "dtype_policy", None):
                changes |= {} if layer.name in FLOAT32 else {"dtype": policy}
            copies[id(layer)] = copy_without_weights(layer, changes)
        if copies[id(layer)] is None:
            raise UserError(f"model: its layer {layer.name!r} cannot be rebuilt from its config")
        try:
            return copies[id(layer)](*args, **kwargs)
        except Exception as error:  # a Reshape to one size, for instance
            size = "{}x{}".format(*input_shape)
            raise UserError(f"model: its layer {layer.name!r} takes no input of {size}") from error

    image = keras.Input(input_shape, name="image", dtype="float32")
    new = keras.Model(image, private_api.run_through_graph(model, [image], call), name="pspnet")
    new.get_layer("main").labels = labels
    for layer in new.layers:  # `new.trainable = True` does nothing: it is True already
        layer.trainable = True
    return new


def _copy_weights(old, new, old_labels: LabelSet) -> None:
    """Copy the weights of all layers by name; of the classifiers the rows of equal names."""
    before = {layer.name: layer for layer in old.layers}
    rows = [
        (row, old_labels.names.index(name))
        for row, name in enumerate(labels_of(new).names)
        if name in old_labels.names
    ]
    for layer in new.layers:
        fresh_head = layer.name.startswith("aux") and layer.name not in before
        if fresh_head or not layer.weights:
            continue
        values = before[layer.name].get_weights()
        if layer.name in CLASSIFIERS:
            fresh = [np.array(value) for value in layer.get_weights()]
            for value, trained in zip(fresh, values):
                for row, old_row in rows:
                    value[..., row] = trained[..., old_row]
            values = fresh
        layer.set_weights(values)
