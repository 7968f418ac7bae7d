"""Train on CamVid without one of its drives, and score that drive.

Neighbouring frames of a drive look alike, and CamVid's val lies between its training frames. So
each fold leaves a drive out: trained on all frames of train and val but those of 0006R0, or of
0001TP, it is scored on those. The confusion matrices of both folds are added up.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import keras_pspnet
from keras_pspnet import train
from keras_pspnet.files import evenly_spaced, write_json
from keras_pspnet.progress import clock
from keras_pspnet.train import estimate

CLIPS = ("0006R0", "0001TP")
NORM_BATCHES = 16
CALIBRATION = 32
"""Training pictures from which int8 takes its ranges, as `keras-pspnet export` does."""
PRODUCT = 2 * 4096**3 / 1e9
"""GFLOP of the matrix product that times are compared with: 4096x4096, float32, numpy."""


class Folds:
    """Trainings in folders of their own, each one `keras-pspnet train`, and their scores.

    Args:
        data: CamVid's folder.
        runs: for the run folders.
        dry: True trains nothing; `left` has the seconds of each training that would be, or None.
    """

    def __init__(self, data: str, runs: Path, dry: bool):
        self.data, self.runs, self.dry, self.left = data, runs, dry, []
        self.speed = estimate.matrix_product()

    def source(self, split):
        from keras_pspnet.data.datasets import open_source

        return open_source("camvid", self.data, split=split).paired()

    def trained(self, name: str, changes: dict, splits: tuple[str, str], teacher=None) -> Path:
        """Return the folder of a finished training; train it, or the rest of it.

        NAME.json next to it has its seconds, those of interrupted parts included.
        """
        out, times = self.runs / name, self.runs / f"{name}.json"
        before = {"finished": False, "seconds": 0, "GFLOP per second": []}
        before = json.loads(times.read_text()) if times.exists() else before
        if before["finished"]:
            return out
        if "began" in before and (out / "last.keras").exists():  # killed: until its last checkpoint
            before["seconds"] += max((out / "last.keras").stat().st_mtime - before["began"], 0)
        recipe = train.recipe("camvid_lite0", **changes, train_split=splits[0], val_split=splits[1])
        pictures = [len(self.source(split)) for split in splits]
        seconds = estimate.seconds(recipe, *pictures, self.speed)
        self.left.append(seconds)
        about = "never measured" if seconds is None else f"about {clock(seconds)} in all"
        print(f"{name}: {recipe.epochs} epochs, {about}", flush=True)
        if self.dry:
            return out
        fields = [f"{field}={_text(value)}" for field, value in recipe.to_config().items()]
        command = [sys.executable, "-m", "keras_pspnet", "train", "camvid_lite0", "--resume"]
        command += ["--data-dir", self.data, "--out", str(out), "--set", *fields]
        command += ["--teacher", str(teacher)] if teacher else []
        began, finished = time.time(), False
        write_json(times, {**before, "began": began})
        try:
            subprocess.run(command, check=True)
            finished = True
        finally:
            note = {"finished": finished, "seconds": before["seconds"] + time.time() - began}
            note["GFLOP per second"] = [*before["GFLOP per second"], self.speed]
            write_json(times, note)
        return out

    def scored(self, runs: dict[str, Path], kind: str = "keras") -> dict:
        """Return the scores of runs on the clips that they left out, and of the added matrices.

        Each run keeps its matrices, which are not counted again.

        Args:
            runs: clip -> run folder.
            kind: "keras" for the last network, "norms" for it with batch norm's statistics taken
                anew on training pictures, "int8" for its int8 file.
        """
        from keras_pspnet.labels import CAMVID
        from keras_pspnet.scoring.metrics import ConfusionMatrix

        both, folds, pictures = ConfusionMatrix(len(CAMVID)), {}, 0
        for clip, run in runs.items():
            file = run.with_name(f"{run.name}.{kind}.json")
            if not file.exists():
                write_json(file, self.matrix(run, clip, kind).tolist())
            one = ConfusionMatrix(len(CAMVID))
            one.counts += np.array(json.loads(file.read_text()))
            both.counts += one.counts
            times = json.loads(run.with_name(f"{run.name}.json").read_text())
            products = times["seconds"] * np.median(times["GFLOP per second"]) / PRODUCT
            folds[clip] = {"mIoU": round(one.scores()["mIoU"], 4)}
            folds[clip] |= {"seconds": round(times["seconds"]), "matrix_products": round(products)}
            pictures += len(self.source(f"clip:{clip}"))
        scores = both.scores(CAMVID)
        classes = {name: iou and round(iou, 4) for name, iou in scores["classes"].items()}
        means = {key: round(scores[key], 4) for key in ("mIoU", "pixel_accuracy")}
        return {**means, "classes": classes, "pictures": pictures, "folds": folds}

    def matrix(self, run: Path, clip: str, kind: str) -> np.ndarray:
        """Return the confusion matrix of a run's last network on a clip, see `scored`."""
        from keras_pspnet.inference.segment import segment
        from keras_pspnet.scoring.metrics import ConfusionMatrix

        model, source = keras_pspnet.load_model(run / "last.keras"), self.source(f"clip:{clip}")
        if kind == "norms":
            self.renorm(model, run)
        if kind == "int8":
            model = keras_pspnet.load_model(self.int8(run))
        matrix = ConfusionMatrix(len(source.labels))
        for _, image, mask in source.examples():
            matrix.update(mask, segment(model, image))
        return matrix.counts

    def renorm(self, model, run: Path) -> None:
        """Take batch norm's statistics anew on training pictures of a run, augmented alike."""
        from keras_pspnet.data import pipeline
        from keras_pspnet.data.augment import Augmentation
        from keras_pspnet.network.batch_norm import reestimate

        config = json.loads((run / "recipe.json").read_text())
        augmentation = Augmentation(
            tuple(config["scales"]),
            config["rotation"],
            blur_share=config["blur_share"],
            color=config["color"],
        )
        batches = pipeline.training_steps(
            self.source(config["train_split"]),
            0,
            NORM_BATCHES,
            crop=tuple(config["crop"]),
            batch_size=config["batch_size"],
            augmentation=augmentation,
            seed=config["seed"],
        )
        reestimate(model, (images for images, _ in batches))

    def int8(self, run: Path) -> Path:
        """Return the int8 file of a run's last network, calibrated on its own pictures."""
        folder = run.with_name(f"{run.name}.files")
        if not (folder / "pspnet_int8.tflite").exists():
            split = json.loads((run / "recipe.json").read_text())["train_split"]
            self.exported(keras_pspnet.load_model(run / "last.keras"), folder, split)
        return folder / "pspnet_int8.tflite"

    def exported(self, model, folder: Path, split: str) -> Path:
        """Export a network to int8, calibrated on pictures of a split; return the file."""
        source = self.source(split)
        indices = evenly_spaced(range(len(source)), CALIBRATION)
        pairs = [source.read(index) for index in indices]
        return keras_pspnet.export_model(model, folder, formats=("int8",), calibration=pairs)[
            "int8"
        ]

    def latency(self, before: Path, after: Path) -> dict:
        """Measure the int8 files of two runs in turns, two threads, in milliseconds."""
        sys.path.insert(0, str(Path(__file__).parents[1] / "export"))
        from benchmark import measure

        files = {"before": str(self.int8(before)), "after": str(self.int8(after))}
        found = measure(list(files.values()), threads=2, warmup=2, runs=15)
        taken = {name: round(found[file]["milliseconds"], 1) for name, file in files.items()}
        return {**taken, "ratio": round(taken["after"] / taken["before"], 3)}


def _text(value) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
