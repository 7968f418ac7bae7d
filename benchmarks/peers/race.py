"""One picture through every runtime in turn, round after round, on 2 threads.

Runs in the environment that peers.py makes.

python benchmarks/peers/race.py FOLDER ROUNDS
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import torch
from ai_edge_litert.interpreter import Interpreter
from reference import NETWORK, MainHead, nchw
from torch_pspnet import random_network

THREADS = 2


def pytorch(folder):
    torch.set_num_threads(THREADS)
    network = random_network(**NETWORK)
    network.aux = None
    network = MainHead(network).eval()

    def run(picture):
        with torch.inference_mode():
            return network(torch.from_numpy(nchw(picture))).numpy().transpose(0, 2, 3, 1)

    return run


def onnx_runtime(file):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    # Threads that spin on after their part of a network would slow down the next runtime.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(file), options)
    return lambda picture: session.run(None, {"image": nchw(picture)})[0].transpose(0, 2, 3, 1)


def open_vino(file, precision):
    settings = {"INFERENCE_NUM_THREADS": THREADS, "INFERENCE_PRECISION_HINT": precision}
    settings["PERFORMANCE_HINT"] = "LATENCY"
    model = openvino.Core().compile_model(str(file), "CPU", settings)
    request = model.create_infer_request()

    def run(picture):
        # Without a copy of the 134 MB of logits.
        result = request.infer({"image": nchw(picture)}, share_inputs=True, share_outputs=True)
        return next(iter(result.values())).transpose(0, 2, 3, 1)

    return run


def litert(file):
    interpreter = Interpreter(str(file), num_threads=THREADS)
    interpreter.allocate_tensors()
    (image,), (logits,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(picture):
        interpreter.set_tensor(image["index"], picture[None])
        interpreter.invoke()
        return interpreter.tensor(logits["index"])()

    return run


def operations(file):
    """GFLOP of a .tflite file's convolutions, a product and its sum counted as 2."""
    interpreter = Interpreter(str(file), num_threads=1)
    shapes = {t["index"]: t["shape"] for t in interpreter.get_tensor_details()}
    count = 0
    for op in interpreter._get_ops_details():
        if op["op_name"] == "CONV_2D":
            kernel, output = shapes[op["inputs"][1]], shapes[op["outputs"][0]]
            count += 2 * int(np.prod(kernel[1:])) * int(np.prod(output))
    return count / 1e9


def reference_operations(picture):
    """GFLOP of the authors' graph."""
    network = random_network(**NETWORK)
    network.aux = None
    counts = []

    def count(module, inputs, output):
        counts.append(2 * module.weight[0].numel() * output.numel())

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    with torch.inference_mode():
        network(torch.from_numpy(nchw(picture)))
    return sum(counts) / 1e9


def matrix_product(size=4096):
    """GFLOP/s of numpy's float32 matrix product."""
    a = np.ones((size, size), np.float32)
    start = time.perf_counter()
    a @ a
    return 2 * size**3 / (time.perf_counter() - start) / 1e9


def main(folder, rounds):
    picture = np.load(folder / "pictures.npy")[0]
    runners = {
        "PyTorch": pytorch(folder),
        "ONNX Runtime": onnx_runtime(folder / "float.onnx"),
        "OpenVINO f32": open_vino(folder / "float.onnx", "f32"),
        "keras_pspnet float32, LiteRT": litert(folder / "pspnet_float32.tflite"),
        "ONNX Runtime int8": onnx_runtime(folder / "int8.onnx"),
        "OpenVINO int8": open_vino(folder / "int8.onnx", "f32"),
        "keras_pspnet int8, LiteRT": litert(folder / "pspnet_int8.tflite"),
    }
    expected = runners["PyTorch"](picture)
    differences = {}
    for name, run in runners.items():
        found = run(picture)
        differences[name] = {
            "of_the_range": float(np.abs(found - expected).max() / np.ptp(expected)),
            "equal_classes": float((found.argmax(-1) == expected.argmax(-1)).mean()),
        }
    del expected, found
    seconds, products = {name: [] for name in runners}, []
    for number in range(rounds):
        products.append(matrix_product())
        for name, run in runners.items():
            start = time.perf_counter()
            run(picture)
            seconds[name].append(time.perf_counter() - start)
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    result = {
        "openvino": openvino.__version__,
        "onnxruntime": onnxruntime.__version__,
        "torch": torch.__version__,
        "rounds": rounds,
        "threads": THREADS,
        "matrix_product_gflop_per_s": float(np.median(products)),
        "gflop": {
            "authors' graph": reference_operations(picture),
            "pspnet_float32.tflite": operations(folder / "pspnet_float32.tflite"),
        },
        "runtimes": {
            name: {"seconds": float(np.median(seconds[name])), **differences[name]}
            for name in runners
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
