"""Turn the late strides of any functional Keras model into dilations."""

import dataclasses
import functools

import keras
import numpy as np
from keras import layers, ops

from keras_pspnet.network.graph_copy import GraphCopy, keras_tensors, layer_error

CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)
POOLINGS = (layers.MaxPooling2D, layers.AveragePooling2D)

PROBE_SIDE = 64
"""Side of the map on which the stride of layers other than windows is measured."""


def dilate(
    model: keras.Model, output_stride: int, *, input_shape: tuple | None = None, aux: bool = True
) -> keras.Model:
    """Copy a functional model, with its weights, and turn its late strides into dilations.

    A layer whose stride would bring the feature map below 1 / output_stride of the input loses its
    stride, and the layers behind it are dilated by the same factor. So the new feature map holds
    the values of the old one, with new pixels in between; padding keeps the first pixel in its
    place, also where it is asymmetric. Layers that compute a statistic over the whole map, such as
    squeeze-and-excitation or group normalization, see the denser map. Where H or W is unknown,
    windows with "same" padding that lose their stride are padded symmetrically, as at odd sizes.

    Args:
        model: A functional or Sequential keras.Model from one image to one feature map
            (`include_top=False`), such as those of keras.applications, keras-hub and keras-cv. It
            is not changed. Nested models and layers made of Keras layers become layers of the copy.
        output_stride: Input pixels per step of the new feature map; one of the strides that the
            model goes through.
        input_shape: (H, W, 3) of the copy; the model's own by default. Explicit padding layers stay
            as they are, so a model that pads by its input size (keras.applications' MobileNets and
            EfficientNets) should be made for the size it will get.
        aux: Whether to return the auxiliary features too.

    Returns:
        A model with the outputs [auxiliary features, features], or the features alone. The features
        have the stride `output_stride`; the auxiliary features have it too, or their own smaller
        one. The auxiliary features are the deepest tensor before the last stride through which all
        paths go; if a 1x1 convolution widens it for a strided block (inverted residuals), the
        tensor before that convolution. Examples: `conv4_block6_out` of ResNet50, `block_12_add` of
        MobileNetV2. Layers keep their names, except names that clash or begin with "_", which
        SavedModels do not accept. A name that clashes gets the name of its nested model as a
        prefix, or else a number; one that begins with "_" gets "backbone_".

    Raises:
        ValueError: The model is of another kind, or a layer, which is named, cannot be dilated.
    """
    _check(model)
    if input_shape is not None and len(input_shape) != 3:
        raise ValueError(f"`input_shape` must be (H, W, 3). Received: {input_shape}")
    given = model.inputs[0]
    image = keras.Input(input_shape or given.shape[1:], dtype=given.dtype, name=given.name)
    outputs = features(model, image, output_stride, aux=aux)
    return keras.Model(image, list(outputs) if aux else outputs[1], name=model.name)


def features(model, x, output_stride, *, aux=True, reserved=()):
    """Call a dilated copy of a model on a tensor, see `dilate`.

    Args:
        x: (B, H, W, 3).
        reserved: Prefixes that layer names of the copy must not have.

    Returns:
        (auxiliary features or None, features).
    """
    _check(model)
    channels = model.inputs[0].shape[-1]
    if x.shape[-1] != channels:
        raise ValueError(f"the backbone takes {channels} channels, not {x.shape[-1]}")
    copy = _Dilation(output_stride, reserved)
    copy.maps[id(x)] = _Grid(1, 1, tuple(x.shape[1:3]))
    outputs = keras.tree.flatten(copy.copy_model(model, [x]))
    if len(outputs) != 1:
        raise ValueError(
            f"the backbone {model.name!r} has {len(outputs)} outputs; expected one map of "
            "features, as of keras.Model(model.input, one_of_them)"
        )
    grid = copy.maps.get(id(outputs[0]))
    if grid is None:
        raise ValueError(
            f"the backbone {model.name!r} does not end in a map of features (B, H, W, C); expected "
            "a model without a classifier: include_top=False"
        )
    if grid.stride != output_stride * grid.rate:
        raise ValueError(
            f"`output_stride` must be between 1 and the stride of the backbone {model.name!r}, "
            f"{grid.stride}. Received: {output_stride}"
        )
    return copy.auxiliary(outputs[0]) if aux else None, outputs[0]


