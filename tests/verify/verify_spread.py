"""The thorough tier's checks of trainings on several devices and in several processes."""

import io
import os
import random
import signal
import socket
import subprocess
import time
import zipfile

from shell import COMMAND, ROOT, digest, environment_with, resumed_at, run
from spread import LOSSES
from verify_jax import JAX

KILLS = 5
PROCESSES = 2
JAX_ENDED = "Terminating process because the JAX distributed service detected fatal errors"
"""What JAX says, with its own exit code, if its thread notices before ours that process 0 is gone.
No setting of jax.distributed prevents it."""
TINY = ("crop=49,49", "channels=8", "batch_size=4", "train_images=24", "val_images=3")


def several_devices(folder):
    """On 2 and 4 devices and in 2 processes eight steps end with one device's weights."""
    python = environment_with(folder / "venv", *JAX)
    tensorflow, jax = ({**os.environ, "KERAS_BACKEND": name} for name in ("tensorflow", "jax"))
    script = [python, ROOT / "tests" / "verify" / "spread.py", folder]
    run(*script, "data", env=tensorflow)
    run(*script, "one", 0, env=tensorflow)
    for number in (2, 4):
        run(*script, f"{number}_replicas", number, env=tensorflow)
    run(*script, "jax_4_devices", 4, env=jax)
    address = free_address()
    together(
        [[*script, "2_processes", 2, address, PROCESSES, i] for i in range(PROCESSES)], env=jax
    )
    result = {"steps": 8, "losses": list(LOSSES), "largest_differences": {}}
    runs = [folder / "one" / loss for loss in LOSSES]
    moved = min(difference(run, folder / "start.keras", _is_kernel) for run in runs)
    result["least_moved"] = moved
    assert moved > 1e-4, result
    for name in ("2_replicas", "4_replicas", "jax_4_devices", "2_processes"):
        pairs = [(folder / "one" / loss, folder / name / loss) for loss in LOSSES]
        result["largest_differences"][name] = {
            "weights": max(
                difference(*pair, lambda *item: not _is_statistic(*item)) for pair in pairs
            ),
            "statistics": max(difference(*pair, _is_statistic) for pair in pairs),
        }
    for found in result["largest_differences"].values():
        # Small changes of all kernels before it add up in a moving mean.
        assert found["weights"] <= 1e-5 and found["statistics"] <= 1e-4, result
    return result


def _is_kernel(name, value):
    return value.ndim == 4


def _is_statistic(name, value):
    """Whether it is a moving mean or variance."""
    return "batch_normalization" in name and name.endswith(("vars/2", "vars/3"))


def killed_processes(folder):
    """Of two processes one is killed: the other ends with one line; resumed, the bits are equal."""
    python = environment_with(folder / "venv", *JAX)
    kept = {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
    kept |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "KERAS_BACKEND": "jax"}
    environment, chance = {**os.environ, **kept}, random.Random(time.time_ns())

    def processes(out):
        command = [python, *COMMAND[1:], "train", "scenes_tiny", "--out", out, "--resume"]
        command += ["--coordinator", free_address(), "--processes", PROCESSES]
        settings = [*TINY, "epochs=8", "checkpoint_seconds=0"]
        return [[*command, "--process", i, "--set", *settings] for i in range(PROCESSES)]

    together(processes(folder / "whole"), env=environment)
    checkpoint, steps, waited = folder / "killed" / "last.keras", [], []
    jax_first = 0
    for kill in range(KILLS):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else None
        started = [start(command, environment) for command in processes(folder / "killed")]
        while not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before:
            assert all(process.poll() is None for process in started), said(started)
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 2))
        victim = started.pop(kill % PROCESSES)
        victim.send_signal(signal.SIGKILL)
        begun = time.monotonic()
        (out, errors), *_ = said(started)
        waited.append(round(time.monotonic() - begun, 1))
        if kill % PROCESSES == 0 and JAX_ENDED in errors:
            jax_first += 1
        else:
            assert started[0].returncode == 2, (started[0].returncode, errors)
            assert errors.count("\n") == 1 and "has ended" in errors, errors
        steps += resumed_at(out + victim.communicate()[0])
    steps += resumed_at(together(processes(folder / "killed"), env=environment)[0])
    assert max(waited) < 60 and len(set(steps)) > KILLS // 2, (waited, steps)
    for name in ("last.keras", "best.keras", "history.csv"):
        assert digest(folder / "killed" / name) == digest(folder / "whole" / name), name
    left = [path.name for path in (folder / "killed").iterdir() if path.name.startswith(".")]
    assert not left, left
    return {
        "kills": KILLS,
        "ended_by_jax": jax_first,
        "resumed_at_steps": steps,
        "others_ended_after_seconds": waited,
    }


def free_address():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def start(command, environment):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(list(map(str, command)), env=environment, **pipes)


def said(started):
    return [process.communicate() for process in started]


def together(commands, env):
    """Commands that run side by side and must all succeed; returns what each printed."""
    started = [start(command, env) for command in commands]
    results = said(started)
    for process, (_, errors) in zip(started, results):
        assert process.returncode == 0, errors[-4000:]
    return [out for out, _ in results]


def difference(one, other, counts):
    """The largest difference in two runs or files, by size, of what counts(name, value)."""
    import h5py
    import numpy as np

    weights = []
    for path in (one, other):
        file = path if path.suffix else path / "last.keras"
        found = {}

        def keep(name, item, found=found):
            if isinstance(item, h5py.Dataset) and not name.startswith("optimizer"):
                found[name] = item[()]

        with zipfile.ZipFile(file) as archive:
            content = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(content, "r") as stored:
            stored.visititems(keep)
        weights.append(found)
    first, second = weights
    assert set(first) == set(second), set(first) ^ set(second)
    return max(
        float(np.max(np.abs(value - second[name]) / np.maximum(1, np.abs(value)), initial=0.0))
        for name, value in first.items()
        if value.dtype.kind == "f" and counts(name, value)
    )
