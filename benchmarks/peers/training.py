"""Whole training steps against PyTorch: the same network, batch, losses and optimizer.

    python benchmarks/peers/training.py [--out runs/peers] [--rounds 7]

One process each, whose steps alternate; PyTorch in both memory layouts, of which the faster counts.
PyTorch has its own environment under --out (2 GB), which is kept. Writes
benchmarks/results/training.json.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
RESULT = HERE.parent / "results" / "training.json"
PACKAGES = ("torch==2.13.0", "timm", "numpy")
NETWORKS = {  # name -> what the two programs build
    "efficientnet_lite0_16": {"stride": 16, "size": (369, 481), "batch": 4, "classes": 11},
    "efficientnet_lite0_8": {"stride": 8, "size": (369, 481), "batch": 4, "classes": 11},
    "resnet50_8": {"stride": 8, "size": (473, 473), "batch": 2, "classes": 150},
}


class Worker:
    """A process that makes one training step for each line it reads.

    Args:
        python: its interpreter.
        program: the script.
        arguments: what it builds.
    """

    def __init__(self, python, program, *arguments):
        command = [python, HERE / program, *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def step(self) -> dict:
        """Make a step; return {"seconds", "peak_gigabytes", "loss"}."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def environment(folder: Path) -> Path:
    """Make the environment of PyTorch, once."""
    python = folder / "venv" / "bin" / "python"
    ready = folder / "venv" / ".training"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
        ready.touch()
    return python


def race(python, name, rounds) -> dict:
    """Median seconds, largest memory and first losses of each program."""
    settings = json.dumps({"name": name, **NETWORKS[name]})
    workers = {
        "keras_pspnet": Worker(sys.executable, "training_ours.py", settings),
        "PyTorch": Worker(python, "training_torch.py", settings, "contiguous"),
        "PyTorch, channels last": Worker(python, "training_torch.py", settings, "channels_last"),
    }
    steps = {program: [] for program in workers}
    for number in range(rounds + 1):  # the first step also builds and traces
        for program, worker in workers.items():
            steps[program].append(worker.step())
        print(f"{name}: round {number} of {rounds}", flush=True)
    for worker in workers.values():
        worker.close()
    rows = {
        program: {
            "seconds": round(statistics.median(step["seconds"] for step in made[1:]), 3),
            "peak_gigabytes": made[-1]["peak_gigabytes"],
            "first_loss": round(made[0]["loss"], 4),
        }
        for program, made in steps.items()
    }
    ours = rows["keras_pspnet"]
    peer = min((row for key, row in rows.items() if key != "keras_pspnet"), key=_seconds)
    return {
        **NETWORKS[name],
        "programs": rows,
        "times_the_speed_of_PyTorch": round(peer["seconds"] / ours["seconds"], 2),
        "memory_to_PyTorch": round(ours["peak_gigabytes"] / peer["peak_gigabytes"], 2),
    }


def _seconds(row):
    return row["seconds"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(NETWORKS))
    parser.add_argument("--out", type=Path, default=Path("runs/peers"))
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(HERE.parent))
    from machine import machine

    python = environment(options.out.resolve())
    rows = json.loads(RESULT.read_text())["networks"] if RESULT.exists() else {}
    for name in options.names:
        rows[name] = race(python, name, options.rounds)
        result = {
            "command": "python benchmarks/peers/training.py",
            "machine": machine(),
            "networks": rows,
        }
        RESULT.write_text(json.dumps(result, indent=2) + "\n")
        print(json.dumps(rows[name], indent=2), flush=True)


if __name__ == "__main__":
    main()
