"""The authors' test protocol, against a slow and obvious one."""

import dataclasses
import json
import math
import os
import tracemalloc
from types import SimpleNamespace as Namespace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_pspnet
from keras_pspnet.cli import main
from keras_pspnet.inference import enlarge, windows
from keras_pspnet.inference import segment as segment_module
from keras_pspnet.inference.enlarge import softmax
from keras_pspnet.inference.exported import MAX_THREADS
from keras_pspnet.inference.load import as_predictor, load_model
from keras_pspnet.inference.predictor import Predictor
from keras_pspnet.inference.segment import Protocol, probabilities, segment
from keras_pspnet.inference.windows import TILE_BYTES
from keras_pspnet.labels import LabelSet

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
CLASSES = 4


def logits(images):
    """Scores that depend on the pixel, its neighbours and its place in the window."""
    images = np.asarray(images, np.float32) / 64
    rows, columns = np.linspace(0, 2, images.shape[1]), np.linspace(-1, 1, images.shape[2])
    place = np.broadcast_to(rows[:, None] * columns, images.shape[:3])
    left = np.pad(images, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1]
    scores = [images[..., 0] - left[..., 1], left[..., 2], place, images.mean(-1)]
    return np.stack(scores, -1).astype(np.float32)


def predictor(**changes):
    given = {"run": logits, "output": "logits", "labels": LabelSet.numbered(CLASSES)}
    return Predictor(**{**given, "floats": True, **changes})


def resized(values, size):
    return tf.image.resize(np.asarray(values, np.float32), size).numpy()


def obvious(image, crop, base, scales, flip):
    """The authors' test program step by step: one window, one picture of a pair at a time."""
    height, width, _ = image.shape
    sums = np.zeros((height, width, CLASSES))
    for scale in scales:
        long = round(scale * base)
        if height > width:
            new_height, new_width = long, round(long / height * width)
        else:
            new_height, new_width = round(long / width * height), long
        scaled = resized(image, (new_height, new_width)).astype(np.float64)
        pad_height, pad_width = max(crop[0] - new_height, 0), max(crop[1] - new_width, 0)
        top, left = pad_height // 2, pad_width // 2
        canvas = np.ones((new_height + pad_height, new_width + pad_width, 3))
        canvas = canvas * np.array([123.675, 116.28, 103.53])
        canvas[top : top + new_height, left : left + new_width] = scaled
        step_rows, step_columns = math.ceil(crop[0] * 2 / 3), math.ceil(crop[1] * 2 / 3)
        total = np.zeros((*canvas.shape[:2], CLASSES))
        count = np.zeros((*canvas.shape[:2], 1))
        row_end = 0
        row = 0
        while row_end < canvas.shape[0]:
            row_end = min(row + crop[0], canvas.shape[0])
            column_end = 0
            column = 0
            while column_end < canvas.shape[1]:
                column_end = min(column + crop[1], canvas.shape[1])
                place = (
                    slice(row_end - crop[0], row_end),
                    slice(column_end - crop[1], column_end),
                )
                tile = canvas[place]
                result = tf.nn.softmax(logits(tile[None])[0]).numpy()
                if flip:
                    mirrored = tf.nn.softmax(logits(tile[None, :, ::-1])[0]).numpy()
                    result = (result + mirrored[:, ::-1]) / 2
                total[place] += result
                count[place] += 1
                column += step_columns
            row += step_rows
        total /= count
        inside = total[top : top + new_height, left : left + new_width]
        sums += resized(inside, (height, width))
    return sums / len(scales)


