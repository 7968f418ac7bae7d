"""Convert a network to a SavedModel and to .tflite and .onnx files of every number format."""

import contextlib
import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_pspnet import private_api
from keras_pspnet.device_contract import INPUT, LABELS_FILE, SIGNATURE
from keras_pspnet.errors import UserError, reason_of
from keras_pspnet.export.fast_graph import class_map, device_network
from keras_pspnet.files import write_json
from keras_pspnet.labels import LabelSet
from keras_pspnet.network.resampling import resize

SPLIT_FORMATS = ("float32", "float16")
"""Formats whose long reductions are split: XNNPACK computes them in float32, and only there long
reductions are slow (benchmarks/results/reductions.json)."""

WINOGRAD_FORMATS = ("float32",)
"""Formats that use Winograd's algorithm. It doubles the kernel's size, and its sums would enlarge
the rounding errors of the other formats' weights."""


def write_saved_model(network, folder: Path, output: str, labels: LabelSet, strips=False) -> None:
    """Write a SavedModel that keeps the device contract.

    Its signature has static shapes; only then TFLite fuses dilated convolutions.

    Args:
        network: a keras.Model of a fixed size with the layer `main`.
        output: "classes", "logits" or "probabilities".
        strips: compute the class map strip by strip, see `fast_graph.class_map`: LiteRT's delegate
            would hold all scores. Not for ONNX, which cannot infer the shapes of strips.
    """
    main = network.get_layer("main")
    size = tuple(network.input.shape[1:3])
    scorer = keras.Model(network.input, main.input[0])
    image = tf.TensorSpec((1, *size, 3), tf.uint8, name=INPUT)

    @tf.function(input_signature=[image], autograph=False)
    def serve(image):
        # The cast is inside because int8 would quantize a float input to the calibration's range.
        scores = scorer(tf.cast(image, tf.float32), training=False)
        if output == "classes":
            if strips:
                classes = class_map(scores, size, main.align_corners)
            else:
                logits = resize(scores, size, main.align_corners)
                classes = tf.argmax(logits, -1, output_type=tf.int32)
            return {"classes": tf.cast(classes, tf.uint8) if len(labels) <= 256 else classes}
        logits = resize(scores, size, main.align_corners)
        return {output: tf.nn.softmax(logits) if output == "probabilities" else logits}

    # keras.export.ExportArchive traces the network four times, which takes longer than converting.
    served = tf.Module()
    served.variables_of_network = [variable.value for variable in scorer.variables]
    with _quiet():
        signatures = {SIGNATURE: serve.get_concrete_function()}
        tf.saved_model.save(served, str(folder), signatures=signatures)
    write_json(folder / "assets.extra" / LABELS_FILE, labels.to_config())


