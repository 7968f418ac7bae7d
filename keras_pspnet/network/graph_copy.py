"""Copy a functional model layer by layer, so that each layer can be changed on the way."""

import inspect

import keras
import numpy as np
from keras import layers

from keras_pspnet import private_api

MIDDLE = 8
"""Row and column of the pixel of a 16x16 map that `mixes_neighbours` changes."""


class GraphCopy:
    """Copy the graph of a functional model onto new tensors, with the weights.

    Nested models, and composite layers (made of Keras layers), are expanded into the layers inside
    them. A subclass implements `convert(op, args, kwargs)`, which is called for each layer and
    operation and returns its new outputs, usually those of `emit`.

    Args:
        reserved: Prefixes that layer names of the copy must not have.
    """

    def __init__(self, reserved):
        # TensorFlow's scopes, and so SavedModels, accept no name that begins with "_".
        self.reserved = (*reserved, "_")
        self.maps = {}  # id of a new tensor (B, H, W, C) -> what a subclass knows of it
        self.steps = []  # (old op, new inputs, new outputs); keeps the tensors alive and ids valid
        self.copies = {}  # id of an old layer -> (changes of its config, new layer)
        self.names, self.prefixes = set(), []

    def copy_model(self, model, inputs):
        """Return the outputs of a copy of a functional model, called on new tensors."""
        if isinstance(model, keras.Sequential):
            model = keras.Model(model.inputs, model.outputs)
        return private_api.run_through_graph(model, inputs, self.visit)

    def visit(self, op, *args, **kwargs):
        """Copy one layer, operation or nested model and return its new outputs."""
        inside = op if getattr(op, "outputs", None) else self.expanded(op, args, kwargs)
        if inside is None:
            return self.convert(op, args, kwargs)
        self.prefixes.append(op.name)
        outputs = self.copy_model(inside, keras_tensors((args, kwargs)))
        self.prefixes.pop()
        return outputs

    def expanded(self, op, args, kwargs):
        """Return a composite layer as a functional model, or None if it must be copied whole.

        It must be copied whole if it is one of Keras's layers or has no layers inside (unless it
        cannot be rebuilt from its config), has weights of its own, computes with something other
        than Keras, or is built of other operations in training.
        """
        if not isinstance(op, layers.Layer):
            return None
        parts = private_api.inner_layers(op)
        whole = type(op).__module__.startswith("keras.") or not parts
        if whole and not isinstance(op, layers.Lambda) and copy_without_weights(op) is not None:
            return None
        if {id(w) for w in op.weights} - {id(w) for part in parts for w in part.weights}:
            return None
        kwargs, modes = {**kwargs}, ({},)
        if "training" in inspect.signature(op.call).parameters:
            modes = ({"training": True}, {"training": None})
        else:
            kwargs.pop("training", None)  # as Layer.__call__ does
        graphs = []
        try:
            for mode in modes:
                spec, names = keras.tree.map_structure(self.placeholder, (args, kwargs))
                outputs = op.call(*spec, **{**names, **mode})
                graphs.append(keras.Model(keras_tensors((spec, names)), outputs))
        except Exception:  # foreign code on symbolic tensors can fail in any way
            return None
        kinds = [[type(part) for part in graph.operations] for graph in graphs]
        return graphs[-1] if kinds[0] == kinds[-1] else None

    def placeholder(self, x, side=None):
        """Return a keras.Input like a tensor; feature maps get H = W = `side`, None for any."""
        if not isinstance(x, keras.KerasTensor):
            return x
        shape = (None, side, side, x.shape[-1]) if id(x) in self.maps else (None, *x.shape[1:])
        # float32 also where the network computes in half precision: a float32 clone must not round.
        dtype = "float32" if "float" in x.dtype else x.dtype
        return keras.Input(batch_shape=shape, dtype=dtype)

    def mixes_neighbours(self, op, args, kwargs) -> bool:
        """Return whether an output pixel depends on neighbouring input pixels.

        Global statistics do not count: a changed pixel then changes all others. The operation is
        run on random maps in which one pixel is changed.

        Raises:
            ValueError: It does not take maps of other sizes, for instance with weights per pixel.
        """
        rng, values = np.random.default_rng(0), {}
        for x in keras_tensors((args, kwargs)):
            shape = [count or 1 for count in x.shape]
            if id(x) in self.maps:
                shape[1:3] = 2 * MIDDLE, 2 * MIDDLE
            values[id(x)] = rng.normal(size=shape)

        def result(change):
            def array(x):
                if not isinstance(x, keras.KerasTensor):
                    return x
                value = values[id(x)].copy()
                if id(x) in self.maps:
                    value[:, MIDDLE, MIDDLE] += change
                return keras.ops.convert_to_tensor(value, x.dtype)

            arrays, names = keras.tree.map_structure(array, (args, kwargs))
            try:
                outputs = op(*arrays, **names)
            except Exception as error:
                raise layer_error(op, "does not take maps of other sizes") from error
            return keras.ops.convert_to_numpy(keras.tree.flatten(outputs)[0])

        # In both directions: a maximum reacts to larger values only, a minimum to smaller ones.
        before = result(0.0)
        changed = np.any((result(100.0) != before) | (result(-100.0) != before), axis=(0, 3))
        changed[MIDDLE, MIDDLE] = False
        return 0 < changed.sum() < changed.size - 1

    def emit(self, op, changes, args, kwargs, known=None):
        """Call a copy of a layer or operation on new tensors and return its outputs.

        Args:
            changes: Entries of the layer's config that are replaced.
            known: Stored in `maps` for the outputs.

        Raises:
            ValueError: It cannot be copied, or not with these changes.
        """
        if not isinstance(op, layers.Layer):
            inputs = [keras_tensors((args, kwargs))]
            return self.add(op, self.as_model(op, args, kwargs), inputs, {}, known)
        activation = _activation_layer(op)
        if activation is not None and "activation" not in changes:
            # Keras cannot read a config in which a layer stands for an activation function.
            changes = {**changes, "activation": None}
            return self.visit(activation, self.emit(op, changes, args, kwargs, known))
        before, layer = self.copies.get(id(op), (None, None))
        if before == changes:
            return self.add(op, layer, args, kwargs, known)
        if layer is not None and op.weights:
            raise layer_error(op, "is used more than once, at different strides")
        layer = copy_without_weights(op, {**changes, "name": self.unique_name(op.name)})
        if layer is None:
            raise layer_error(op, "cannot be rebuilt from its config")
        self.copies[id(op)] = changes, layer
        outputs = self.add(op, layer, args, kwargs, known)
        if layer.weights:
            other = {id(w) for w in getattr(activation, "weights", ())}
            values = [w for w in op.weights if id(w) not in other]
            layer.set_weights([keras.ops.convert_to_numpy(value) for value in values])
        return outputs

    def as_model(self, op, args, kwargs):
        """Return a keras.ops operation as a model, so that clone_model can change its dtype."""
        spec, names = keras.tree.map_structure(self.placeholder, (args, kwargs))
        copy = copy_without_weights(op)
        if copy is None:
            raise layer_error(op, "cannot be rebuilt from its config")
        outputs = copy(*spec, **names)
        return keras.Model(keras_tensors((spec, names)), outputs, name=self.unique_name(op.name))

    def add(self, op, layer, args, kwargs, known=None):
        """Call a new layer in the place of an old one, record the step, return the outputs."""
        try:
            outputs = layer(*args, **kwargs)
        except Exception as error:  # a Reshape to one size, for instance
            raise layer_error(op, "does not take maps of this input size") from error
        made = keras_tensors(outputs)
        self.steps.append((op, keras_tensors((args, kwargs)), made))
        if known is not None:
            self.maps.update((id(x), known) for x in made)
        return outputs

    def unique_name(self, name):
        """Return the name, or one derived from it if it is reserved or taken; deterministic."""
        candidates = [name, *(f"{prefix}_{name}" for prefix in reversed(self.prefixes))]
        candidates += [f"{name}_{number}" for number in range(1, len(self.names) + 2)]
        for candidate in candidates:
            if candidate.startswith(self.reserved):
                candidate = f"backbone_{candidate.lstrip('_')}"
            if candidate not in self.names:
                break
        self.names.add(candidate)
        return candidate

    def steps_to(self, x):
        """Return the steps that a new tensor depends on, in order."""
        path, needed = [], {id(x)}
        for step in reversed(self.steps):
            if any(id(made) in needed for made in step[2]):
                path.append(step)
                needed.update(map(id, step[1]))
        return path[::-1]

    def bottlenecks(self, x):
        """Return the tensors through which all paths to `x` go: [(tensor, old op, its inputs)]."""
        path = self.steps_to(x)
        last = {id(used): index for index, step in enumerate(path) for used in step[1]}
        found, alive = {}, {}  # id of a tensor -> (tensor, old op, its inputs)
        for index, (op, inputs, outputs) in enumerate(path):
            alive = {id(y): (y, op, inputs) for y in inputs} | alive
            alive |= {id(y): (y, op, inputs) for y in outputs}
            alive = {key: made for key, made in alive.items() if last.get(key, 0) > index}
            if len(alive) == 1:
                found |= alive
        return list(found.values())


