"""What forms of PSPNet-50's head LiteRT computes fastest: long convolutions, and the pyramid.

    python benchmarks/litert_forms.py

At 473x473 the features are 60x60x2048 and the head has 512 channels. All forms of one table take
turns on two threads; medians. Writes results/reductions.json (convolutions by the length of their
reduction, in parts and by Winograd's algorithm) and results/pyramid_forms.json (the pyramid with
the head's 3x3: the plain definition, the layer, and ways to spread the branches that were not
taken; float32 and int8).
"""

import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import keras
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import ops
from machine import machine

from keras_pspnet.export.fast_graph import DeviceConv2D, DevicePyramidConv2D
from keras_pspnet.export.winograd import WinogradConv2D
from keras_pspnet.network.layers import PyramidPoolingModule

RESULTS = Path(__file__).parent / "results"
SIDE, FILTERS, ROUNDS = 60, 512, 9
CONVOLUTIONS = ((1, 1024), (1, 2048), (1, 8192), (3, 256), (3, 512), (3, 1024), (3, 2048))


def main():
    write("reductions", {"convolutions": dict(map(reductions, CONVOLUTIONS))})
    write("pyramid_forms", {kind: pyramids(kind == "int8") for kind in ("float32", "int8")})


def write(name, values):
    result = {"command": "python benchmarks/litert_forms.py", "machine": machine(), **values}
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2), flush=True)


def reductions(shape):
    """One convolution of 512 filters as it is, in parts, and by Winograd's algorithm."""
    kernel, channels = shape
    forms = {
        f"{parts} parts": DeviceConv2D(FILTERS, kernel, padding="same", parts=parts)
        for parts in (1, 2, 4, 8)
    }
    if kernel == 3:
        forms["Winograd"] = WinogradConv2D(FILTERS)
        forms["Winograd, 2 parts"] = WinogradConv2D(FILTERS, parts=2)
    milliseconds = race({name: file(layer, channels) for name, layer in forms.items()})
    gflop = 2 * SIDE**2 * kernel**2 * channels * FILTERS / 1e9
    rows = {
        name: {"milliseconds": round(taken, 1), "gflop_per_s": round(1000 * gflop / taken)}
        for name, taken in milliseconds.items()
    }
    return f"{kernel}x{kernel} over {channels}", {"reduction": kernel**2 * channels, **rows}


class Head(keras.layers.Layer):
    """The pyramid with the head's 3x3 convolution; `kind` is how."""

    def __init__(self, kind):
        super().__init__()
        self.module = PyramidPoolingModule(upsample=kind == "concatenated")
        if kind == "concatenated":
            self.convolution = DeviceConv2D(FILTERS, 3, padding="same", parts=1)
        else:
            self.convolution = SPREADS[kind](FILTERS, parts=1, winograd=False)

    def build(self, shape):
        self.module.build(shape)
        self.convolution.build(self.module.compute_output_shape(shape))

    def call(self, x):
        return self.convolution(self.module(x))


class JointMatrix(DevicePyramidConv2D):
    """All places from all regions and taps by one matrix, 3600x450."""

    def convolve_branches(self, branches, kernel, size):
        products, matrices = [], []
        for bins, product in self.tap_products(branches, kernel):
            product = ops.transpose(product[0], (0, 2, 1, 3, 4))
            products.append(ops.reshape(product, (9 * bins * bins, self.filters)))
            down, across = (self.tap_weights(bins, side) for side in size)
            matrix = ops.einsum("ah,bw->hwab", down, across)
            matrices.append(ops.reshape(matrix, (size[0] * size[1], -1)))
        spread = self.product(ops.concatenate(matrices, 1), ops.concatenate(products, 0))
        return ops.reshape(spread, (-1, *size, self.filters))

    def product(self, matrix, products):
        return ops.matmul(matrix, products)


class JointConvolution(JointMatrix):
    """The same as the constant kernel of a 1x1 convolution."""

    def product(self, matrix, products):
        turned = ops.transpose(products)[None, None]
        spread = ops.conv(turned, ops.transpose(matrix)[None, None])
        return ops.transpose(spread[0, 0])


SPREADS = {
    "first across, then down (the layer)": DevicePyramidConv2D,
    "one matrix product": JointMatrix,
    "one matrix as a convolution": JointConvolution,
}


def pyramids(quantized):
    keras.utils.set_random_seed(0)
    kinds = ("concatenated", *SPREADS)
    milliseconds = race({kind: file(Head(kind), 2048, quantized) for kind in kinds})
    return {kind: {"milliseconds": round(taken, 1)} for kind, taken in milliseconds.items()}


def file(layer, channels, quantized=False) -> bytes:
    """A layer as a .tflite file."""
    x = keras.Input((SIDE, SIDE, channels), batch_size=1)
    model = keras.Model(x, layer(x))
    archive = keras.export.ExportArchive()
    archive.track(model)
    signature = [tf.TensorSpec(x.shape, tf.float32)]
    archive.add_endpoint("serve", lambda x: model(x, training=False), input_signature=signature)
    with tempfile.TemporaryDirectory() as folder:
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        return converted(converter, channels, quantized)


def converted(converter, channels, quantized) -> bytes:
    if quantized:
        rng = np.random.default_rng(0)
        example = np.maximum(rng.normal(size=(1, SIDE, SIDE, channels)), 0).astype(np.float32)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: [[example]]
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def race(files: dict[str, bytes]) -> dict[str, float]:
    """Median milliseconds of each; they take turns."""
    interpreters, seconds = {}, {name: [] for name in files}
    for name, data in files.items():
        interpreter = Interpreter(model_content=data, num_threads=2)
        interpreter.allocate_tensors()
        interpreter.invoke()
        interpreters[name] = interpreter
    for _ in range(ROUNDS):
        for name, interpreter in interpreters.items():
            start = time.perf_counter()
            interpreter.invoke()
            seconds[name].append(time.perf_counter() - start)
    return {name: 1000 * float(np.median(values)) for name, values in seconds.items()}


if __name__ == "__main__":
    main()
