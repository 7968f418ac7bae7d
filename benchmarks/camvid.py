"""Scores finished CamVid trainings and keeps what the README shows of them.

    keras-pspnet train camvid_lite0 --data-dir CAMVID --out runs/camvid
    keras-pspnet train camvid_lite0 --data-dir CAMVID --out runs/camvid_10 \\
        --set epochs=10 coarse_epochs=10
    keras-pspnet train camvid_lite0 --data-dir CAMVID --out runs/camvid_scratch_10 \\
        --set epochs=10 coarse_epochs=10 backbone_weights=none
    python benchmarks/camvid.py --data-dir CAMVID runs/camvid runs/camvid_10 runs/camvid_scratch_10

Writes the runs into results/camvid.json, beside those that are there, by their folders' names; of
the one named camvid also curves and thumbnails. CamVid is for research only: the thumbnails are the
only copy of its pictures here.
"""

import argparse
import json
import os
from pathlib import Path

from machine import machine
from PIL import Image

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
RESULTS = Path(__file__).parent / "results"
THUMBNAILS = (5, 30, 55, 80, 97)  # of the 101 validation pictures


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--data-dir", required=True)
    options = parser.parse_args()
    from keras_pspnet.data.datasets import open_source
    from keras_pspnet.inference.load import load_model

    source = open_source("camvid", options.data_dir, split="val").paired()
    file = RESULTS / "camvid.json"
    results = json.loads(file.read_text())["runs"] if file.exists() else {}
    for run in options.runs:
        model = load_model(run / "best.keras")
        results[run.name] = scored(run, model, source)
        print(run, results[run.name]["mIoU"], flush=True)
        if run.name == "camvid":
            Image.open(run / "curves.png").save(RESULTS / "camvid_curves.png", optimize=True)
            thumbnails(model, source).save(RESULTS / "camvid_samples.jpg", quality=80)
    text = {
        "command": "see benchmarks/camvid.py",
        "data": "CamVid, 11 classes, 480x360: 367 pictures to train, scored on the 101 of val",
        "protocol": "keras-pspnet evaluate best.keras: whole picture at the model's size, one "
        "scale, no flip; best.keras is chosen on the same pictures, whose clip lies between "
        "training frames: an optimistic score",
        "runs": results,
    }
    file.write_text(json.dumps(text, indent=2) + "\n")


def scored(run, model, source):
    """The recipe of a run, its wall time, and the scores of its best checkpoint."""
    from keras_pspnet.inference.segment import segment
    from keras_pspnet.scoring import metrics

    scores = metrics.evaluate(lambda image: segment(model, image), source.examples(), source.labels)
    begun, ended = (run / "recipe.json").stat().st_mtime, (run / "last.keras").stat().st_mtime
    recipe = json.loads((run / "recipe.json").read_text())
    recipe.pop("data_dir", None)
    return {
        "recipe": recipe,
        "minutes": round((ended - begun) / 60, 1),
        "machine": machine(),
        "parameters": model.count_params(),
        **{key: scores[key] for key in ("mIoU", "mean_accuracy", "pixel_accuracy", "classes")},
    }


def thumbnails(model, source):
    from keras_pspnet import visualize
    from keras_pspnet.inference.segment import segment

    table = []
    for index in THUMBNAILS:
        image, mask = source.read(index)
        maps = mask, segment(model, image)
        table.append([image, *(visualize.overlay(image, m, source.labels, 0.75) for m in maps)])
    sheet = visualize.rows(
        table, ["picture", "truth", "prediction"], labels=source.labels, tile=120
    )
    return Image.fromarray(sheet)


if __name__ == "__main__":
    main()
