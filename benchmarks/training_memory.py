"""What `accumulate` saves: peak memory and time of a step of 8 pictures, whole and in parts.

    python benchmarks/training_memory.py

EfficientNet-Lite0, output stride 16, 369x481, 11 classes. Each row in a process of its own, with
`fast_cpu`. `GB_above` is what the steps add to the process before the first one. Writes
results/training_memory.json.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from machine import machine

RESULT = Path(__file__).parent / "results" / "training_memory.json"
SIZE, CLASSES, STEPS = (369, 481), 11, 3
ROWS = {  # name -> pictures at once, parts
    "batch of 8": (8, 1),
    "batch of 2, accumulate=4": (2, 4),
    "batch of 2": (2, 1),
}


def main():
    rows = {}
    for name, settings in ROWS.items():
        command = [sys.executable, __file__, *map(str, settings)]
        done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE)
        rows[name] = json.loads(done.stdout.splitlines()[-1])
        print(name, rows[name], flush=True)
    result = {"command": "python benchmarks/training_memory.py", "machine": machine(), "rows": rows}
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


def measure(batch: int, parts: int) -> dict:
    """Return the seconds of a step and of the first one, the peak in GB and what steps add."""
    from keras_pspnet import fast_cpu

    fast_cpu()
    import numpy as np
    import tensorflow as tf

    from keras_pspnet.labels import LabelSet
    from keras_pspnet.train import recipes
    from keras_pspnet.train.accumulate import in_parts
    from keras_pspnet.train.build import build

    recipe = recipes.recipe(
        "camvid_lite0", crop=SIZE, backbone_weights=None, batch_size=batch, accumulate=parts
    )
    model = build(recipe, LabelSet.numbered(CLASSES), np.ones(CLASSES), STEPS)
    in_parts(model, parts)
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (recipe.step_size, *SIZE, 3)).astype(np.float32)
    masks = rng.integers(0, CLASSES, (recipe.step_size, *SIZE), np.uint8)
    data = tf.data.Dataset.from_tensors((images, {"aux": masks, "main": masks}))
    before, seconds = peak(), []
    for _ in range(STEPS):
        start = time.perf_counter()
        model.fit(data, verbose=0)
        seconds.append(round(time.perf_counter() - start, 2))
    above = round(peak() - before, 3)
    return {
        "seconds_a_step": min(seconds[1:]),
        "first_step_seconds": seconds[0],
        "peak_GB": round(peak(), 3),
        "GB_above": above,
    }


def peak() -> float:
    """Return the process's peak memory in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(*map(int, sys.argv[1:]))))
    else:
        main()
