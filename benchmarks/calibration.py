"""Which ranges quantize best: int8 files of one trained network, by rule and number of pictures.

    python benchmarks/calibration.py MODEL.keras --data-dir CAMVID

The TensorFlow converter keeps the least and greatest value of each activation; ai-edge-quantizer
takes a moving average of them, unless each picture is calibrated by itself and the ranges joined.
Calibrated on training pictures, scored on the 101 of val. Writes results/calibration.json.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
RESULT = Path(__file__).parent / "results" / "calibration.json"
COUNTS = (4, 16, 32, 100)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data-dir", required=True)
    options = parser.parse_args()
    import keras_pspnet
    from keras_pspnet.data.datasets import open_source
    from keras_pspnet.export.converters import Converter
    from keras_pspnet.export.deliver import with_fixed_size
    from keras_pspnet.files import evenly_spaced
    from keras_pspnet.images import resize_image
    from keras_pspnet.network.main_head import labels_of, main_network

    train = open_source("camvid", options.data_dir, split="train").paired()
    val = open_source("camvid", options.data_dir, split="val").paired()
    model = keras_pspnet.load_model(options.model)
    size, labels = model.input.shape[1:3], labels_of(model)
    network = with_fixed_size(main_network(model), None)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        file = folder / "model.tflite"

        def converter(count):
            pictures = [
                resize_image(train.read(index)[0], size)[None]
                for index in evenly_spaced(range(len(train)), count)
            ]
            scratch = Path(tempfile.mkdtemp(dir=folder))
            return Converter(network, scratch, "classes", labels, lambda: iter(pictures))

        file.write_bytes(converter(1).convert("float32"))
        reference = maps(file, val)
        rows = {"float32": scored(reference, reference, val)}
        for count in COUNTS:
            file.write_bytes(converter(count).convert("int8"))
            rows[f"least and greatest, {count} pictures"] = scored(maps(file, val), reference, val)
            print(json.dumps(rows), flush=True)
        for rule in ("moving average", "joined"):
            file.write_bytes(edge_quantizer(converter(32), rule))
            name = f"ai-edge-quantizer, {rule}, 32 pictures"
            rows[name] = scored(maps(file, val), reference, val)
    result = {
        "command": "python benchmarks/calibration.py MODEL.keras --data-dir CAMVID",
        "model": options.model.parent.name,
        "files": rows,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def edge_quantizer(converter, rule):
    from ai_edge_quantizer import quantizer, recipe

    from keras_pspnet.device_contract import INPUT, SIGNATURE
    from keras_pspnet.export.converters import widen

    source = converter.scratch / "float.tflite"
    source.write_bytes(converter.convert("float32"))

    def fresh():
        return quantizer.Quantizer(str(source), recipe.static_wi8_ai8())

    pictures = [{INPUT: picture} for picture in converter.pictures()]
    if rule == "moving average":
        ranges = fresh().calibrate({SIGNATURE: pictures})
    else:
        ranges = {}
        for picture in pictures:
            widen(ranges, fresh().calibrate({SIGNATURE: [picture]}))
    return bytes(fresh().quantize(ranges).quantized_model)


def maps(file, val):
    """The class map of each picture of val."""
    from keras_pspnet.inference.load import load_model
    from keras_pspnet.inference.segment import segment

    network = load_model(file)
    return [segment(network, image) for _, image, _ in val.examples()]


def scored(found, reference, val):
    from keras_pspnet.scoring.metrics import ConfusionMatrix

    matrix, equal = ConfusionMatrix(len(val.labels)), []
    for (_, _, mask), classes, expected in zip(val.examples(), found, reference):
        matrix.update(mask, classes)
        equal.append(float((classes == expected).mean()))
    mean = sum(equal) / len(equal)
    return {"mIoU": round(matrix.scores()["mIoU"], 4), "equal_pixels": round(mean, 4)}


if __name__ == "__main__":
    main()
