"""The readers that the check of mutations calls, and how the files of each are damaged."""

import importlib
import importlib.util
import io
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mutate
import mutation_models
import numpy as np
from mutation_models import SETTINGS, called, command, predict
from PIL import Image
from shell import COMMAND, ROOT, run


@dataclass(frozen=True)
class Reader:
    """How the files of one reader are damaged and read.

    Args:
        count: number of inputs.
        damage: (random, base, folder) writes a damaged file into the folder and returns what reads
            it: a function without arguments that returns the exit code.
        tensorflow: True if the process must have imported TensorFlow.
    """

    count: int
    damage: Callable
    tensorflow: bool = False


def make_base(folder: Path) -> Path:
    """Make the undamaged files once: a run of one epoch, its exports, a picture."""
    if (folder / "done").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    run(*COMMAND, "train", "scenes_tiny", "--out", folder / "run", "--set", *SETTINGS)
    formats = ["--formats", "saved_model,float32,int8,onnx", "--calibration", "scenes"]
    run(*COMMAND, "export", folder / "run" / "last.keras", "--out", folder / "out", *formats)
    picture = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    Image.fromarray(picture).save(folder / "picture.png")
    (folder / "done").touch()
    return folder


def import_for(name) -> None:
    """Import what a reader needs, so that the processes forked from this one have it."""
    importlib.import_module("keras_pspnet.cli")
    for module in ("inference.load", "data.inspect", "weights.recognise", "cli.prediction"):
        importlib.import_module(f"keras_pspnet.{module}")
    for module in ("ai_edge_litert.interpreter", "matplotlib.font_manager", "matplotlib.figure"):
        importlib.import_module(module)
    sys.path.insert(0, str(ROOT / "tests" / "data"))
    if READERS[name].tensorflow:
        import tensorflow  # noqa: F401

        for module in ("network.convert", "train.run", "export.card"):
            importlib.import_module(f"keras_pspnet.{module}")


def picture(random, base, folder):
    """A damaged picture of any format that is read, and of some that are not."""
    kind = random.choice(("png", "png", "jpg", "gif", "bmp", "webp", "tif", "avif", "ppm", "blp"))
    image, stream, options = Image.open(base / "picture.png"), io.BytesIO(), {}
    if random.random() < 0.3:
        image = random.choice((image.convert("L"), image.convert("P"), image.convert("I;16")))
    if kind == "jpg":
        exif = Image.Exif()
        exif[0x0112], exif[0x010E] = random.randrange(10), "x" * 20
        options = {"exif": exif}
    if kind == "tif":
        options = {"compression": random.choice((None, "jpeg", "tiff_lzw", "packbits", "group4"))}
    if options.get("compression") == "group4":
        image = image.convert("1")
    if kind == "blp":
        image = image.convert("P")
    name = {"jpg": "JPEG", "tif": "TIFF"}.get(kind, kind.upper())
    try:
        image.save(stream, name, **options)
    except OSError:  # a mode that the format cannot hold
        image.convert("RGB").save(stream, name)
    ending = kind if random.random() < 0.8 else random.choice(("png", "jpg", "tif"))
    path = folder / f"picture.{ending}"
    path.write_bytes(mutate.damaged_bytes(random, stream.getvalue()))
    return predict(base, base / "out" / "pspnet_float32.tflite", path)


def dataset(*kinds, files="*"):
    """A reader of a user's data set in one of `kinds`, of which a file is damaged."""

    def damage(random, base, folder):
        import annotation_kinds

        makers = {**annotation_kinds.KINDS, "Label Studio": annotation_kinds.label_studio}
        root = folder / "data"
        root.mkdir()
        kind = random.choice(kinds)
        makers[kind](root)
        for _ in range(random.choice((1, 1, 2))):
            found = sorted(file for file in root.rglob(files) if file.is_file())
            if not found:  # the first damage took the only one
                break
            file = random.choice(found)
            data = file.read_bytes()
            if random.random() < 0.03:
                _no_file(random, file)
            elif file.suffix == ".json":
                file.write_bytes(mutate.damaged_text(random, data))
            elif file.suffix in (".txt", ".csv", ".yaml"):
                file.write_bytes(mutate.damaged_words(random, data))
            else:
                file.write_bytes(mutate.damaged_bytes(random, data))
        return command("look", "--dataset", "folder", "--data-dir", root, "--out", "out")

    return damage