def _activation_layer(op):
    """Return the layer that one of Keras's own layers has as its activation, or None."""
    activation = getattr(op, "activation", None)
    own = type(op).__module__.startswith("keras.")
    return activation if own and isinstance(activation, layers.Layer) else None


def copy_without_weights(op, changes=None):
    """Return a new layer or operation from the config of another, or None if that fails.

    Args:
        changes: Entries of the config that are replaced.
    """
    changes = dict(changes or {})
    try:
        if isinstance(op, layers.Normalization) and op.weights:
            # As constants: after set_weights, also of a later clone, an adapted Normalization would
            # still compute with its old values.
            for key, value in (("mean", op.adapt_mean), ("variance", op.adapt_variance)):
                changes[key] = keras.ops.convert_to_numpy(value).tolist()
        config = {**op.get_config(), **changes}
        # SpatialDropout2D writes the dtype of its variables instead of its policy.
        if isinstance(op, layers.Layer) and isinstance(config.get("dtype"), str):
            config["dtype"] = op.dtype_policy
        return type(op).from_config(config)
    except Exception:  # get_config and from_config of foreign classes can fail in any way
        return None


def keras_tensors(structure) -> list:
    """Return the Keras tensors in a nested structure as a flat list."""
    return [x for x in keras.tree.flatten(structure) if isinstance(x, keras.KerasTensor)]


def layer_error(op, reason) -> ValueError:
    """Return the error that a layer or operation cannot be dilated."""
    kind = type(op).__name__
    return ValueError(f"the backbone cannot be dilated: layer {op.name!r} ({kind}) {reason}")
