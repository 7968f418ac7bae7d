"""One kind of callable from a Keras model, and from .keras, SavedModel, .tflite and .onnx files."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import weakref
import zipfile
from pathlib import Path

import numpy as np

from keras_pspnet.device_contract import LABELS_FILE, OUTPUTS, SIGNATURE
from keras_pspnet.errors import UserError
from keras_pspnet.files import read_bytes
from keras_pspnet.inference.predictor import Predictor
from keras_pspnet.labels import LabelSet

KINDS = {
    "keras": "a .keras file",
    "saved_model": "a SavedModel folder",
    "tflite": "a .tflite file",
    "onnx": "a .onnx file",
}


def check_model(path, *kinds: str) -> str:
    """What kind of model a path holds, without importing TensorFlow.

    Args:
        kinds: those of KINDS that are wanted; all by default.

    Returns:
        "keras", "saved_model", "tflite" or "onnx".

    Raises:
        UserError: nothing there, or no model of these kinds.
    """
    path = Path(path)
    expected = f"expected {' or '.join(KINDS[kind] for kind in kinds or KINDS)}"
    kind = _kind(path, expected)
    if kinds and kind not in kinds:
        raise UserError(f"{path}: is {KINDS[kind]}; {expected}")
    return kind


def _kind(path, expected) -> str:
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; {expected}")
    if path.is_dir():
        if not (path / "saved_model.pb").is_file():
            raise UserError(f"{path}: no saved_model.pb in this folder; {expected}")
        return "saved_model"
    try:
        with open(path, "rb") as file:
            head = file.read(8)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if head[4:8] == b"TFL3":
        return "tflite"
    if path.suffix == ".onnx":  # a protobuf, which has no mark of its own
        return "onnx"
    with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        if "config.json" in archive.namelist():
            return "keras"
    raise UserError(f"{path}: not a model; {expected}")


def load_model(path):
    """A trained model from any of its files.

    Args:
        path: a `.keras` file, a SavedModel folder, a `.tflite` or `.onnx` file.

    Returns:
        A keras.Model from `.keras`; else a `predict.Predictor`: a callable that takes uint8
        (B, H, W, 3) and returns an array.

    Raises:
        UserError: no such file, not a model, or a damaged one.
    """
    kind = check_model(path)
    readers = {"keras": _load_keras, "saved_model": _saved_model, "tflite": _tflite, "onnx": _onnx}
    try:
        return readers[kind](path)
    except UserError:
        raise
    except Exception as error:  # a damaged file can fail anywhere inside the readers
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise UserError(f"{path}: the model cannot be loaded ({reason})") from error


def _load_keras(path):
    import keras

    import keras_pspnet.network  # noqa: F401  registers the classes that files name
    from keras_pspnet.network.main_head import check_ours

    model = keras.saving.load_model(path)
    check_ours(model, path)
    return model


def _saved_model(path) -> Predictor:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    if SIGNATURE not in loaded.signatures:
        raise UserError(f"{path}: no signature {SIGNATURE}; expected one made by export_model")
    function = loaded.signatures[SIGNATURE]
    inputs, outputs = function.structured_input_signature[1], function.structured_outputs
    _check_contract(
        path,
        [(key, spec.dtype.as_numpy_dtype, tuple(spec.shape)) for key, spec in inputs.items()],
        list(outputs),
    )
    ((name, spec),) = inputs.items()
    (output,) = outputs

    def run(images):
        # The function lives as long as what was loaded; the signature has a batch of one.
        assert loaded is not None
        results = [function(**{name: tf.constant(image[None])})[output] for image in images]
        return np.concatenate([result.numpy() for result in results])

    file = Path(path) / "assets.extra" / LABELS_FILE
    labels = json.loads(read_bytes(file)) if file.is_file() else None
    shape = outputs[output].shape
    return Predictor(run, output, _labels(labels, output, shape), tuple(spec.shape[1:3]))


def _tflite(path) -> Predictor:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=2)
    if SIGNATURE not in interpreter.get_signature_list():
        raise UserError(f"{path}: no signature {SIGNATURE}; expected one made by export_model")
    runner = interpreter.get_signature_runner(SIGNATURE)
    inputs, outputs = runner.get_input_details(), runner.get_output_details()
    _check_contract(
        path,
        [(key, spec["dtype"], tuple(spec["shape"])) for key, spec in inputs.items()],
        list(outputs),
    )
    ((name, spec),) = inputs.items()
    ((output, result),) = outputs.items()

    def run(images):
        results = [runner(**{name: image[None]})[output] for image in images]
        return np.concatenate(results)

    return Predictor(
        run,
        output,
        _labels(read_tflite_labels(path), output, result["shape"]),
        tuple(int(side) for side in spec["shape"][1:3]),
    )


def _onnx(path) -> Predictor:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{path}: onnxruntime is missing; run: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs, outputs = session.get_inputs(), session.get_outputs()
    _check_contract(
        path,
        [(x.name, np.uint8 if x.type == "tensor(uint8)" else None, tuple(x.shape)) for x in inputs],
        [x.name for x in outputs],
    )
    output = outputs[0].name

    def run(images):
        return np.concatenate([session.run(None, {inputs[0].name: x[None]})[0] for x in images])

    labels = session.get_modelmeta().custom_metadata_map.get(LABELS_FILE)
    labels = _labels(labels and json.loads(labels), output, outputs[0].shape)
    return Predictor(run, output, labels, tuple(inputs[0].shape[1:3]))


def _check_contract(path, inputs, outputs) -> None:
    """Whether a file takes and gives what `contract` says: (name, dtype, shape) in, names out."""
    fits = len(inputs) == len(outputs) == 1 and outputs[0] in OUTPUTS
    for _, dtype, shape in inputs:
        fits = fits and dtype == np.uint8 and len(shape) == 4 and shape[0] == 1 and shape[3] == 3
        fits = fits and all(isinstance(side, (int, np.integer)) for side in shape)
    if not fits:
        raise UserError(
            f"{path}: not a file of export_model: expected one uint8 picture (1, H, W, 3) in, and "
            f"{', '.join(OUTPUTS)} out"
        )


def read_tflite_labels(path) -> dict | None:
    """The labels attached to a .tflite file (a zip behind the flatbuffer), if it has any."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        if LABELS_FILE not in archive.namelist():
            return None
        return json.loads(archive.read(LABELS_FILE))


def _labels(config, output, shape) -> LabelSet:
    if config is not None:
        return LabelSet.from_config(config)
    return LabelSet.numbered(256 if output == "classes" else int(shape[-1]))


_networks = weakref.WeakKeyDictionary()


def as_predictor(model) -> Predictor:
    """What `load_model` returns, a keras.Model too, as a `Predictor` without the auxiliary head."""
    if isinstance(model, Predictor):
        return model
    from keras_pspnet.network.main_head import check_ours, labels_of

    if model not in _networks:
        check_ours(model, "model")
        _networks[model] = _keras_network(model)
    # Its labels may have been set since.
    return dataclasses.replace(_networks[model], labels=labels_of(model))


def _keras_network(model) -> Predictor:
    from keras_pspnet.network.main_head import labels_of, main_network, output_stride_of

    main, labels = main_network(model), labels_of(model)
    size = main.input.shape[1:3]
    if None in size:
        stride = output_stride_of(model)
        return Predictor(main.predict_on_batch, "logits", labels, None, stride, floats=True)
    return Predictor(main.predict_on_batch, "logits", labels, tuple(size), floats=True)
