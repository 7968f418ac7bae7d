"""Every example on the pages runs: shell and Python, in this process, with tiny networks."""

import contextlib
import dataclasses
import functools
import importlib
import inspect
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import av
import keras
import numpy as np
import pytest
from PIL import Image

import keras_pspnet
from keras_pspnet import cli, scenes
from keras_pspnet.data import datasets
from keras_pspnet.labels import ADE20K, CAMVID, SCENES
from keras_pspnet.train import recipes

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
CROP = (49, 49)
CARS = keras_pspnet.LabelSet(("background", "car"))

ADE20K_RUN = "keras-pspnet train ade20k_resnet50 --data-dir ADEChallengeData2016"

NOT_HERE = {  # what a line or a block of Python begins with, or holds -> where it is run instead
    "keras-pspnet info": "tests/cli/test_info.py",
    "keras-pspnet export runs/mine/best.keras --out runs/files --cal": "tests/cli/test_cli.py",
    "pip install": "tests/verify/verify_installs.py",
    "git clone": "tests/verify/verify_installs.py",
    "make": "tests/verify/verify_installs.py",
    ". .venv/bin/activate": "tests/verify/verify_installs.py",
    "jupyter lab": "tests/test_notebooks.py",
    "python export/release.py": "tests/delivery/test_release.py",
    "python runs/device/segment.py": "tests/delivery/test_release.py",
    "python export/benchmark.py": "tests/delivery/test_release.py",
    "python export/web/serve.py": "tests/delivery/test_on_device.py",
    "python export/cluster/segment_ray.py": "tests/verify/verify_cluster.py",
    "parquet.read_table": "tests/delivery/test_segment_ray.py",
    # They start TensorFlow on several devices, or JAX in several processes.
    f"{ADE20K_RUN} --out runs/ade20k --devices": "tests/train/test_devices.py",
    "devices=2)": "tests/train/test_devices.py",
    "MirroredStrategy": "tests/train/test_devices.py",
    f"{ADE20K_RUN} --out /shared": "tests/verify/verify_spread.py",
    "jax.distributed": "tests/verify/verify_spread.py",
    "#!/bin/bash": None,  # a job of SLURM
    "#SBATCH": None,
    "export KERAS_BACKEND=jax": None,
    "srun": None,
    "tensorboard --logdir": None,  # a server of another package
    "python benchmarks/": "benchmarks/readme_table.py",  # hours; its tables are checked
    "keras-pspnet train camvid_lite0 --data-dir CAMVID": "benchmarks/readme_table.py",
    "keras-pspnet train camvid_mobile_16_128 --data-dir CAMVID": "benchmarks/readme_table.py",
    "https://example.org/": "tests/inference/test_presets.py",
    "keras_pspnet.fast_cpu()": "tests/test_machine.py",  # before TensorFlow is imported
    "PolynomialDecay": "tests/test_user_script.py",
    'from_preset("scenes")\nimage, _': "tests/test_user_script.py",
}

REPLACED = {  # what is too large, or has no file here
    ".venv/bin/keras-pspnet": "keras-pspnet",
    "train_epoch_100.pth": str(ROOT / "tests/weights/checkpoints/semseg.pth"),
    "--out pspnet50_ade20k.keras": "--out converted.keras",
    "--crop 473 473 --scales 0.5,0.75,1,1.25,1.5,1.75": "--crop 49 49 --base 49 --scales 1,1.25",
    "--crop 473 473 --base 512": "--crop 49 49 --base 49",
    "crop=(473, 473), base=512, scales=(0.75, 1.0, 1.25)": "crop=(49, 49), scales=(0.75, 1.0)",
    " --set backbone_weights=resnet50_v2.pth": "",
    "import roboflow --out pictures": "import roboflow --out imported",
    "mine/best.keras PICTURES --out seen --ids": "ade/best.keras PICTURES --out seen --ids",
    'keras.callbacks.TensorBoard("runs/board")': 'keras.callbacks.CSVLogger("board.csv")',
    'weights="imagenet")': "weights=None)",
    'names = ["sky", "road", "car"]': 'names = "scenes"',  # of a network with 12 classes
    'keras_pspnet.LabelSet(("sky", "road", "car"))': 'keras_pspnet.LabelSet(tuple("abcdefghijkl"))',
    'formats=("saved_model", "float32", "int8")': 'formats=("float32",)',
    "--formats float32,int8": "--formats float32",
    'load_model("pspnet_float32.tflite")': 'load_model("model.keras")',
    f"{ADE20K_RUN} --out runs/ade20k --set batch_size=4 accumulate=4": (
        "keras-pspnet train scenes --out runs/parts --set train_images=4 batch_size=2 accumulate=2"
    ),
    "epochs=11": "epochs=1",
    "epochs=4": "epochs=1",
}


