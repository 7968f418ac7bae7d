"""Forty pictures: the recipe folder_lite0 with its guard for small data, and without it.

    python benchmarks/few_pictures.py CAMVID [--runs runs/few_pictures] [--seeds 1]

The first 40 frames of CamVid's drive 0006R0, reduced to background and car, every fifth of them to
validate on; best.keras is scored on the drive's other 61 frames, which no training sees. Without
the guard the recipe has least_steps=0 and patience=none. Resumable; writes
results/few_pictures.json.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from fine_tuning import CLIP, PICTURES, scored, write_folder
from machine import machine

RESULT = Path(__file__).parent / "results" / "few_pictures.json"
FORMS = {"with the guard": (), "without": ("least_steps=0", "patience=none")}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="CAMVID", help="CamVid, as SegNet lays it out")
    parser.add_argument("--runs", type=Path, default=Path("runs/few_pictures"), metavar="DIR")
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    folder = options.runs / "cars"
    if not (folder / "labels.json").exists():
        write_folder(options.data, folder, split_of)
    runs = {}
    for seed in range(options.seeds):
        for name, settings in FORMS.items():
            out = options.runs / f"{name.replace(' ', '_')}-{seed}"
            if not out.with_suffix(".json").exists():
                command = [sys.executable, "-m", "keras_pspnet", "train", "folder_lite0"]
                command += ["--data-dir", str(folder), "--out", str(out), "--resume"]
                began = time.monotonic()
                subprocess.run([*command, "--set", f"seed={seed}", *settings], check=True)
                minutes = round((time.monotonic() - began) / 60, 1)
                row = {"minutes": minutes, **scored(out / "best.keras", folder, "test")}
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


def split_of(index):
    return "test" if index >= PICTURES else "val" if index % 5 == 4 else "train"


if __name__ == "__main__":
    main()
