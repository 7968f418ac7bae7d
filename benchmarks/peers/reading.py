"""Reading and augmenting pictures against OpenCV in a DataLoader: pictures a second of each core.

    python benchmarks/peers/reading.py [--out runs/peers] [--rounds 5]

One process each, in turns; both read the same files and augment as the authors do (scale, rotate,
blur, mirror, crop to 473x473), in batches of 8. PyTorch has the environment of training.py. Writes
benchmarks/results/reading.json.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from PIL import Image
from training import HERE, Worker, environment

from keras_pspnet import scenes
from keras_pspnet.machine import cores

RESULT = HERE.parent / "results" / "reading.json"
OPENCV = "opencv-python-headless==5.0.0.93"
PICTURES = {  # name -> size (H, W), format and number
    "photos 640x480, JPEG": ((480, 640), "jpg", 160),
    "photos 1600x1200, JPEG": ((1200, 1600), "jpg", 40),
    "street scenes 2048x1024, PNG": ((1024, 2048), "png", 40),
}
BATCH, CROP, BATCHES = 8, 473, 20
WARM = 4
"""First batches that are not timed, as those that are read ahead."""


def drawn(folder: Path, size, kind, count) -> Path:
    """Draw the pictures and masks of a setting, once."""
    for index in range(count):
        picture = folder / "images" / "train" / f"{index}.{kind}"
        mask = folder / "masks" / "train" / f"{index}.png"
        if not mask.exists():
            for file, array in zip((picture, mask), scenes.scene(index, size=size)):
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(file, quality=90)
    return folder


def race(python, folder, rounds) -> dict:
    """Return the median pictures a second and core of each program."""
    settings = {"folder": str(folder), "batch": BATCH, "crop": CROP, "batches": BATCHES}
    settings = json.dumps({**settings, "warm": WARM, "workers": cores()})
    workers = {
        "keras_pspnet": Worker(sys.executable, "reading_ours.py", settings),
        "OpenCV in a DataLoader": Worker(python, "reading_torch.py", settings),
    }
    rates = {program: [] for program in workers}
    for number in range(rounds + 1):  # the first round also starts processes and traces
        for program, worker in workers.items():
            rates[program].append(worker.step()["pictures_a_second"] / cores())
        print(f"{folder.name}: round {number} of {rounds}", flush=True)
    for worker in workers.values():
        worker.close()
    found = {program: round(statistics.median(made[1:]), 1) for program, made in rates.items()}
    ratio = found["keras_pspnet"] / found["OpenCV in a DataLoader"]
    return {"pictures_a_second_and_core": found, "times_the_speed_of_the_peer": round(ratio, 2)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/peers"))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    sys.path.insert(0, str(HERE.parent))
    from machine import machine

    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    python = environment(out)
    subprocess.run([python, "-m", "pip", "install", "-q", OPENCV], check=True)
    result = {"command": "python benchmarks/peers/reading.py", "machine": machine()}
    result |= {"batch": BATCH, "crop": CROP, "peer": OPENCV, "pictures": {}}
    for name, setting in PICTURES.items():
        folder = drawn(out / name.replace(" ", "_").replace(",", ""), *setting)
        result["pictures"][name] = race(python, folder, options.rounds)
        print(name, json.dumps(result["pictures"][name]), flush=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
