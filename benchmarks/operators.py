"""Where the time of a training step goes, by operator.

    python benchmarks/operators.py [NAME ...]

TensorFlow's profiler over some steps of each network, with the commands' settings (`fast_cpu`,
deterministic operations that run one after the other). Writes results/profile.json.
"""

import collections
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["TF_NUM_INTEROP_THREADS"] = "1"
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")  # as keras_pspnet.fast_cpu

import keras
import numpy as np
import tensorflow as tf
from machine import machine

from keras_pspnet.labels import SCENES, LabelSet
from keras_pspnet.train import recipes
from keras_pspnet.train.build import build

RESULT = Path(__file__).parent / "results" / "profile.json"
STEPS = 3
LARGEST = 15
"""Number of operators that are listed."""

NETWORKS = {  # name -> the recipe, its changes, the classes
    "resnet14_narrow, output stride 8, 185x185, batch 8": ("scenes", {"jaccard": 0.5}, SCENES),
    "efficientnet_lite0, output stride 16, 369x481, batch 4": (
        "camvid_lite0",
        {"output_stride": 16, "coarse_epochs": 0, "backbone_weights": None},
        LabelSet.numbered(11),
    ),
    "efficientnet_lite0, output stride 8, 369x481, batch 4": (
        "camvid_lite0",
        {"coarse_epochs": 0, "backbone_weights": None},
        LabelSet.numbered(11),
    ),
    "resnet50, output stride 8, 473x473, batch 2": (
        "ade20k_resnet50",
        {"batch_size": 2, "backbone_weights": None},
        LabelSet.numbered(150),
    ),
}


def main():
    tf.config.experimental.enable_op_determinism()
    rows = json.loads(RESULT.read_text())["networks"] if RESULT.exists() else {}
    for name, (recipe, changes, labels) in NETWORKS.items():
        if sys.argv[1:] and not any(word in name for word in sys.argv[1:]):
            continue
        rows[name] = profiled(recipes.recipe(recipe, **changes), labels)
        print(name, json.dumps(rows[name], indent=2), flush=True)
    result = {"command": "python benchmarks/operators.py", "machine": machine(), "networks": rows}
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


def profiled(recipe, labels) -> dict:
    """Seconds a step, and milliseconds of each of the largest operators."""
    keras.utils.set_random_seed(0)
    model = build(recipe, labels, np.ones(len(labels)), 1000)
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (recipe.batch_size, *recipe.crop, 3)).astype("float32")
    masks = rng.integers(0, len(labels), (recipe.batch_size, *recipe.crop)).astype("uint8")
    data = tf.data.Dataset.from_tensors((images, {"aux": masks, "main": masks})).repeat()
    model.fit(data, steps_per_epoch=2, verbose=0)
    start = time.perf_counter()
    model.fit(data, steps_per_epoch=STEPS, verbose=0)
    seconds = (time.perf_counter() - start) / STEPS
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        model.fit(data, steps_per_epoch=STEPS, verbose=0)
        tf.profiler.experimental.stop()
        (file,) = Path(folder).rglob("*.xplane.pb")
        operators = milliseconds(file)
    return {
        "seconds_a_step": round(seconds, 3),
        "milliseconds_of_operators": {
            name: round(value / STEPS, 1) for name, value in operators.most_common(LARGEST)
        },
    }


def milliseconds(file) -> collections.Counter:
    """The time of all runs of each operator in a profile."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace.FromString(file.read_bytes())
    found = collections.Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                # An operator's event is called NODE:OPERATOR, one of the runtime NAME or A::B.
                node, colon, operator = plane.event_metadata[event.metadata_id].name.partition(":")
                if colon and not operator.startswith((":", " ")) and "Iterator" not in node:
                    found[operator.partition("#")[0]] += event.duration_ps / 1e9
    return found


if __name__ == "__main__":
    main()
