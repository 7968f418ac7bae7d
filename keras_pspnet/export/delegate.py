"""The operators of a .tflite file, and what XNNPACK takes of them."""

from __future__ import annotations

import collections

from keras_pspnet import private_api


def operators(path) -> dict[str, int]:
    """How often each operator occurs in a .tflite file."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(str(path), experimental_op_resolver_type=plain)
    names = [op["op_name"] for op in private_api.operator_details(interpreter)]
    return dict(sorted(collections.Counter(names).items()))


def delegation(path) -> tuple[int, list[str]]:
    """What LiteRT's XNNPACK delegate takes of a file.

    Returns:
        The number of delegated partitions, and the operators outside them in order of execution.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=2)
    interpreter.allocate_tensors()
    details = private_api.operator_details(interpreter)
    # Replaced operators stay in the list, in front of the delegate's nodes: the last writer counts.
    producer = {int(t): op for op in details for t in op["outputs"]}
    given = {int(d["index"]) for d in interpreter.get_input_details()}
    reached, waiting = {}, [int(d["index"]) for d in interpreter.get_output_details()]
    while waiting:
        op = producer.get(waiting.pop())
        if op is not None and op["index"] not in reached:
            sources = [int(t) for t in op["inputs"]]
            waiting += sources
            # Not what unpacks half-precision weights, once: it sees nothing of a picture.
            if any(t in producer or t in given for t in sources):
                reached[op["index"]] = op["op_name"]
    names = [reached[index] for index in sorted(reached)]
    outside = [name for name in names if name != "DELEGATE"]
    return len(names) - len(outside), outside
