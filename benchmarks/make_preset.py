r"""Turn a run folder into a preset: a small .keras file and its card.

    python benchmarks/make_preset.py RUN --name NAME --command TEXT --trained-on TEXT --licence TEXT
                                     [--out presets] [--data-dir DIR] [--split val]
                                     [--model last.keras] [--scores JSON]

It leaves out the optimizer and the training state, and stores the weights in half precision, but
for arrays that half precision does not hold. It scores what it made on a split, compares it with
the run's network, pixel by pixel, and writes nothing if less than 99.9 % are equal. The card goes
beside the file, and into the package, whose wheel has the cards of all presets.

`scenes` is the network of the demo:

    keras-pspnet train scenes --out runs/scenes
    python benchmarks/make_preset.py runs/scenes --name scenes --out keras_pspnet/presets \
        --command "keras-pspnet train scenes --out runs/scenes" \
        --trained-on "1200 generated scenes of 185x185 pixels, from random weights" \
        --licence Apache-2.0
"""

import argparse
import hashlib
import io
import json
import os
import sys
import tempfile
import zipfile
from pathlib import Path

import h5py
import numpy as np

PACKAGE = Path(__file__).resolve().parents[1] / "keras_pspnet" / "presets"
HALF = 2.0**-11
"""Maximum relative error of a number in half precision."""
FIRST = 20
"""Number of pictures whose score the tests repeat."""
MIN_AGREEMENT = 0.999
MAX_BYTES = 10_000_000
"""Maximum size of a preset outside of the wheel."""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", metavar="RUN", type=Path, help="a run folder")
    parser.add_argument("--name", required=True)
    parser.add_argument("--command", required=True, help="what trained it")
    parser.add_argument("--trained-on", required=True, metavar="TEXT", help="data and start")
    parser.add_argument("--licence", required=True, help="of the weights")
    parser.add_argument("--out", metavar="DIR", type=Path, default=PACKAGE.parents[1] / "presets")
    parser.add_argument("--data-dir", metavar="DIR", help="the dataset's folder")
    parser.add_argument("--split", default="val", help="the split to score on (%(default)s)")
    parser.add_argument("--model", default="best.keras", help="file of the run (%(default)s)")
    other = "the card's scores, where the network was trained on the split"
    parser.add_argument("--scores", type=json.loads, metavar="JSON", help=other)
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from keras_pspnet.files import write_together

    run = options.run / options.model
    data = small_file(run)
    recipe = json.loads((options.run / "recipe.json").read_text()) | {"data_dir": None}
    for name in {"start", "teacher"} & set(recipe):  # their paths are those of this machine
        recipe[name] = {"sha256": recipe[name]["sha256"]}
    card = {"name": options.name, "file": f"{options.name}.keras", "bytes": len(data)}
    card["sha256"] = hashlib.sha256(data).hexdigest()
    card |= {"licence": options.licence, "trained_on": options.trained_on}
    card |= {"command": options.command, "dataset": recipe["dataset"]}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / card["file"]
        file.write_bytes(data)
        card |= scores(run, file, recipe["dataset"], options)
        card |= {} if options.scores is None else {"scores": options.scores}
    card["recipe"] = recipe
    print(json.dumps(card, indent=2))
    if card["agreement"] < MIN_AGREEMENT or len(data) > MAX_BYTES:
        sys.exit(f"refused: {card['agreement']:.4%} equal pixels, {len(data)} bytes")
    text = (json.dumps(card, indent=2) + "\n").encode()
    out = options.out.resolve()
    contents = {out / card["file"]: data}
    contents |= {place / f"{options.name}.card.json": text for place in (out, PACKAGE)}
    write_together(contents)


def small_file(path) -> bytes:
    """Return a .keras file without optimizer and training state, its weights in half precision.

    Keras casts them to float32 when it loads the file. The same file gives the same bytes.
    """
    with zipfile.ZipFile(path) as archive:
        config, metadata = (json.loads(archive.read(f"{n}.json")) for n in ("config", "metadata"))
        weights = archive.read("model.weights.h5")
    config.pop("compile_config", None)
    members = {
        "config.json": json.dumps(config).encode(),
        "metadata.json": json.dumps({**metadata, "date_saved": ""}).encode(),
        "model.weights.h5": half_weights(weights),
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)  # dated 1980-01-01
            archive.writestr(info, content, zipfile.ZIP_DEFLATED, 9)
    return stream.getvalue()


def half_weights(weights: bytes) -> bytes:
    """Return the content of a model.weights.h5 with the layers alone, in half precision."""
    stream = io.BytesIO()
    with h5py.File(io.BytesIO(weights)) as source, h5py.File(stream, "w") as target:

        def copy(name, item):
            if name.split("/")[0] == "optimizer":
                return
            if isinstance(item, h5py.Dataset):
                target.create_dataset(name, data=half(item[()]))
            else:
                target.create_group(name).attrs.update(item.attrs)

        source.visititems(copy)
    return stream.getvalue()


def half(array: np.ndarray) -> np.ndarray:
    """Return an array as float16, or as it is where that loses more than half precision's rounding.

    A kernel's rounding errors are compared with the largest weight of their output channel, since
    a batch norm may enlarge the channel. In a vector, as a batch norm's variance, each value is a
    channel. Beyond 65504 the error is infinite; below 6e-5 it is relative no more.
    """
    if array.dtype != np.float32:
        return array
    with np.errstate(over="ignore"):
        small = array.astype(np.float16)
    channels = (-1, array.shape[-1] if array.ndim else 1)
    error = np.abs(small.astype(np.float32) - array).reshape(channels).max(0)
    largest = np.abs(array).reshape(channels).max(0)
    return small if (error <= HALF * largest).all() else array


def scores(run, file, dataset, options) -> dict:
    """Return labels, input size, scores and agreement of a file that was made of a run's."""
    from keras_pspnet import load_model, segment
    from keras_pspnet.data.datasets import open_source
    from keras_pspnet.inference.load import as_predictor
    from keras_pspnet.scoring.metrics import evaluate

    before, after = load_model(run), as_predictor(load_model(file))
    source = open_source(dataset, options.data_dir, split=options.split, size=after.size).paired()
    equal, lines = [], []

    def compare(name, image, mask, prediction, matrix):
        equal.append(np.mean(segment(before, image) == prediction))

    for pictures, watch in ((source, compare), (source.first(FIRST), None)):
        found = evaluate(
            lambda image: segment(after, image), pictures.examples(), source.labels, watch
        )
        line = {"split": options.split, "pictures": found["images"]}
        line["protocol"] = "whole pictures resized to {}x{}".format(*after.size)
        line |= {key: found[key] for key in ("mIoU", "pixel_accuracy")}
        lines.append(line)
    return {
        "labels": after.labels.to_config(),
        "size": after.size,
        "scores": lines,
        "agreement": float(np.mean(equal)),
    }


if __name__ == "__main__":
    main()
