"""Drawn pictures: exact colours, edges where classes meet, masks that read back."""

import io

import numpy as np
import pytest
from PIL import Image

from keras_pspnet import visualize
from keras_pspnet.labels import LabelSet

LABELS = LabelSet(("road", "car", "sky"), ((10, 20, 30), (200, 0, 0), (0, 0, 250)))
MASK = np.array([[0, 1, 2, 255], [0, 0, 1, 255]], np.uint8)


def test_every_class_has_its_colour_and_void_is_black():
    colors = visualize.colorize(MASK, LABELS)
    road, car, sky, void = [10, 20, 30], [200, 0, 0], [0, 0, 250], [0, 0, 0]
    assert colors.dtype == np.uint8
    assert colors.tolist() == [[road, car, sky, void], [road, road, car, void]]


def test_class_255_of_many_has_a_colour():
    labels = LabelSet(tuple(map(str, range(300))), ids={})
    assert visualize.colorize(np.array([[255, 299]]), labels).tolist() == [
        [list(labels.colors[255]), list(labels.colors[299])]
    ]


def test_an_overlay_mixes_and_lightens_the_edges():
    image = np.full((4, 6, 3), 100, np.uint8)
    mask = np.zeros((4, 6), np.uint8)
    mask[:, 3:] = 1
    mask[3] = 255
    result = visualize.overlay(image, mask, LABELS, opacity=0.5)
    assert result.shape == image.shape and result.dtype == np.uint8
    assert result[0, 0].tolist() == [55, 60, 65]  # half picture, half colour
    assert result[1, 4].tolist() == [150, 50, 50]
    # an edge pixel is 35 % of the mixture and 65 % white
    assert result[1, 3].tolist() == [int(0.35 * v + 0.65 * 255) for v in (150, 50, 50)]
    assert result[3, 1].tolist() == [int(0.35 * 50 + 0.65 * 255)] * 3
    assert (image == 100).all()


def test_an_overlay_of_many_rows_is_that_of_floats():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (200, 50, 3), np.uint8)
    mask = rng.choice(np.uint8([0, 1, 2, 255]), (100, 25)).repeat(2, 0).repeat(2, 1)
    mixed = 0.45 * image + 0.55 * visualize.colorize(mask, LABELS)
    before = np.pad(mask, ((1, 0), (1, 0)), "edge")
    edge = (mask != before[1:, :-1]) | (mask != before[:-1, 1:])
    mixed[edge] = 0.35 * mixed[edge] + 0.65 * 255
    assert 0.2 < edge.mean() < 0.8
    assert np.abs(visualize.overlay(image, mask, LABELS).astype(float) - mixed).max() < 2


@pytest.mark.parametrize(
    "classes, says",
    [
        (np.zeros((2, 2), np.float32), "classes of dtype float32; expected whole numbers"),
        (np.zeros((2, 2), bool), "classes of dtype bool; expected whole numbers"),
        (np.array([[0, -1], [0, 0]]), "class id -1; expected at least 0, and 255 for void"),
        (np.array([[0, 3], [0, 0]]), "class id 3, but 3 labels"),
    ],
)
def test_what_are_no_classes_gets_one_line(refused, classes, says):
    assert says in refused(visualize.overlay, np.zeros((2, 2, 3), np.uint8), classes, LABELS)


def test_void_shows_the_picture_darkened():
    result = visualize.overlay(
        np.full((2, 2, 3), 200, np.uint8), np.full((2, 2), 255), LABELS, opacity=0.5
    )
    assert (result == 100).all()


def swatches(column):
    """The label colours in a legend from top to bottom."""
    found = []
    for row in column[:, column.shape[0] // 12 : column.shape[1] // 2]:
        for color in LABELS.colors:
            if (row == color).all(-1).sum() > 3 and color not in found:
                found.append(color)
    return found


def test_a_legend_names_the_classes_present_largest_first(monkeypatch):
    texts = []
    real = visualize.ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        visualize.ImageDraw.ImageDraw,
        "text",
        lambda self, xy, text, **kw: (texts.append((xy[1], text)), real(self, xy, text, **kw))[1],
    )
    mask = np.array([2] * 70 + [0] * 20 + [255] * 10)
    column = visualize.legend(mask.reshape(10, 10), LABELS, 120)
    assert column.shape[0] == 120 and column.shape[2] == 3
    assert [text for _, text in texts] == ["sky", "70 %", "road", "20 %"]
    assert texts[0][0] < texts[2][0]
    assert swatches(column) == [LABELS.colors[2], LABELS.colors[0]]


def test_a_legend_sums_up_what_it_has_no_room_for(monkeypatch):
    texts = []
    monkeypatch.setattr(
        visualize.ImageDraw.ImageDraw, "text", lambda self, xy, text, **kw: texts.append(text)
    )
    labels = LabelSet.numbered(40)
    visualize.legend(np.arange(40).repeat(5).reshape(10, 20), labels, 240, most=10)
    assert texts[-2:] == ["30 more", "75 %"] and len(texts) == 22


@pytest.mark.parametrize("mask", [np.full((3, 3), 255), np.zeros((3, 3), int)])
@pytest.mark.parametrize("height", [1, 20, 500])
def test_a_legend_fits_any_height(mask, height):
    assert visualize.legend(mask, LABELS, height).shape[0] == height