def picture(height, width, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(
    "size, crop, base, scales, flip",
    [
        ((512, 683), (473, 473), 512, SCALES, True),
        ((1024, 2048), (713, 713), 2048, (0.5, 1.0), True),
        ((60, 41), (33, 25), 60, (0.4, 1.0, 1.3), True),
        ((60, 41), (33, 25), 60, (0.4, 1.0, 1.3), False),
        ((20, 90), (33, 33), 90, (1.0,), False),
        ((7, 5), (33, 41), 7, (1.0, 2.0), True),
    ],
)
def test_probabilities_are_those_of_an_obvious_implementation(size, crop, base, scales, flip):
    image = picture(*size)
    result = probabilities(predictor(), image, Protocol(crop, base, scales, flip))
    expected = obvious(image, crop, base, scales, flip)
    assert result.shape == expected.shape and result.dtype == np.float32
    assert np.abs(result - expected).max() < 1e-5
    assert np.abs(result.sum(-1) - 1).max() < 1e-5


def test_no_window_is_computed_twice():
    seen = []

    def run(images):
        seen.extend(np.asarray(tile).tobytes() for tile in images)
        return logits(images)

    image = np.random.default_rng(0).integers(0, 256, (512, 683, 3), np.uint8)
    probabilities(predictor(run=run), image, Protocol((473, 473), 512, SCALES, True))
    # Long sides 256 to 896 and short sides 192 to 672, a window of 473 every 316 pixels.
    windows = 1 + 1 + 2 + 2 * 2 + 2 * 2 + 2 * 3
    assert len(seen) == 2 * windows and len(set(seen)) == len(seen)


def test_windows_are_batched_within_bounds():
    sizes = []

    def run(images):
        sizes.append(len(images))
        return logits(images)

    image = picture(300, 400)
    probabilities(predictor(run=run), image, Protocol((65, 65), None, (1.0,), True))
    # Rows begin at 0, 44, ..., 235 (7), columns at 0, 44, ..., 335 (9).
    assert sum(sizes) == 2 * 7 * 9 and max(sizes) > 1
    assert max(sizes) * 65 * 65 * CLASSES * 4 <= TILE_BYTES


def test_memory_is_bounded_on_a_picture_of_2048():
    """Beside the scores themselves, of one scale and of the result, there are only tiles."""
    image = picture(1024, 2048)
    light = predictor(run=lambda images: np.zeros((*images.shape[:3], CLASSES), np.float32))
    tracemalloc.start()
    probabilities(light, image, Protocol((713, 713), 2048, (1.75,), True))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    scores = 1024 * 2048 * CLASSES * 4
    pictures = 1792 * 3584 * 3 * 4
    assert peak < scores * (1 + 1.75**2) + 4 * pictures + 4 * TILE_BYTES


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("floats", [False, True])
@pytest.mark.parametrize(
    "size, crop, base, scales",
    [
        ((100, 61), (33, 25), None, (1.0,)),
        ((61, 100), (33, 25), 77, (1.3,)),  # lines of windows are columns
        ((80, 80), (41, 41), 30, (1.0,)),  # padded on both sides
        ((30, 90), (41, 17), 200, (1.0,)),  # padded on one
        ((35, 36), (34, 35), None, (1.0,)),  # windows that differ by one pixel
        ((60, 41), (33, 25), 60, (0.4, 1.0, 1.3)),
    ],
)
def test_classes_are_those_of_the_probabilities(size, crop, base, scales, floats, flip):
    image, ours = picture(*size), predictor(floats=floats)
    expected = probabilities(ours, image, Protocol(crop, base, scales, flip))
    given = {"crop": crop, "base": base, "scales": scales, "flip": flip}
    classes, confidence = segment(ours, image, **given, confidence=True)
    assert np.array_equal(classes, expected.argmax(-1))
    np.testing.assert_allclose(confidence, expected.max(-1), atol=1e-6)
    assert np.array_equal(segment(ours, image, **given), classes)


@pytest.mark.parametrize("size, base", [((700, 1400), None), ((1400, 700), 1200)])
def test_at_one_scale_only_pixels_that_windows_share_are_held(monkeypatch, size, base):
    monkeypatch.setattr(windows, "TILE_BYTES", 0)  # one window at once
    monkeypatch.setattr(enlarge, "AT_ONCE", 2**16)
    classes, side = 60, 129
    light = predictor(
        run=lambda images: np.ones((*images.shape[:3], classes), np.float32),
        labels=LabelSet.numbered(classes),
    )
    tracemalloc.start()
    segment(light, np.zeros((*size, 3), np.uint8), crop=(side, side), base=base)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    window, shared = side * side * classes * 4, side / 3 * 700 * classes * 4
    assert peak < 1.1 * shared + 5 * window + 4e6 < 700 * 1400 * classes * 4 / 5


def test_large_sums_of_several_scales_stand_in_a_file(monkeypatch, refused):
    image, protocol = picture(60, 41), Protocol((33, 25), 60, (0.4, 1.3))
    expected = probabilities(predictor(), image, protocol)
    monkeypatch.setattr(segment_module, "TOTAL_BYTES", 0)
    found = probabilities(predictor(), image, protocol)
    assert isinstance(found, np.memmap) and np.array_equal(found, expected)
    monkeypatch.setattr(segment_module.shutil, "disk_usage", lambda _: Namespace(free=60 * 41 * 15))
    message = refused(segment, predictor(), image, crop=(33, 25), base=60, scales=(0.4, 1.3))
    assert "on the disk" in message and "give one scale" in message


def test_bytes_are_rounded_where_a_network_takes_only_those():
    image, seen = picture(30, 40), []

    def run(images):
        seen.append(images)
        return logits(images)

    protocol = Protocol((33, 33), 50, (1.0,))
    exact = probabilities(predictor(run=run), image, protocol)
    rounded = probabilities(predictor(run=run, floats=False), image, protocol)
    assert seen[0].dtype == np.float32 and seen[-1].dtype == np.uint8
    assert 0 < np.abs(exact - rounded).max() < 0.02
    assert np.abs(seen[0] - seen[-1]).max() <= 0.5 + 1e-4


def test_flip_alone_averages_the_whole_picture_with_its_mirror_image():
    image = picture(33, 41)
    ours = predictor(size=(33, 41))
    result = probabilities(ours, image, Protocol(flip=True))
    straight = softmax(logits(image[None]))[0]
    mirrored = softmax(logits(image[None, :, ::-1]))[0][:, ::-1]
    np.testing.assert_allclose(result, (straight + mirrored) / 2, atol=1e-6)
    classes = segment(ours, image, flip=True)
    assert np.array_equal(classes, result.argmax(-1))
    unknown = predictor(size=None, stride=8)
    assert segment(unknown, image[:30, :37], flip=True).shape == (30, 37)


@pytest.mark.parametrize(
    "given, says",
    [
        ({"scales": (0.5, 1.0)}, "--crop"),
        ({"base": 512}, "--crop"),
        ({"crop": (0, 5)}, "crop (0, 5) is not (H, W) in pixels"),
        ({"crop": 185}, "crop 185 is not (H, W) in pixels"),
        ({"crop": (9, 9), "base": 0}, "base 0: expected pixels"),
        ({"crop": (9, 9), "base": "512"}, "base '512': expected pixels"),
        ({"crop": (9, 9), "scales": ()}, "scales (): expected positive numbers"),
        ({"crop": (9, 9), "scales": 0.5}, "scales 0.5: expected positive numbers, one or several"),
        ({"crop": (9, 9), "scales": (1.0, -1.0)}, "scales (1.0, -1.0): expected"),
        ({"crop": (9, 9), "scales": (1.0, float("nan"))}, "scales (1.0, nan): expected"),
        ({"crop": (9, 9), "scales": (0.5, 0.5)}, "twice"),
    ],
)
def test_what_makes_no_sense_gets_one_line(refused, given, says):
    assert says in refused(Protocol, **given)


def test_a_network_that_cannot_be_looked_through_gets_one_line(refused):
    classes = predictor(output="classes", size=(9, 9))
    assert "class ids" in refused(Protocol(flip=True).check, classes)
    assert "class ids" in refused(Protocol((9, 9)).check, classes)
    Protocol().check(classes)
    assert "--crop 33 41" in refused(Protocol((9, 9)).check, predictor(size=(33, 41)))
    Protocol((9, 9)).check(predictor(size=None))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A tiny model as .keras, SavedModel and .tflite, and a folder of pictures."""
    folder = tmp_path_factory.mktemp("protocol")
    model = keras_pspnet.build_pspnet(
        3, input_shape=(49, 49, 3), backbone="resnet14_narrow", channels=8
    )
    model.save(folder / "model.keras")
    formats = ("saved_model", "float32")
    keras_pspnet.export_model(model, folder / "logits", formats=formats, output="logits")
    keras_pspnet.export_model(model, folder / "classes", formats=("float32",))
    generator = np.random.default_rng(0)
    for index in range(2):
        for kind in ("images", "masks"):
            (folder / kind / "val").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(60, 80, index)).save(folder / "images" / "val" / f"{index}.png")
        mask = generator.integers(0, 3, (60, 80), np.uint8)
        Image.fromarray(mask).save(folder / "masks" / "val" / f"{index}.png")
    return folder


MODELS = ("model.keras", "logits/saved_model", "logits/pspnet_float32.tflite")


def test_every_kind_of_model_is_looked_through_alike(files):
    protocol = Protocol((49, 49), None, (0.75, 1.5), True)
    image = picture(60, 80)
    results = []
    for name in MODELS:
        ours = as_predictor(load_model(files / name))
        ours = dataclasses.replace(ours, floats=False)
        results.append(probabilities(ours, image, protocol))
    for result in results[1:]:
        assert np.abs(result - results[0]).max() < 1e-4


def test_the_command_scores_by_the_protocol(files, tmp_path):
    scores = []
    for number, name in enumerate(MODELS):
        command = ["evaluate", str(files / name), "--dataset", "folder", "--data-dir", str(files)]
        command += ["--crop", "49", "49", "--scales", "0.75,1", "--base", "90", "--flip"]
        file = tmp_path / f"{number}.json"
        assert main([*command, "--json", str(file)]) == 0
        scores.append(json.loads(file.read_text()))
    assert scores[0]["protocol"] == {
        "crop": [49, 49],
        "base": 90,
        "scales": [0.75, 1.0],
        "flip": True,
    }
    for other in scores[1:]:
        assert abs(other["mIoU"] - scores[0]["mIoU"]) < 0.02
        assert other["mIoU_all"] == pytest.approx(other["mIoU"])


@pytest.mark.parametrize(
    "model, options, says",
    [
        ("model.keras", ["--scales", "0.5,1"], "--crop"),
        ("model.keras", ["--scales", "1"], "--crop"),
        ("model.keras", ["--crop", "49", "49", "--scales", ""], "--scales"),
        ("model.keras", ["--crop", "33", "33"], "--crop 49 49"),
        ("model.keras", ["--crop", "49", "49", "--scales", "a"], "--scales a"),
        ("classes/pspnet_float32.tflite", ["--flip"], "class ids"),
        ("classes/pspnet_float32.tflite", ["--crop", "49", "49"], "class ids"),
    ],
)
def test_the_command_refuses_in_one_line(files, capsys, model, options, says):
    command = ["evaluate", str(files / model), "--dataset", "folder", "--data-dir", str(files)]
    assert main([*command, *options]) == 2
    said = capsys.readouterr().err.splitlines()
    assert says in said[-1] and said[-1].startswith("keras-pspnet: ")


def test_the_number_of_threads_does_not_change_a_bit(files):
    images = np.stack([picture(49, 49, seed) for seed in range(3)])
    file = files / "logits" / "pspnet_float32.tflite"
    expected = load_model(file, threads=1)(images)
    assert expected.std() > 0.01
    for threads in (2, 3, 8, None):
        np.testing.assert_array_equal(load_model(file, threads=threads)(images), expected)


def test_all_cores_are_taken_unless_threads_says_otherwise(files, monkeypatch, refused):
    from ai_edge_litert import interpreter

    seen, real = [], interpreter.Interpreter

    def watched(path, num_threads):
        seen.append(num_threads)
        return real(path, num_threads=num_threads)

    monkeypatch.setattr(interpreter, "Interpreter", watched)
    file = files / "logits" / "pspnet_float32.tflite"
    for cores in (1, 3, 200):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        load_model(file)
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    load_model(file)
    load_model(file, threads=7)
    assert seen == [1, 3, MAX_THREADS, 5, 7]
    for threads in (0, -1, 1.5, True):
        line = refused(load_model, file, threads=threads)
        assert line == f"threads={threads}: expected a whole number, at least 1"
