"""Build and compile the network of a recipe."""

import keras
import tensorflow as tf
from keras import ops

from keras_pspnet.labels import IGNORE, LabelSet
from keras_pspnet.network import losses
from keras_pspnet.network.main_head import labels_of
from keras_pspnet.network.model import HEADS, build_pspnet
from keras_pspnet.network.optimizer import PSPNetSGD
from keras_pspnet.network.transfer import dtype_policy, with_classes
from keras_pspnet.train.recipe_fields import NETWORK_FIELDS, Recipe


def build_network(recipe: Recipe, labels: LabelSet, coarse=False, start=None) -> keras.Model:
    """Build the network of a recipe.

    Args:
        coarse: True doubles the output stride.
        start: a trained keras.Model whose network and weights it takes; None for none.
    """
    size = {"input_shape": (*recipe.crop, 3)}
    size["output_stride"] = recipe.output_stride * (2 if coarse else 1)
    if start is not None:
        model = with_classes(start, labels, aux=True, dtype=recipe.dtype_policy, **size)
    else:
        names = ("backbone", "backbone_weights", *NETWORK_FIELDS)
        fields = {name: getattr(recipe, name) for name in names}
        with dtype_policy(recipe.dtype_policy):
            model = build_pspnet(len(labels), labels=labels, **size, **fields)
    _freeze(model, recipe)
    return model


def _freeze(model, recipe: Recipe) -> None:
    """Freeze what the recipe says; it must come before `compile`."""
    if recipe.freeze == "backbone":
        for layer in model.layers:
            if layer.weights and not layer.name.startswith(HEADS):
                layer.trainable = False


def at_full_resolution(coarse: keras.Model, recipe: Recipe) -> keras.Model:
    """Rebuild a coarse network at the recipe's output stride.

    Copies weights, optimizer state and compile settings.
    """
    model = with_classes(coarse, labels_of(coarse), output_stride=recipe.output_stride)
    _freeze(model, recipe)
    model.compile_from_config(coarse.get_compile_config())
    _make_metrics(model)
    for new, old in ((model, coarse), (model.optimizer, coarse.optimizer)):
        for variable, value in zip(new.variables, old.variables, strict=True):
            variable.assign(value)
    return model


def build(
    recipe: Recipe, labels: LabelSet, pixels, steps: int, coarse: bool = False, start=None
) -> keras.Model:
    """Build the network of a recipe and compile it with its losses, optimizer and metric.

    Args:
        pixels: number of training pixels of each class, for class weights.
        steps: number of steps of the whole training, for the poly schedule.
        coarse, start: see `build_network`.
    """
    model = build_network(recipe, labels, coarse, start)
    weights = losses.class_weights(pixels) if recipe.class_weights else None
    main = losses.VoidCrossentropy(
        class_weights=weights,
        ohem_threshold=recipe.ohem_threshold,
        jaccard=recipe.jaccard,
        dice=recipe.dice,
        focal=recipe.focal,
    )
    aux = losses.VoidCrossentropy(class_weights=weights)
    # Paper section 5.1: base rate * (1 - step / steps) ** 0.9.
    rate = keras.optimizers.schedules.PolynomialDecay(recipe.learning_rate, steps, 0.0, 0.9)
    metric = keras.metrics.MeanIoU(
        len(labels), name="mIoU", ignore_class=IGNORE, sparse_y_pred=False
    )
    settings = {"use_ema": True, "ema_momentum": recipe.ema} if recipe.ema else {}
    optimizer = PSPNetSGD(rate, recipe.momentum, recipe.decay, recipe.head_multiplier, **settings)
    if recipe.precision == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale")
    model.compile(
        optimizer,
        loss={"aux": aux, "main": main},
        loss_weights={"aux": recipe.aux_weight, "main": 1.0},
        metrics={"main": metric},
    )
    # Keras builds it in the first step. A loss scale is then a constant in the compiled step, while
    # the gradients are divided by its variable.
    optimizer.build(model.trainable_variables)
    _make_metrics(model)
    return model


def _make_metrics(model) -> None:
    """Make the variables of the losses and metrics of a compiled model."""
    # Keras makes them in the first step, which TensorFlow then traces a second time. With several
    # devices and on JAX Keras makes them before.
    if keras.backend.backend() != "tensorflow" or tf.distribute.has_strategy():
        return
    scores = {name: ops.zeros((1, 1, 1, x.shape[-1])) for name, x in model.output.items()}
    masks = {name: ops.zeros((1, 1, 1), "uint8") for name in scores}
    model.compute_loss(None, masks, scores)
    model.compute_metrics(None, masks, scores)
    model.reset_metrics()
