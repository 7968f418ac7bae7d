"""What the pyramid gains on the generated scenes: the recipe `scenes` with and without it, 3 seeds.

    python benchmarks/pyramid.py --out runs/pyramid

Resumable; about five minutes a training on two cores. Writes results/pyramid.json and .png.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"
VARIANTS = {"with the pyramid": (1, 2, 3, 6), "without (bins=())": ()}
SEEDS = (0, 1, 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="runs/pyramid", type=Path)
    out = parser.parse_args().out
    runs = [(variant, seed) for seed in SEEDS for variant in VARIANTS]
    scores = {variant: [] for variant in VARIANTS}
    for number, (variant, seed) in enumerate(runs, start=1):
        print(f"{number}/{len(runs)}: {variant}, seed {seed}", flush=True)
        scores[variant].append(measure(out, VARIANTS[variant], seed))
    result = {
        "command": "python benchmarks/pyramid.py",
        "recipe": "scenes",
        "split": "100 held-out scenes",
        "checkpoint": "best.keras of each run",
        "seeds": SEEDS,
        "variants": {variant: summary(values) for variant, values in scores.items()},
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "pyramid.json").write_text(json.dumps(result, indent=2) + "\n")
    draw(result["variants"]).savefig(RESULTS / "pyramid.png", dpi=110)
    for variant, values in result["variants"].items():
        print(f"{variant}: mIoU {values['mIoU']:.4f} +- {values['mIoU_std']:.4f}")


def measure(out, bins, seed):
    """Trains one run, or takes up one that was left, and scores it."""
    from keras_pspnet.data.datasets import open_source
    from keras_pspnet.inference.load import load_model
    from keras_pspnet.inference.segment import segment
    from keras_pspnet.scoring import metrics
    from keras_pspnet.train import recipes
    from keras_pspnet.train.run import fit

    recipe = recipes.recipe("scenes", bins=bins, seed=seed)
    run = out / f"bins{len(bins)}_seed{seed}"
    file = run / "scores.json"
    if not file.exists():
        fit(recipe, run, resume=True)
        model = load_model(run / "best.keras")
        source = open_source("scenes", split="val", size=recipe.crop)
        scores = metrics.evaluate(
            lambda image: segment(model, image), source.examples(), source.labels
        )
        file.write_text(json.dumps(scores))
    return json.loads(file.read_text())


def summary(runs):
    """Means over the seeds."""
    return {
        "mIoU": float(np.mean([run["mIoU"] for run in runs])),
        "mIoU_std": float(np.std([run["mIoU"] for run in runs])),
        "mIoU_of_seeds": [run["mIoU"] for run in runs],
        "pixel_accuracy": float(np.mean([run["pixel_accuracy"] for run in runs])),
        "classes": {
            name: float(np.mean([run["classes"][name] for run in runs]))
            for name in runs[0]["classes"]
        },
    }


def draw(variants):
    """Bars of the IoU of each class."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    panel = figure.subplots()
    for index, ((variant, values), color) in enumerate(
        zip(variants.items(), ("#1f77b4", "#bbbbbb"))
    ):
        names = ["mean", *values["classes"]]
        heights = [values["mIoU"], *values["classes"].values()]
        places = np.arange(len(names)) + 0.4 * (index - 0.5)
        panel.bar(places, heights, 0.38, color=color, label=f"{variant}: {values['mIoU']:.3f}")
    panel.set_xticks(range(len(names)), names)
    panel.set(ylabel="IoU, mean of 3 seeds", ylim=(0, 1))
    panel.set_title("Generated scenes, held out", loc="left")
    panel.grid(axis="y", alpha=0.3)
    panel.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return figure


if __name__ == "__main__":
    main()
