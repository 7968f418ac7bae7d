"""The thorough tier's check that one loaded model serves eight threads."""

import json
import sys

from shell import COMMAND, run

KINDS = {
    "keras": "model.keras",
    "saved_model": "out/saved_model",
    "tflite": "out/pspnet_float32.tflite",
    "onnx": "out/pspnet.onnx",
}

MORE_MEMORY = 100
"""MiB that seven more threads may need: their stacks and pictures, not seven more networks."""

EIGHT_THREADS = """
import collections, concurrent.futures, json, sys
import numpy as np
import keras_pspnet
from keras_pspnet import scenes
from keras_pspnet.inference.load import as_predictor

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))

predictor = as_predictor(keras_pspnet.load_model(sys.argv[1]))
pictures = [scenes.scene(i, split="val", size=predictor.size)[0][None] for i in range(20)]
expected = [predictor(picture) for picture in pictures]
assert len({answer.tobytes() for answer in expected}) == len(pictures)
one = peak()

def work(thread):
    places = np.random.default_rng(thread).integers(len(pictures), size=500)
    return sum(not np.array_equal(predictor(pictures[i]), expected[i]) for i in places)

with concurrent.futures.ThreadPoolExecutor(8) as pool:
    wrong = sum(pool.map(work, range(8)))
print(json.dumps({"pictures": 4000, "wrong": wrong, "MiB_1_thread": one, "MiB_8_threads": peak()}))
"""


def eight_threads(folder):
    """Eight threads share one loaded file: no wrong answer, the memory of one call."""
    make = "import keras_pspnet, sys; keras_pspnet.from_preset('scenes').save(sys.argv[1])"
    run(sys.executable, "-c", make, folder / "model.keras")
    formats = ["--formats", "saved_model,float32,onnx", "--output", "logits"]
    run(*COMMAND, "export", folder / "model.keras", "--out", folder / "out", *formats)
    found = {}
    for kind, file in KINDS.items():
        said = run(sys.executable, "-c", EIGHT_THREADS, folder / file)
        found[kind] = json.loads(said.splitlines()[-1])
        assert found[kind]["wrong"] == 0, found
        assert found[kind]["MiB_8_threads"] < found[kind]["MiB_1_thread"] + MORE_MEMORY, found
    return found
