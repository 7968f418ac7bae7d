"""Labels inside a .tflite file, and what a runtime makes of its operators."""

from __future__ import annotations

import collections
import io
import json
import zipfile

from keras_pspnet.contract import LABELS_FILE
from keras_pspnet.labels import LabelSet

NAMES_FILE = "labels.txt"


def attach_labels(model: bytes, labels: LabelSet) -> bytes:
    """The file with `labels.txt` (a name a line) and `labels.json` (colours too) attached.

    Attached files of TFLite metadata are a zip archive behind the flatbuffer: runtimes do not look
    there, and any zip reader opens it.
    """
    stream = io.BytesIO(model)
    with zipfile.ZipFile(stream, "a") as archive:
        for name, text in (
            (NAMES_FILE, "\n".join(labels.names) + "\n"),
            (LABELS_FILE, json.dumps(labels.to_config())),
        ):
            # The first date a zip can have: the same model gives the same file.
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text)
    return stream.getvalue()


def operators(path) -> dict[str, int]:
    """How often each operator occurs in a .tflite file."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(str(path), experimental_op_resolver_type=plain)
    names = [op["op_name"] for op in interpreter._get_ops_details()]
    return dict(sorted(collections.Counter(names).items()))


def delegation(path) -> tuple[int, list[str]]:
    """What LiteRT's XNNPACK delegate takes of a file.

    Returns:
        The number of delegated partitions, and the operators outside them in order of execution.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=2)
    interpreter.allocate_tensors()
    details = interpreter._get_ops_details()
    # Replaced operators stay in the list, in front of the delegate's nodes: the last writer counts.
    producer = {int(t): op for op in details for t in op["outputs"]}
    reached, waiting = {}, [int(d["index"]) for d in interpreter.get_output_details()]
    while waiting:
        op = producer.get(waiting.pop())
        if op is not None and op["index"] not in reached:
            reached[op["index"]] = op["op_name"]
            waiting += [int(t) for t in op["inputs"]]
    names = [reached[index] for index in sorted(reached)]
    outside = [name for name in names if name != "DELEGATE"]
    return len(names) - len(outside), outside
