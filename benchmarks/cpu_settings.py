"""What the settings of `keras_pspnet.fast_cpu` and oneDNN do to a training step.

    python benchmarks/cpu_settings.py

Each network makes the same steps in a process of its own for each setting, by turns, twice. Writes
results/cpu_settings.json.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from machine import machine

RESULT = Path(__file__).parent / "results" / "cpu_settings.json"
SETTINGS = {  # name -> environment
    "TensorFlow's defaults, oneDNN off": {"TF_ENABLE_ONEDNN_OPTS": "0"},
    "fast_cpu, oneDNN off": {"TF_ENABLE_ONEDNN_OPTS": "0", "TF_CPU_ALLOCATOR_USE_BFC": "1"},
    "oneDNN on": {"TF_ENABLE_ONEDNN_OPTS": "1"},
    "fast_cpu, oneDNN on": {"TF_ENABLE_ONEDNN_OPTS": "1", "TF_CPU_ALLOCATOR_USE_BFC": "1"},
}
NETWORKS = {  # name -> backbone, output stride, channels, (H, W), batch, steps
    "efficientnet_lite0, output stride 16, 369x481, batch 4": (
        "efficientnet_lite0", 16, 128, (369, 481), 4, 6,
    ),
    "efficientnet_lite0, output stride 8, 369x481, batch 4": (
        "efficientnet_lite0", 8, 128, (369, 481), 4, 4,
    ),
    "resnet14_narrow, output stride 8, 185x185, batch 8": (
        "resnet14_narrow", 8, 64, (185, 185), 8, 12,
    ),
    "resnet50, output stride 8, 473x473, batch 2": ("resnet50", 8, 512, (473, 473), 2, 2),
}  # fmt: skip


def main():
    rows = {}
    for name in NETWORKS:
        found = {setting: [] for setting in SETTINGS}
        for _ in range(2):
            for setting, environment in SETTINGS.items():
                done = subprocess.run(
                    [sys.executable, __file__, name],
                    check=True,
                    text=True,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env={**os.environ, **environment},
                )
                found[setting].append(json.loads(done.stdout.splitlines()[-1]))
        rows[name] = {
            setting: {
                "seconds_a_step": min(seconds for seconds, _ in runs),
                "peak_GB": max(peak for _, peak in runs),
            }
            for setting, runs in found.items()
        }
        print(name, json.dumps(rows[name], indent=2), flush=True)
    result = {"command": "python benchmarks/cpu_settings.py", "machine": machine()}
    RESULT.write_text(json.dumps(result | {"networks": rows}, indent=2) + "\n")


def measured(backbone, output_stride, channels, size, batch, steps):
    """Return the median seconds of a training step, and the peak memory in GB."""
    import numpy as np

    import keras_pspnet
    from keras_pspnet.network.losses import VoidCrossentropy

    model = keras_pspnet.build_pspnet(
        11,
        input_shape=(*size, 3),
        backbone=backbone,
        output_stride=output_stride,
        channels=channels,
    )
    losses = {"main": VoidCrossentropy(), "aux": VoidCrossentropy()}
    model.compile("sgd", loss=losses, loss_weights={"main": 1.0, "aux": 0.4})
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (batch, *size, 3)).astype("float32")
    masks = rng.integers(0, 11, (batch, *size)).astype("uint8")
    seconds = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        model.train_on_batch(images, {"aux": masks, "main": masks})
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return round(float(np.median(seconds[1:])), 3), round(peak, 2)


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(measured(*NETWORKS[sys.argv[1]])))
    else:
        main()
