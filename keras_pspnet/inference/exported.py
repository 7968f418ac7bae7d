"""Read the files of `export_model`: SavedModel, .tflite and .onnx."""

import json
import zipfile
from pathlib import Path

import numpy as np

from keras_pspnet import machine
from keras_pspnet.device_contract import LABELS_FILE, OUTPUTS, SIGNATURE
from keras_pspnet.errors import UserError, reason_of
from keras_pspnet.files import plain_path, read_bytes, read_member
from keras_pspnet.inference.predictor import Predictor
from keras_pspnet.labels import LabelSet

MAX_THREADS = 16
"""Maximum number of threads that a file gets by itself; a choice, not a measurement."""


def open_exported(path, kind: str, threads: int | None = None) -> Predictor:
    """Open a file of `export_model` in this process.

    A damaged or hostile file can end the process: `load_model` runs it in a child process first.

    Args:
        path: the file, of a SavedModel its folder.
        kind: "saved_model", "tflite" or "onnx".
        threads: see `load_model`.

    Raises:
        UserError: other inputs or outputs than those of `export_model`; what the libraries raise.
    """
    threads = threads or min(machine.threads(), MAX_THREADS)
    return {"saved_model": _saved_model, "tflite": _tflite, "onnx": _onnx}[kind](path, threads)


def _saved_model(path, _) -> Predictor:
    import tensorflow as tf

    with plain_path(Path(path)) as folder:
        loaded = tf.saved_model.load(str(folder))
    _check_signature(path, loaded.signatures)
    function = loaded.signatures[SIGNATURE]
    inputs, outputs = function.structured_input_signature[1], function.structured_outputs

    def run(**feed):  # keeps `loaded` alive, which owns the function's variables
        feed = {name: tf.constant(image) for name, image in feed.items()}
        return loaded.signatures[SIGNATURE](**feed)

    file = Path(path) / "assets.extra" / LABELS_FILE
    return _exported(
        path,
        {name: (spec.dtype.as_numpy_dtype, spec.shape) for name, spec in inputs.items()},
        {name: spec.shape for name, spec in outputs.items()},
        run,
        json.loads(read_bytes(file)) if file.is_file() else None,
    )


def _tflite(path, threads) -> Predictor:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=threads)
    _check_signature(path, interpreter.get_signature_list())
    runner = interpreter.get_signature_runner(SIGNATURE)
    inputs, outputs = runner.get_input_details(), runner.get_output_details()
    return _exported(
        path,
        {name: (spec["dtype"], spec["shape"]) for name, spec in inputs.items()},
        {name: spec["shape"] for name, spec in outputs.items()},
        runner,
        read_tflite_labels(path),
    )


def _onnx(path, threads) -> Predictor:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{path}: onnxruntime is missing; run: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # print nothing: errors are raised
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    dtypes = {"tensor(uint8)": np.uint8}
    outputs = {spec.name: spec.shape for spec in session.get_outputs()}
    labels = session.get_modelmeta().custom_metadata_map.get(LABELS_FILE)
    return _exported(
        path,
        {spec.name: (dtypes.get(spec.type), spec.shape) for spec in session.get_inputs()},
        outputs,
        lambda **feed: dict(zip(outputs, session.run(None, feed))),
        json.loads(labels) if labels else None,
    )


def _check_signature(path, signatures) -> None:
    if SIGNATURE not in signatures:
        raise UserError(f"{path}: no signature {SIGNATURE}; expected one made by export_model")


def _exported(path, inputs, outputs, run, labels) -> Predictor:
    """Wrap an exported file after checking that it keeps `device_contract`.

    Args:
        path: the file, for messages.
        inputs: {name: (dtype, shape)}.
        outputs: {name: shape}.
        run: takes a picture uint8 (1, H, W, 3) by the input's name, returns {name: array}.
        labels: the configuration of the file's LabelSet, or None.

    Raises:
        UserError: other inputs or outputs.
    """
    fits = len(inputs) == len(outputs) == 1 and set(outputs) <= set(OUTPUTS)
    for dtype, shape in inputs.values():
        fits = fits and dtype == np.uint8 and len(shape) == 4 and shape[0] == 1 and shape[3] == 3
        fits = fits and all(isinstance(side, (int, np.integer)) for side in shape)
        fits = fits and all(side >= 1 for side in shape)
    if not fits:
        raise UserError(
            f"{path}: not a file of export_model: expected one uint8 picture (1, H, W, 3) in, and "
            f"{', '.join(OUTPUTS)} out"
        )
    ((name, (_, shape)),) = inputs.items()
    ((output, scores),) = outputs.items()
    if labels is not None:
        labels = LabelSet.from_config(labels)
    else:
        labels = LabelSet.numbered(256 if output == "classes" else int(scores[-1]))

    def run_all(images):
        try:
            results = [np.asarray(run(**{name: image[None]})[output]) for image in images]
        except Exception as error:  # a damaged file can raise anything inside the libraries
            raise UserError(f"{path}: the model cannot be run ({reason_of(error)})") from error
        _check_results(path, output, results, len(labels))
        return np.concatenate(results)

    return Predictor(run_all, output, labels, tuple(int(side) for side in shape[1:3]))


def _check_results(path, output, results, classes: int) -> None:
    """Check that a file computed what its labels and the name of its output say.

    Raises:
        UserError: arrays of another shape or kind, class ids without a label, scores that are not
            finite.
    """
    for result in results:
        if output == "classes":
            fits = result.ndim == 3 and result.dtype.kind in "ui"
            fits = fits and result.min(initial=0) >= 0 and result.max(initial=0) < classes
        else:
            fits = result.ndim == 4 and result.shape[-1] == classes and result.dtype.kind == "f"
            fits = fits and np.isfinite(result).all()
        if not (fits and result.size):
            raise UserError(
                f"{path}: damaged: its {output}, {result.dtype} {result.shape}, are not those of "
                f"{classes} classes; export the model again"
            )


def read_tflite_labels(path) -> dict | None:
    """Return the labels in the zip archive at the end of a .tflite file, or None."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        if LABELS_FILE not in archive.namelist():
            return None
        return json.loads(read_member(archive, LABELS_FILE))