def _check(model) -> None:
    """Raise ValueError unless a model is functional and takes one image."""
    if not isinstance(model, keras.Model) or not getattr(model, "outputs", None):
        unbuilt = "; give it a keras.Input first" if isinstance(model, keras.Sequential) else ""
        raise ValueError(
            f"a backbone must be a functional keras.Model{unbuilt}. Received: {type(model)}"
        )
    if len(model.inputs) != 1 or len(model.inputs[0].shape) != 4:
        raise ValueError(f"the backbone {model.name!r} must have one input (B, H, W, 3)")


@dataclasses.dataclass(frozen=True)
class _Grid:
    """Pixel positions of a new feature map: new[rate * i, rate * j] is old[i, j]."""

    stride: int  # input pixels per step of the old map
    rate: int
    size: tuple  # (H, W) of the old map for the new input size; None where unknown


class _Dilation(GraphCopy):
    """Copy a model and dilate the layers behind the output stride."""

    def __init__(self, output_stride, reserved):
        super().__init__(reserved)
        self.output_stride = output_stride
        self.zeros = {}  # id of a new ZeroPadding2D's output -> (its input, the old padding)

    def convert(self, op, args, kwargs):
        inputs = keras_tensors((args, kwargs))
        grids = {self.maps[id(x)] for x in inputs if id(x) in self.maps}
        if not grids:  # not on a feature map, for instance behind a global pooling
            return self.emit(op, {}, args, kwargs)
        if len({(grid.stride, grid.rate) for grid in grids}) > 1:
            raise layer_error(op, "joins maps of different strides")
        grid = grids.pop()
        if getattr(op, "data_format", "channels_last") == "channels_first":
            raise layer_error(op, "has the channels first")
        if isinstance(op, (*CONVOLUTIONS, *POOLINGS)):
            return self.window(op, inputs[0], grid)
        if isinstance(op, (layers.ZeroPadding2D, layers.Cropping2D)):
            return self.pad_or_crop(op, inputs[0], grid)
        return self.emit(op, {}, args, kwargs, self.grid_after(op, args, kwargs, grid))

    def add(self, op, layer, args, kwargs, known=None):
        outputs = super().add(op, layer, args, kwargs, known)
        if known is not None and known.size is None:
            for x in keras_tensors(outputs):
                self.maps[id(x)] = dataclasses.replace(known, size=tuple(x.shape[1:3]))
        return outputs

    def window(self, op, x, grid):
        """Convert a convolution or a pooling."""
        step = op.strides[0]
        if len(set(op.strides)) > 1:
            raise layer_error(op, f"has strides {op.strides}, which differ")
        if grid.rate == 1 and grid.stride * step <= self.output_stride:
            return self.emit(op, {}, (x,), {}, _Grid(grid.stride * step, 1, None))
        if grid.stride < self.output_stride * grid.rate:
            raise layer_error(op, f"goes from stride {grid.stride} to {grid.stride * step} at once")
        pools, zeros = isinstance(op, POOLINGS), ((0, 0), (0, 0))
        if op.padding == "valid" and id(x) in self.zeros:
            source, zeros = self.zeros[id(x)]
            grid = self.maps[id(source)]
            x = x if pools else source  # a pooling counts the zeros, unlike its own padding
        kernel = op.pool_size if pools else op.kernel_size
        holes = (1, 1) if pools else op.dilation_rate
        padding, size = [], []
        for count, k, hole, side in zip(grid.size, kernel, holes, zeros):
            span = hole * (k - 1)
            before, after = _same(count, span, step) if op.padding == "same" else side
            size.append(count and (count + before + after - span - 1) // step + 1)
            if step > 1 and span - step < before + after <= span:
                # The strided window covered the map up to rounding. Without its stride the map
                # keeps its size, so the missing padding goes to the bottom and right: existing
                # pixels keep their positions.
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
                kernel, rates, padding, kind, dtype=op.dtype_policy, name=self.unique_name(op.name)
            )
            return self.add(op, pooling, (x,), {}, known)
        if not symmetric and np.any(padding):
            name = self.unique_name(f"{op.name}_pad")
            pad = layers.ZeroPadding2D(padding, dtype=op.dtype_policy, name=name)
            x = self.add(pad, pad, (x,), {}, grid)
        return self.emit(op, {**changes, "dilation_rate": rates}, (x,), {}, known)

    def pad_or_crop(self, op, x, grid):
        """Convert a ZeroPadding2D or Cropping2D."""
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

    def grid_after(self, op, args, kwargs, grid):
        """Return the grid behind any other layer or operation, or None if it returns no map."""
        probe = functools.partial(self.placeholder, side=PROBE_SIDE)
        spec, names = keras.tree.map_structure(probe, (args, kwargs))
        try:
            shape = tuple(keras_tensors(op.compute_output_spec(*spec, **names))[0].shape)
        except Exception as error:  # a layer for one size only, for instance
            if grid.rate == 1:
                return None
            raise layer_error(op, "does not take maps of other sizes") from error
        if len(shape) != 4 or shape[1:3] == (1, 1):
            return None
        if shape[1:3] == (PROBE_SIDE, PROBE_SIDE):
            if grid.rate > 1 and self.mixes_neighbours(op, args, kwargs):
                raise layer_error(op, "mixes neighbouring pixels, but is no convolution or pooling")
            return grid
        step = max(round(PROBE_SIDE / (shape[1] or 1)), 1)
        if grid.rate > 1 or grid.stride * step > self.output_stride:
            raise layer_error(op, "has strides that cannot become dilations, or resizes the map")
        return _Grid(grid.stride * step, 1, None)

    def auxiliary(self, features):
        """Return the auxiliary features, see `dilate`."""
        total = self.maps[id(features)].stride
        before = {
            self.maps[id(x)].stride
            for *_, made in self.steps_to(features)
            for x in made
            if id(x) in self.maps and self.maps[id(x)].stride < total
        }
        candidates = [
            (x, op, inputs)
            for x, op, inputs in self.bottlenecks(features)
            if id(x) in self.maps
            and self.maps[id(x)].stride == max(before, default=0)
            # Zero padding belongs to the window behind it.
            and not isinstance(op, layers.ZeroPadding2D)
        ]
        if not candidates:
            raise ValueError(
                "the backbone has no single tensor before its last stride, where an auxiliary head "
                "could start; use aux=False"
            )
        # A 1x1 convolution that widens the map for a strided block belongs to that block.
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
    """Pool with stride 1 over a dilated window, as a dilated convolution does.

    Args:
        pool_size: (rows, columns) of the window.
        dilation_rate: (rows, columns) between pixels of the window.
        padding: ((top, bottom), (left, right)) pixels, which the pooling ignores.
        pooling: "max" or "average".

    Call:
        (B, H, W, C) -> (B, H', W', C), H' = H + top + bottom - dilation * (rows - 1).
    """

    def __init__(self, pool_size, dilation_rate, padding, pooling="max", **kwargs):
        super().__init__(**kwargs)
        self.pool_size, self.dilation_rate = tuple(pool_size), tuple(dilation_rate)
        self.padding, self.pooling = tuple(map(tuple, padding)), pooling

    def call(self, x):
        if self.pooling == "max":
            return self._slide(x, ops.maximum, -float("inf"))
        # As in "same" padding: the mean over the pixels inside the map.
        inside = ops.ones_like(x[:1, :, :, :1])
        return self._slide(x, ops.add, 0.0) / self._slide(inside, ops.add, 0.0)

    def _slide(self, x, reduce, border):
        """Reduce each window, along the rows and then along the columns."""
        x = ops.pad(x, ((0, 0), *self.padding, (0, 0)), constant_values=border)
        for axis, (count, rate) in enumerate(zip(self.pool_size, self.dilation_rate), start=1):
            ends = [slice(i * rate, (i + 1 - count) * rate or None) for i in range(count)]
            x = functools.reduce(reduce, [x[(slice(None),) * axis + (end,)] for end in ends])
        return x

    def get_config(self):
        names = ("pool_size", "dilation_rate", "padding", "pooling")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _same(count, span, step):
    """Return (before, after), the zeros that "same" padding adds to `count` pixels (None: odd)."""
    total = span if count is None else max((-(-count // step) - 1) * step + span + 1 - count, 0)
    return total // 2, total - total // 2
