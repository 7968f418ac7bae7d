"""Forty pictures: the recipe folder_lite0 with its guard for small data, and without it.

    python benchmarks/few_pictures.py CAMVID [--runs runs/few_pictures] [--seeds 1]

The first 40 frames of CamVid's drive 0006R0, reduced to background and car, every fifth of them to
validate on; best.keras is scored on the drive's other 61 frames, which no training sees. Without
the guard the recipe has least_steps=0 and patience=none. Resumable; writes
results/few_pictures.json.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from machine import machine
from PIL import Image

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
RESULT = Path(__file__).parent / "results" / "few_pictures.json"
CLIP, PICTURES = "0006R0", 40
FORMS = {"with the guard": (), "without": ("least_steps=0", "patience=none")}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="CAMVID", help="CamVid, as SegNet lays it out")
    parser.add_argument("--runs", type=Path, default=Path("runs/few_pictures"), metavar="DIR")
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    folder = options.runs / "cars"
    if not (folder / "labels.json").exists():
        write_folder(options.data, folder)
    runs = {}
    for seed in range(options.seeds):
        for name, settings in FORMS.items():
            out = options.runs / f"{name.replace(' ', '_')}-{seed}"
            if not out.with_suffix(".json").exists():
                command = [sys.executable, "-m", "keras_pspnet", "train", "folder_lite0"]
                command += ["--data-dir", str(folder), "--out", str(out), "--resume"]
                began = time.monotonic()
                subprocess.run([*command, "--set", f"seed={seed}", *settings], check=True)
                row = {"minutes": round((time.monotonic() - began) / 60, 1), **scored(out, folder)}
                out.with_suffix(".json").write_text(json.dumps(row))
            runs[f"{name}, seed {seed}"] = json.loads(out.with_suffix(".json").read_text())
            print(name, seed, runs[f"{name}, seed {seed}"], flush=True)
    text = {
        "command": "python benchmarks/few_pictures.py CAMVID",
        "data": f"CamVid, drive {CLIP}: of its first {PICTURES} frames 32 to train and 8 to "
        "validate, the other 61 scored; background and car",
        "protocol": "keras-pspnet evaluate best.keras: whole picture at the model's size",
        "machine": machine(),
        "runs": runs,
    }
    RESULT.write_text(json.dumps(text, indent=2) + "\n")


def write_folder(camvid, out):
    """Write the drive as a folder of pictures and masks of two classes."""
    from keras_pspnet.data.datasets import open_source

    source = open_source("camvid", camvid, split=f"clip:{CLIP}").paired()
    car = source.labels.names.index("Car")
    for index, (name, image, mask) in enumerate(source.examples()):
        split = "test" if index >= PICTURES else "val" if index % 5 == 4 else "train"
        mask = np.where(mask == 255, 255, mask == car).astype(np.uint8)
        for kind, array in (("images", image), ("masks", mask)):
            (out / kind / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(out / kind / split / f"{Path(name).stem}.png")
    (out / "labels.json").write_text(json.dumps({"names": ["background", "Car"]}))


def scored(run, folder):
    """The scores of a run's best network on the pictures that it has not seen, and its epochs."""
    from keras_pspnet.data.datasets import open_source
    from keras_pspnet.inference.load import load_model
    from keras_pspnet.inference.segment import segment
    from keras_pspnet.scoring import metrics

    model, source = load_model(run / "best.keras"), open_source("folder", folder, split="test")
    scores = metrics.evaluate(lambda image: segment(model, image), source.examples(), source.labels)
    rows = (run / "history.csv").read_text().splitlines()
    column = rows[0].split(",").index("val_main_mIoU")
    return {
        "mIoU": round(scores["mIoU"], 4),
        "classes": {name: round(iou, 4) for name, iou in scores["classes"].items()},
        "validation mIoU by epoch": [round(float(row.split(",")[column]), 3) for row in rows[1:]],
    }


if __name__ == "__main__":
    main()
