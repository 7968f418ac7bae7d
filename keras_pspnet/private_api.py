"""Private interfaces of Keras, TensorFlow, JAX and LiteRT that this package uses, all in one place.

None of them is promised to stay. `tests/test_private_api.py` fails when one changes; the upper
bounds of keras and tensorflow in pyproject.toml are the versions for which it passes.
"""


def run_through_graph(model, inputs, call_fn):
    """Call every operation of a functional model anew, in order, through `call_fn`.

    Args:
        model: a functional keras.Model.
        inputs: a list of tensors that take the place of the model's inputs.
        call_fn: (operation, *args, **kwargs) -> outputs.

    Returns:
        The new outputs, in the structure of the model's.
    """
    # keras.models.clone_model is made of it, but starts nested models anew.
    return model._run_through_graph(inputs, operation_fn=lambda op: op, call_fn=call_fn)


def inner_layers(layer) -> list:
    """Return all layers inside a layer, at any depth, without the layer itself."""
    return list(layer._flatten_layers(include_self=False))


def inbound_nodes(operation) -> list:
    """Return the nodes of a Keras graph at which an operation was called."""
    return operation._inbound_nodes


def variable_index(optimizer, variable) -> int:
    """Return the position of a variable among those that an optimizer was built for."""
    return optimizer._get_variable_index(variable)


def moving_averages(optimizer) -> list:
    """Return the moving averages that an optimizer with `use_ema` keeps, one for each variable."""
    # A LossScaleOptimizer keeps none; the one inside does.
    return getattr(optimizer, "inner_optimizer", optimizer)._model_variables_moving_average


def coordinator() -> str:
    """Return HOST:PORT of process 0, as `jax.distributed.initialize` was given or found it."""
    from jax._src import distributed

    return distributed.global_state.coordinator_address


def operator_details(interpreter) -> list[dict]:
    """Return the operators of a LiteRT interpreter: `index`, `op_name`, `inputs`, `outputs`."""
    return interpreter._get_ops_details()


def frozen(function):
    """Return a concrete tf.function with its variables as constants."""
    from tensorflow.python.framework import convert_to_constants

    return convert_to_constants.convert_variables_to_constants_v2(function)
