"""A functional model repeated on new tensors, layer by layer, so that each can be changed."""

from __future__ import annotations

import inspect

import keras
import numpy as np
from keras import layers

from keras_pspnet import private_api

MIDDLE = 8
"""The pixel of a 16x16 map that is changed to see which others change."""


class GraphCopy:
    """A walk through a model's graph that makes a new one of copied layers, with their weights.

    Nested models, and layers made of Keras layers, dissolve into the layers they are made of. A
    subclass decides in `call` what becomes of each layer or operation, and calls `emit`.

    Args:
        reserved: how names in the new graph must not begin.
    """

    def __init__(self, reserved=()):
        # TensorFlow's scopes, and so SavedModels, take no name that begins with "_".
        self.reserved = (*reserved, "_")
        self.maps = {}  # by the id of a new tensor that is a map (B, H, W, C): what is known of it
        self.steps = []  # (old layer, new inputs, new outputs); it also keeps the ids valid
        self.copies = {}  # by the id of an old layer: its changes and the new layer
        self.names, self.prefixes = set(), []

    def through(self, model, inputs):
        """Repeats a model on new tensors."""
        if isinstance(model, keras.Sequential):
            model = keras.Model(model.inputs, model.outputs)
        return private_api.run_through_graph(model, inputs, self.visit)

    def visit(self, op, *args, **kwargs):
        inside = op if getattr(op, "outputs", None) else self.opened(op, args, kwargs)
        if inside is None:
            return self.call(op, args, kwargs)
        self.prefixes.append(op.name)
        outputs = self.through(inside, tensors((args, kwargs)))
        self.prefixes.pop()
        return outputs

    def call(self, op, args, kwargs):
        """What becomes of a layer or operation: the new outputs."""
        return self.emit(op, {}, args, kwargs)

    def opened(self, op, args, kwargs):
        """What a layer made of layers does, as a model of those; None where it is better whole."""
        if not isinstance(op, layers.Layer):
            return None
        parts = private_api.inner_layers(op)
        whole = type(op).__module__.startswith("keras.") or not parts
        if whole and not isinstance(op, layers.Lambda) and rebuilt(op) is not None:
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
                graphs.append(keras.Model(tensors((spec, names)), outputs))
        except Exception:  # it computes with something else than Keras; that can fail in any way
            return None
        kinds = [[type(part) for part in graph.operations] for graph in graphs]
        return graphs[-1] if kinds[0] == kinds[-1] else None

    def placeholder(self, x, side=None):
        """An Input like a tensor; maps are of any size, or of a given side."""
        if not isinstance(x, keras.KerasTensor):
            return x
        shape = (None, side, side, x.shape[-1]) if id(x) in self.maps else (None, *x.shape[1:])
        # In float32 also where the network computes in half: a clone in float32 must not round.
        dtype = "float32" if "float" in x.dtype else x.dtype
        return keras.Input(batch_shape=shape, dtype=dtype)

    def mixes_neighbours(self, op, args, kwargs) -> bool:
        """Whether a changed pixel changes others, but not all, as the map's mean does.

        Raises:
            ValueError: it does not take maps of other sizes, as one with weights for each pixel.
        """
        rng, values = np.random.default_rng(0), {}
        for x in tensors((args, kwargs)):
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
                raise refusal(op, "does not take maps of other sizes") from error
            return keras.ops.convert_to_numpy(keras.tree.flatten(outputs)[0])

        # Both ways: a maximum sees only what is larger, a minimum what is smaller.
        before = result(0.0)
        changed = np.any((result(100.0) != before) | (result(-100.0) != before), axis=(0, 3))
        changed[MIDDLE, MIDDLE] = False
        return 0 < changed.sum() < changed.size - 1

    def emit(self, op, changes, args, kwargs, known=None):
        """Calls a copy of a layer, its config changed, or of an operation, on new tensors.

        Raises:
            ValueError: it cannot be copied, or not with these changes.
        """
        if not isinstance(op, layers.Layer):
            return self.add(
                op, self.as_model(op, args, kwargs), [tensors((args, kwargs))], {}, known
            )
        activation = _activation(op)
        if activation is not None and "activation" not in changes:
            # A config that holds a layer as a function cannot be read again.
            changes = {**changes, "activation": None}
            return self.visit(activation, self.emit(op, changes, args, kwargs, known))
        before, layer = self.copies.get(id(op), (None, None))
        if before == changes:
            return self.add(op, layer, args, kwargs, known)
        if layer is not None and op.weights:
            raise refusal(op, "is used more than once, at different strides")
        layer = rebuilt(op, {**changes, "name": self.name(op.name)})
        if layer is None:
            raise refusal(op, "cannot be made anew from its config")
        self.copies[id(op)] = changes, layer
        outputs = self.add(op, layer, args, kwargs, known)
        if layer.weights:
            other = {id(w) for w in getattr(activation, "weights", ())}
            values = [w for w in op.weights if id(w) not in other]
            layer.set_weights([keras.ops.convert_to_numpy(value) for value in values])
        return outputs

    def as_model(self, op, args, kwargs):
        """A keras.ops operation as a layer: clone_model can give that another dtype."""
        spec, names = keras.tree.map_structure(self.placeholder, (args, kwargs))
        copy = rebuilt(op)
        if copy is None:
            raise refusal(op, "cannot be made anew from its config")
        return keras.Model(tensors((spec, names)), copy(*spec, **names), name=self.name(op.name))

    def add(self, op, layer, args, kwargs, known=None):
        """Calls a layer of the new graph in the place of an old one."""
        try:
            outputs = layer(*args, **kwargs)
        except Exception as error:  # a Reshape to one size, for instance
            raise refusal(op, "does not take maps of this input size") from error
        made = tensors(outputs)
        self.steps.append((op, tensors((args, kwargs)), made))
        if known is not None:
            self.maps.update((id(x), known) for x in made)
        return outputs

    def name(self, name):
        """The name itself; where it is reserved or taken, one made of it, always the same."""
        candidates = [name, *(f"{prefix}_{name}" for prefix in reversed(self.prefixes))]
        candidates += [f"{name}_{number}" for number in range(1, len(self.names) + 2)]
        for candidate in candidates:
            if candidate.startswith(self.reserved):
                candidate = f"backbone_{candidate.lstrip('_')}"
            if candidate not in self.names:
                break
        self.names.add(candidate)
        return candidate

    def path_to(self, x):
        """The steps that a new tensor depends on, in order."""
        path, needed = [], {id(x)}
        for step in reversed(self.steps):
            if any(id(made) in needed for made in step[2]):
                path.append(step)
                needed.update(map(id, step[1]))
        return path[::-1]

    def bottlenecks(self, x):
        """The tensors on the way to `x` that everything passes, as (tensor, old layer, inputs)."""
        path = self.path_to(x)
        last = {id(used): index for index, step in enumerate(path) for used in step[1]}
        made = {id(y): (y, op, inputs) for op, inputs, outputs in path for y in outputs}
        found, alive = {}, []
        for index, (_, inputs, outputs) in enumerate(path):
            alive += [y for y in (*inputs, *outputs) if all(y is not other for other in alive)]
            alive = [y for y in alive if last.get(id(y), 0) > index]
            if len(alive) == 1 and id(alive[0]) in made:
                found[id(alive[0])] = made[id(alive[0])]
        return list(found.values())


def _activation(op):
    """The layer that one of Keras's layers has as its activation, if any."""
    activation = getattr(op, "activation", None)
    own = type(op).__module__.startswith("keras.")
    return activation if own and isinstance(activation, layers.Layer) else None


def rebuilt(op, changes=None):
    """A layer or operation from another one's config, without weights; None where that fails."""
    changes = dict(changes or {})
    try:
        if isinstance(op, layers.Normalization) and op.weights:
            # As constants: set_weights, of a later clone too, would not reach what it computes.
            for key, value in (("mean", op.adapt_mean), ("variance", op.adapt_variance)):
                changes[key] = keras.ops.convert_to_numpy(value).tolist()
        return type(op).from_config({**op.get_config(), **changes})
    except Exception:  # a config of somebody else's can fail in any way
        return None


def tensors(structure) -> list:
    """The Keras tensors in a structure, flat."""
    return [x for x in keras.tree.flatten(structure) if isinstance(x, keras.KerasTensor)]


def refusal(op, why) -> ValueError:
    """The error that names a layer."""
    kind = type(op).__name__
    return ValueError(f"the backbone cannot be dilated: layer {op.name!r} ({kind}) {why}")
