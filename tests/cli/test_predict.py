"""`predict`: what it writes, which values, and what happens to pictures that cannot be read."""

import dataclasses
import json
import sys
import threading

import keras
import numpy as np
import pytest
from PIL import Image

import keras_pspnet
from keras_pspnet import cli, images, scenes
from keras_pspnet.cli import prediction
from keras_pspnet.labels import SCENES
from keras_pspnet.network.main_head import set_labels

RAW = {7 * label: label for label in range(12)}
"""Mask values of 12 classes: 0, 7, 14, ..."""


def predict(model, pictures, out, *options):
    command = ["predict", model, *pictures, "--out", out, *options]
    return cli.main([str(word) for word in command])


def written(out):
    return {path.name for path in out.iterdir()} if out.exists() else set()


def pixels(path):
    return np.asarray(Image.open(path))


def cut_off(file):
    """Leave the beginning of a picture: its header can be read, its pixels cannot."""
    file.write_bytes(file.read_bytes()[:3000])


@pytest.fixture
def picture(data):
    return data / "images" / "val" / "0.png"


# --- which values ---


@pytest.fixture
def labels_file(tmp_path):
    """Makes a labels.json of the scenes' names with the given ids."""

    def make(ids):
        file = tmp_path / "labels.json"
        config = SCENES.to_config() | ({"ids": ids} if ids else {})
        file.write_text(json.dumps(config))
        return file

    return make


def test_the_masks_own_values_in_the_colours_of_their_classes(
    model, network, picture, tmp_path, capsys, labels_file
):
    options = ["--labels", labels_file(RAW), "--ids", "mask"]
    assert predict(model / "model.keras", [picture], tmp_path / "out", *options) == 0
    expected = keras_pspnet.segment(network, picture)
    assert len(np.unique(expected)) > 1
    file = tmp_path / "out" / "0_classes.png"
    np.testing.assert_array_equal(pixels(file), 7 * expected)
    shown = np.asarray(Image.open(file).convert("RGB"))
    np.testing.assert_array_equal(shown, np.array(SCENES.colors, np.uint8)[expected])
    end = "pixels of _classes.png are the values that the data set's masks hold"
    assert capsys.readouterr().out.splitlines()[-1] == end


def test_a_model_keeps_the_values_of_its_training(network, tmp_path, picture, capsys):
    labels = dataclasses.replace(SCENES, ids={**RAW, 3: 255})
    set_labels(network, labels)
    network.save(tmp_path / "model.keras")
    out, classes = tmp_path / "out", keras_pspnet.segment(network, picture)
    assert predict(tmp_path / "model.keras", [picture], out) == 0
    np.testing.assert_array_equal(pixels(out / "0_classes.png"), classes)
    meaning = "pixels of _classes.png are 0..11 in the order of the names; --ids mask writes the"
    assert capsys.readouterr().out.splitlines()[-1].startswith(meaning)
    assert predict(tmp_path / "model.keras", [picture], out, "--ids", "mask") == 0
    np.testing.assert_array_equal(pixels(out / "0_classes.png"), 7 * classes)
    set_labels(network, SCENES)


@pytest.mark.parametrize(
    "ids, says",
    [
        (None, "the labels have no ids"),
        ({**RAW, 200: 3}, f"'{SCENES.names[3]}' the values 21, 200"),
        ({raw: label for raw, label in RAW.items() if label != 4}, f"'{SCENES.names[4]}' no value"),
    ],
)
def test_values_that_nobody_knows_are_refused_before_tensorflow(
    model, picture, tmp_path, capsys, monkeypatch, labels_file, ids, says
):
    monkeypatch.setattr(prediction.quiet, "quiet_tensorflow", lambda: pytest.fail("too late"))
    options = ["--labels", labels_file(ids), "--ids", "mask"]
    assert predict(model / "model.keras", [picture], tmp_path / "out", *options) == 2
    error = capsys.readouterr().err
    assert f"--ids mask: {'the labels' if ids else ''}" in error and says in error
    assert "pixels are then 0..11" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_no_word_of_values_that_are_the_class_ids(model, picture, tmp_path, capsys, labels_file):
    options = ["--labels", labels_file({label: label for label in range(12)})]
    assert predict(model / "pspnet_float32.tflite", [picture], tmp_path / "out", *options) == 0
    end = "pixels of _classes.png are 0..11 in the order of the names"
    assert capsys.readouterr().out.splitlines()[-1] == end


# --- which files ---


