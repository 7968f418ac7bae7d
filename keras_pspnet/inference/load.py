"""Load a model from any supported file and run it through one interface."""

import contextlib
import dataclasses
import gc
import json
import math
import threading
import weakref
import zipfile

from keras_pspnet.device_contract import LABELS_FILE
from keras_pspnet.errors import UserError, missing_package, reason_of
from keras_pspnet.files import check_regular, read_bytes, read_member
from keras_pspnet.inference.exported import open_exported, read_tflite_labels
from keras_pspnet.inference.first_run import check_first_run
from keras_pspnet.inference.operators import check_operators
from keras_pspnet.inference.predictor import PIXEL_BYTES, Predictor
from keras_pspnet.inference.presets import locate, model_file
from keras_pspnet.labels import LabelSet
from keras_pspnet.machine import free_memory

KINDS = {
    "keras": "a .keras file",
    "saved_model": "a SavedModel folder",
    "tflite": "a .tflite file",
    "onnx": "a .onnx file",
}


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
    check_regular(file)
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
    with contextlib.suppress(Exception):  # a damaged file can raise anything
        if kind == "keras":
            return LabelSet.from_config(layer_configs(path)["main"]["labels"])
        if kind == "saved_model":
            return LabelSet.from_config(json.loads(read_bytes(path / "assets.extra" / LABELS_FILE)))
        if kind == "tflite":
            return LabelSet.from_config(read_tflite_labels(path))
        return load_model(path).labels
    return None


def layer_configs(file) -> dict[str, dict]:
    """Return the configuration of each layer in a .keras file, by name, without importing Keras."""
    with zipfile.ZipFile(file) as archive:
        layers = json.loads(read_member(archive, "config.json"))["config"]["layers"]
    return {layer["config"]["name"]: layer["config"] for layer in layers}


def load_model(path, *, threads=None):
    """Load a trained model from any of its files.

    Args:
        path: a `.keras` file, a SavedModel folder, a `.tflite` or `.onnx` file, a run folder (its
            best.keras), or `preset:NAME`.
        threads: number of threads for a `.tflite` or `.onnx` file; None takes
            TF_NUM_INTRAOP_THREADS of the environment, else one for each core that this process may
            use, at most `exported.MAX_THREADS`. TensorFlow, which runs the other files, reads that
            variable.

    Returns:
        A keras.Model for a `.keras` file. Otherwise a `Predictor`: a callable that maps uint8
        pictures (B, H, W, 3) to class ids (B, H, W) or scores (B, H, W, C).

        Several threads may share it: a `Predictor`, and `segment` with either, compute one call
        after the other, so that memory stays that of one call and each thread gets its own answer.

    A SavedModel, `.tflite` or `.onnx` file without its card next to it runs once in a child process
    first: what ends a process, or takes more than `first_run` allows, is an error.

    Raises:
        UserError: the file does not exist, is not a model of this package, is damaged, or cannot be
            run; `threads` is no whole number of at least 1.
    """
    if threads is not None and (type(threads) is not int or threads < 1):
        raise UserError(f"threads={threads}: expected a whole number, at least 1")
    kind, file = check_model(path), model_file(path)
    gc.collect()  # earlier networks are reference cycles, larger than Python's collector knows
    try:
        if kind == "keras":
            return _load_keras(path, file)
        if kind == "saved_model":
            check_operators(file)
        check_first_run(file, kind)
        return open_exported(file, kind, threads)
    except UserError:
        raise
    except ImportError as error:
        raise missing_package(error) or error from error
    except Exception as error:  # a damaged file can raise anything inside the libraries
        raise UserError(f"{path}: the model cannot be loaded ({reason_of(error)})") from error


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
    from keras_pspnet.network.keras_file import read_keras
    from keras_pspnet.network.main_head import check_ours

    model = read_keras(file, path)
    check_ours(model, path)
    shape = getattr(model.input, "shape", ())
    if len(shape) != 4 or shape[3] != 3:
        raise UserError(f"{path}: its input is {shape}; expected pictures (None, H, W, 3)")
    return model


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
    elif math.prod(given["size"]) * PIXEL_BYTES > (free_memory() or math.inf):
        taken = math.prod(given["size"]) * PIXEL_BYTES / 1e9
        raise UserError(
            "the model takes pictures of {}x{}, which need {:.1f} GB, more than there is free; "
            "train it with a smaller crop".format(*given["size"], taken)
        )
    return Predictor(main.predict_on_batch, "logits", labels_of(model), floats=True, **given)
