r"""Streets that a network never saw: what makes the phone network of CamVid better; the presets.

    python benchmarks/streets.py CAMVID            # all: the study, both folds, the presets
    python benchmarks/streets.py CAMVID --estimate # says what is left to train and for how long
    python benchmarks/streets.py CAMVID --study    # the candidates alone
    python benchmarks/streets.py CAMVID --study --only detail   # one of them, beside what was kept
    python benchmarks/streets.py CAMVID --short    # instead of all: 14 epochs, and a preset

Candidates are tried one after the other on two folds (folds.py), 10 epochs at output stride 16, one
seed; each is kept if the mIoU of the added confusion matrices gains. Then what was kept is trained
at full length on both folds, and with a second seed on one, exported to int8 and scored again; last
on train and val together, for the presets, beside the paper's plain network.

What is finished is not trained again. Writes results/streets.json after each candidate. All of it
takes most of a day on two cores. `--short` takes two hours: it compares the recipe with a detail
branch and averaged weights, with stronger colours besides, and with none of them.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import keras_pspnet

if __name__ == "__main__":
    keras_pspnet.fast_cpu()

from folds import CLIPS, NORM_BATCHES, Folds
from machine import machine

from keras_pspnet.files import write_json
from keras_pspnet.progress import clock

HERE = Path(__file__).parent
STUDY = {"epochs": 10, "output_stride": 16, "coarse_epochs": 0}
TEACHER = {"backbone": "efficientnet_lite2"}
CANDIDATES = {  # name -> changes of the recipe camvid_lite0, in this order
    "baseline": {},
    "detail": {"detail": 32},
    "averaged": {"ema": 0.99, "norm_batches": NORM_BATCHES},
    # CamVid's whole picture is the crop already: larger scales show things larger.
    "pasted": {"scales": [0.5, 2.0], "copy_paste": 0.5},
    "dice": {"jaccard": 0.0, "dice": 0.5},
    "colors": {"color": 0.6},  # of three drives one is at dusk
    "taught": {},  # and a teacher
    "norms": {"norm_batches": NORM_BATCHES},  # of the networks that were kept: no training
}
SHORT = {"epochs": 14, "output_stride": 16, "coarse_epochs": 0}
TOGETHER = CANDIDATES["detail"] | CANDIDATES["averaged"]
COLORS = TOGETHER | CANDIDATES["colors"]
COMMAND = "python benchmarks/streets.py CAMVID"
LICENCE = "CC BY-NC 4.0 (CamVid: research use only)"


class Study:
    """The candidates, the full trainings of what was kept, and the presets.

    Args:
        folds: trains and scores.
        result: the JSON file.
        epochs: of the candidates.
    """

    def __init__(self, folds: Folds, result: Path, epochs: int):
        self.folds, self.result, self.dry = folds, result, folds.dry
        self.settings = {**STUDY, "epochs": epochs}
        self.results = json.loads(result.read_text()) if result.exists() else {}
        self.results |= {
            "command": COMMAND,
            "data": "CamVid, 11 classes at 480x360, train and val; folds: clip 0006R0 left out, "
            "clip 0001TP left out; their confusion matrices added up",
            "protocol": "whole picture at the model's size, one scale, no flip; the last epoch",
            "machine": machine(),
        }

    def kept(self) -> list[str]:
        return [name for name, row in self.results.get("study", {}).items() if row["kept"]]

    def kept_changes(self) -> dict:
        changes = {}
        for name in self.kept():
            changes |= CANDIDATES[name]
        return changes

    def teacher(self, name: str, splits) -> Path:
        """Return the teacher of a fold or of all pictures, which never saw others than they."""
        changes = {**self.kept_changes(), **TEACHER, **self.settings}
        return self.folds.trained(f"teacher-{name}", changes, splits) / "last.keras"

    def trained(self, name: str, changes: dict, taught: bool, clips=CLIPS) -> dict[str, Path]:
        """Train on folds; return clip -> run folder."""
        found = {}
        for clip in clips:
            splits = (f"not-clip:{clip}", f"clip:{clip}")
            teacher = self.teacher(clip, splits) if taught else None
            found[clip] = self.folds.trained(f"{name}-{clip}", changes, splits, teacher)
        return found

    def study(self, only=None):
        """Try the candidates; keep those that gain."""
        rows = self.results.setdefault("study", {})
        for name, own in CANDIDATES.items():
            if name in rows or (only and name not in (only, "baseline")):
                continue
            kept = self.kept()
            if name == "norms" and "averaged" in kept:
                continue  # which does so already
            if name == "norms":
                label, kind = "+".join(kept), "norms"
                runs = {clip: self.folds.runs / f"{label}-{clip}" for clip in CLIPS}
            else:
                label, kind = "+".join([*kept, name]), "keras"
                changes = {**self.kept_changes(), **own, **self.settings}
                runs = self.trained(label, changes, "taught" in (*kept, name))
            if self.dry:
                continue
            found = self.folds.scored(runs, kind)
            gain = round(found["mIoU"] - (rows[kept[-1]]["mIoU"] if kept else 0.0), 4)
            rows[name] = {"changes": own, "beside": kept, "kept": gain > 0, "gain": gain, **found}
            write_json(self.result, self.results)
            print(name, json.dumps(rows[name]), flush=True)

    def final(self):
        """Train what was kept at full length on both folds, and with a second seed on one."""
        changes, taught = self.kept_changes(), "taught" in self.kept()
        runs = self.trained("final", changes, taught)
        second = self.trained("final_seed1", {**changes, "seed": 1}, taught, CLIPS[:1])
        before = self.trained("before", {}, False)
        if self.dry:
            return
        self.results["final"] = {
            "changes": changes,
            "before": self.folds.scored(before),
            "float": self.folds.scored(runs),
            "int8": self.folds.scored(runs, "int8"),
            "second seed": self.folds.scored(second),
            "int8 milliseconds": self.folds.latency(before[CLIPS[0]], runs[CLIPS[0]]),
        }
        write_json(self.result, self.results)

    def presets(self):
        """Train on train and val, and write the presets with their cards."""
        splits = ("train+val", "val")
        teacher = self.teacher("all", splits) if "taught" in self.kept() else None
        runs = {
            "camvid_lite0": self.folds.trained("all", self.kept_changes(), splits, teacher),
            "plain_lite0": self.folds.trained("plain", {}, splits),
        }
        if self.dry:
            return
        final = self.results["final"]
        make_preset("plain_lite0", runs["plain_lite0"], self.folds.data, final["before"], COMMAND)
        self.phone_preset(runs["camvid_lite0"], final["float"], final["int8"], COMMAND)

    def short(self):
        """Train SHORT with COLORS on train and val, and the preset; it and less on both folds."""
        run = self.folds.trained("short_colors-all", {**SHORT, **COLORS}, ("train+val", "val"))
        tried = {"short_colors": COLORS, "short": TOGETHER, "short_before": {}}
        found = self.results["short"] = {
            **self.results.get("short", {}),
            "changes": {**SHORT, **COLORS},
        }
        for name, changes in tried.items():
            runs = self.trained(name, {**SHORT, **changes}, False)
            if self.dry:
                continue
            found[name] = self.folds.scored(runs)
            if name == "short_colors":
                found["int8"] = self.folds.scored(runs, "int8")
                self.phone_preset(run, found[name], found["int8"], f"{COMMAND} --short")
            write_json(self.result, self.results)

    def phone_preset(self, run, found, found_int8, command):
        """Write the preset of a run on train and val, its int8 file and its curves."""
        make_preset("camvid_lite0", run, self.folds.data, found, command)
        out, name = HERE.parent / "presets", "camvid_lite0_int8.tflite"
        model = keras_pspnet.from_preset(out / "camvid_lite0.keras")
        file = self.folds.exported(model, self.folds.runs / f"{run.name}.files", "train+val")
        card = json.loads(file.with_suffix(".card.json").read_text())
        card |= {"file": name, "licence": LICENCE, "folds": found_int8}
        (out / name).write_bytes(file.read_bytes())
        write_json((out / name).with_suffix(".card.json"), card)
        curves = (run / "curves.png").read_bytes()
        (HERE / "results" / "streets_curves.png").write_bytes(curves)


def make_preset(name, run, data, found, made_by):
    """Write a preset of a run's last network; its card has the scores of the folds."""
    line = {"split": " and ".join(f"clip:{clip}" for clip in CLIPS), "pictures": found["pictures"]}
    line["protocol"] = "two networks trained alike without these clips, their matrices added up"
    line |= {"mIoU": found["mIoU"], "pixel_accuracy": found["pixel_accuracy"]}
    command = [sys.executable, str(HERE / "make_preset.py"), str(run), "--name", name]
    command += ["--model", "last.keras", "--data-dir", data, "--licence", LICENCE]
    command += ["--scores", json.dumps([line])]
    command += ["--command", made_by]
    command += ["--trained-on", "CamVid train and val, 468 pictures of 480x360, from ImageNet"]
    subprocess.run(command, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="CAMVID", help="CamVid, as SegNet lays it out")
    parser.add_argument("--runs", type=Path, default=Path("runs/streets"), metavar="DIR")
    parser.add_argument("--estimate", action="store_true", help="say what is left; train nothing")
    stages = ("study", "final", "presets")
    for stage in (*stages, "short"):
        parser.add_argument(f"--{stage}", action="store_true", help="this stage alone")
    parser.add_argument("--only", choices=CANDIDATES, help="this candidate of the study alone")
    parser.add_argument("--epochs", type=int, default=STUDY["epochs"], help="of the study")
    result = HERE / "results" / "streets.json"
    parser.add_argument("--json", type=Path, default=result, metavar="FILE", help="the results")
    options = parser.parse_args()
    folds = Folds(options.data, options.runs, options.estimate)
    study = Study(folds, options.json, options.epochs)
    asked = [stage for stage in (*stages, "short") if getattr(options, stage)]
    for stage in asked or stages:
        getattr(study, stage)(*([options.only] if stage == "study" else []))
    if folds.dry:
        known = [seconds for seconds in folds.left if seconds is not None]
        line = f"{len(folds.left)} trainings are left: about {clock(sum(known))}"
        print(f"{line}, and {len(folds.left) - len(known)} that were never measured")


if __name__ == "__main__":
    main()
