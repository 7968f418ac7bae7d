"""List the operators of a .tflite file, and those that the XNNPACK delegate does not take."""

import collections

from keras_pspnet import private_api


def operators(path) -> dict[str, int]:
    """Count the operators of a .tflite file by name."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(str(path), experimental_op_resolver_type=plain)
    names = [op["op_name"] for op in private_api.operator_details(interpreter)]
    return dict(sorted(collections.Counter(names).items()))


def delegation(path) -> tuple[int, list[str]]:
    """Return how LiteRT's XNNPACK delegate divides a .tflite file.

    Returns:
        The number of delegated partitions, and the names of the operators outside them in order of
        execution.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=2)
    interpreter.allocate_tensors()
    details = private_api.operator_details(interpreter)
    # The list still holds the operators that the delegate's nodes, which come later, replaced.
    producer = {int(t): op for op in details for t in op["outputs"]}
    inputs = {int(d["index"]) for d in interpreter.get_input_details()}
    reached, waiting = {}, [int(d["index"]) for d in interpreter.get_output_details()]
    while waiting:
        op = producer.get(waiting.pop())
        if op is not None and op["index"] not in reached:
            sources = [int(t) for t in op["inputs"]]
            waiting += sources
            # Skip what only converts constant weights, as the DEQUANTIZE of float16 weights: it
            # runs once, not for each picture.
            if any(t in producer or t in inputs for t in sources):
                reached[op["index"]] = op["op_name"]
    names = [reached[index] for index in sorted(reached)]
    outside = [name for name in names if name != "DELEGATE"]
    return len(names) - len(outside), outside
