"""Load a model from any supported file and run it through one interface."""

import contextlib
import dataclasses
import gc
import json
import threading
import weakref
import zipfile
from pathlib import Path

import numpy as np

from keras_pspnet import machine
from keras_pspnet.device_contract import LABELS_FILE, OUTPUTS, SIGNATURE
from keras_pspnet.errors import UserError, missing_package
from keras_pspnet.files import plain_path, read_bytes
from keras_pspnet.inference.predictor import Predictor
from keras_pspnet.inference.presets import locate, model_file
from keras_pspnet.labels import LabelSet

KINDS = {
    "keras": "a .keras file",
    "saved_model": "a SavedModel folder",
    "tflite": "a .tflite file",
    "onnx": "a .onnx file",
}

MAX_THREADS = 16
"""Maximum number of threads that `load_model` takes by itself; a choice, not a measurement."""


def check_model(path, *kinds: str) -> str:
    """Return what kind of model MODEL is, without importing TensorFlow.

    Args:
        path: MODEL, as for `load_model`.
        kinds: the kinds to accept, keys of KINDS; all by default.

    Returns:
        "keras", "saved_model", "tflite" or "onnx".

    Raises:
        UserError: the path does not exist, or is not a model of an accepted kind; no such preset.
    """
    expected = f"expected {' or '.join(KINDS[kind] for kind in kinds or KINDS)}"
    kind = _kind(path, model_file(path), expected)
    if kinds and kind not in kinds:
        raise UserError(f"{path}: is {KINDS[kind]}; {expected}")
    return kind


def _kind(path, file, expected) -> str:
    """Return the kind of a file or folder; messages name `path`, which the user wrote."""
    if not file.exists():
        raise UserError(f"{path}: no such file or folder; {expected}")
    if file.is_dir():
        if not (file / "saved_model.pb").is_file():
            none = "neither saved_model.pb nor a run's best.keras in this folder"
            raise UserError(f"{path}: {none}; {expected}")
        return "saved_model"
    try:
        with open(file, "rb") as stream:
            head = stream.read(8)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if head[4:8] == b"TFL3":
        return "tflite"
    if file.suffix == ".onnx":  # a protobuf file has no magic number
        return "onnx"
    with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(file) as archive:
        if "config.json" in archive.namelist():
            return "keras"
    raise UserError(f"{path}: not a model; {expected}")


def read_labels(path) -> LabelSet | None:
    """Return the labels that a model carries, without importing TensorFlow.

    Returns:
        The labels; None if it carries none, or if `load_model` will refuse it.
    """
    kind, path = check_model(path), model_file(path)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        if kind == "keras":
            with zipfile.ZipFile(path) as archive:
                layers = json.loads(archive.read("config.json"))["config"]["layers"]
            (main,) = (layer["config"] for layer in layers if layer["config"]["name"] == "main")
            return LabelSet.from_config(main["labels"])
        if kind == "saved_model":
            return LabelSet.from_config(json.loads(read_bytes(path / "assets.extra" / LABELS_FILE)))
        if kind == "tflite":
            return LabelSet.from_config(read_tflite_labels(path))
        return load_model(path).labels
    return None


