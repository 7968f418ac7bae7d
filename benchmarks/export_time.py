"""How long the export of a PSPNet-50 to five formats takes, beside an older version.

    python benchmarks/export_time.py [--before COMMIT] [--pictures 32]

Random weights, 473x473, 150 classes, calibrated and compared on generated scenes. Each version runs
in a process of its own, from a worktree of the repository. Writes results/export_time.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
RESULT = Path(__file__).parent / "results" / "export_time.json"
FORMATS = ("saved_model", "float32", "float16", "dynamic", "int8")
SIDE, CLASSES = 473, 150
BEFORE = "9f8948e^"
"""The last version that ran every file on every picture."""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", default=BEFORE, metavar="COMMIT")
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return worker(options.pictures)
    from machine import machine  # which needs this version of the package

    result = {"command": "python benchmarks/export_time.py", "machine": machine()}
    result |= {"network": f"PSPNet-50, {SIDE}x{SIDE}", "formats": FORMATS}
    result |= {"pictures": options.pictures, "before": options.before}
    with tempfile.TemporaryDirectory() as folder:
        old = Path(folder) / "before"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", str(old), options.before], check=True)
        try:
            for name, root in (("after", ROOT), ("before", old)):
                command = [sys.executable, str(Path(__file__).resolve()), "--worker"]
                command += ["--pictures", str(options.pictures)]
                said = subprocess.run(
                    command,
                    env={**os.environ, "PYTHONPATH": str(root)},
                    check=True,
                    stdout=subprocess.PIPE,
                )
                result |= {f"seconds {name}": json.loads(said.stdout.splitlines()[-1])}
        finally:
            subprocess.run([*git, "remove", "--force", str(old)], check=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(RESULT.read_text())


def worker(pictures):
    import keras

    import keras_pspnet

    keras.utils.set_random_seed(0)
    model = keras_pspnet.build_pspnet(CLASSES, input_shape=(SIDE, SIDE, 3))
    for layer in model._flatten_layers():
        if getattr(layer, "filters", None) == CLASSES:  # no near ties, which files break otherwise
            layer.bias.assign(np.arange(CLASSES))
    shown = [keras_pspnet.scenes.scene(n, size=(SIDE, SIDE))[0] for n in range(pictures)]
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        keras_pspnet.export_model(
            model,
            Path(folder) / "files",
            formats=FORMATS,
            calibration=shown,
        )
        print(round(time.monotonic() - start, 1))


if __name__ == "__main__":
    main()
