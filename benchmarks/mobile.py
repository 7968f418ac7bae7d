"""Phone networks on CamVid: what each network scores, weighs and takes, to choose by.

    keras-pspnet train camvid_mobile_16_128 --data-dir CAMVID --out runs/camvid_mobile_16_128 ...
    python benchmarks/mobile.py --data-dir CAMVID [--runs runs]

The Keras model, and its float32, float16 and int8 files of class ids, calibrated on 32 training
pictures, scored on the 101 of val by the code of `keras-pspnet evaluate`. Latency and peak memory
of all files in turn, two threads. A member that was not trained is timed without a score; so is
MobileNetV2, whose ImageNet weights are a download. Files and scores stay in RUNS/NAME/files, and
are made again when its best.keras is newer. Writes results/mobile.json.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "export"))
FORMATS = ("float32", "float16", "int8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    options = parser.parse_args()
    from benchmark import measure
    from machine import machine

    from keras_pspnet.data.datasets import open_source
    from keras_pspnet.files import write_json
    from keras_pspnet.train.recipes import MOBILE

    train = open_source("camvid", options.data_dir, split="train").paired()
    val = open_source("camvid", options.data_dir, split="val").paired()
    recipes = {**MOBILE, "mobilenet_v2_16_128": None}
    rows, files = {}, {}
    for name, recipe in recipes.items():
        run = options.runs / name
        scores, best = run / "files" / "scores.json", run / "best.keras"
        if not scores.exists() or (best.exists() and best.stat().st_mtime > scores.stat().st_mtime):
            model = network(recipe, best)
            row = described(model, recipe)
            made = exported(model, train, scores.parent)
            if best.exists():
                row["mIoU"]["keras"] = miou(model, val)
                row["mIoU"] |= {kind: miou(file, val) for kind, file in made.items()}
            write_json(scores, row)
        rows[name] = json.loads(scores.read_text())
        print(name, json.dumps(rows[name]), flush=True)
        files |= {(name, kind): str(scores.parent / f"pspnet_{kind}.tflite") for kind in FORMATS}
    figures = measure(list(files.values()), threads=2, warmup=2, runs=15)
    for (name, kind), file in files.items():
        kept = ("bytes", "milliseconds", "peak_bytes", "partitions")
        rows[name][kind] = {key: figures[file][key] for key in kept}
    result = {
        "command": "python benchmarks/mobile.py --data-dir CAMVID",
        "data": "CamVid, 11 classes at 480x360 padded to 369x481; best.keras is chosen on val",
        "machine": machine(),
        "networks": rows,
    }
    (HERE / "results" / "mobile.json").write_text(json.dumps(result, indent=2) + "\n")


def network(recipe, file):
    import keras_pspnet
    from keras_pspnet.labels import CAMVID
    from keras_pspnet.network.main_head import set_labels

    if recipe and file.exists():
        return keras_pspnet.load_model(file)
    model = keras_pspnet.build_pspnet(
        11,
        input_shape=(369, 481, 3),
        backbone=recipe.backbone if recipe else "mobilenet_v2",
        backbone_weights=recipe.backbone_weights if recipe else None,
        output_stride=recipe.output_stride if recipe else 16,
        channels=recipe.channels if recipe else 128,
    )
    set_labels(model, CAMVID)
    return model


def described(model, recipe):
    from keras_pspnet.network.main_head import main_network

    return {
        "output_stride": recipe.output_stride if recipe else 16,
        "channels": recipe.channels if recipe else 128,
        "epochs": recipe.epochs if recipe else None,
        "parameters": main_network(model).count_params(),
        "mIoU": {},
    }


def exported(model, train, folder):
    """The files of a model, trained or not: nothing is refused."""
    from keras_pspnet.export.converters import Converter
    from keras_pspnet.export.deliver import with_fixed_size
    from keras_pspnet.export.formats import RANGE_PICTURES
    from keras_pspnet.export.tflite_file import add_metadata
    from keras_pspnet.files import evenly_spaced, write_bytes
    from keras_pspnet.images import resize_image
    from keras_pspnet.network.main_head import labels_of, main_network

    size, labels = model.input.shape[1:3], labels_of(model)
    pictures = [
        resize_image(train.read(index)[0], size)[None]
        for index in evenly_spaced(range(len(train)), RANGE_PICTURES)
    ]
    files = {kind: folder / f"pspnet_{kind}.tflite" for kind in FORMATS}
    with tempfile.TemporaryDirectory() as scratch:
        network = with_fixed_size(main_network(model), None)
        converter = Converter(network, Path(scratch), "classes", labels, lambda: pictures)
        for kind, file in files.items():
            write_bytes(file, add_metadata(converter.convert(kind), labels, "classes"))
    return files


def miou(model, val):
    from keras_pspnet.inference.load import load_model
    from keras_pspnet.inference.segment import segment
    from keras_pspnet.scoring import metrics

    model = load_model(model) if isinstance(model, Path) else model
    scores = metrics.evaluate(lambda image: segment(model, image), val.examples(), val.labels)
    return scores["mIoU"]


if __name__ == "__main__":
    main()
