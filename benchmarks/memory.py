"""What the class map costs: PSPNet-50, 150 classes, 473x473, float32, with strips of several sizes.

    python benchmarks/memory.py

Beside them the same network stopped before its last upsampling, and the whole enlarged scores under
an argmax. Each file in a process of its own, in turn, two threads. Writes results/memory.json.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "export"))
SIZE, CLASSES = (473, 473), 150
STRIPS = (2, 4, 5, 10)
WHOLE = 10**6


def main():
    from benchmark import measure
    from machine import machine

    with tempfile.TemporaryDirectory() as folder:
        files = make(Path(folder))
        rows = measure([str(file) for file in files.values()], threads=2, warmup=1, runs=7)
    rows = dict(zip(files, rows.values()))
    nothing = rows["stopped before the upsampling"]
    for row in rows.values():
        row["bytes_above"] = row["peak_bytes"] - nothing["peak_bytes"]
        del row["outside"], row["bytes"]
    whole = rows["whole"]["bytes_above"]
    for row in rows.values():
        row["share_of_the_whole"] = round(row["bytes_above"] / whole, 3)
    result = {"command": "python benchmarks/memory.py", "machine": machine(), "files": rows}
    (HERE / "results" / "memory.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def make(folder: Path) -> dict[str, Path]:
    import keras

    import keras_pspnet
    from keras_pspnet.export import converters, fast_graph

    keras.utils.set_random_seed(0)
    network = keras_pspnet.build_pspnet(CLASSES, input_shape=(*SIZE, 3), aux=False)
    labels = keras_pspnet.LabelSet.numbered(CLASSES)
    files = {}

    def write(name, output):
        files[name] = folder / f"{len(files)}.tflite"
        scratch = folder / f"scratch{len(files)}"
        scratch.mkdir()
        converter = converters.Converter(network, scratch, output, labels, None)
        files[name].write_bytes(converter.convert("float32"))

    enlarge = converters.resize
    converters.resize = lambda scores, *arguments: scores
    write("stopped before the upsampling", "logits")
    converters.resize = enlarge
    for steps in STRIPS:
        fast_graph.STRIP = steps
        write(f"strips of {steps} steps", "classes")
    fast_graph.STRIP = WHOLE
    write("whole", "classes")
    return files


if __name__ == "__main__":
    main()
