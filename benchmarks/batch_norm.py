"""What the fused batch norm saves: training steps with Keras's layer and with ours, in one run.

    python benchmarks/batch_norm.py

Writes results/batch_norm.json. Steps of both networks alternate; the medians are compared.
"""

import json
import os
import time
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
RESULT = Path(__file__).parent / "results" / "batch_norm.json"
ROUNDS, STEPS = 5, 4
NETWORKS = {
    "efficientnet_lite0, output stride 16, 369x481, batch 4": (
        {"backbone": "efficientnet_lite0", "output_stride": 16, "channels": 128},
        (369, 481),
        4,
    ),
    "resnet14_narrow, output stride 8, 185x185, batch 8": (
        {"backbone": "resnet14_narrow", "output_stride": 8, "channels": 64},
        (185, 185),
        8,
    ),
}


def main():
    import keras

    from keras_pspnet.layers import BatchNormalization

    results = {}
    for name, (arguments, size, batch) in NETWORKS.items():
        steps = {
            "keras.layers.BatchNormalization": fitted(
                keras.layers.BatchNormalization, arguments, size, batch
            ),
            "keras_pspnet.layers.BatchNormalization": fitted(
                BatchNormalization, arguments, size, batch
            ),
        }
        seconds = {norm: [] for norm in steps}
        for number in range(ROUNDS):
            for norm, step in steps.items():
                start = time.perf_counter()
                step()
                seconds[norm].append((time.perf_counter() - start) / STEPS)
            print(f"{name}: round {number + 1} of {ROUNDS}", flush=True)
        medians = {norm: round(float(np.median(values)), 4) for norm, values in seconds.items()}
        keras_seconds, ours = medians.values()
        results[name] = {"seconds_a_step": medians, "ratio": round(ours / keras_seconds, 3)}
    result = {"command": "python benchmarks/batch_norm.py", "networks": results}
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def fitted(norm, arguments, size, batch):
    """A function that makes some training steps with one kind of batch norm."""
    import tensorflow as tf

    from keras_pspnet import backbones, layers, losses, model

    for module in (backbones, layers, model):
        module.BatchNormalization = norm
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
    return lambda: network.fit(data, steps_per_epoch=STEPS, verbose=0)


if __name__ == "__main__":
    main()