def _no_file(random, file):
    """Put something else in the place of a file."""
    import os

    file.unlink()
    way = random.randrange(4)
    if way == 0:
        os.mkfifo(file)
    elif way == 1:
        file.symlink_to("/dev/zero")
    elif way == 2:
        file.symlink_to(file)
    else:
        file.mkdir()


def labels(random, base, folder):
    """A damaged labels.json for --labels."""
    config = json.loads((base / "out" / "pspnet_float32.card.json").read_text())
    config = {"names": config["labels"], "colors": config["colors"], "ignore": 255}
    path = folder / "labels.json"
    path.write_bytes(mutate.damaged_text(random, json.dumps(config).encode()))
    if random.random() < 0.05:
        _no_file(random, path)
    return command(*predict(base, base / "out" / "pspnet_float32.tflite").args[0], "--labels", path)


def card(random, base, folder):
    """A good file beside a damaged card."""
    path = folder / "pspnet_float32.tflite"
    shutil.copy(base / "out" / path.name, path)
    text = (base / "out" / "pspnet_float32.card.json").read_bytes()
    (folder / "pspnet_float32.card.json").write_bytes(mutate.damaged_text(random, text))
    return predict(base, path)


def settings(random, base, folder):
    """Texts of --set, as far as the recipe; nothing is trained."""
    from keras_pspnet.train.recipe_fields import Recipe, parse_texts
    from keras_pspnet.train.recipes import recipe

    texts = {}
    for _ in range(random.randint(1, 3)):
        parts = [str(random.choice((*mutate.NUMBERS, *mutate.FLOATS, *mutate.TEXTS)))]
        parts += [str(random.choice((*mutate.NUMBERS, *mutate.OTHERS)))] * random.randrange(3)
        name = random.choice((*Recipe.__annotations__, *mutate.TEXTS))
        texts[name] = random.choice((",", ", ", "+", "**")).join(parts)
    return called(lambda texts: recipe("scenes_tiny", **parse_texts(texts)).to_config(), texts)


ANNOTATED = {
    "masks": ("ids", "RGB", "RGBA", "palette", "one ending", "CVAT", "two endings"),
    "colour tables": ("labelmap.txt", "Roboflow masks", "CVAT"),
    "COCO": ("Roboflow", "COCO polygons", "COCO runs", "COCO compressed runs", "COCO elsewhere"),
    "LabelMe": ("LabelMe in splits", "LabelMe in images/"),
    "YOLO": ("YOLO images/train", "YOLO train/images"),
}

READERS = {
    "pictures": Reader(300, picture),
    "masks": Reader(200, dataset(*ANNOTATED["masks"], files="*.png")),
    "labels.json": Reader(200, labels),
    "labels.json of a folder": Reader(150, dataset("ids", "RGB", "palette", files="labels.json")),
    "colour tables": Reader(150, dataset(*ANNOTATED["colour tables"], files="*.[tc][xs][tv]")),
    "COCO": Reader(250, dataset(*ANNOTATED["COCO"], files="*.json")),
    "LabelMe": Reader(200, dataset(*ANNOTATED["LabelMe"], files="*.json")),
    "YOLO": Reader(200, dataset(*ANNOTATED["YOLO"], files="*.[ty][xa][tm]*")),
    "Label Studio": Reader(150, dataset("Label Studio")),
    "cards": Reader(100, card),
    ".tflite": Reader(250, mutation_models.tflite),
    "segment.py": Reader(200, mutation_models.on_device),
    ".onnx": Reader(200, mutation_models.onnx),
    ".pth": Reader(200, mutation_models.checkpoint("semseg.pth", "mmseg.pth")),
    ".pth, legacy": Reader(150, mutation_models.checkpoint("semseg_legacy.pth")),
    ".npy": Reader(150, mutation_models.checkpoint("caffe50.npy")),
    ".h5": Reader(150, mutation_models.checkpoint("caffe.h5")),
    ".safetensors": Reader(150, mutation_models.checkpoint("semseg.safetensors")),
    "--set": Reader(200, settings),
    "converted": Reader(40, mutation_models.converted, tensorflow=True),
    ".keras": Reader(150, mutation_models.keras, tensorflow=True),
    "run folders": Reader(150, mutation_models.run_folder, tensorflow=True),
    "SavedModel": Reader(100, mutation_models.saved_model, tensorflow=True),
}
