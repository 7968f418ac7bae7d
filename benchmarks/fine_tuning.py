"""What a trained network is worth as a start: 40 pictures of a drive that it has not seen.

    keras-pspnet train camvid_lite0 --data-dir CAMVID --out runs/other_drives \\
        --set train_split=not-clip:0006R0 epochs=4 coarse_epochs=4
    python benchmarks/fine_tuning.py --data-dir CAMVID --start runs/other_drives/last.keras

The first 40 frames of CamVid's drive 0006R0, reduced to background and car, are trained on for 10
epochs of the recipe folder_lite0, and the other 61 are scored: once from ImageNet's weights, once
from the network that was trained on the other drives. Writes results/fine_tuning.json.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import machine
from PIL import Image

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
RESULT = Path(__file__).parent / "results" / "fine_tuning.json"
CLIP, PICTURES = "0006R0", 40


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", required=True, help="CamVid, as SegNet lays it out")
    parser.add_argument("--start", required=True, type=Path, help="trained on the other drives")
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    from keras_pspnet import train

    runs = {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "cars"
        write_folder(options.data_dir, data, lambda index: "train" if index < PICTURES else "val")
        for seed in range(options.seeds):
            for name, start in (("ImageNet", None), ("the other drives", options.start)):
                out, began = Path(folder) / f"{len(runs)}", time.monotonic()
                recipe = train.recipe("folder_lite0", seed=seed, epochs=10, coarse_epochs=7)
                train.fit(recipe, out, data_dir=data, start=start)
                runs[f"from {name}, seed {seed}"] = {
                    "minutes": round((time.monotonic() - began) / 60, 1),
                    **scored(out / "last.keras", data, "val"),
                }
                print(name, seed, runs[f"from {name}, seed {seed}"], flush=True)
    text = {
        "command": "see benchmarks/fine_tuning.py",
        "data": f"CamVid, drive {CLIP}: its first {PICTURES} frames to train, the other 61 scored; "
        "background and car",
        "recipe": "folder_lite0, epochs=10, coarse_epochs=7",
        "protocol": "keras-pspnet evaluate last.keras: whole picture at the model's size",
        "machine": machine(),
        "runs": runs,
    }
    RESULT.write_text(json.dumps(text, indent=2) + "\n")


def write_folder(camvid, out, split_of):
    """Write the drive as pictures and masks of two classes; split_of(index) names the split."""
    from keras_pspnet.data.datasets import open_source

    source = open_source("camvid", camvid, split=f"clip:{CLIP}").paired()
    car = source.labels.names.index("Car")
    for index, (name, image, mask) in enumerate(source.examples()):
        split = split_of(index)
        mask = np.where(mask == 255, 255, mask == car).astype(np.uint8)
        for kind, array in (("images", image), ("masks", mask)):
            (out / kind / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(out / kind / split / f"{Path(name).stem}.png")
    (out / "labels.json").write_text(json.dumps({"names": ["background", "Car"]}))


def scored(file, data, split):
    """The scores of a run's network, and the mIoU of its validation after each epoch."""
    from keras_pspnet.data.datasets import open_source
    from keras_pspnet.inference.load import load_model
    from keras_pspnet.inference.segment import segment
    from keras_pspnet.scoring import metrics

    model, source = load_model(file), open_source("folder", data, split=split)
    scores = metrics.evaluate(lambda image: segment(model, image), source.examples(), source.labels)
    history = (file.parent / "history.csv").read_text().splitlines()
    column = history[0].split(",").index("val_main_mIoU")
    return {
        "mIoU": round(scores["mIoU"], 4),
        "classes": {name: round(iou, 4) for name, iou in scores["classes"].items()},
        "validation mIoU by epoch": [
            round(float(row.split(",")[column]), 3) for row in history[1:]
        ],
    }


if __name__ == "__main__":
    main()
