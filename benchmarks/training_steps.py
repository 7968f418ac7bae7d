"""What the fused batch norm and the low-rank pyramid save in training: steps of each, in one run.

    python benchmarks/training_steps.py

The package's network, the same with Keras's batch norm, and the same with the pyramid upsampled and
concatenated in front of a Conv2D. Their steps alternate; the medians are compared. Writes
results/training_steps.json.
"""

import json
import os
import time
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import keras
import tensorflow as tf
from machine import machine

from keras_pspnet.network import backbones, layers, losses, model

RESULT = Path(__file__).parent / "results" / "training_steps.json"
ROUNDS = 7
OURS, KERAS_NORM, CONCATENATED = "keras_pspnet", "Keras's batch norm", "concatenated pyramid"
FUSED, BRANCHES = layers.BatchNormalization, layers.PyramidPoolingModule
NETWORKS = {  # name -> what to build, (H, W), batch, steps a round
    "efficientnet_lite0, output stride 16, 369x481, batch 4": (
        {"backbone": "efficientnet_lite0", "output_stride": 16, "channels": 128},
        (369, 481),
        4,
        2,
    ),
    "resnet14_narrow, output stride 8, 185x185, batch 8": (
        {"backbone": "resnet14_narrow", "output_stride": 8, "channels": 64},
        (185, 185),
        8,
        4,
    ),
    "resnet50, output stride 8, 473x473, batch 1": (
        {"backbone": "resnet50", "output_stride": 8},
        (473, 473),
        1,
        1,
    ),
}


def main():
    rows = {}
    for name, settings in NETWORKS.items():
        forms = {form: fitted(form, *settings) for form in (OURS, KERAS_NORM, CONCATENATED)}
        seconds = {form: [] for form in forms}
        for number in range(ROUNDS):
            for form, step in forms.items():
                start = time.perf_counter()
                step()
                seconds[form].append((time.perf_counter() - start) / settings[-1])
            print(f"{name}: round {number + 1} of {ROUNDS}", flush=True)
        medians = {form: round(float(np.median(values)), 4) for form, values in seconds.items()}
        ratios = {form: round(medians[OURS] / medians[form], 3) for form in forms if form != OURS}
        rows[name] = {"seconds_a_step": medians, "ours_to": ratios}
    result = {"command": "python benchmarks/training_steps.py", "machine": machine()}
    result["networks"] = rows
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def fitted(form, arguments, size, batch, steps):
    """A function that makes some training steps of one form of a network."""
    norm = keras.layers.BatchNormalization if form == KERAS_NORM else FUSED
    for module in (backbones, layers, model):
        module.BatchNormalization = norm
    model.PyramidPoolingModule = concatenated if form == CONCATENATED else BRANCHES
    network = model.build_pspnet(11, input_shape=(*size, 3), **arguments)
    network.compile(
        "sgd",
        loss={"main": losses.VoidCrossentropy(), "aux": losses.VoidCrossentropy()},
        loss_weights={"main": 1.0, "aux": 0.4},
    )
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (batch, *size, 3)).astype("float32")
    masks = rng.integers(0, 11, (batch, *size)).astype("uint8")
    data = tf.data.Dataset.from_tensors((images, {"aux": masks, "main": masks})).repeat()
    network.fit(data, steps_per_epoch=1, verbose=0)
    return lambda: network.fit(data, steps_per_epoch=steps, verbose=0)


def concatenated(bins, **arguments):
    return BRANCHES(bins, **{**arguments, "upsample": True})


if __name__ == "__main__":
    main()
