"""What a training step costs on several devices and in several processes, and what it exchanges.

    python benchmarks/scaling.py [--recipe scenes] [--devices 1 2] [--processes 1 2] [--steps 8]
    python benchmarks/scaling.py --smallest --json scaling.json     a tiny network, a few steps

Each row is a process of its own, or several, on random pictures. On GPUs `--devices 1 2 4 8` gives
the speed-up. On a CPU the logical devices and the processes share its cores: a row then shows what
dividing costs, not what it gains. `--processes` needs JAX and is left out without it. Writes
results/scaling.json.
"""

import argparse
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import numpy as np
from machine import machine

RESULT = Path(__file__).parent / "results" / "scaling.json"
CLASSES = 12
FLOAT = 4  # bytes


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="scenes")
    parser.add_argument("--devices", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--processes", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--smallest", action="store_true", help="49x49 pictures and 2 steps")
    parser.add_argument("--json", type=Path, default=RESULT)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return worker(options, *json.loads(options.worker))
    arguments = sys.argv[1:]
    rows = {}
    for devices in options.devices:
        rows[f"tensorflow, {devices} devices"] = run(arguments, "tensorflow", [[devices]])
    has_jax = importlib.util.find_spec("jax") is not None
    for processes in options.processes if has_jax else ():
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"127.0.0.1:{server.getsockname()[1]}"
        each = [[1, address, processes, i] for i in range(processes)]
        rows[f"jax, {processes} processes"] = run(arguments, "jax", each)
    exchanged = rows[next(iter(rows))].pop("exchanged")
    for row in rows.values():
        row.pop("exchanged", None)
    result = {"command": " ".join(["python benchmarks/scaling.py", *arguments])}
    result |= {"machine": machine(), "recipe": options.recipe, "bytes_a_step": exchanged}
    result |= {"pictures_read_a_second": reading(options), "rows": rows}
    options.json.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def run(arguments, backend, workers):
    """The slowest of processes that run side by side."""
    variables = {**os.environ, "KERAS_BACKEND": backend}
    started = [
        subprocess.Popen(
            [sys.executable, __file__, *arguments, "--worker", json.dumps(given)],
            env=variables,
            stdout=subprocess.PIPE,
            text=True,
        )
        for given in workers
    ]
    said = [process.communicate()[0] for process in started]
    assert not any(process.returncode for process in started), said
    rows = [json.loads(text.splitlines()[-1]) for text in said]
    return max(rows, key=lambda row: row["seconds_a_step"])


def recipe_of(options):
    from keras_pspnet.train import recipes

    recipe = recipes.recipe(options.recipe, backbone_weights=None)
    return recipe.change(crop=(49, 49), channels=8, batch_size=4) if options.smallest else recipe


def worker(options, devices, coordinator=None, processes=1, process=0):
    """Train some steps and print the median of their times."""
    if processes > 1:
        import jax

        jax.distributed.initialize(coordinator, processes, process)
    import keras
    import tensorflow as tf

    from keras_pspnet.labels import LabelSet
    from keras_pspnet.train.build import build
    from keras_pspnet.train.devices import open_devices

    recipe, steps = recipe_of(options), 2 if options.smallest else options.steps
    group = open_devices(devices, recipe.batch_size)
    seconds = []

    class Clock(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.start = time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            float(logs["loss"])  # JAX returns before the step is done
            seconds.append(time.perf_counter() - self.start)

    rng, rows = np.random.default_rng(process), recipe.batch_size // group.processes
    images = rng.uniform(0, 255, (rows, *recipe.crop, 3)).astype("float32")
    masks = rng.integers(0, CLASSES, (rows, *recipe.crop)).astype("uint8")
    data = tf.data.Dataset.from_tensors((images, {"aux": masks, "main": masks})).repeat()
    keras.utils.set_random_seed(recipe.seed)  # the same weights in every process
    with group.scope():
        labels = LabelSet.numbered(CLASSES)
        model = group.built(build(recipe, labels, np.ones(CLASSES), 1000))
        model.fit(data, steps_per_epoch=steps + 1, verbose=0, callbacks=[Clock()])
    median = float(np.median(seconds[1:]))  # the first step builds
    row = {"devices": group.number, "processes": group.processes, "batch": recipe.batch_size}
    row |= {"seconds_a_step": round(median, 4)}
    row["pictures_a_second"] = round(recipe.batch_size / median, 2)
    print(json.dumps({**row, "exchanged": exchanged(model, recipe)}))
    if processes > 1:
        jax.distributed.shutdown()


def exchanged(model, recipe):
    """Bytes that each device adds up with the others in a step."""
    import keras

    gradients = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    norms = [
        int(layer.gamma.shape[0])
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    # Sums and squares of each channel, on the way there and back.
    result = {"gradients": FLOAT * gradients, "batch_norms": FLOAT * 4 * sum(norms)}
    ranked = recipe.ohem_threshold is not None
    result["hard_pixels"] = FLOAT * ranked * recipe.batch_size * int(np.prod(recipe.crop))
    return result


def reading(options):
    """Pictures a second that the recipe's pipeline reads and augments on all cores."""
    from keras_pspnet.data import pipeline
    from keras_pspnet.data.augment import Augmentation
    from keras_pspnet.data.datasets import open_source

    recipe = recipe_of(options)
    if recipe.dataset != "scenes":
        return None
    source = open_source("scenes", split="train", size=recipe.crop).first(64)
    augmentation = Augmentation(
        recipe.scales, recipe.rotation, blur_share=recipe.blur_share, color=recipe.color
    )
    given = {"crop": recipe.crop, "batch_size": recipe.batch_size, "seed": 0}
    steps = 2 if options.smallest else 32
    batches = iter(
        pipeline.training_steps(source, 0, steps + 1, augmentation=augmentation, **given)
    )
    next(batches)
    start = time.perf_counter()
    for _ in batches:
        pass
    return round(steps * recipe.batch_size / (time.perf_counter() - start), 1)


if __name__ == "__main__":
    main()
