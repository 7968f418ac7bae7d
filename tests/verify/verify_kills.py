"""The thorough tier's checks of kills, full disks and bits that stay the same."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

from shell import COMMAND, ROOT, call, digest, resumed_at, run

KILLS = 20
TRAIN = [*COMMAND, "train", "scenes_tiny"]


def killed_and_resumed(folder):
    """A run killed with SIGKILL at random moments ends with the bits of one that was not.

    Every third time two trainings contend for the folder: one of them is refused in one line. Every
    fourth time the kill comes while a checkpoint is written. Once the disk is full in between.
    """
    start = time.monotonic()
    run(*TRAIN, "--out", folder / "whole")
    seconds = time.monotonic() - start
    killed, temporary = folder / "killed", folder / "tmp"
    temporary.mkdir()
    command = [*TRAIN, "--out", killed, "--resume"]
    options = {"env": {**os.environ, "TMPDIR": str(temporary)}, "text": True}
    options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    chance = random.Random(time.time_ns())
    steps, refusals, within_checkpoints = [], 0, 0
    for kill in range(KILLS):
        if kill == KILLS // 2:
            _disk_becomes_full(command, options, killed)
        seen = _checkpoints(killed)
        rivals = [subprocess.Popen(command, **options) for _ in range(1 + (kill % 3 == 2))]
        if kill < 2:  # early: while TensorFlow is imported, the model built, the folder made
            time.sleep(chance.uniform(0.1, 12))
        else:  # some moment after a new checkpoint, or while one is written
            _wait(rivals, _checkpoints, killed, seen)
            time.sleep(chance.uniform(0, seconds / KILLS / 2))
            if kill % 4 == 3:
                _wait(rivals, _half_written, killed, False)
                time.sleep(chance.uniform(0, 0.2))
        for process in rivals:
            process.kill()
        ends = [(*process.communicate(), process.returncode) for process in rivals]
        assert -signal.SIGKILL in [code for _, _, code in ends], f"ended before kill {kill}: {ends}"
        within_checkpoints += _half_written(killed)
        for out, err, code in ends:
            steps += resumed_at(out)
            if code == 2:
                assert err.count("\n") == 1 and "uses this folder" in err, err
                refusals += 1
    steps += resumed_at(run(*command, env=options["env"]))
    assert refusals, "no two trainings met"
    assert within_checkpoints, "no kill while a checkpoint was written"
    assert len(set(steps)) > KILLS // 3, steps
    for name in ("last.keras", "best.keras", "history.csv"):
        assert digest(killed / name) == digest(folder / "whole" / name), name
    left = [path.name for path in killed.iterdir() if path.name.startswith(".")]
    left += temporary.iterdir()
    assert not left, left
    counts = {"kills": KILLS, "while_a_checkpoint_was_written": within_checkpoints}
    counts |= {"refusals": refusals, "uninterrupted_seconds": round(seconds)}
    return {**counts, "resumed_at_steps": steps}


def _disk_becomes_full(command, options, folder):
    """A training whose disk becomes full ends in one line, and keeps its last checkpoint."""
    seen = _checkpoints(folder)
    with subprocess.Popen(command, **options) as process:
        _wait([process], _checkpoints, folder, seen)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (200_000, 200_000))
        said = process.communicate()[1]
    assert process.returncode == 2 and said.count("\n") == 1, said
    assert "last.keras: cannot be written" in said or "best.keras: cannot be written" in said, said
    assert not _half_written(folder)


def _wait(processes, state, folder, before):
    """Wait until the state of a folder is another, or no process runs any more."""
    while state(folder) == before and any(process.poll() is None for process in processes):
        time.sleep(0.02)


def _checkpoints(folder):
    """Return what changes with each last.keras."""
    return [path.stat().st_mtime_ns for path in folder.glob("last.keras")]


def _half_written(folder):
    return any(folder.glob(".*.keras.*.partial*"))


def killed_export(folder):
    """An export that is killed leaves no file of a format behind, and the next one succeeds."""
    settings = ["crop=49,49", "channels=8", "batch_size=4", "train_images=4", "val_images=1"]
    train = [*TRAIN, "--out", folder / "run", "--set", *settings]
    run(*train, "epochs=1")
    command = [*COMMAND, "export", folder / "run" / "last.keras", "--out", folder / "out"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        next(line for line in process.stdout if line.startswith("1/"))
        process.terminate()  # a kind kill, while the file is made: nothing at all is left
        said = process.communicate()[1]
    assert process.returncode == 130 and said == "keras-pspnet: interrupted\n", said
    assert not (folder / "out").exists(), list((folder / "out").iterdir())
    for limit in (5, 7, 9, 11):
        with open(os.devnull, "w") as null:
            process = subprocess.Popen(command, stdout=null, stderr=null)
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            cards = list((folder / "out").glob("*.card.json"))
            for card in cards:
                described = json.loads(card.read_text())
                if described["format"] == "float32":
                    assert digest(folder / "out" / described["file"]) == described["sha256"]
    run(*command)
    names = {path.name for path in (folder / "out").iterdir()}
    assert not [name for name in names if name.startswith(".")], names
    assert "pspnet_float32.tflite" in names, names
    return {"kills_after_seconds": [5, 7, 9, 11]}


def full_disk(folder):
    """Where a file cannot be written whole: one line, exit code 2, what was there stays."""
    settings = ["crop=49,49", "channels=8", "batch_size=4", "train_images=8", "val_images=2"]
    settings += ["checkpoint_seconds=0", "epochs=2"]
    train = [*TRAIN, "--out", folder / "run", "--set", *settings]
    refused(train, limit=200_000)
    assert not (folder / "run" / "last.keras").exists()
    shutil.rmtree(folder / "run", ignore_errors=True)
    run(*train)
    model = folder / "run" / "best.keras"
    for limit in (100, 50_000, 400_000):  # at once, in the SavedModel's graph, in its weights
        said = run(sys.executable, "-c", EXPORT_ON_A_FULL_DISK, model, folder / "out", limit)
        assert said.count("\n") == 1 and "cannot be written" in said, said
        assert not (folder / "out").exists()
    run(*COMMAND, "export", model, "--out", folder / "out")
    picture = folder / "run" / "samples.png"
    tflite = folder / "out" / "pspnet_float32.tflite"
    refused([*COMMAND, "predict", tflite, picture, "--out", folder / "seen"], limit=2000)
    assert not (folder / "seen").exists(), list((folder / "seen").iterdir())
    device = [sys.executable, ROOT / "export" / "on_device" / "segment.py", tflite, picture]
    refused([*device, "--out", folder / "seen"], limit=2000)
    assert not (folder / "seen").exists(), list((folder / "seen").iterdir())
    left = [str(path) for path in folder.rglob("*partial*")]
    assert not left, left
    return {"commands": ["train", "export", "predict", "segment.py"]}


EXPORT_ON_A_FULL_DISK = """
import resource, sys
import keras_pspnet
from keras_pspnet.errors import UserError
model = keras_pspnet.load_model(sys.argv[1])  # Keras unpacks it on disk, so the limit comes later
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    keras_pspnet.export_model(model, sys.argv[2])
except UserError as error:
    print(error)
"""


def refused(command, limit):
    """A command that may write no file over `limit` bytes: one line, exit code 2."""

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = call(*command, preexec_fn=small_files)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("INFO:")]
    assert done.returncode == 2, (command, done.returncode, done.stderr[-3000:])
    assert len(lines) == 1 and "cannot be written" in lines[0], done.stderr


def same_bits(folder):
    """The demo's recipe, at its own sizes, gives the same bits every time."""
    digests = set()
    for number in range(3):
        settings = ["epochs=1", "train_images=160", "val_images=8"]
        out = folder / str(number)
        run(*COMMAND, "train", "scenes", "--out", out, "--set", *settings)
        digests.add(digest(out / "last.keras"))
    assert len(digests) == 1, digests
    return {"runs": 3, "steps": 20}
