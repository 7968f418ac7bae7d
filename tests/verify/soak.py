"""One part of the check `soak`: calls one thing thousands of times, measures the process.

    python tests/verify/soak.py steps|segment|reload MODELS RUN CALLS

MODELS is a folder with the files of FILES, RUN the run folder of `steps`. Prints a row
[call, resident MiB, threads, open files] at SAMPLES moments, evenly spaced, as JSON.
"""

import gc
import itertools
import json
import os
import sys
from pathlib import Path

import numpy as np

import keras_pspnet

SAMPLES = 50
SIDE = 49
FILES = ("any_size.keras", "saved_model", "pspnet_float32.tflite", "pspnet.onnx")
PROTOCOLS = (
    {},
    {"flip": True},
    {"confidence": True},
    {"crop": (SIDE, SIDE)},
    {"crop": (SIDE, SIDE), "base": 70, "scales": (0.75, 1.25), "flip": True},
)


def measured(process="self") -> list[int]:
    """Return resident KiB, threads and open files of a process."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    fields = {name: value for name, _, value in (line.partition(":") for line in lines)}
    files = len(os.listdir(f"/proc/{process}/fd"))
    return [int(fields["VmRSS"].split()[0]), int(fields["Threads"]), files]


class Samples(list):
    """Rows of `measured`, at SAMPLES moments of a number of calls, each after its call."""

    def __init__(self, calls: int, process="self"):
        super().__init__()
        self.calls, self.process, self.call = calls, process, 0

    def after_a_call(self) -> None:
        self.call += 1
        if self.call * SAMPLES // self.calls > (self.call - 1) * SAMPLES // self.calls:
            gc.collect()  # what Python would free later counts as freed
            kib, *others = measured(self.process)
            self.append([self.call, kib / 1024, *others])


def pictures(calls):
    """Yield pictures of many sizes."""
    rng = np.random.default_rng(0)
    for _ in range(calls):
        yield rng.integers(0, 256, (*rng.integers(20, 240, 2), 3), np.uint8)


def steps(models, run, samples):
    import keras

    from keras_pspnet import train

    class AfterEachStep(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            samples.after_a_call()

    of_an_epoch = samples.calls // SAMPLES  # an epoch has its own pipeline and checkpoints
    recipe = train.recipe(
        "scenes_tiny",
        crop=(SIDE, SIDE),
        channels=8,
        batch_size=2,
        train_images=2 * of_an_epoch,
        val_images=1,
        epochs=SAMPLES,
        learning_rate=1e-4,
        checkpoint_seconds=20,
    )
    train.fit(recipe, run, callbacks=AfterEachStep())


def segment(models, run, samples):
    loaded = [keras_pspnet.load_model(models / name) for name in FILES]
    turns = itertools.cycle(itertools.product(PROTOCOLS, loaded))
    for picture, (protocol, model) in zip(pictures(samples.calls), turns):
        keras_pspnet.segment(model, picture, **protocol)
        samples.after_a_call()


def reload(models, run, samples):
    """Each time the model answers, as it does after a server has read a new file."""
    files = itertools.cycle(FILES)
    for picture, name in zip(pictures(samples.calls), files):
        keras_pspnet.segment(keras_pspnet.load_model(models / name), picture)
        samples.after_a_call()


if __name__ == "__main__":
    keras_pspnet.fast_cpu()
    part, models, run, calls = sys.argv[1:]
    samples = Samples(int(calls))
    {"steps": steps, "segment": segment, "reload": reload}[part](Path(models), Path(run), samples)
    print(json.dumps(samples))
