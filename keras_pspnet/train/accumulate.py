"""Compute each training step in parts of a batch, so that it takes the memory of one part."""

import functools
from operator import itemgetter

import keras
from keras import ops

from keras_pspnet.network import replicas


def in_parts(model: keras.Model, parts: int) -> None:
    """Make `model.fit` compute each step in `parts` equal parts and update the weights once.

    The gradient is that of the whole batch: each part's loss is multiplied by the part's share of
    the weights that the batch's loss divides by (`VoidCrossentropy.counted`), separately for each
    output. So the cross-entropy and the focal loss are exact, with class weights and void too. Hard
    pixels (OHEM), Jaccard and Dice are those of each part; the last two are averaged by the same
    shares. Batch norm normalizes each part by itself, and each part moves its statistics.

    Optimizer, loss scale, callbacks and step numbers see whole batches. Keras's own
    `gradient_accumulation_steps` averages the parts evenly, fails under
    `tf.distribute.MirroredStrategy`, and under `LossScaleOptimizer` mixes the parts of two batches
    after a part that overflows.

    Args:
        model: compiled with a VoidCrossentropy for each output, by name. It keeps this way to train
            until it is saved and loaded.
        parts: divides the number of pictures of each batch; 1 changes nothing.
    """
    if parts > 1:
        step = {"tensorflow": _tensorflow_step, "jax": _jax_step}[keras.backend.backend()]
        # On the instance: .keras files would hold the name of a subclass.
        model.train_step = functools.partial(step, model, parts)


def _parts(model, parts, data):
    """Return the (x, y, sample weights) of each part of a batch."""
    x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
    shares = {}
    for name, masks in y.items():
        counted = ops.sum(ops.reshape(model.loss[name].counted(masks), (-1, parts)), axis=0)
        (counted,) = replicas.add([counted])  # as the losses: over all devices
        shares[name] = parts * ops.divide_no_nan(counted, ops.sum(counted))
    batches = []
    for part in range(parts):
        # Every `parts`-th picture, so that each device holds equally many of a part.
        xs, ys = keras.tree.map_structure(itemgetter(slice(part, None, parts)), (x, y))
        ones = ops.ones((ops.shape(xs)[0], 1, 1), "float32")
        batches.append((xs, ys, {name: share[part] * ones for name, share in shares.items()}))
    return batches


def _logs(model, loss, x, y, y_pred, weights) -> dict:
    """Update the metrics with a part and return their values."""
    tracker = next(metric for metric in model.metrics if metric.name == "loss")
    tracker.update_state(loss, sample_weight=ops.shape(x)[0])
    return model.compute_metrics(x, y, y_pred, weights)


def _tensorflow_step(model, parts, data):
    """Train on one batch; as `keras.Model.train_step` on TensorFlow."""
    import tensorflow as tf

    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    gradients = None
    for x, y, weights in _parts(model, parts, data):
        with tf.control_dependencies(gradients or []):  # one part after the other, for the memory
            x = tf.identity(x)
        with tf.GradientTape() as tape:
            y_pred = model(x, training=True)
            loss = model.compute_loss(x, y, y_pred, weights, training=True)
            scaled = model.optimizer.scale_loss(loss / parts)
        new = tape.gradient(scaled, model.trainable_weights)
        gradients = new if gradients is None else [a + b for a, b in zip(gradients, new)]
        logs = _logs(model, loss * replicas, x, y, y_pred, weights)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_weights))
    return logs


def _jax_step(model, parts, state, data):
    """Train on one batch; as `keras.Model.train_step` on JAX."""
    import jax

    trainable, others, optimizer, metrics = state
    gradient = jax.value_and_grad(model.compute_loss_and_updates, has_aux=True)
    gradients = None
    for x, y, weights in _parts(model, parts, data):
        if gradients is not None:  # one part after the other, for the memory
            x, gradients = jax.lax.optimization_barrier((x, gradients))
        (_, (loss, y_pred, others, metrics)), new = gradient(
            trainable,
            others,
            metrics,
            x,
            y,
            weights,
            training=True,
            optimizer_variables=optimizer,
        )
        gradients = new if gradients is None else [a + b for a, b in zip(gradients, new)]
        values = list(zip(model.metrics_variables, metrics))
        with keras.StatelessScope(state_mapping=values) as scope:
            logs = _logs(model, loss, x, y, y_pred, weights)
        metrics = [scope.get_current_value(variable) for variable in model.metrics_variables]
    gradients = [value / parts for value in gradients]
    trainable, optimizer = model.optimizer.stateless_apply(optimizer, gradients, trainable)
    return logs, (trainable, others, optimizer, metrics)
