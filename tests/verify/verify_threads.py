"""The thorough tier's check that one loaded model serves eight threads."""

import json
import math
import sys

from PIL import Image
from shell import COMMAND, run

from keras_pspnet import scenes

KINDS = {
    "keras": "model.keras",
    "saved_model": "out/saved_model",
    "tflite": "out/pspnet_float32.tflite",
    "onnx": "out/pspnet.onnx",
}

PHOTO = 4000, 3000
"""Width and height of a photo of a phone, in pixels."""

MORE_MEMORY = 100
"""MiB that seven more threads may need: their stacks and pictures, not seven more networks."""

BYTES_OF_A_PIXEL = 20
"""Memory that `segment` may need in each thread for a pixel of a photo, beside the network's."""

PEAK = """
import concurrent.futures, json, sys
import numpy as np
import keras_pspnet
from keras_pspnet import scenes
from keras_pspnet.inference.load import as_predictor

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))
"""

EIGHT_THREADS = (
    PEAK
    + """
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
found = {"pictures": 4000, "wrong": wrong, "MiB_1_thread": one, "MiB_8_threads": peak()}
print(json.dumps(found))
"""
)

PHOTOS = (
    PEAK
    + """
model, peaks = keras_pspnet.load_model(sys.argv[1]), {}
for threads in (1, 2, 4, 8):
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: keras_pspnet.segment(model, sys.argv[2]), range(3 * threads)))
    peaks[threads] = peak()
print(json.dumps(peaks))
"""
)


def eight_threads(folder):
    """Eight threads share one loaded file: no wrong answer, the memory of one call.

    That of `segment` beside the network counts for each thread: it is measured on large photos.
    """
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
    photo = folder / "photo.jpg"
    scene, _ = scenes.scene(0, split="val", size=(150, 200))
    Image.fromarray(scene).resize(PHOTO).save(photo)
    said = run(sys.executable, "-c", PHOTOS, folder / KINDS["tflite"], photo)
    peaks = {int(threads): mib for threads, mib in json.loads(said).items()}
    found["photo"] = {"pixels": math.prod(PHOTO), "MiB_by_threads": peaks}
    for threads in (2, 4, 8):
        more = (threads - 1) * math.prod(PHOTO) * BYTES_OF_A_PIXEL / 2**20
        assert peaks[threads] < peaks[1] + more, found
    return found
