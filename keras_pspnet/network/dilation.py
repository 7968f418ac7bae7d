"""dilate(): any functional Keras model as a backbone, its late strides turned into dilations."""

from __future__ import annotations

import dataclasses
import functools

import keras
import numpy as np
from keras import layers, ops

from keras_pspnet.network.graph_copy import GraphCopy, refusal, tensors

CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)

POOLINGS = (layers.MaxPooling2D, layers.AveragePooling2D)

PROBE = 64  # the side of the map on which other layers are looked at


def dilate(model, output_stride, *, input_shape=None, aux=True) -> keras.Model:
    """A copy of a functional model whose late strides are dilations, with its weights.

    A layer whose stride would bring the map under 1 / output_stride of the input loses it, and
    those behind it look at pixels as far apart as before. So the new maps hold the values of the
    old ones, with new pixels in between. What takes a statistic over the whole map, as a
    squeeze-and-excitation or a group normalization, sees that of the denser map. Padding keeps the
    first pixel in its place, also where it is lopsided. At an `input_shape` of unknown sizes,
    windows that lose their stride and were padded with "same" stand as they do at odd sizes:
    symmetrically.

    Args:
        model: a functional or Sequential keras.Model from one picture to one map of features
            (`include_top=False`), as those of keras.applications, keras-hub and keras-cv. It stays
            as it is. Nested models and layers made of Keras layers become layers of the copy.
        output_stride: input pixels per step of the features, one that the model goes through.
        input_shape: (H, W, 3) of the copy, by default the model's. Explicit paddings stay: a model
            that pads by its input's size (keras.applications' MobileNets and EfficientNets) is
            best made for the size that it will see.
        aux: with the auxiliary features.

    Returns:
        A model of [auxiliary features, features], as `backbones.backbone` gives them, or of the
        features alone. The auxiliary ones are the deepest tensor in front of the last stride
        through which everything passes; a 1x1 convolution that widens it for a strided block
        (inverted residuals) counts to that block. In ResNet50 that is `conv4_block6_out`, in
        MobileNetV2 `block_12_add`. Layers keep their names, but for clashes and those that begin
        with "_", which a SavedModel does not take: they get a name of their model, or "backbone",
        in front.

    Raises:
        ValueError: another kind of model, or a layer that cannot be dilated, in one line.
    """
    check(model)
    if output_stride < 1:
        raise ValueError(f"`output_stride` must be 1 or more. Received: {output_stride}")
    if input_shape is not None and len(input_shape) != 3:
        raise ValueError(f"`input_shape` must be (H, W, 3). Received: {input_shape}")
    given = model.inputs[0]
    image = keras.Input(input_shape or given.shape[1:], dtype=given.dtype, name=given.name)
    outputs = features(model, image, output_stride, aux=aux)
    return keras.Model(image, list(outputs) if aux else outputs[1], name=model.name)


def features(model, x, output_stride, *, aux=True, reserved=()):
    """As `dilate`, on a tensor (B, H, W, 3): (auxiliary features or None, features).

    Args:
        reserved: how layers' names must not begin.
    """
    check(model)
    channels = model.inputs[0].shape[-1]
    if x.shape[-1] != channels:
        raise ValueError(f"the backbone takes {channels} channels, not {x.shape[-1]}")
    walk = _Dilation(output_stride, reserved)
    walk.maps[id(x)] = _Grid(1, 1, tuple(x.shape[1:3]))
    outputs = keras.tree.flatten(walk.through(model, [x]))
    if len(outputs) != 1:
        raise ValueError(
            f"the backbone {model.name!r} has {len(outputs)} outputs; expected one map of "
            "features, as of keras.Model(model.input, one_of_them)"
        )
    grid = walk.maps.get(id(outputs[0]))
    if grid is None:
        raise ValueError(
            f"the backbone {model.name!r} does not end in a map of features (B, H, W, C); expected "
            "convolutions without a classifier on top: include_top=False"
        )
    if grid.stride != output_stride * grid.rate:
        raise ValueError(
            f"the backbone {model.name!r} has stride {grid.stride}; "
            f"`output_stride` must not be above it. Received: {output_stride}"
        )
    return walk.auxiliary(outputs[0]) if aux else None, outputs[0]


def check(model) -> None:
    """Whether a model may be a backbone at all.

    Raises:
        ValueError: it is not functional, or does not take one picture.
    """
    if not isinstance(model, keras.Model) or not getattr(model, "outputs", None):
        unbuilt = "; give it a keras.Input first" if isinstance(model, keras.Sequential) else ""
        raise ValueError(
            f"a backbone must be a functional keras.Model{unbuilt}. Received: {type(model)}"
        )
    if len(model.inputs) != 1 or len(model.inputs[0].shape) != 4:
        raise ValueError(f"the backbone {model.name!r} must have one input (B, H, W, 3)")