class Converter:
    """Convert one network to files of several formats.

    Args:
        network: a float32 keras.Model of a fixed size, without the auxiliary head.
        scratch: a folder for intermediate files.
        output, labels: see `export_model`.
        pictures: returns an iterable of calibration pictures, uint8 (1, H, W, 3), at each call.
    """

    def __init__(self, network, scratch: Path, output, labels: LabelSet, pictures: Callable):
        self.network, self.scratch, self.output = network, scratch, output
        self.labels, self.pictures = labels, pictures
        self._graphs = {}

    def convert(self, name: str) -> bytes:
        """Return the content of a .tflite or .onnx file.

        Args:
            name: a format, but not "saved_model".

        Raises:
            UserError: the format cannot hold the network.
        """
        try:
            with _quiet():
                if name == "onnx":
                    return self._onnx()
                return self._int16() if name == "int16" else self._tflite(name)
        except (UserError, OSError, tf.errors.OpError):
            raise
        except Exception as error:  # the converters' exception classes are not public
            raise UserError(
                f"{name}: the format cannot hold this network: {reason_of(error)}"
            ) from error

    def changes(self, name: str) -> dict[str, dict]:
        """Return the forms of a format's changed convolutions, see `fast_graph.device_network`."""
        return self._graph(name)[1]

    def _graph(self, name) -> tuple[Path, dict]:
        """Return the SavedModel folder and the changed convolutions of a format.

        Formats with the same graph share it.
        """
        split, winograd, strips = name in SPLIT_FORMATS, name in WINOGRAD_FORMATS, name != "onnx"
        key = (split, winograd, strips)
        if key not in self._graphs:
            network, changes = device_network(self.network, split=split, winograd=winograd)
            folder = self.scratch / f"graph_{len(self._graphs)}"
            write_saved_model(network, folder, self.output, self.labels, strips)
            self._graphs[key] = folder, changes
        return self._graphs[key]

    def _tflite(self, name, graph=None) -> bytes:
        converter = tf.lite.TFLiteConverter.from_saved_model(
            str(graph or self._graph(name)[0]), signature_keys=[SIGNATURE]
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]  # no Flex
        if name != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if name == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if name == "int8":
            converter.representative_dataset = lambda: ({INPUT: x} for x in self.pictures())
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        return converter.convert()

    def _int16(self) -> bytes:
        """Quantize with ai-edge-quantizer: TensorFlow's 16x8 is wrong behind depthwise layers."""
        source = self.scratch / "float.tflite"
        source.write_bytes(self._tflite("float32", self._graph("int16")[0]))
        ranges = {}
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            for picture in self.pictures():
                # One picture per call: over several the quantizer takes a moving average of the
                # ranges, which cuts off extremes.
                calibrator = self._int16_quantizer(source)
                widen(ranges, calibrator.calibrate({SIGNATURE: [{INPUT: picture}]}))
            quantized = self._int16_quantizer(source).quantize(ranges)
        return bytes(quantized.quantized_model)

    def _int16_quantizer(self, source: Path):
        from ai_edge_quantizer import qtyping, quantizer, recipe

        int16 = quantizer.Quantizer(str(source), recipe.static_wi8_ai16())
        if self.output != "classes":  # the contract's scores are float32
            int16.update_quantization_recipe(
                regex=".*",
                operation_name=qtyping.TFLOperationName.OUTPUT,
                algorithm_key="no_quantize",
            )
        return int16

    def _onnx(self) -> bytes:
        import onnx
        import tf2onnx

        loaded = tf.saved_model.load(str(self._graph("onnx")[0]))
        frozen = private_api.frozen(loaded.signatures[SIGNATURE])
        (image,), (result,) = frozen.inputs, frozen.outputs
        model, _ = tf2onnx.convert.from_graph_def(
            frozen.graph.as_graph_def(),
            input_names=[image.name],
            output_names=[result.name],
            tensors_to_rename={image.name: INPUT, result.name: self.output},
            opset=17,  # ONNX 1.12 (2022) and newer runtimes read it
        )
        _replace_resize_scales(model)
        onnx.checker.check_model(model, full_check=True)
        entry = model.metadata_props.add()
        entry.key, entry.value = LABELS_FILE, json.dumps(self.labels.to_config())
        return model.SerializeToString()


def _replace_resize_scales(model) -> None:
    """Replace the scales of an ONNX model's Resize operators by sizes.

    Runtimes compute floor(size * scale), and a scale that float32 rounds down loses a pixel: 60
    rows that should become 473 become 472.
    """
    import onnx

    constants = {x.name: x for x in model.graph.initializer}
    known = onnx.shape_inference.infer_shapes(model).graph.value_info
    shapes = {x.name: [d.dim_value for d in x.type.tensor_type.shape.dim] for x in known}
    for node in model.graph.node:
        if node.op_type == "Resize" and len(node.input) == 3:
            image, region, scales = node.input
            sizes = np.rint(shapes[image] * onnx.numpy_helper.to_array(constants[scales]))
            name = f"{node.name}_sizes"
            model.graph.initializer.append(
                onnx.numpy_helper.from_array(sizes.astype("int64"), name)
            )
            node.input[:] = [image, region, "", name]
    used = {name for node in model.graph.node for name in node.input}
    for unused in constants.keys() - used:
        model.graph.initializer.remove(constants[unused])


@contextlib.contextmanager
def _quiet():
    """Silence the converters' warnings about interfaces that they themselves use."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def widen(ranges: dict, more: dict) -> None:
    """Widen the range of each tensor, in place, to include that of one more picture.

    Args:
        ranges, more: tensor name -> {"min", "max"}, or {} for a tensor without a range.
    """
    for name, found in more.items():
        if name not in ranges:
            ranges[name] = found
        elif found:
            ranges[name]["min"] = np.minimum(ranges[name]["min"], found["min"])
            ranges[name]["max"] = np.maximum(ranges[name]["max"], found["max"])
