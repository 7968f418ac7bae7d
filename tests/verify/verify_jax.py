"""The thorough tier's check of the JAX backend."""

import csv
import json
import os
import random
import subprocess
import time

from shell import COMMAND, ROOT, call, digest, environment_with, resumed_at, run

JAX = ("jax==0.10.2", "jaxlib==0.10.2", "scipy==1.17.1")


def jax(folder):
    """Under JAX the predictions, losses and trainings are TensorFlow's; resumed, scored, exported.

    Both backends run in one environment with one TensorFlow, which feeds them.
    """
    python = environment_with(folder / "venv", *JAX)
    tensorflow, jax = ({**os.environ, "KERAS_BACKEND": name} for name in ("tensorflow", "jax"))
    parity = [python, ROOT / "tests" / "verify" / "jax_parity.py"]
    command = [python, *COMMAND[1:]]
    result = {"jax": JAX[0]}
    for part in ("predictions", "losses"):
        for environment in (tensorflow, jax):
            run(*parity, part, folder, env=environment)
        result[part] = largest_difference(
            *(folder / f"{part}_{name}.npz" for name in ("tensorflow", "jax"))
        )
        assert result[part]["difference"] <= 1e-5, result

    # The same start and the same batches; no dropout, whose random streams differ. The rate is
    # small: at the recipe's own, ReLUs that are about to open or close make more of a rounding at
    # each step, and TensorFlow's own weights, changed by 1e-7, end 1e-2 away from themselves.
    settings = ["dropout=0.0", "learning_rate=5e-5", "decay=0.01", "jaccard=0.5", "crop=65,65"]
    settings += ["epochs=2", "coarse_epochs=1", "train_images=40"]
    run(*parity, "start", folder, *settings, env=tensorflow)
    histories = []
    for name, environment in (("tensorflow", tensorflow), ("jax", jax)):
        out = folder / name
        train = [*command, "train", "scenes_tiny", "--out", out, "--start", folder / "start.keras"]
        run(*train, "--set", *settings, env=environment)
        run(*parity, "trained", out, env=tensorflow)  # one trained under JAX is read here too
        with open(out / "history.csv") as file:
            histories.append(
                [(key, float(v)) for row in csv.DictReader(file) for key, v in row.items()]
            )
    start = folder / "start_tensorflow.npz"
    ends = [folder / name / "trained_tensorflow.npz" for name in ("tensorflow", "jax")]
    result["training"] = {"steps": 10, **largest_difference(*ends)}
    result["training"]["of_the_way"] = distance(*ends) / distance(start, ends[0])
    assert result["training"]["difference"] <= 3e-4, result
    assert result["training"]["of_the_way"] <= 1e-2, result
    assert len(histories[0]) == len(histories[1]) == 22, histories
    for (key, theirs), (_, ours) in zip(*histories):
        most = 1e-3 if "mIoU" in key else 1e-4 * abs(theirs)
        assert abs(theirs - ours) <= most, (key, theirs, ours)

    # Killed and resumed under JAX, within an epoch and over the change of the output stride.
    settings = ["crop=49,49", "channels=8", "batch_size=4", "train_images=16", "val_images=2"]
    settings += ["checkpoint_seconds=0", "epochs=2", "coarse_epochs=1"]
    train = [*command, "train", "scenes_tiny", "--set", *settings, "--resume", "--out"]
    run(*train, folder / "whole", env=jax)
    checkpoint = folder / "killed" / "last.keras"
    with subprocess.Popen(
        list(map(str, [*train, checkpoint.parent])), env=jax, stdout=subprocess.DEVNULL
    ) as process:
        while process.poll() is None and not checkpoint.exists():
            time.sleep(0.02)
        time.sleep(random.Random(time.time_ns()).uniform(0, 2))
        process.kill()
    (result["resumed_at_step"],) = resumed_at(run(*train, checkpoint.parent, env=jax))
    assert result["resumed_at_step"] > 0, result
    for name in ("last.keras", "best.keras", "history.csv"):
        assert digest(folder / "killed" / name) == digest(folder / "whole" / name), name

    model, scores = folder / "jax" / "best.keras", []
    for environment in (tensorflow, jax):
        file = folder / "scores.json"
        run(*command, "evaluate", model, "--dataset", "scenes", "--json", file, env=environment)
        scores.append(json.loads(file.read_text())["mIoU"])
    result["mIoU"] = scores
    assert abs(scores[0] - scores[1]) <= 1e-3, scores

    export = [*command, "export", model, "--out", folder / "export"]
    done = call(*export, env=jax)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "KERAS_BACKEND=tensorflow" in done.stderr.splitlines()[-1], done.stderr
    run(*export, env=tensorflow)
    return result


def largest_difference(first, second):
    """Of the arrays by name in two files: each as a share of the first one's range.

    Of a single number that is its magnitude. Class ids may differ in one pixel of a thousand.
    """
    import numpy as np

    first, second = np.load(first), np.load(second)
    assert set(first.files) == set(second.files), set(first.files) ^ set(second.files)
    shares = {}
    for name in first.files:
        a, b = first[name], second[name]
        assert a.shape == b.shape and a.dtype == b.dtype, (name, a.shape, b.shape)
        if name.endswith("_classes"):
            assert (a != b).mean() <= 1e-3, (name, (a != b).mean())
            continue
        a, b = a.astype(np.float64), b.astype(np.float64)
        scale = np.ptp(a) or np.abs(a).max() or 1.0
        shares[name] = float(np.abs(a - b).max() / scale)
    worst = max(shares, key=shares.get)
    return {"arrays": len(shares), "worst": worst, "difference": shares[worst]}


def distance(first, second):
    """Between the trained weights in two files: the root of the sum of squares."""
    import numpy as np

    first, second = np.load(first), np.load(second)
    names = [name for name in first.files if "moving_" not in name]
    return float(np.sqrt(sum(np.sum((first[name] - second[name]) ** 2.0) for name in names)))
