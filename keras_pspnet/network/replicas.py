"""Add and gather numbers of a step over the replicas of a `tf.distribute` strategy.

Under a strategy each replica computes its own part of the batch. What counts over the whole batch,
as the number of valid pixels or the statistics of a batch norm, is added here. With JAX a step is
one program over all devices, whose sums count the whole batch by themselves.
"""

import keras
from keras import ops


def count() -> int:
    """Return the number of replicas that compute this step together; 1 outside such a step."""
    context = _context()
    return context.num_replicas_in_sync if context else 1


def add(tensors: list) -> list:
    """Return the sums of float tensors over the replicas; their gradients are added likewise."""
    context = _context()
    return context.all_reduce("SUM", tensors) if context else tensors


def gather(values):
    """Return the values (N,) of all replicas, one after the other; N may differ between them."""
    context = _context()
    return context.all_gather(values, axis=0) if context else values


def share(tensor):
    """Return the part of the batch that this replica holds, of the values of a tensor, 0..1."""
    own = ops.cast(ops.size(tensor), "float32")
    (whole,) = add([own])
    return ops.divide_no_nan(own, whole)


def parts(variable) -> list:
    """Return what the replicas hold of a metric's variable, whose value is their sum.

    Outside of a strategy's scope that is the variable itself.
    """
    if keras.backend.backend() != "tensorflow":
        return [variable]
    import tensorflow as tf

    return list(tf.distribute.get_strategy().experimental_local_results(variable.value))


def _context():
    """Return TensorFlow's context of one of several replicas, or None."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context()  # None while Keras builds a model
    return context if context is not None and context.num_replicas_in_sync > 1 else None
