"""Whether the input pipeline keeps up with the network: pictures a second of each, in one run.

    python benchmarks/pipeline.py

Writes results/pipeline.json. On a CPU both share the cores, so the ratio is what counts.
"""

import json
import os
import time
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
RESULT = Path(__file__).parent / "results" / "pipeline.json"
ROUNDS, STEPS = 5, 20


def main():
    from keras_pspnet.data import pipeline
    from keras_pspnet.data.augment import Augmentation
    from keras_pspnet.data.datasets import open_source
    from keras_pspnet.train import recipes
    from keras_pspnet.train.build import build

    recipe = recipes.recipe("scenes")
    source = open_source(recipe.dataset, split="train", size=recipe.crop).first(320)
    pixels = source.survey().pixels[: len(source.labels)]
    batches = pipeline.training_steps(
        source,
        0,
        10_000,
        crop=recipe.crop,
        batch_size=recipe.batch_size,
        augmentation=Augmentation(recipe.scales, recipe.rotation),
        seed=0,
    )
    model = build(recipe, source.labels, pixels, 10_000)
    stored = batches.take(1).cache().repeat()
    iterator = iter(batches)
    next(iterator)
    model.fit(stored, steps_per_epoch=1, verbose=0)
    parts = {
        "pipeline alone": lambda: [next(iterator) for _ in range(STEPS)],
        "training steps on a stored batch": lambda: fit(model, stored),
        "training with the pipeline": lambda: fit(model, batches),
    }
    seconds = {name: [] for name in parts}
    for number in range(ROUNDS):
        for name, part in parts.items():
            start = time.perf_counter()
            part()
            seconds[name].append((time.perf_counter() - start) / STEPS)
        print(f"round {number + 1} of {ROUNDS}", flush=True)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    result = {
        "command": "python benchmarks/pipeline.py",
        "recipe": "scenes",
        "batch": f"{recipe.batch_size} x {recipe.crop[0]}x{recipe.crop[1]}, full augmentation",
        "seconds_a_step": {name: round(value, 4) for name, value in medians.items()},
        "ratio_training_with_to_without": round(
            medians["training with the pipeline"] / medians["training steps on a stored batch"], 3
        ),
        "cores": os.cpu_count(),
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def fit(model, batches):
    model.fit(batches, steps_per_epoch=STEPS, verbose=0, shuffle=False)


if __name__ == "__main__":
    main()
