"""What large pictures cost: seconds and peak memory of `segment`, and of drawing and writing.

    python benchmarks/pictures.py

Each case runs in a process of its own: first on a picture of the network's own size, then on one
of 12 or 48 megapixels. The networks are narrow, have random weights, and 11 or 150 classes; batch
norms have seen pictures, so that the classes vary. Writes results/pictures.json.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import machine

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
RESULT = Path(__file__).parent / "results" / "pictures.json"
CLASSES = (11, 150)
SIDE = 473
SIZES = {"12": (3000, 4000), "48": (6000, 8000)}
FILES = {
    ".keras": "fixed.keras",
    "SavedModel": "saved_model",
    ".tflite": "pspnet_float32.tflite",
    ".onnx": "pspnet.onnx",
    "any size": "any.keras",
}


def main():
    if len(sys.argv) > 1:
        function = {"make": make, "segmented": segmented, "drawn": drawn, "whole": whole}
        print(json.dumps(function[sys.argv[1]](*sys.argv[2:])))
        return
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        for classes in CLASSES:
            place = Path(folder) / str(classes)
            in_a_process("make", classes, place)
            for kind, file in FILES.items():
                for megapixels in SIZES:
                    case = {"model": kind, "classes": classes, "megapixels": int(megapixels)}
                    case |= in_a_process("segmented", place / file, megapixels)
                    print(case, flush=True)
                    cases.append(case)
    result = {
        "command": "python benchmarks/pictures.py",
        "machine": machine(),
        "network": f"resnet14_narrow, output stride 8, {SIDE}x{SIDE}; any size: windows",
        "segment": cases,
        "overlay_and_write": in_a_process("drawn"),
        "resnet50_whole": in_a_process("whole"),
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def in_a_process(*arguments):
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def make(classes, folder):
    """Write the network in every kind of file."""
    import keras

    import keras_pspnet
    from keras_pspnet import scenes
    from keras_pspnet.network.saving import save_model

    def network(side):
        keras.utils.set_random_seed(0)
        size = (side, side, 3)
        given = {"input_shape": size, "backbone": "resnet14_narrow", "channels": 64, "aux": False}
        return keras_pspnet.build_pspnet(int(classes), **given)

    model = network(SIDE)
    images, _ = scenes.scenes(2, split="train", size=(SIDE, SIDE))
    for _ in range(10):
        model(images.astype(np.float32), training=True)
    any_size = network(None)
    any_size.set_weights(model.get_weights())
    folder = Path(folder)
    formats = ("saved_model", "float32", "onnx")
    keras_pspnet.export_model(model, folder, formats=formats, output="logits", min_agreement=0.5)
    save_model(model, folder / FILES[".keras"])
    save_model(any_size, folder / FILES["any size"])


def photo(height, width):
    """Return a picture with smooth areas and noise, as a camera's: (H, W, 3) uint8."""
    from PIL import Image

    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (10, 10, 3), np.uint8))
    smooth = np.asarray(coarse.resize((1000, 1000), Image.Resampling.BICUBIC))
    noise = rng.integers(-6, 7, smooth.shape, np.int16)
    patch = np.clip(smooth + noise, 0, 255).astype(np.uint8)
    picture = np.empty((height, width, 3), np.uint8)  # filled in place: peak memory is measured
    for top in range(0, height, 1000):
        for left in range(0, width, 1000):
            place = picture[top : top + 1000, left : left + 1000]
            place[:] = patch[: place.shape[0], : place.shape[1]]
    return picture


def segmented(file, megapixels):
    """Segment a picture of the network's own size, then a large one."""
    from keras_pspnet.inference.load import as_predictor, load_model
    from keras_pspnet.inference.segment import Protocol, segment, within_memory

    predictor = as_predictor(load_model(file))
    size = predictor.size or within_memory(predictor, Protocol(), SIZES[megapixels]).crop
    side = size[0]
    own, large = photo(side, side), photo(*SIZES[megapixels])
    segment(predictor, own)
    own_seconds, own_processor, _ = taken(lambda: segment(predictor, own))
    before = peak()
    seconds, processor, classes = taken(lambda: segment(predictor, large))
    return {
        "own_size": side,
        "own_seconds": round(own_seconds, 2),
        "seconds": round(seconds, 2),
        "own_processor_seconds": round(own_processor, 2),
        "processor_seconds": round(processor, 2),
        "own_peak_gigabytes": round(before, 2),
        "peak_gigabytes": round(peak(), 2),
        "classes_found": len(np.unique(classes)),
        "pixels_at_edges": round(float((classes[:, 1:] != classes[:, :-1]).mean()), 4),
    }


def drawn():
    """Draw and write the overlay and the class ids of a picture of 12 megapixels."""
    from keras_pspnet import LabelSet, visualize
    from keras_pspnet.files import write_together

    image, labels = photo(*SIZES["12"]), LabelSet.numbered(150)
    ids = np.random.default_rng(0).integers(0, 150, (60, 80), np.uint8).repeat(50, 0).repeat(50, 1)
    contents = {}

    def draw(folder):
        sheet = visualize.overlay_with_legend(image, ids, labels)
        contents[folder / "overlay.png"] = visualize.png(sheet)
        contents[folder / "classes.png"] = visualize.class_png(ids, labels)
        write_together(contents)

    with tempfile.TemporaryDirectory() as folder:
        seconds, processor, _ = taken(lambda: draw(Path(folder)))
    return {
        "seconds": round(seconds, 2),
        "processor_seconds": round(processor, 2),
        "megabytes": round(sum(map(len, contents.values())) / 1e6, 1),
    }


def whole():
    """Segment the largest picture that a PSPNet-50 of any size takes as a whole."""
    import keras_pspnet
    from keras_pspnet.inference.load import as_predictor
    from keras_pspnet.inference.segment import largest_whole, segment

    model = keras_pspnet.build_pspnet(150, input_shape=(None, None, 3), aux=False)
    predictor = as_predictor(model)
    before = peak()
    side = int(largest_whole(predictor) ** 0.5) // 8 * 8 - 7
    seconds, _, _ = taken(lambda: segment(predictor, photo(side, side)))
    return {
        "side": side,
        "seconds": round(seconds, 1),
        "peak_gigabytes": round(peak(), 2),
        "of_which_before": round(before, 2),
        "bytes_of_a_pixel": round((peak() - before) * 2**30 / side**2),
    }


def taken(function):
    """Return the seconds that a call takes, those of all processors together, and its result."""
    start, processor = time.perf_counter(), time.process_time()
    result = function()
    return time.perf_counter() - start, time.process_time() - processor, result


def peak() -> float:
    """Return the most memory that this process has held, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
