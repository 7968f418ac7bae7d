"""One loaded model serves several threads: each gets the answer for its own picture."""

import concurrent.futures
import threading
import time

import keras
import numpy as np
import pytest

import keras_pspnet
from keras_pspnet.inference.predictor import Predictor
from keras_pspnet.labels import LabelSet

THREADS, SIZE = 8, (49, 57)
KINDS = {
    "keras": "model.keras",
    "saved_model": "saved_model",
    "tflite": "pspnet_float32.tflite",
    "onnx": "pspnet.onnx",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, seen_network):
    """One tiny network as a file of every kind, which return class ids."""
    folder = tmp_path_factory.mktemp("threads")
    keras.utils.set_random_seed(0)
    model = seen_network(8)
    model.save(folder / "model.keras")
    keras_pspnet.export_model(model, folder, formats=("saved_model", "float32", "onnx"))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_each_thread_gets_the_answer_for_its_own_picture(folder, kind):
    model = keras_pspnet.load_model(folder / KINDS[kind])
    start = threading.Barrier(THREADS)
    pictures = [
        np.random.default_rng(i).integers(0, 256, (*SIZE, 3), np.uint8) // (1 + i % 3)
        for i in range(THREADS)
    ]

    def work(picture):
        start.wait()  # the first calls, which build and trace, meet too
        return [keras_pspnet.segment(model, picture) for _ in range(6)]

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(work, pictures))
    expected = [keras_pspnet.segment(model, picture) for picture in pictures]
    assert len({classes.tobytes() for classes in expected}) == THREADS
    for classes, own in zip(expected, answers):
        for answer in own:
            np.testing.assert_array_equal(answer, classes)


def test_one_call_is_computed_at_a_time_also_under_other_labels():
    running, most = [], []

    def run(images):
        running.append(1)
        most.append(len(running))
        time.sleep(0.01)
        running.pop()
        return np.zeros(images.shape[:3], np.uint8)

    one = Predictor(run, "classes", LabelSet.numbered(3), (4, 4))
    same = one.with_labels(LabelSet(("a", "b", "c")))
    image = np.zeros((1, 4, 4, 3), np.uint8)
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda i: (one, same)[i % 2](image), range(2 * THREADS)))
    assert most == [1] * 2 * THREADS
