"""Pictures that files can be calibrated on, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_pspnet import scenes
from keras_pspnet.export import calibration

SIZE = (30, 40)
VARIED = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), np.uint8)


def read(pictures):
    """What `read_pictures` returns, and the lines that it says."""
    said = []
    return (*calibration.read_pictures(pictures, SIZE, "given pictures", said.append), said)


@pytest.mark.parametrize(
    "formats, says",
    [
        (("float32", "int8"), "int8 needs calibration pictures: give calibration=FOLDER"),
        (("int16",), "int16 needs calibration pictures"),
        (("int16", "int8"), "int8 and int16 need calibration pictures"),
    ],
)
def test_int8_and_int16_need_pictures(refused, formats, says):
    message = refused(calibration.check_calibration, formats, None)
    assert message.startswith(says)
    assert "--calibration DIR" in message and "calibration='scenes'" in message
    message = refused(calibration.check_calibration, formats, None, "no training data (gone)")
    assert "pictures, and there is no training data (gone): give" in message
    for given in ("scenes", "folder", VARIED):
        calibration.check_calibration(formats, given)


def test_float_files_need_no_pictures():
    calibration.check_calibration(("saved_model", "float32", "float16", "dynamic", "onnx"), None)


@pytest.mark.parametrize("given", [None, "scenes"])
def test_generated_scenes(given):
    pictures, source, said = read(given)
    assert source == "8 generated scenes" and not said
    expected, _ = scenes.scene(5, split="val", size=(65, 65))
    np.testing.assert_array_equal(pictures[5][1], expected)


@pytest.mark.parametrize("given", ["./scenes", Path("scenes")])
def test_a_folder_may_be_called_scenes(tmp_path, monkeypatch, refused, given):
    monkeypatch.chdir(tmp_path)
    assert "scenes: no such file or folder" in refused(read, given)
    (tmp_path / "scenes").mkdir()
    Image.fromarray(VARIED[0]).save(tmp_path / "scenes" / "a.png")
    ((name, image, mask),), source, _ = read(given)
    assert (name, mask, source) == ("scenes/a.png", None, "1 given pictures")
    np.testing.assert_array_equal(image, VARIED[0])


BLACK = np.zeros((*SIZE, 3), np.uint8)
NORMALISED = (VARIED / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]


@pytest.mark.parametrize(
    "pictures, says",
    [
        (
            [BLACK] * 8,
            "picture 0 is one colour (0 0 0), and the other 7 are no better; expected",
        ),
        ([BLACK + np.uint8([9, 0, 200])], "picture 0 is one colour (9 0 200); expected"),
        ([BLACK, BLACK + 70], "picture 0 is one colour (0 0 0), and the other is no better"),
        (VARIED // 128, "picture 0 has values in 0..1, and the other 2 are no better; expected"),
        (list(VARIED // 128), "picture 0 has values in 0..1"),
        ([(VARIED[0] // 128, np.zeros(SIZE, np.uint8))], "picture 0 has values in 0..1; expected"),
    ],
)
def test_pictures_that_show_nothing_are_refused(refused, pictures, says):
    message = refused(read, pictures)
    assert message.startswith(f"calibration: {says}") and message.endswith("RGB in 0..255")


@pytest.mark.parametrize(
    "pictures, says",
    [
        (VARIED / 255, "picture 0 has values in 0..1; expected 0..255: multiply by 255"),
        ((VARIED / 255).astype(np.float16)[:1], "picture 0 has values in 0..1; expected"),
        ([VARIED[0], VARIED[1] / 255], "picture 1 has values in 0..1; expected"),
        (VARIED > 90, "picture 0 has dtype bool"),
        (VARIED / 127.5 - 1, "picture 0 has values in -1..1; expected 0..255: undo"),
        (NORMALISED, "picture 0 has values in -2.118..2.64; expected 0..255: undo"),
        ([(VARIED[0] / 255, np.zeros(SIZE, np.uint8))], "picture 0 has values in 0..1"),
    ],
)
def test_a_single_array_out_of_range_is_refused(refused, pictures, says):
    assert refused(read, pictures).startswith(f"calibration: {says}")


def test_a_file_that_shows_nothing_is_named(refused, tmp_path):
    for name in ("a.png", "b.png"):
        Image.fromarray(BLACK).save(tmp_path / name)
    assert f"{tmp_path / 'a.png'} is one colour" in refused(read, tmp_path)


def test_dark_pictures_are_pictures():
    assert not read(VARIED // 32)[2]  # 0..7


def test_one_among_others_is_a_warning():
    pictures, _, said = read([VARIED[0], BLACK + 7, VARIED[1] // 128, VARIED[2]])
    assert len(pictures) == 4
    assert said == [
        "WARNING: 2 of 4 calibration pictures show nothing: picture 1 is one colour (7 7 7), "
        "picture 2 has values in 0..1"
    ]


def test_a_long_list_is_five_and_a_count():
    (said,) = read([BLACK] * 9 + [VARIED[0]])[2]
    assert said.count("one colour") == 5 and said.endswith(" and 4 more")


def test_a_picture_keeps_its_number_among_many():
    pictures, source, _ = read(list(VARIED) * 20)
    assert len(pictures) == 32 and source == "32 of 60 given pictures"
    assert pictures[-1][0] != "picture 31"
    for name, image, _ in pictures:
        np.testing.assert_array_equal(image, VARIED[int(name.split()[1]) % 3])
