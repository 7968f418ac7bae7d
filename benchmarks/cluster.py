"""What Ray costs and gains: pictures a second of the bare runner, of one process and of workers.

    python benchmarks/cluster.py [--pictures N] [--rounds N]

Needs the extra `cluster`. All forms do the same pictures, in turn; the medians are compared. The
bare runner gets decoded arrays of its size and writes nothing; the others read PNG files and write
the table. Ray's rate leaves its start out, which is the time of two pictures. Writes
results/cluster.json.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import machine
from PIL import Image

import keras_pspnet
from keras_pspnet import scenes
from keras_pspnet.machine import cores

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
HERE = Path(__file__).parent
SCRIPT = HERE.parent / "export" / "cluster" / "segment_ray.py"
DRAWN = 100
"""Number of different pictures; the files are copies of them."""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=2000, help="of the small network")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows = {}
    for name, (build, size, share) in NETWORKS.items():
        count = max(4, options.pictures // share)
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = measure(Path(folder), build(), size, count, options.rounds)
        print(json.dumps({name: rows[name]}, indent=2), flush=True)
    versions = {name: importlib.metadata.version(name) for name in ("ray", "ai-edge-litert")}
    result = {"command": "python benchmarks/cluster.py", "machine": machine(), **versions}
    result |= {"rounds": options.rounds, "networks": rows}
    (HERE / "results" / "cluster.json").write_text(json.dumps(result, indent=2) + "\n")


def small():
    return keras_pspnet.from_preset("scenes")


def lite0():
    return keras_pspnet.build_pspnet(
        12,
        input_shape=(369, 481, 3),
        backbone="efficientnet_lite0",
        output_stride=16,
        channels=128,
    )


NETWORKS = {  # name -> what builds it, (H, W) of the pictures, a share of the pictures
    "preset scenes, 185x185": (small, (185, 185), 1),
    "efficientnet_lite0, output stride 16, random weights, 369x481": (lite0, (369, 481), 10),
}


def measure(folder, model, size, count, rounds) -> dict:
    """Measure one network.

    Returns:
        {"pictures": count, "pictures_a_second": {form: median}, "ray_start_seconds": median}.
    """
    file = keras_pspnet.export_model(model, folder / "export", formats=("float32",))["float32"]
    images, _ = scenes.scenes(min(DRAWN, count), split="val", size=size)
    for name, number in (("few", 2), ("photos", count)):
        (folder / name).mkdir()
        for index in range(number):
            image = Image.fromarray(images[index % len(images)])
            image.save(folder / name / f"{index:05}.png", compress_level=1)
    runners = {n: keras_pspnet.load_model(file, threads=n) for n in {1, cores()}}
    forms = {f"bare runner, threads: {n}": bare(run, images, count) for n, run in runners.items()}
    forms[f"one process, threads: {cores()}"] = lambda: one_process(folder, file)
    for actors in sorted({1, cores()}):
        forms[f"Ray, workers of one thread: {actors}"] = lambda a=actors: on_ray(folder, file, a)
    seconds, starts = {form: [] for form in forms}, []
    for number in range(rounds):
        starts.append(on_ray(folder, file, 1, "few"))
        for form, run in forms.items():
            taken = run()
            seconds[form].append(taken - starts[-1] if form.startswith("Ray") else taken)
        print(f"round {number + 1} of {rounds}", flush=True)
    rates = {form: round(count / float(np.median(taken)), 2) for form, taken in seconds.items()}
    start = round(float(np.median(starts)), 1)
    return {"pictures": count, "pictures_a_second": rates, "ray_start_seconds": start}


def bare(network, images, count):
    """A function that runs `count` pictures and returns the seconds."""

    def run():
        start = time.perf_counter()
        for index in range(count):
            network(images[index % len(images)][None])
        return time.perf_counter() - start

    return run


def one_process(folder, file) -> float:
    """Return the seconds of a worker's work on all pictures, without Ray."""
    spec = importlib.util.spec_from_file_location("segment_ray", SCRIPT)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    job = argparse.Namespace(pictures=f"{folder}/photos", out=f"{folder}/out", column=None)
    job.format, job.threads, job.model = "parquet", cores(), file.read_bytes()
    names = np.array(program.list_pictures(job), object)
    program.list_done(job)
    segmenter = program.Segmenter(job)
    start = time.perf_counter()
    for at in range(0, len(names), program.PIECE):
        segmenter({"item": names[at : at + program.PIECE]})
    seconds = time.perf_counter() - start
    shutil.rmtree(job.out)
    return seconds


def on_ray(folder, file, actors, pictures="photos") -> float:
    """Return the seconds of the whole command."""
    out = folder / "out"
    command = [sys.executable, SCRIPT, file, folder / pictures, "--out", out, "--actors", actors]
    start = time.perf_counter()
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    seconds = time.perf_counter() - start
    assert done.returncode == 0, done.stderr
    shutil.rmtree(out)
    return seconds


if __name__ == "__main__":
    main()
