"""Damaged .tflite files: one line each from `load_model` and from segment.py on a device."""

import importlib.util
import io
import json
import signal
import subprocess
import zipfile
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from PIL import Image

from keras_pspnet.errors import UserError
from keras_pspnet.inference import first_run, load
from keras_pspnet.inference.load import load_model

SOURCE = Path(__file__).parents[2] / "export" / "on_device" / "segment.py"
LABELS = {"names": ["a", "b", "c"], "colors": [[0, 0, 0], [9, 9, 9], [255, 0, 1]]}


def tiny():
    """A file of export_model's form: uint8 (1, 4, 5, 3) -> CAST -> CONV_2D -> float32 scores."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.description = 3, b"tiny"

    def buffer(data=None):
        made = schema.BufferT()
        made.data = None if data is None else np.frombuffer(data, np.uint8)
        model.buffers.append(made)
        return len(model.buffers) - 1

    model.buffers, graph.tensors = [], []
    kernel = np.ones((3, 1, 1, 3), np.float32).tobytes()
    for name, kind, shape, data in (
        (b"image", schema.TensorType.UINT8, [1, 4, 5, 3], None),
        (b"float", schema.TensorType.FLOAT32, [1, 4, 5, 3], None),
        (b"kernel", schema.TensorType.FLOAT32, [3, 1, 1, 3], kernel),
        (b"bias", schema.TensorType.FLOAT32, [3], bytes(12)),
        (b"logits", schema.TensorType.FLOAT32, [1, 4, 5, 3], None),
    ):
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.shape = name, kind, np.array(shape, np.int32)
        tensor.buffer = buffer(data)
        graph.tensors.append(tensor)
    model.operatorCodes, graph.operators = [], []
    convolve = schema.Conv2DOptionsT()
    convolve.strideH = convolve.strideW = convolve.dilationHFactor = convolve.dilationWFactor = 1
    for code, inputs, outputs, kind, options in (
        (schema.BuiltinOperator.CAST, [0], [1], 0, None),
        (
            schema.BuiltinOperator.CONV_2D,
            [1, 2, 3],
            [4],
            schema.BuiltinOptions.Conv2DOptions,
            convolve,
        ),
    ):
        about, operator = schema.OperatorCodeT(), schema.OperatorT()
        about.builtinCode = about.deprecatedBuiltinCode = code
        about.version = 1
        model.operatorCodes.append(about)
        operator.opcodeIndex = len(model.operatorCodes) - 1
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        operator.builtinOptionsType, operator.builtinOptions = kind, options
        graph.operators.append(operator)
    graph.inputs, graph.outputs = np.array([0], np.int32), np.array([4], np.int32)
    signature = schema.SignatureDefT()
    signature.signatureKey = b"serving_default"
    for name, index, places in ((b"image", 0, "inputs"), (b"logits", 4, "outputs")):
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, index
        setattr(signature, places, [entry])
    model.subgraphs, model.signatureDefs = [graph], [signature]
    return model


def packed(model, labels=LABELS):
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    stream = io.BytesIO(bytes(builder.Output()))
    stream.seek(0, io.SEEK_END)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("labels.json", json.dumps(labels))
    return stream.getvalue()


def axis(graph, model):
    kernel = graph.tensors[2]
    kernel.quantization = schema.QuantizationParametersT()
    kernel.quantization.scale = np.ones(3, np.float32)
    kernel.quantization.zeroPoint = np.zeros(3, np.int64)
    kernel.quantization.quantizedDimension = 77
    kernel.type = schema.TensorType.INT8


def second_graph(graph, model):
    model.subgraphs.append(schema.SubGraphT())
    model.signatureDefs = None


def overflowing(graph, model):
    model.buffers[graph.tensors[2].buffer].data = np.frombuffer(
        np.full(9, 3e38, np.float32).tobytes(), np.uint8
    )


def setting(name, value):
    return lambda graph, model: setattr(graph, name, np.array(value, np.int32))


def operator(change):
    return lambda graph, model: change(graph.operators)


def sized(sides):
    def change(graph, model):
        for index in (0, 1, 4):
            graph.tensors[index].shape = np.array([1, *sides, 3], np.int32)

    return change


def custom(graph, model):
    code = model.operatorCodes[1]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = b"Anything"


KINDS = {
    "a quantisation axis out of range": axis,
    "inputs renumbered": setting("inputs", [4]),
    "outputs renumbered": setting("outputs", [99]),
    "inputs of an operator swapped": operator(
        lambda ops: setattr(ops[1], "inputs", ops[1].inputs[::-1])
    ),
    "an operator dropped": operator(lambda ops: ops.pop()),
    "an operator without its inputs": operator(
        lambda ops: setattr(ops[1], "inputs", np.array([], np.int32))
    ),
    "a custom operator": custom,
    "two graphs without a signature": second_graph,
    "a picture of no size": sized((0, 5)),
    "a picture of 60,000": sized((60_000, 60_000)),
    "numbers that overflow": overflowing,
}

LABEL_KINDS = {
    "colours as text": {"colors": ["red", "green", "blue"]},
    "colours that are none": {"colors": [None, None, None]},
    "no colours": {"colors": []},
    "fewer colours": {"colors": [[0, 0, 0]]},
    "colours above 255": {"colors": [[0, 0, 0], [9, 9, 9], [256, 0, 1]]},
    "names inside names": {"names": [["a"], ["b"], ["c"]]},
    "fewer names": {"names": ["a"], "colors": [[0, 0, 0]]},
    "a name that cannot be written": {"names": ["a", "b", "\ud800"]},
}


@pytest.fixture(scope="module")
def device():
    spec = importlib.util.spec_from_file_location("segment", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def damaged(change):
    model = tiny()
    change(model.subgraphs[0], model)
    return packed(model)


def run_on_device(device, file, tmp_path, capfd):
    Image.fromarray(np.full((6, 7, 3), 9, np.uint8)).save(tmp_path / "a.png")
    code = device.main([str(file), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")])
    errors = [line for line in capfd.readouterr().err.splitlines() if "INFO:" not in line]
    return code, errors


def test_the_tiny_file_is_a_good_one(device, tmp_path, capfd):
    file = tmp_path / "a.tflite"
    file.write_bytes(packed(tiny()))
    assert load_model(file)(np.ones((1, 4, 5, 3), np.uint8)).shape == (1, 4, 5, 3)
    assert run_on_device(device, file, tmp_path, capfd) == (0, [])


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_one_line_on_a_device(device, tmp_path, capfd, kind):
    file = tmp_path / "a.tflite"
    file.write_bytes(damaged(KINDS[kind]))
    code, errors = run_on_device(device, file, tmp_path, capfd)
    assert (code, len(errors)) == (2, 1) and str(file) in errors[0], errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", LABEL_KINDS)
def test_damaged_labels_are_one_line(device, tmp_path, capfd, kind):
    file = tmp_path / "a.tflite"
    file.write_bytes(packed(tiny(), LABELS | LABEL_KINDS[kind]))
    code, errors = run_on_device(device, file, tmp_path, capfd)
    assert (code, len(errors)) == (2, 1) and str(file) in errors[0], errors


@pytest.mark.parametrize("kind", ["two graphs without a signature", "a picture of 60,000"])
def test_a_file_runs_in_a_child_process_first(refused, tmp_path, kind):
    file = tmp_path / "a.tflite"
    file.write_bytes(damaged(KINDS[kind]))
    assert str(file) in refused(load_model, file)


def test_what_happened_to_the_child_process_is_said(refused, tmp_path, monkeypatch):
    file = tmp_path / "a.tflite"
    file.write_bytes(packed(tiny()) + b"x")
    for number, said in (
        (signal.SIGSEGV, "ended the process that first ran it (SIGSEGV)"),
        (signal.SIGXCPU, "no answer in 60 s of processor time"),
    ):
        done = subprocess.CompletedProcess([], -number, b"", b"a page")
        monkeypatch.setattr(first_run.subprocess, "run", lambda *_, done=done, **__: done)
        assert said in refused(load_model, file)
    monkeypatch.undo()
    monkeypatch.setattr(first_run, "WAIT", 0.01)
    assert "no answer in 0.01 s" in refused(load_model, file)


def test_what_goes_wrong_at_a_later_run_is_one_line(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(load, "check_first_run", lambda *_: None)
    file, picture = tmp_path / "a.tflite", np.ones((1, 4, 5, 3), np.uint8)
    file.write_bytes(damaged(KINDS["numbers that overflow"]))
    assert "are not those of 3 classes" in refused(load_model(file), picture)
    file.write_bytes(packed(tiny(), {"names": ["a"]}))
    assert "are not those of 1 classes" in refused(load_model(file), picture)
    file.write_bytes(packed(tiny()))
    assert "cannot be run" in refused(load_model(file), picture.astype(np.float32))


def test_a_card_with_the_sum_of_the_file_spares_the_first_run(tmp_path, monkeypatch):
    file = tmp_path / "a.tflite"
    file.write_bytes(packed(tiny()) + b"y")

    def never(*_, **__):
        raise AssertionError("a child process")

    monkeypatch.setattr(first_run.subprocess, "run", never)
    with pytest.raises(UserError, match="a child process"):
        load_model(file)
    card = {"sha256": first_run.contents_sha256(file)}
    (tmp_path / "anything.card.json").write_text(json.dumps(card))
    load_model(file)
    for text in ("", "[]", "[" * 5000, '{"sha256": null}'):
        (tmp_path / "b.card.json").write_text(text)
    load_model(file)
