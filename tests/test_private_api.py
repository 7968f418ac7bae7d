"""Each private interface of Keras, TensorFlow and LiteRT still does what we take it for."""

import ast
import importlib.metadata
import re
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_pspnet import private_api

PROJECT = Path(__file__).parent.parent


def test_a_graph_is_called_anew_in_order():
    x = keras.Input((3,))
    model = keras.Model(x, layers.Dense(2, name="b")(layers.Dense(4, name="a")(x) + 1.0))
    seen = []

    def call(operation, *args, **kwargs):
        seen.append(operation.name)
        return operation(*args, **kwargs)

    y = keras.Input((3,))
    outputs = private_api.run_through_graph(model, [y], call)
    assert seen[0] == "a" and seen[-1] == "b" and len(seen) == 3
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(keras.Model(y, outputs)(values), model(values))


def test_layers_inside_a_layer_are_found_at_any_depth():
    inner = keras.Sequential([keras.Input((2,)), layers.Dense(3, name="deep")])
    outer = keras.Sequential([inner, layers.ReLU(name="flat")])
    names = {layer.name for layer in private_api.inner_layers(outer)}
    assert {"deep", "flat"} <= names and outer.name not in names


def test_each_call_of_a_layer_is_a_node():
    x = keras.Input((2,))
    layer = layers.Dense(2)
    layer(layer(x))
    nodes = private_api.inbound_nodes(layer)
    assert len(nodes) == 2
    assert nodes[0].input_tensors[0] is x and nodes[1].input_tensors[0] is nodes[0].outputs[0]


def test_an_optimizer_knows_its_variables_by_position():
    variables = [keras.Variable(np.zeros(2)), keras.Variable(np.zeros(3))]
    optimizer = keras.optimizers.SGD()
    optimizer.build(variables)
    assert [private_api.variable_index(optimizer, v) for v in variables] == [0, 1]


def test_the_moving_averages_are_in_the_order_of_the_variables():
    variables = [keras.Variable(np.zeros(2)), keras.Variable(np.zeros(3))]
    optimizer = keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=0.75)
    for wrapped in (optimizer, keras.optimizers.LossScaleOptimizer(optimizer)):
        wrapped.build(variables)
        assert [v.shape for v in private_api.moving_averages(wrapped)] == [(2,), (3,)]
    optimizer.apply([np.full(2, -4.0), np.zeros(3)])
    optimizer.apply([np.full(2, -4.0), np.zeros(3)])
    assert np.asarray(private_api.moving_averages(optimizer)[0]).tolist() == [5.0, 5.0]


def test_a_function_is_frozen():
    weight = tf.Variable(3.0)
    function = tf.function(lambda x: x * weight).get_concrete_function(
        tf.TensorSpec((), tf.float32)
    )
    frozen = private_api.frozen(function)
    assert len(frozen.inputs) == 1 and not frozen.variables
    assert float(frozen(tf.constant(2.0))[0]) == 6.0


def test_operators_of_an_interpreter_are_linked_by_their_tensors():
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((1, 4), tf.float32)])
        def serve(self, x):
            return tf.exp(x) * 2.0

    module = Module()
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [module.serve.get_concrete_function()], module
    )
    interpreter = Interpreter(
        model_content=converter.convert(),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    first, second = private_api.operator_details(interpreter)
    assert [first["op_name"], second["op_name"]] == ["EXP", "MUL"]
    assert first["index"] < second["index"]
    assert int(first["inputs"][0]) == interpreter.get_input_details()[0]["index"]
    assert int(first["outputs"][0]) in map(int, second["inputs"])


def test_no_other_file_uses_a_private_interface():
    package = PROJECT / "keras_pspnet"
    private = re.compile(r"keras\.src|tensorflow\.python|(?<![\w.\"])(?!self|cls)\w+\._[A-Za-z]\w+")
    for path in package.rglob("*.py"):
        if path.name not in ("private_api.py", "unpickler.py"):  # it names what pickles name
            tree = ast.parse(path.read_text())
            for node in ast.walk(tree):  # docstrings and messages may name what they like
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    node.value = ""
            code = ast.unparse(tree).replace("os._exit(", "os.exit(")  # Python documents it
            assert not private.search(code), path


def test_the_versions_here_are_within_the_bounds_of_pyproject():
    text = (PROJECT / "pyproject.toml").read_text()
    for name in ("keras", "tensorflow"):
        low, high = re.search(rf'"{name}>=([\d.]+),<([\d.]+)"', text).groups()
        low, here, high = (
            tuple(map(int, version.split(".")[:2]))
            for version in (low, importlib.metadata.version(name), high)
        )
        assert low <= here < high, name