def load_model(path, *, threads=None):
    """Load a trained model from any of its files.

    Args:
        path: a `.keras` file, a SavedModel folder, a `.tflite` or `.onnx` file, a run folder (its
            best.keras), or `preset:NAME`.
        threads: number of threads for a `.tflite` or `.onnx` file; None takes
            TF_NUM_INTRAOP_THREADS of the environment, else one for each core that this process may
            use, at most MAX_THREADS. TensorFlow, which runs the other files, reads that variable.

    Returns:
        A keras.Model for a `.keras` file. Otherwise a `Predictor`: a callable that maps uint8
        pictures (B, H, W, 3) to class ids (B, H, W) or scores (B, H, W, C).

        Several threads may share it: a `Predictor`, and `segment` with either, compute one call
        after the other, so that memory stays that of one call and each thread gets its own answer.

    Raises:
        UserError: the file does not exist, is not a model of this package, or is damaged;
            `threads` is no whole number of at least 1.
    """
    if threads is not None and (type(threads) is not int or threads < 1):
        raise UserError(f"threads={threads}: expected a whole number, at least 1")
    kind, file = check_model(path), model_file(path)
    threads = threads or min(machine.threads(), MAX_THREADS)
    readers = {
        "keras": lambda: _load_keras(path, file),
        "saved_model": lambda: _saved_model(path),
        "tflite": lambda: _tflite(path, threads),
        "onnx": lambda: _onnx(path, threads),
    }
    gc.collect()  # earlier networks are reference cycles, larger than Python's collector knows
    try:
        return readers[kind]()
    except UserError:
        raise
    except ImportError as error:
        raise missing_package(error) or error from error
    except Exception as error:  # a damaged file can raise anything inside the libraries
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise UserError(f"{path}: the model cannot be loaded ({reason})") from error


def from_preset(name_or_path, *, sha256=None):
    """Load a trained network that comes along, or one from a `.keras` file or an address.

    Args:
        name_or_path: the name of a preset, as "scenes" (`keras-pspnet presets` lists all); the path
            of a `.keras` file or of a run folder; or an https address, whose file is downloaded
            once, into $XDG_CACHE_HOME/keras_pspnet, or ~/.cache/keras_pspnet.
        sha256: SHA-256 of the file, 64 hexadecimal digits. An address needs it.

    Returns:
        The keras.Model, with float32 weights, not compiled unless a file says so.

    Raises:
        UserError: no such preset, file or answer; a file that is not here, with the address to
            fetch it from; another SHA-256; not a `.keras` file of this package, or a damaged one.
    """
    file = locate(name_or_path, sha256)
    check_model(file, "keras")
    return load_model(file)


def _load_keras(path, file):
    import keras

    import keras_pspnet.network  # noqa: F401  registers the classes that files name
    from keras_pspnet.network.main_head import check_ours

    model = keras.saving.load_model(file)
    check_ours(model, path)
    return model


def _saved_model(path) -> Predictor:
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
    return Predictor(
        lambda images: np.concatenate([run(**{name: image[None]})[output] for image in images]),
        output,
        labels,
        tuple(int(side) for side in shape[1:3]),
    )


def read_tflite_labels(path) -> dict | None:
    """Return the labels in the zip archive at the end of a .tflite file, or None."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        if LABELS_FILE not in archive.namelist():
            return None
        return json.loads(archive.read(LABELS_FILE))


_predictors = weakref.WeakKeyDictionary()
_making_predictors = threading.Lock()


def as_predictor(model) -> Predictor:
    """Return a model as a `Predictor`, without its auxiliary head.

    Args:
        model: anything that `load_model` returns. The predictor of a keras.Model is cached; its
            labels are read anew at each call.

    Raises:
        UserError: a Keras model that `build_pspnet` did not make.
    """
    if isinstance(model, Predictor):
        return model
    from keras_pspnet.network.main_head import check_ours, labels_of

    with _making_predictors:  # compiling a network that another thread runs would break that
        if model not in _predictors:
            check_ours(model, "model")
            _predictors[model] = _keras_predictor(model)
        predictor = _predictors[model]
    return dataclasses.replace(predictor, labels=labels_of(model))


def _keras_predictor(model) -> Predictor:
    import keras

    from keras_pspnet.network.main_head import labels_of, main_network, output_stride_of

    main = main_network(model)
    if keras.backend.backend() == "tensorflow":
        main.compile(jit_compile=False)  # on a GPU Keras chooses XLA, which compiles each new size
    given = {"size": tuple(main.input.shape[1:3])}
    if None in given["size"]:
        given = {"stride": output_stride_of(model)}
    return Predictor(main.predict_on_batch, "logits", labels_of(model), floats=True, **given)