@contextlib.contextmanager
def inside(folder):
    """Run the block in a folder, and leave the arguments of the process as they were."""
    before, arguments = os.getcwd(), sys.argv
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        sys.argv = arguments


def save(file, array):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(file)


def network(labels, size=CROP):
    return keras_pspnet.build_pspnet(
        len(labels),
        input_shape=(*size, 3),
        backbone="resnet14_narrow",
        channels=8,
        labels=labels,
    )


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with all files that the pages name: data sets, pictures, trained networks."""
    desk = tmp_path_factory.mktemp("desk")
    drawn = [scenes.scene(n, split="train", size=(64, 80)) for n in range(4)]
    car = SCENES.names.index("car")
    for number, (image, mask) in enumerate(drawn):
        split = "val" if number == 3 else "train"
        save(desk / f"pictures/images/{split}/{number}.png", image)
        save(desk / f"pictures/masks/{split}/{number}.png", np.uint8(mask == car))
        save(desk / f"PICTURES/{number}.png", image)
        clip = desk / ("CamVid/train" if number < 2 else f"CamVid/{split}")
        name = f"{'0006R0' if number % 2 else '0016E5'}_{number:05d}.png"
        save(clip / name, image)
        save(clip.with_name(clip.name + "annot") / name, mask % 11)
        ade = {"train": "training", "val": "validation"}[split]
        save(desk / f"ADEChallengeData2016/images/{ade}/{number}.jpg", image)
        save(desk / f"ADEChallengeData2016/annotations/{ade}/{number}.png", mask % 12)
        save(desk / f"roboflow/{split.replace('val', 'valid')}/{number}.jpg", image)
    (desk / "pictures/labels.json").write_text(json.dumps({"names": ["background", "car"]}))
    shapes = ([4, 4, 40, 4, 40, 30], [0, 40, 80, 40, 80, 64, 0, 64])  # a car, the road
    for split in ("train", "valid"):
        files = sorted((desk / "roboflow" / split).glob("*.jpg"))
        images = [
            {"id": n, "file_name": f.name, "height": 64, "width": 80} for n, f in enumerate(files)
        ]
        regions = [
            {"id": 2 * n + c, "image_id": n, "category_id": c, "segmentation": [shapes[c]]}
            for n in range(len(files))
            for c in range(2)
        ]
        kinds = [{"id": 0, "name": "car"}, {"id": 1, "name": "road"}]
        coco = {"images": images, "annotations": regions, "categories": kinds}
        (desk / "roboflow" / split / "_annotations.coco.json").write_text(json.dumps(coco))
    for name in ("picture.jpg", "photo.jpg"):
        save(desk / name, drawn[0][0])
    with av.open(str(desk / "drive.mp4"), "w") as video:
        stream = video.add_stream("h264", rate=2)
        stream.height, stream.width, stream.pix_fmt = 64, 80, "yuv420p"
        for image, _ in drawn[:2]:
            video.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        video.mux(stream.encode(None))
    model = network(SCENES)
    for run, labels in {"mine": SCENES, "camvid": CAMVID, "ade": ADE20K, "pictures": CARS}.items():
        (desk / "runs" / run).mkdir(parents=True)
        network(labels).save(desk / "runs" / run / "best.keras")
    network(ADE20K, (None, None)).save(desk / "pspnet50_ade20k.keras")
    model.save(desk / "model.keras")
    images = [image for image, _ in drawn]
    files = keras_pspnet.export_model(
        model, desk / "runs/files", formats=("float32",), calibration=images[:1]
    )
    shutil.copy(files["float32"], desk / "pspnet_int8.tflite")
    return desk


@pytest.fixture(scope="module", autouse=True)
def tiny(eagerly):
    """Make networks, recipes and data sets tiny, and train without tracing graphs."""
    build, load = keras_pspnet.build_pspnet, keras_pspnet.data.load

    def small_network(*args, **kwargs):
        bound = inspect.signature(build).bind(*args, **kwargs)
        bound.arguments |= {"input_shape": (*CROP, 3), "channels": 8}
        if isinstance(bound.arguments.get("backbone", ""), str):
            bound.arguments["backbone"] = "resnet14_narrow"
            bound.arguments["backbone_weights"] = None
        return build(*bound.args, **bound.kwargs)

    def small_data(*args, **kwargs):
        bound = inspect.signature(load).bind(*args, **kwargs)
        bound.arguments |= {"crop": CROP, "batch_size": 2}
        return load(*bound.args, **bound.kwargs).take(1)

    changes = {"backbone": "resnet14_narrow", "backbone_weights": None, "channels": 8}
    changes |= {"crop": CROP, "batch_size": 2, "train_images": 2, "val_images": 1}
    changes |= {"epochs": 1, "coarse_epochs": 0, "least_steps": 0, "output_stride": 16}
    with eagerly(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras_pspnet, "build_pspnet", functools.wraps(build)(small_network))
        patch.setattr(keras_pspnet.data, "load", functools.wraps(load)(small_data))
        patch.setattr(datasets, "SCENES", {"train": 4, "val": 2})
        for name, recipe in recipes.RECIPES.items():
            patch.setitem(recipes.RECIPES, name, dataclasses.replace(recipe, **changes))
        yield


def examples(page):
    """(language, code) of each block; the lines of a shell block one by one."""
    text = page.read_text(encoding="utf-8")
    for language, code in re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.M | re.S):
        if language == "python":
            yield language, code
        elif language == "bash":
            lines = code.replace("\\\n", " ").splitlines()
            yield from ((language, " ".join(line.split("  #")[0].split())) for line in lines)


def elsewhere(language, code):
    """The key of NOT_HERE that says where an example is run instead; None if it runs here."""
    found = code.startswith if language == "bash" else code.__contains__
    return next((key for key in NOT_HERE if found(key)), None)


DONE = set()
"""Lines of shell that ran: several pages repeat them."""


def run_shell(line):
    if line in DONE:
        return
    DONE.add(line)
    program, *words = shlex.split(line, comments=True)
    assert program == "keras-pspnet", f"{line}: run it, or say in NOT_HERE where it is run"
    if "--write-labels" in words:
        Path(words[words.index("--data-dir") + 1], "labels.json").unlink(missing_ok=True)
    if words[0] == "train" and "--resume" not in words:
        shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)
    assert cli.main(words) == 0, line


def run_python(code, names):
    if "train.fit(" in code:
        for run in re.findall(r'train\.fit\(.*?"(runs/\w+)"', code, flags=re.S):
            shutil.rmtree(run, ignore_errors=True)
    exec(compile(code, "example", "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_example_runs(page, desk):
    model = keras_pspnet.load_model(desk / "model.keras")
    loss = keras_pspnet.losses.VoidCrossentropy()
    model.compile("sgd", loss={"main": loss, "aux": loss}, loss_weights={"main": 1, "aux": 0.4})
    images = [np.asarray(Image.open(file)) for file in sorted((desk / "PICTURES").iterdir())]
    train = importlib.import_module("keras_pspnet.train")
    names = {"keras_pspnet": keras_pspnet, "keras": keras, "train": train, "model": model}
    names |= {"images": images, "labels": SCENES, "np": np}
    names["dataset"] = keras_pspnet.data.load("scenes", split="val", crop=CROP, aux=False)
    with inside(desk):
        for language, code in examples(page):
            if elsewhere(language, code):
                continue
            for large, small in REPLACED.items():
                code = code.replace(large, small)
            if language == "bash":
                run_shell(code)
            else:
                run_python(code, names)


def test_what_runs_elsewhere_is_on_a_page_and_runs_there():
    found = {elsewhere(*example) for page in PAGES for example in examples(page)}
    assert found - {None} == set(NOT_HERE)
    assert all((ROOT / place).is_file() for place in filter(None, NOT_HERE.values()))