@dataclasses.dataclass(frozen=True)
class _Grid:
    """Where the pixels of a new map lie: (rate * i, rate * j) is the old map's (i, j)."""

    stride: int  # input pixels per step of the old map
    rate: int
    size: tuple  # (H, W) of the old map, at the new input's size; None where unknown


class _Dilation(GraphCopy):
    """Repeats a model; what comes behind the output stride is dilated."""

    def __init__(self, output_stride, reserved):
        super().__init__(reserved)
        self.output_stride = output_stride
        self.zeros = {}  # by the id of a ZeroPadding2D's new output: its new input, old padding

    def call(self, op, args, kwargs):
        inputs = tensors((args, kwargs))
        grids = {self.maps[id(x)] for x in inputs if id(x) in self.maps}
        if not grids:  # its pixels were squeezed, or it never was a map
            return self.emit(op, {}, args, kwargs)
        if len({(grid.stride, grid.rate) for grid in grids}) > 1:
            raise refusal(op, "joins maps of different strides")
        grid = grids.pop()
        if getattr(op, "data_format", "channels_last") == "channels_first":
            raise refusal(op, "has its channels first")
        if isinstance(op, (*CONVOLUTIONS, *POOLINGS)):
            return self.window(op, inputs[0], grid)
        if isinstance(op, (layers.ZeroPadding2D, layers.Cropping2D)):
            return self.border(op, inputs[0], grid)
        return self.emit(op, {}, args, kwargs, self.behind(op, args, kwargs, grid))

    def add(self, op, layer, args, kwargs, known=None):
        outputs = super().add(op, layer, args, kwargs, known)
        if known is not None and known.size is None:
            for x in tensors(outputs):
                self.maps[id(x)] = dataclasses.replace(known, size=tuple(x.shape[1:3]))
        return outputs

    def window(self, op, x, grid):
        """A convolution or a pooling."""
        step = op.strides[0]
        if len(set(op.strides)) > 1:
            raise refusal(op, f"has strides {op.strides}, which differ")
        if grid.rate == 1 and grid.stride * step <= self.output_stride:
            return self.emit(op, {}, (x,), {}, _Grid(grid.stride * step, 1, None))
        if grid.stride < self.output_stride * grid.rate:
            raise refusal(op, f"goes from stride {grid.stride} to {grid.stride * step} at once")
        pools, zeros = isinstance(op, POOLINGS), ((0, 0), (0, 0))
        if op.padding == "valid" and id(x) in self.zeros:
            source, zeros = self.zeros[id(x)]
            grid = self.maps[id(source)]
            x = x if pools else source  # zeros count in a pooling; it has padding that does not
        kernel = op.pool_size if pools else op.kernel_size
        holes = (1, 1) if pools else op.dilation_rate
        padding, size = [], []
        for count, k, hole, side in zip(grid.size, kernel, holes, zeros):
            span = hole * (k - 1)
            before, after = _same(count, span, step) if op.padding == "same" else side
            size.append(count and (count + before + after - span - 1) // step + 1)
            if step > 1 and span - step < before + after <= span:
                # It divided the map's size, rounded either way; without the stride it keeps the
                # size. What that takes is put behind the map, so that no pixel moves.
                after = span - before
            if pools:
                before, after = before - side[0], after - side[1]
            padding.append((grid.rate * before, grid.rate * after))
        rates = tuple(grid.rate * hole if k > 1 else 1 for hole, k in zip(holes, kernel))
        known = _Grid(grid.stride * step, grid.rate * step, tuple(size))
        symmetric = all(
            sum(pad) == rate * (k - 1) and pad[0] == sum(pad) // 2
            for pad, rate, k in zip(padding, rates, kernel)
        )
        changes = {"strides": (1, 1), "padding": "same" if symmetric else "valid"}
        if pools:
            if rates == (1, 1) and (symmetric or not np.any(padding)):
                return self.emit(op, changes, (x,), {}, known)
            kind = "max" if isinstance(op, layers.MaxPooling2D) else "average"
            pooling = DilatedPooling2D(
                kernel, rates, padding, kind, dtype=op.dtype_policy, name=self.name(op.name)
            )
            return self.add(op, pooling, (x,), {}, known)
        if not symmetric and np.any(padding):
            name = self.name(f"{op.name}_pad")
            pad = layers.ZeroPadding2D(padding, dtype=op.dtype_policy, name=name)
            x = self.add(pad, pad, (x,), {}, grid)
        return self.emit(op, {**changes, "dilation_rate": rates}, (x,), {}, known)

    def border(self, op, x, grid):
        """Zeros around a map, or a border taken away."""
        crops = isinstance(op, layers.Cropping2D)
        old = op.cropping if crops else op.padding
        new = tuple(tuple(grid.rate * count for count in side) for side in old)
        size = tuple(
            count and count + (-1 if crops else 1) * sum(side)
            for count, side in zip(grid.size, old)
        )
        known = dataclasses.replace(grid, size=size)
        outputs = self.emit(op, {"cropping" if crops else "padding": new}, (x,), {}, known)
        if not crops:
            self.zeros[id(outputs)] = (x, old)
        return outputs

    def behind(self, op, args, kwargs, grid):
        """The grid behind any other layer or operation, from what it makes of a map of 64x64."""
        spec, names = keras.tree.map_structure(lambda x: self.placeholder(x, PROBE), (args, kwargs))
        try:
            shape = tuple(tensors(op.compute_output_spec(*spec, **names))[0].shape)
        except Exception as error:  # a layer for one size only, for instance
            if grid.rate == 1:
                return None
            raise refusal(op, "does not take maps of other sizes") from error
        if len(shape) != 4 or shape[1:3] == (1, 1):
            return None
        if shape[1:3] == (PROBE, PROBE):
            if grid.rate > 1 and self.mixes_neighbours(op, args, kwargs):
                raise refusal(op, "looks at neighbouring pixels in a way that cannot be dilated")
            return grid
        step = max(round(PROBE / (shape[1] or 1)), 1)
        if grid.rate > 1 or grid.stride * step > self.output_stride:
            raise refusal(op, "has strides that cannot be reached, or resizes the map")
        return _Grid(grid.stride * step, 1, None)

    def auxiliary(self, features):
        """The auxiliary features of `dilate`."""
        total = self.maps[id(features)].stride
        before = {
            self.maps[id(x)].stride
            for *_, made in self.path_to(features)
            for x in made
            if id(x) in self.maps and self.maps[id(x)].stride < total
        }
        candidates = [
            (x, op, inputs)
            for x, op, inputs in self.bottlenecks(features)
            if id(x) in self.maps
            and self.maps[id(x)].stride == max(before, default=0)
            # Zeros around a map belong to the window behind them.
            and not isinstance(op, layers.ZeroPadding2D)
        ]
        if not candidates:
            raise ValueError(
                "the backbone has no single tensor in front of its last stride, where an "
                "auxiliary head could start; use aux=False"
            )
        for _, op, inputs in reversed(candidates):
            if isinstance(op, layers.Conv2D) and tuple(op.kernel_size) == (1, 1):
                if op.filters > inputs[0].shape[-1]:
                    return inputs[0]
                break
            merges = len(inputs) > 1 and type(op).__name__ != "Multiply"
            if merges or isinstance(op, (*CONVOLUTIONS, *POOLINGS)):
                break
        return candidates[-1][0]


@keras.saving.register_keras_serializable("keras_pspnet")
class DilatedPooling2D(layers.Layer):
    """Pooling without a stride, its window spread out as a dilated convolution's.

    Where it is in a saved model, `keras_pspnet.load_model` or an import of this module is needed.

    Args:
        pool_size, dilation_rate: (rows, columns).
        padding: ((top, bottom), (left, right)): pixels that do not count.
        pooling: "max" or "average".
    """

    def __init__(self, pool_size, dilation_rate, padding, pooling="max", **kwargs):
        super().__init__(**kwargs)
        self.pool_size, self.dilation_rate = tuple(pool_size), tuple(dilation_rate)
        self.padding, self.pooling = tuple(map(tuple, padding)), pooling

    def call(self, x):
        if self.pooling == "max":
            return self._slide(x, ops.maximum, -float("inf"))
        # As in "same" padding: the mean of the pixels that are there.
        return self._slide(x, ops.add, 0.0) / self._slide(
            ops.ones_like(x[:1, :, :, :1]), ops.add, 0.0
        )

    def _slide(self, x, reduce, border):
        x = ops.pad(x, ((0, 0), *self.padding, (0, 0)), constant_values=border)
        for axis, (count, rate) in enumerate(zip(self.pool_size, self.dilation_rate), start=1):
            ends = [slice(i * rate, (i + 1 - count) * rate or None) for i in range(count)]
            x = functools.reduce(reduce, [x[(slice(None),) * axis + (end,)] for end in ends])
        return x

    def get_config(self):
        names = ("pool_size", "dilation_rate", "padding", "pooling")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _same(count, span, step):
    """(before, after): the zeros of "same" padding at a map of `count` pixels, or of odd ones."""
    total = span if count is None else max((-(-count // step) - 1) * step + span + 1 - count, 0)
    return total // 2, total - total // 2
