"""Damaged .onnx files and SavedModels that are programs: one line, in this process."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from keras_pspnet.inference import load
from keras_pspnet.inference.exported import open_exported
from keras_pspnet.inference.load import load_model
from keras_pspnet.inference.operators import check_operators

PICTURE = np.ones((1, 4, 5, 3), np.uint8)


def small(nodes, kind=TensorProto.FLOAT, shape=(1, 4, 5, 3), constants=()):
    """A network of these nodes, from `image` to `logits`."""
    graph = helper.make_graph(
        nodes,
        "pspnet",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, (1, 4, 5, 3))],
        [helper.make_tensor_value_info("logits", kind, shape)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    labels = {"names": ["a", "b", "c"]}
    helper.set_model_props(model, {"labels.json": json.dumps(labels)})
    return model


def cast(to, output="logits"):
    return helper.make_node("Cast", ["image"], [output], to=to)


def constant(name, values, kind=TensorProto.FLOAT):
    return helper.make_tensor(name, kind, np.shape(values), np.ravel(values))


KINDS = {
    "a constant that overflows": lambda: small(
        [cast(TensorProto.FLOAT, "a"), helper.make_node("Mul", ["a", "k"], ["b"])]
        + [helper.make_node("Exp", ["b"], ["logits"])],
        constants=[constant("k", [1e30])],
    ),
    "scores that are whole numbers": lambda: small([cast(TensorProto.INT32)], TensorProto.INT32),
    "a resize of five axes": lambda: small(
        [cast(TensorProto.FLOAT, "a"), helper.make_node("Reshape", ["a", "s"], ["b"])]
        + [helper.make_node("Resize", ["b", "", "k"], ["logits"], mode="linear")],
        shape=None,
        constants=[
            constant("s", [1, 1, 4, 5, 3], TensorProto.INT64),
            constant("k", [1.0, 2, 2, 2, 2]),
        ],
    ),
    "scores of fewer classes": lambda: small(
        [cast(TensorProto.FLOAT, "a"), helper.make_node("Slice", ["a", "s", "e", "x"], ["logits"])],
        shape=(1, 4, 5, 2),
        constants=[
            constant("s", [0], TensorProto.INT64),
            constant("e", [2], TensorProto.INT64),
            constant("x", [3], TensorProto.INT64),
        ],
    ),
}


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(load, "check_first_run", lambda *_: None)
    return tmp_path / "a.onnx"


def test_the_small_network_is_a_good_one(file):
    onnx.save(small([cast(TensorProto.FLOAT)]), file)
    assert load_model(file)(PICTURE).shape == (1, 4, 5, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_onnx_file_is_one_line(refused, file, kind):
    onnx.save(KINDS[kind](), file)
    assert str(file) in refused(lambda: load_model(file)(PICTURE))


def test_a_strange_onnx_file_that_runs_prints_nothing(file, capfd):
    cast_to = [cast(TensorProto.FLOAT, "a"), helper.make_node("Mul", ["a", "k"], ["logits"])]
    model = small(cast_to, constants=[constant("k", [2.0]), constant("k", [3.0])])
    onnx.save(model, file)
    assert load_model(file)(PICTURE).max() == 3
    assert not capfd.readouterr().err


def test_class_ids_without_a_label_are_refused(refused, tmp_path):
    model = small([cast(TensorProto.INT32, "a")], TensorProto.INT32)
    reduce = helper.make_node("ReduceMax", ["a"], ["classes"], axes=[3], keepdims=0)
    model.graph.node.append(reduce)
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("classes", TensorProto.INT32, (1, 4, 5))
    )
    onnx.save(model, tmp_path / "a.onnx")
    predictor = open_exported(tmp_path / "a.onnx", "onnx")
    assert predictor(PICTURE * 2).max() == 2
    assert "are not those of 3 classes" in refused(predictor, PICTURE * 3)


@pytest.fixture
def saved_model(tmp_path):
    """Writes the saved_model.pb of a SavedModel whose functions hold these operators."""
    from tensorflow.core.protobuf import saved_model_pb2

    def write(functions, called=(), calls=(), nodes=()):
        content = saved_model_pb2.SavedModel()
        graph = content.meta_graphs.add()
        for name, operators in functions.items():
            function = graph.graph_def.library.function.add()
            function.signature.name = name
            for operator in operators:
                function.node_def.add(op=operator)
            for other in calls:
                node = function.node_def.add(op="PartitionedCall")
                node.attr["f"].func.name = other
        for operator in nodes:
            graph.graph_def.node.add(op=operator)
        for name in called:
            graph.object_graph_def.concrete_functions[name].SetInParent()
        (tmp_path / "saved_model.pb").write_bytes(content.SerializeToString())
        return tmp_path

    return write


@pytest.mark.parametrize(
    "operator", ["WriteFile", "ReadFile", "PyFunc", "EagerPyFunc", "While", "StatelessWhile"]
)
def test_a_program_that_is_no_network_is_refused(refused, saved_model, operator):
    good = {"serve": ["Conv2D", "Relu"], "save": ["SaveV2", "Const"]}
    check_operators(saved_model(good, called=["serve"]))
    assert operator in refused(check_operators, saved_model({"serve": ["Conv2D", operator]}))
    assert operator in refused(check_operators, saved_model(good, nodes=[operator]))


def test_what_saves_may_not_be_called(refused, saved_model):
    functions = {"serve": ["Conv2D"], "save": ["SaveV2"]}
    assert "SaveV2" in refused(check_operators, saved_model(functions, called=["serve", "save"]))
    assert "SaveV2" in refused(check_operators, saved_model(functions, calls=["save"]))
    assert "SaveV2" in refused(check_operators, saved_model(functions, nodes=["SaveV2"]))


def test_a_saved_model_that_is_none_is_one_line(refused, tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"\xff" * 9)
    assert "damaged" in refused(check_operators, tmp_path)
