"""The paper's tables 1 to 4 on generated scenes: short trainings of three seeds each.

    python benchmarks/ablations.py [--out runs/ablations] [--camvid DIR]

Resumable; it says how long the rest takes. With --camvid also the pyramid and the auxiliary loss on
CamVid: trained without the clip 0006R0, scored on it, one seed. Writes results/ablations.json.
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["TF_NUM_INTEROP_THREADS"] = "1"  # as the command `train`
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")

import keras
import numpy as np
from machine import machine

import keras_pspnet
from keras_pspnet.labels import SCENES
from keras_pspnet.network.backbones import ResNet
from keras_pspnet.progress import clock

RESULT = Path(__file__).parent / "results" / "ablations.json"
SEEDS = (0, 1, 2)
GUESS = 150.0
"""Seconds of a training, for the estimate before the first one has ended."""

SHORT = {"epochs": 3, "train_images": 1000, "batch_size": 4, "dropout": 0.0}
SHORT |= {"scales": (1.0, 1.0), "rotation": 0.0, "blur_share": 0.0}
"""Changes of the recipe `scenes`: short trainings learn more from scenes as they are drawn."""

NONE, B1, B1236 = {"bins": ()}, {"bins": (1,)}, {"bins": (1, 2, 3, 6)}
MAX, WIDE = {"pooling": "max"}, {"reduce_channels": False}
FULL = "pyramid of 1, 2, 3, 6, average, with dimension reduction"
DEPTHS = {"14 layers": (1, 1, 1, 1), "26 layers": (2, 2, 2, 2), "50 layers": (3, 4, 6, 3)}

TABLES = {  # table -> row -> (changes of the recipe, the paper's mIoU in percent)
    "1: the pyramid": {
        "no pyramid": (NONE, 37.23),
        "B1, max": ({**B1, **MAX, **WIDE}, 39.94),
        "B1, average": ({**B1, **WIDE}, 40.07),
        "B1236, max": ({**B1236, **MAX, **WIDE}, 40.18),
        "B1236, average": ({**B1236, **WIDE}, 41.07),
        "B1236, max, dimension reduction": ({**B1236, **MAX}, 40.87),
        "B1236, average, dimension reduction": (B1236, 41.68),
    },
    "2: the weight of the auxiliary loss, without pyramid": {
        "0": ({**NONE, "aux_weight": 0.0}, 35.82),
        "0.3": ({**NONE, "aux_weight": 0.3}, 37.01),
        "0.4": (NONE, 37.23),
        "0.6": ({**NONE, "aux_weight": 0.6}, 37.09),
        "0.9": ({**NONE, "aux_weight": 0.9}, 36.99),
    },
    "3: depth": {
        "14 layers (paper: 50)": (B1236, 41.68),
        "26 layers (paper: 101)": ({**B1236, "depth": "26 layers"}, 41.96),
        "50 layers (paper: 152)": ({**B1236, "depth": "50 layers"}, 42.62),
    },
    "4: one step after the other": {
        "baseline, output stride 32": (
            {**NONE, "aux_weight": 0.0, "output_stride": 32},
            34.28,
        ),
        "+ dilation, output stride 8": ({**NONE, "aux_weight": 0.0}, 35.82),
        "+ auxiliary loss": (NONE, 37.23),
        "+ pyramid": (B1236, 41.68),
        "+ six scales and mirrored": ({**B1236, "scales_of_test": True}, 42.78),
    },
    "the output stride, with the pyramid (not in the paper)": {
        "8": (B1236, None),
        "16": ({**B1236, "output_stride": 16}, None),
        "32": ({**B1236, "output_stride": 32}, None),
    },
}
TEST_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # semseg config/ade20k/ade20k_pspnet50.yaml

CAMVID_CLIP = "0006R0"
CAMVID_RECIPE = {"epochs": 10, "output_stride": 16, "coarse_epochs": 0}
"""Changes of the recipe `camvid_lite0`."""
CAMVID = {
    "no pyramid": {**NONE, "aux_weight": 0.0},
    "B1": {**B1, "aux_weight": 0.0},
    "B1236": {**B1236, "aux_weight": 0.0},
    "B1236, auxiliary loss": B1236,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--camvid", metavar="DIR", help="CamVid's folder")
    options = parser.parse_args()
    rows = [changes for table in TABLES.values() for changes, _ in table.values()]
    runs = {name(changes, seed): (changes, seed) for seed in SEEDS for changes in rows}
    done = {run: json.loads(file.read_text()) for run in runs if (file := scores(options.out, run))}
    for run, (changes, seed) in runs.items():
        if run in done:
            continue
        each = np.mean([row["seconds"] for row in done.values()]) if done else GUESS
        left = len(runs) - len(done)
        print(
            f"{left} of {len(runs)} trainings left, about {clock(left * each)}: {run}", flush=True
        )
        done[run] = trained(options.out / run, changes, seed)
        write(done, options.out)
    if options.camvid:
        for row, changes in CAMVID.items():
            folder = options.out / f"camvid_{name(changes, 0)}"
            if not (folder / "scores.json").exists():
                print(f"CamVid, {row}", flush=True)
                trained_on_camvid(folder, changes, options.camvid)
    write(done, options.out)
    print(RESULT.read_text())


def name(changes, seed) -> str:
    """A name of a training, for its folder."""
    parts = [f"{key}_{value}" for key, value in sorted(changes.items())]
    return "".join(c for c in "-".join([*parts, f"seed_{seed}"]) if c.isalnum() or c in "_-.")


def scores(out: Path, run: str) -> Path | None:
    """The scores of a training that has ended."""
    file = out / run / "scores.json"
    return file if file.exists() else None


def trained(folder: Path, changes: dict, seed: int) -> dict:
    """Train, or take up what was left; return and write the scores."""
    changes = {**SHORT, **changes, "seed": seed}
    if changes.pop("scales_of_test", False):  # the same training, tested at several scales
        plain = {key: value for key, value in changes.items() if key in B1236}
        model = keras_pspnet.load_model(folder.parent / name(plain, seed))
        test = {"crop": (185, 185), "scales": TEST_SCALES, "flip": True}
        return written(folder, model, time.monotonic(), "scenes", split="val", **test)
    start, depth = time.monotonic(), changes.pop("depth", None)
    recipe = keras_pspnet.train.recipe("scenes", **changes)
    network = None
    if depth:
        keras.utils.set_random_seed(seed)
        network = keras_pspnet.build_pspnet(
            len(SCENES),
            input_shape=(*recipe.crop, 3),
            backbone=ResNet(DEPTHS[depth], width=16),
            channels=recipe.channels,
            dropout=recipe.dropout,
            labels=SCENES,
        )
    keras_pspnet.train.fit(recipe, folder, start=network, resume=True)
    return written(folder, keras_pspnet.load_model(folder), start, "scenes", split="val")


def written(folder: Path, model, start: float, *data, **test) -> dict:
    """Score a network, and write the scores into its folder; `evaluate` takes `data` and `test`."""
    found = keras_pspnet.evaluate(model, *data, **test)
    row = {key: found[key] for key in ("mIoU", "pixel_accuracy", "classes")}
    row["seconds"] = round(time.monotonic() - start, 1)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scores.json").write_text(json.dumps(row))
    return row


def trained_on_camvid(folder: Path, changes: dict, data) -> None:
    """Train EfficientNet-Lite0 without one clip; score its last epoch on that clip."""
    changes = {**CAMVID_RECIPE, **changes, "train_split": f"not-clip:{CAMVID_CLIP}"}
    recipe = keras_pspnet.train.recipe("camvid_lite0", **changes, val_split=f"clip:{CAMVID_CLIP}")
    start = time.monotonic()
    keras_pspnet.train.fit(recipe, folder, data_dir=data, resume=True)
    model = keras_pspnet.load_model(folder / "last.keras")
    written(folder, model, start, "camvid", data, split=f"clip:{CAMVID_CLIP}")


def write(done: dict, out: Path) -> None:
    """Write the tables, of the trainings that have ended."""
    tables = {}
    for title, table in TABLES.items():
        for row, (changes, paper) in table.items():
            seeds = [done[run] for seed in SEEDS if (run := name(changes, seed)) in done]
            if not seeds:
                continue
            values = [seed["mIoU"] for seed in seeds]
            tables.setdefault(title, {})[row] = {
                "seeds": len(seeds),
                "mIoU": round(float(np.mean(values)), 4),
                "mIoU_std": round(float(np.std(values)), 4),
                "pixel_accuracy": round(
                    float(np.mean([seed["pixel_accuracy"] for seed in seeds])), 4
                ),
                "paper_mIoU": paper,
            }
    camvid = {
        row: json.loads(file.read_text())
        for row, changes in CAMVID.items()
        if (file := scores(out, f"camvid_{name(changes, 0)}"))
    }
    result = {
        "command": "python benchmarks/ablations.py",
        "machine": machine(),
        "recipe": {"name": "scenes", **SHORT},
        "hours": round(sum(row["seconds"] for row in (*done.values(), *camvid.values())) / 3600, 2),
        "tables": tables,
        "camvid": {"clip": CAMVID_CLIP, "recipe": CAMVID_RECIPE, "rows": camvid},
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
