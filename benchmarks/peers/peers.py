"""PSPNet-50, 150 classes, 473x473: our files against the authors' graph in other runtimes.

python benchmarks/peers/peers.py [--out runs/peers] [--rounds 15]

The same random weights in PyTorch, ONNX Runtime and OpenVINO (float32 and int8) and, converted and
exported, in LiteRT; same picture, 2 threads, in turn, medians. It makes an environment of its own
under --out (1.5 GB) and keeps it. Writes benchmarks/results/peers.json.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
RESULT = HERE.parent / "results" / "peers.json"
SIZE = (473, 473)
PACKAGES = ("torch==2.13.0", "onnxruntime", "openvino", "onnx", "ai-edge-litert==2.3.0", "pillow")


def environment(folder: Path) -> Path:
    python = folder / "venv" / "bin" / "python"
    if not (folder / "venv" / ".ready").exists():
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
        (folder / "venv" / ".ready").touch()
    return python


def our_files(folder: Path) -> None:
    """The authors' weights as our files."""
    import numpy as np

    from keras_pspnet.export.converters import Converter
    from keras_pspnet.export.deliver import with_fixed_size
    from keras_pspnet.network.convert import convert
    from keras_pspnet.network.main_head import labels_of, main_network

    pictures = np.load(folder / "pictures.npy")
    model = convert(folder / "reference.pth")
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    converter = Converter(
        with_fixed_size(main_network(model), SIZE),
        scratch,
        "logits",
        labels_of(model),
        lambda: (picture[None] for picture in pictures),
    )
    for name in ("float32", "int8"):
        (folder / f"pspnet_{name}.tflite").write_bytes(converter.convert(name))
    shutil.rmtree(scratch)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/peers"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, default=RESULT)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    folder = options.out.resolve()

    import numpy as np

    sys.path.insert(0, str(HERE.parent))
    from machine import machine

    from keras_pspnet.files import write_json
    from keras_pspnet.scenes import scenes

    python = environment(folder)
    # The authors' network in PyTorch is in the tests.
    variables = {**os.environ, "PYTHONPATH": str(HERE.parents[1] / "tests" / "verify")}
    variables |= {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    np.save(folder / "pictures.npy", scenes(4, split="val", size=SIZE)[0])
    if not (folder / "int8.onnx").exists():
        print("the authors' network and its ONNX files: some minutes", flush=True)
        subprocess.run([python, HERE / "reference.py", folder], env=variables, check=True)
    print("our files: some minutes", flush=True)
    our_files(folder)  # always: they are what today's exporter makes
    done = subprocess.run(
        [python, HERE / "race.py", folder, str(options.rounds)],
        env=variables,
        stdout=subprocess.PIPE,
        check=True,
    )
    result = json.loads(done.stdout.splitlines()[-1])
    ours, peers = {}, {}
    for name, row in result["runtimes"].items():
        kind = "int8" if "int8" in name else "float32"
        (ours if "keras_pspnet" in name else peers).setdefault(kind, []).append(row["seconds"])
    fastest = {kind: min(seconds) for kind, seconds in peers.items()}
    result["ratios"] = {
        "float32 to the fastest float peer": ours["float32"][0] / fastest["float32"],
        "int8 to the fastest float peer": ours["int8"][0] / fastest["float32"],
        "int8 to the fastest int8 peer": ours["int8"][0] / fastest["int8"],
    }
    result["bytes"] = {
        file.name: file.stat().st_size
        for file in sorted(folder.iterdir())
        if file.suffix in (".onnx", ".tflite")
    }
    result["machine"] = machine()
    result["command"] = "python benchmarks/peers/peers.py"
    write_json(options.json, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
