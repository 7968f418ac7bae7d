"""The thorough tier's checks of other people's networks: backbones and checkpoints."""

import json
import sys
from pathlib import Path

from shell import ROOT, run


def foreign_backbones(folder):
    """keras.applications, keras-hub and keras-cv as backbones, in an environment of their own."""
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    run(sys.executable, "-m", "venv", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    constraints = ROOT / "constraints.txt"
    run(python, "-m", "pip", "install", "-q", "-c", constraints, f"{wheel}[backbones]", cwd=folder)
    said = run(python, ROOT / "tests" / "verify" / "foreign_backbones.py", cwd=folder)
    return json.loads(said.splitlines()[-1])


NETWORKS = ("semseg50.pth", "semseg101.pth", "mmseg50.pth", "mmseg101.pth", "caffe50.npy")
NETWORKS += ("caffe101.h5",)


def converted(folder):
    """The authors' networks in PyTorch, and the same weights converted: both heads, both sizes."""
    python = folder / "venv" / "bin" / "python"
    run(sys.executable, "-m", "venv", folder / "venv")
    run(python, "-m", "pip", "install", "-q", "torch==2.13.0", "h5py", "numpy", cwd=folder)
    result = {}
    for file in NETWORKS:
        name = Path(file).stem
        run(python, ROOT / "tests" / "verify" / "torch_pspnet.py", name, folder)
        said = run(sys.executable, "-c", COMPARE, folder / file, *folder.glob(f"{name}_*.npz"))
        result[name] = json.loads(said.splitlines()[-1])
        for size, heads in result[name].items():
            for head, figures in heads.items():
                worst, equal = figures["of_the_range"], figures["equal_classes"]
                assert worst < 1e-4 and equal >= 0.9999, (name, size, head, figures)
        for path in (folder / file, *folder.glob(f"{name}_*.npz")):
            path.unlink()
    return {"networks": result}


COMPARE = """
import json, sys
import numpy as np
from keras_pspnet import convert
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