def test_the_confidence_is_the_largest_probability(model, network, picture, tmp_path):
    assert predict(model / "model.keras", [picture], tmp_path, "--confidence") == 0
    classes, confidence = keras_pspnet.segment(network, picture, confidence=True)
    file = Image.open(tmp_path / "0_confidence.png")
    assert file.mode == "L"
    np.testing.assert_array_equal(np.asarray(file), np.rint(255 * confidence))
    np.testing.assert_array_equal(pixels(tmp_path / "0_classes.png"), classes)
    assert 1 / 12 <= confidence.min() < confidence.max() <= 1


def test_class_ids_have_no_confidence(model, picture, tmp_path, capsys):
    file = model / "pspnet_float32.tflite"
    assert predict(file, [picture], tmp_path / "out", "--confidence") == 2
    error = capsys.readouterr().err
    assert "class ids alone" in error and "--output logits" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options, endings, says",
    [
        (["--no-overlay"], {"_classes.png"}, "as _classes.png"),
        (["--jpeg"], {"_classes.png", "_overlay.jpg"}, "as _classes.png and _overlay.jpg"),
    ],
)
def test_other_overlays_or_none(model, picture, tmp_path, capsys, options, endings, says):
    out = tmp_path / "out"
    assert predict(model / "pspnet_float32.tflite", [picture], out, *options) == 0
    assert written(out) == {f"0{ending}" for ending in endings}
    assert capsys.readouterr().out.splitlines()[-2].endswith(f"1 picture, {says}")


def test_an_overlay_as_jpeg_shows_the_same(model, picture, tmp_path):
    for options in ([], ["--jpeg"]):
        assert predict(model / "pspnet_float32.tflite", [picture], tmp_path, *options) == 0
    jpeg = Image.open(tmp_path / "0_overlay.jpg")
    assert jpeg.format == "JPEG"
    difference = pixels(tmp_path / "0_overlay.png").astype(int) - np.asarray(jpeg)
    assert np.abs(difference).mean() < 4


