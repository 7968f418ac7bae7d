"""The readers that the check of mutations calls, and how the files of each are damaged."""

import functools
import importlib
import importlib.util
import io
import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mutate
import numpy as np
from PIL import Image
from shell import COMMAND, ROOT, run

CHECKPOINTS = ROOT / "tests" / "weights" / "checkpoints"

SETTINGS = [
    "crop=49,49",
    "channels=8",
    "batch_size=4",
    "train_images=4",
    "val_images=1",
    "epochs=1",
]


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
    importlib.import_module("ai_edge_litert.interpreter")
    sys.path.insert(0, str(ROOT / "tests" / "data"))
    if READERS[name].tensorflow:
        import tensorflow  # noqa: F401

        for module in ("network.convert", "train.run", "export.card"):
            importlib.import_module(f"keras_pspnet.{module}")


def command(*arguments):
    from keras_pspnet.cli import main

    return functools.partial(main, list(map(str, arguments)))


def called(read, path):
    """What calls a function of the package as a command does."""
    from keras_pspnet import cli

    return functools.partial(cli.run, "mutations", read, path)


def predict(base, model, picture=None):
    return command("predict", model, picture or base / "picture.png", "--out", "out")


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
    if kind == "blp":
        image = image.convert("P")
    name = {"jpg": "JPEG", "tif": "TIFF"}.get(kind, kind.upper())
    try:
        image.save(stream, name, **options)
    except OSError:  # a mode that the format cannot hold
        image.convert("1" if options.get("compression") == "group4" else "RGB").save(stream, name)
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


def damaged_tflite(random, base):
    """A .tflite file with a changed flatbuffer, labels or bytes."""
    from ai_edge_litert import schema_py_generated as schema

    data = (base / "out" / f"pspnet_{random.choice(('float32', 'int8'))}.tflite").read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        config = archive.read("labels.json")
        tree = data[: min(entry.header_offset for entry in archive.infolist())]
    way = random.random()
    if way < 0.1:
        return mutate.damaged_bytes(random, data)
    if way < 0.35:
        config = mutate.damaged_text(random, config)
    else:
        model = schema.ModelT.InitFromPackedBuf(bytearray(tree), 0)
        mutate.damaged_tree(random, model)
        tree = _packed(model)
    stream = io.BytesIO(tree)
    stream.seek(0, io.SEEK_END)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("labels.json", config)
    return stream.getvalue()


def _packed(model):
    import flatbuffers

    builder = flatbuffers.Builder(2**22)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def tflite(random, base, folder):
    path = folder / "model.tflite"
    path.write_bytes(_made(damaged_tflite, random, base))
    return predict(base, path)


def _made(make, random, base):
    """What a schema can write: the builders refuse numbers that a field cannot hold."""
    while True:
        try:
            return make(random, base)
        except Exception:  # the flatbuffer library raises anything
            continue


def on_device(random, base, folder):
    path = folder / "model.tflite"
    path.write_bytes(_made(damaged_tflite, random, base))
    source = ROOT / "export" / "on_device" / "segment.py"
    spec = importlib.util.spec_from_file_location("segment", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    arguments = [str(path), str(base / "picture.png"), "--out", "out"]
    return functools.partial(module.main, arguments)


def onnx(random, base, folder):
    import onnx

    path, data = folder / "model.onnx", (base / "out" / "pspnet.onnx").read_bytes()
    if random.random() < 0.15:
        data = mutate.damaged_bytes(random, data)
    else:
        model = onnx.load_from_string(data)
        mutate.damaged_message(random, model)
        data = model.SerializeToString()
    path.write_bytes(data)
    return predict(base, path)


def checkpoint(*names):
    """A reader of one of these checkpoints of other projects, without the network's building."""

    def damage(random, base, folder):
        from keras_pspnet.weights.reader import read_checkpoint
        from keras_pspnet.weights.recognise import recognise

        name = random.choice(names)
        path = folder / name
        damaged_checkpoint(random, path, (CHECKPOINTS / name).read_bytes())
        return called(lambda path: recognise(read_checkpoint(path), path), path)

    return damage


def damaged_checkpoint(random, path, data):
    if random.random() < 0.25:
        data = mutate.damaged_bytes(random, data)
    elif path.suffix == ".safetensors":
        length = 8 + int.from_bytes(data[:8], "little")
        header = mutate.damaged_text(random, data[8:length])
        data = len(header).to_bytes(8, "little") + header + data[length:]
    elif path.suffix == ".h5":
        path.write_bytes(data)
        mutate.damage_hdf5(random, path)
        return
    elif path.suffix == ".npy":
        start = 10 + int.from_bytes(data[8:10], "little")
        data = data[:start] + mutate.damaged_pickle(random, data[start:])
    elif "legacy" in path.name:
        begin = mutate.pickle_ends(data, 3)
        end = mutate.pickle_ends(data, 4)
        data = data[:begin] + mutate.damaged_pickle(random, data[begin:end]) + data[end:]
    else:
        data = mutate.damaged_zip(random, data, _in_a_pth)
    path.write_bytes(data)


def _in_a_pth(random, name, content):
    if name.endswith("data.pkl"):
        return mutate.damaged_pickle(random, content)
    return mutate.damaged_bytes(random, content)


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
    ".tflite": Reader(250, tflite),
    "segment.py": Reader(200, on_device),
    ".onnx": Reader(200, onnx),
    ".pth": Reader(200, checkpoint("semseg.pth", "mmseg.pth")),
    ".pth, legacy": Reader(150, checkpoint("semseg_legacy.pth")),
    ".npy": Reader(150, checkpoint("caffe50.npy")),
    ".h5": Reader(150, checkpoint("caffe.h5")),
    ".safetensors": Reader(150, checkpoint("semseg.safetensors")),
}