def test_a_class_picture_reads_back_as_ids_in_the_colours_of_the_labels():
    picture = Image.open(io.BytesIO(visualize.class_png(MASK, LABELS)))
    assert picture.mode == "P" and np.array_equal(np.asarray(picture), MASK)
    assert np.array_equal(np.asarray(picture.convert("RGB")), visualize.colorize(MASK, LABELS))


def test_many_classes_take_sixteen_bits():
    mask = np.array([[0, 255, 256, 299]], np.int32)
    labels = LabelSet(tuple(map(str, range(300))), ids={})
    picture = Image.open(io.BytesIO(visualize.class_png(mask, labels)))
    assert np.asarray(picture).tolist() == mask.tolist()


def test_enlarging_repeats_pixels():
    mask = np.array([[1, 2], [3, 4]])
    assert visualize.enlarge(mask, 4).tolist() == np.kron(mask, np.ones((2, 2), int)).tolist()
    assert visualize.enlarge(mask, 1) is not None and visualize.enlarge(mask, 1).shape == (2, 2)


def test_an_overlay_stands_beside_its_legend():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    mask = np.zeros((20, 30), np.uint8)
    result = visualize.overlay_with_legend(image, mask, LABELS)
    large = image.repeat(24, 0).repeat(24, 1)
    assert result.shape[0] == 480 and result.shape[1] > 720
    expected = visualize.overlay(large, mask.repeat(24, 0).repeat(24, 1), LABELS)
    assert np.array_equal(result[:, :720], expected)


def test_rows_hold_pictures_of_different_sizes():
    small, wide = np.full((10, 10, 3), 50, np.uint8), np.full((50, 100, 3), 150, np.uint8)
    sheet = visualize.rows([[small, wide], [wide, small]], ("a", "b"), tile=50)
    # gap 8: two columns as wide as their widest picture, 8 + 22 above, 8 under each row
    assert sheet.shape == (8 + 22 + 2 * 58, 2 * 100 + 3 * 8, 3) and sheet.dtype == np.uint8
    assert (sheet[30:80, 8:58] == 50).all() and (sheet[30:80, 116:216] == 150).all()
    assert (sheet[88:138, 8:108] == 150).all() and (sheet[88:138, 116:166] == 50).all()
    assert (sheet[30:80, 58:116] == 255).all()


def test_rows_keep_every_pixel_of_a_low_picture_and_reduce_a_high_one():
    noise = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
    high = np.full((400, 600, 3), 77, np.uint8)
    sheet = visualize.rows([[noise, high], [noise]], ("", ""), tile=60)
    large = noise.repeat(7, 0).repeat(7, 1)  # 63 is nearest to 60
    assert np.array_equal(sheet[30:93, 8:85], large)
    assert np.array_equal(sheet[101:164, 8:85], large)
    assert (sheet[30:90, 93:183] == 77).all() and (sheet[90:] != 77).any(-1).all()
    assert (sheet[101:, 93:] == 255).all()  # a row may have fewer pictures than titles


def test_rows_show_every_class_of_the_labels():
    tile = np.full((20, 60, 3), 255, np.uint8)
    plain = visualize.rows([[tile]], ("",), tile=20)
    sheet = visualize.rows([[tile]], ("",), tile=20, labels=LABELS, heading="h", notes=("n",))
    for color in (*LABELS.colors, (0, 0, 0)):
        assert (sheet == color).all(-1).sum() >= 14**2 and not (plain == color).all(-1).any()


@pytest.mark.parametrize(
    "given",
    [
        {"titles": ("a title wider than its picture",)},
        {"heading": "a heading wider than the pictures"},
        {"notes": ("short", "a note that is wider than the pictures")},
        {"labels": LabelSet(("_one with $a long_name that no sheet is wide enough for", "two"))},
        {"labels": LabelSet(tuple(f"class number {n}" for n in range(150)))},
        {"labels": LabelSet(("\u9053\u8def", "gj\u00c5"))},
    ],
)
def test_rows_cut_nothing_off(given):
    black = np.zeros((20, 20, 3), np.uint8)
    plain = visualize.rows([[black]], ("",), tile=20)
    sheet = visualize.rows([[black]], **{"titles": ("",), **given}, tile=20)
    height, width, _ = sheet.shape
    assert height > plain.shape[0] or width > plain.shape[1]
    for edge in (sheet[:3], sheet[-3:], sheet[:, :3], sheet[:, -3:]):
        assert (edge == 255).all()


def test_a_picture_is_saved_exactly(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
    visualize.save_png(tmp_path / "a.png", picture)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), picture)


def test_a_photo_reads_back_exactly(monkeypatch):
    monkeypatch.setattr(visualize, "FAST", 0)
    rng = np.random.default_rng(0)
    for size in ((1, 1), (1, 9), (40, 3), (37, 53)):
        photo = rng.integers(0, 256, (*size, 3), np.uint8)
        read = Image.open(io.BytesIO(visualize.png(photo)))
        assert read.mode == "RGB" and np.array_equal(np.asarray(read), photo)
    grey = photo[..., 0]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(visualize.png(grey)))), grey)