def test_an_overlay_and_none_contradict_each_other(model, picture, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        predict(model / "model.keras", [picture], tmp_path / "out", "--jpeg", "--no-overlay")
    assert end.value.code == 2
    assert "--no-overlay: not allowed with argument --jpeg" in capsys.readouterr().err


def test_a_converted_model_sees_windows_of_a_photo(tmp_path, picture, loads, capsys):
    """A model of any size, as `convert` makes it: at the size of its training, not its own."""
    keras.utils.set_random_seed(2)
    network = keras_pspnet.build_pspnet(
        3, input_shape=(None, None, 3), backbone="resnet14_narrow", channels=8
    )
    network.save(tmp_path / "model.keras")
    loads(network)
    options = ["--crop", "41", "49", "--base", "64"]
    assert predict(tmp_path / "model.keras", [picture], tmp_path / "out", *options) == 0
    expected = keras_pspnet.segment(network, picture, crop=(41, 49), base=64)
    np.testing.assert_array_equal(pixels(tmp_path / "out" / "0_classes.png"), expected)
    assert "windows of 41x49, long side 64" in capsys.readouterr().out
    assert not np.array_equal(expected, keras_pspnet.segment(network, picture))


# --- pictures that cannot be read ---


@pytest.mark.parametrize("trouble", ["text", "cut off"])
def test_one_bad_picture_stops_no_other(model, data, tmp_path, capsys, trouble):
    folder, out = data / "images" / "val", tmp_path / "out"
    bad = folder / "0.png"
    bad.write_text("no picture") if trouble == "text" else cut_off(bad)
    assert predict(model / "pspnet_float32.tflite", [folder], out, "--no-overlay") == 2
    assert written(out) == {"1_classes.png"}
    seen = capsys.readouterr()
    assert seen.err.count("\n") == 1 and str(bad) in seen.err
    assert seen.err.endswith(f"; the other is in {out}\n")
    assert ("1 of 2 files cannot be read" in seen.out) == (trouble == "text")
    assert f"{out}: 1 picture, as _classes.png" in seen.out


def test_many_bad_pictures_are_counted(model, data, tmp_path, capsys):
    folder, out = data / "images" / "val", tmp_path / "out"
    for index in range(9):
        (folder / f"bad{index}.jpg").write_text("no picture")
    assert predict(model / "pspnet_float32.tflite", [folder], out, "--no-overlay") == 2
    lines = capsys.readouterr().err.splitlines()
    assert [f"bad{index}.jpg" in lines[index] for index in range(5)] == [True] * 5
    end = f"keras-pspnet: 9 of 11 files cannot be segmented; the other 2 are in {out}"
    assert lines[5:] == ["and 4 more", end]
    assert written(out) == {"0_classes.png", "1_classes.png"}


def test_a_path_that_is_not_there_stops_no_other(model, picture, tmp_path, capsys):
    out, missing = tmp_path / "out", tmp_path / "no.png"
    command = [model / "pspnet_float32.tflite", [missing, picture], out, "--no-overlay"]
    assert predict(*command) == 2
    assert written(out) == {"0_classes.png"}
    says = f"keras-pspnet: {missing}: no such file or folder; the other is in {out}\n"
    assert capsys.readouterr().err == says
    assert predict(model / "model.keras", [missing], tmp_path / "new") == 2
    assert not (tmp_path / "new").exists()


def test_earlier_outputs_in_the_same_folder_are_passed_over(model, network, data, capsys):
    folder = data / "images" / "val"
    Image.new("L", (9, 9)).save(folder / "other_classes.png")  # of no picture here
    expected = {f"{n}{end}" for n in ("0", "1", "other_classes") for end in prediction.ENDS}
    expected -= {f"{name}_overlay.jpg" for name in ("0", "1", "other_classes")}
    expected |= {"0.png", "1.png", "other_classes.png"}
    for _ in range(2):
        assert predict(model / "model.keras", [folder], folder, "--confidence") == 0
        assert written(folder) == expected
    lines = [line for line in capsys.readouterr().out.splitlines() if "3 pictures, as" in line]
    assert "passed over" not in lines[0]
    assert lines[1].endswith("; 9 of an earlier `predict` passed over")


def test_nothing_but_bad_pictures_is_said_before_tensorflow(
    model, data, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(prediction.quiet, "quiet_tensorflow", lambda: pytest.fail("too late"))
    folder = data / "images" / "val"
    for index in range(2):
        (folder / f"{index}.png").write_text("no picture")
    assert predict(model / "model.keras", [folder], tmp_path / "out") == 2
    assert capsys.readouterr().err.endswith("2 of 2 files cannot be segmented\n")
    assert not (tmp_path / "out").exists()


def test_files_of_12_bits_get_a_note(model, data, tmp_path, capsys):
    folder = data / "images" / "val"
    for name, array in (
        ("2", np.uint16([[0, 4095]])),
        ("3", np.uint16([[0, 4500]])),  # of 16 bits
        ("4", np.uint16([[0, 0]])),
        ("5", np.uint8([[0, 9]])),
        ("6", np.uint16([[300, 2000]])),
    ):
        Image.fromarray(array.repeat(9, 0)).save(folder / f"{name}.png")
    assert predict(model / "pspnet_float32.tflite", [folder], tmp_path, "--no-overlay") == 0
    said = capsys.readouterr().out
    assert said.count("note: ") == 1 and f"note: {folder / '2.png'} and 1 more: 16 bits a" in said


def test_what_cannot_be_written_stops_the_command(model, data, tmp_path, capsys):
    out = tmp_path / "out"
    (out / "0_classes.png").mkdir(parents=True)
    folder = data / "images" / "val"
    assert predict(model / "pspnet_float32.tflite", [folder], out, "--no-overlay") == 2
    assert "0_classes.png: cannot be written" in capsys.readouterr().err
    assert written(out) == {"0_classes.png"}


def test_each_picture_is_decoded_once_while_another_is_segmented(model, tmp_path, monkeypatch):
    read, segmented = [], []
    seen = [threading.Event() for _ in range(3)]
    for index in range(3):
        Image.fromarray(scenes.scene(index, size=(20, 30))[0]).save(tmp_path / f"{index}.png")

    def reading(file):
        read.append(file.stem)
        seen[int(file.stem)].set()
        return images.read_image(file)

    def segmenting(predictor, image, protocol):
        segmented.append(read[:])
        assert seen[min(len(segmented), 2)].wait(60), "the next picture is not read meanwhile"
        return np.zeros(image.shape[:2], np.uint8)

    monkeypatch.setattr(prediction, "read_image", reading)
    monkeypatch.setattr(prediction, "segment_with", segmenting)
    assert predict(model / "pspnet_float32.tflite", [tmp_path], tmp_path / "out") == 0
    assert read == ["0", "1", "2"] and len(segmented) == 3
    assert "2" not in segmented[0], "one is read ahead, not all"


# --- videos ---


def write_video(path, frames, rotation=0, options=()):
    """Write pictures (H, W, 3) as a video, one each half second but the last, which comes later."""
    import av

    with av.open(str(path), "w", options=dict(options)) as container:
        stream = container.add_stream("h264", rate=2, options={"crf": "1"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.set_display_rotation(rotation)
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts = index + (index == len(frames) - 1)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def read_video(path):
    """The times in seconds and the frames (H, W, 3) of a video."""
    import av

    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        return [frame.time for frame in frames], [f.to_ndarray(format="rgb24") for f in frames]


@pytest.fixture
def clip(tmp_path):
    """A video of three scenes of 48x64 pixels, which is to be turned left by a quarter."""
    frames = [scenes.scene(index, size=(48, 64))[0] for index in range(3)]
    write_video(tmp_path / "clip.mov", frames, rotation=90)
    return tmp_path / "clip.mov"


def test_a_video_becomes_a_video_of_overlays(model, network, clip, picture, tmp_path, capsys):
    out = tmp_path / "out"
    assert predict(model / "model.keras", [clip, picture], out) == 0
    assert written(out) == {"0_classes.png", "0_overlay.png", "clip_overlay.mp4"}
    times, found = read_video(out / "clip_overlay.mp4")
    source_times, frames = read_video(clip)
    assert times == source_times == [0, 0.5, 1.5]
    for frame, overlay in zip(frames, found):
        upright = np.rot90(frame)
        expected = keras_pspnet.overlay(upright, keras_pspnet.segment(network, upright), SCENES)
        assert overlay.shape == (64, 48, 3)
        assert np.abs(overlay.astype(int) - expected).mean() < 12
    line = "1 picture, as _classes.png and _overlay.png; 1 video, as _overlay.mp4"
    assert line in capsys.readouterr().out


@pytest.mark.parametrize("trouble", ["text", "cut off", "damaged"])
def test_a_bad_video_leaves_nothing(model, clip, tmp_path, capsys, trouble):
    content = clip.read_bytes()
    if trouble == "damaged":  # the frames, not the table of contents
        content = content[:100] + bytes(1500) + content[1600:]
    clip.write_bytes({"text": b"no video", "cut off": content[:900], "damaged": content}[trouble])
    assert predict(model / "pspnet_float32.tflite", [clip], tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert f"{clip}: not a readable video" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["long.mov", "long.mkv"])
def test_a_video_that_is_cut_off_gives_the_frames_that_are_left(model, tmp_path, capsys, name):
    video, out = tmp_path / name, tmp_path / "out"
    frames = [scenes.scene(index % 3, size=(48, 64))[0] for index in range(12)]
    write_video(video, frames, options={"movflags": "faststart"} if name == "long.mov" else {})
    assert predict(model / "pspnet_float32.tflite", [video], out) == 0
    assert len(read_video(out / "long_overlay.mp4")[1]) == 12
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    assert predict(model / "pspnet_float32.tflite", [video], out) == 2
    seen = capsys.readouterr()
    left = len(read_video(out / "long_overlay.mp4")[1])
    assert 2 < left < 10
    says = f"{video}: the file is cut off; long_overlay.mp4 shows the {left} frames in it\n"
    assert seen.err == f"keras-pspnet: {says}"
    assert "1 video, as _overlay.mp4" in seen.out


def test_ctrl_c_in_a_video_leaves_nothing(model, clip, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(prediction, "segment_with", interrupted)
    assert predict(model / "pspnet_float32.tflite", [clip], tmp_path / "out") == 130
    assert not (tmp_path / "out").exists()


def test_what_a_video_needs(model, clip, tmp_path, capsys, monkeypatch):
    file, out = model / "pspnet_float32.tflite", tmp_path / "out"
    assert predict(file, [clip], out, "--no-overlay") == 2
    assert "clip.mov: of a video an overlay is written" in capsys.readouterr().err
    for option in (["--confidence"], ["--ids", "mask"]):
        assert predict(file, [clip], out, *option) == 2
        says = f"clip.mov: of a video an overlay is written; leave {option[0]} out"
        assert says in capsys.readouterr().err
    (tmp_path / "folder").mkdir()
    clip.rename(clip := tmp_path / "folder" / "clip.mov")
    assert predict(file, [clip.parent], out) == 2
    assert f"no pictures in this folder; name its videos, as {clip}" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "av", None)
    assert predict(file, [clip], out) == 2
    assert "pip install 'keras-pspnet[video]'" in capsys.readouterr().err
    assert not out.exists()
