"""Masks as pictures become class ids: by value, by colour, by palette; labels found in them."""

import json

import numpy as np
import pytest
from annotation_kinds import picture, save, write
from PIL import Image

from keras_pspnet.data import mask_labels, masks
from keras_pspnet.data.datasets import open_source
from keras_pspnet.labels import LabelSet

LABELS = LabelSet(("a", "b", "c"), ((0, 0, 0), (10, 200, 30), (200, 10, 30)))
TABLE = masks.color_table(LABELS)
IDS = np.array([[0, 1, 2, 2], [1, 0, 0, 2]], np.uint8)


def colors(ids, labels=LABELS):
    return np.array(labels.colors, np.uint8)[ids]


def palette(*colors):
    table = np.zeros((256, 3), np.uint8)
    table[: len(colors)] = colors
    return table


def test_colours_become_the_ids_of_their_classes():
    np.testing.assert_array_equal(masks.decode(colors(IDS), None, LABELS, TABLE, "m"), IDS)


def test_a_colour_that_no_label_has_is_named_with_its_count_and_the_nearest(refused):
    mask = colors(IDS)
    mask[0, 2:] = 199, 11, 30
    mask[1, 3] = 1, 2, 3
    message = refused(masks.decode, mask, None, LABELS, TABLE, "m.png")
    assert message == (
        "m.png: colour (199, 11, 30) of 2 pixels is no label's; the nearest known one is "
        "(200, 10, 30) (c)"
    )


def test_a_colour_of_two_labels_is_refused_in_colour_masks_alone(refused):
    labels = LabelSet(("a", "b", "c"), ((0, 0, 0), (9, 9, 9), (9, 9, 9)))
    table = masks.color_table(labels)
    assert table == {(0, 0, 0): 0, (9, 9, 9): masks.TWICE}
    message = refused(masks.decode, colors(IDS, labels), None, labels, table, "m")
    assert "(9, 9, 9) of 5 pixels is that of several labels" in message
    np.testing.assert_array_equal(masks.decode(IDS, None, labels, table, "m"), IDS)


def test_colours_of_void():
    table = masks.color_table(LABELS, [(1, 1, 1)])
    mask = colors(IDS)
    mask[0, 0] = 1
    expected = IDS.copy()
    expected[0, 0] = 255
    np.testing.assert_array_equal(masks.decode(mask, None, LABELS, table, "m"), expected)


@pytest.mark.parametrize("table", [None, TABLE])
def test_grey_rgb_masks_hold_ids(table):
    mask = np.repeat(IDS[..., None], 3, 2)
    np.testing.assert_array_equal(masks.decode(mask, None, LABELS, table, "m"), IDS)


def test_colours_without_a_table_say_what_to_write(refused):
    message = refused(masks.decode, colors(IDS), None, LABELS, None, "m.png")
    assert message.startswith("m.png: a mask in colours, such as ") and '"colors"' in message


@pytest.mark.parametrize("void", [False, True])
def test_a_palette_in_the_labels_order_or_in_other_colours_is_decoration(void):
    """Index 255 is black, as class 0 is, in the palettes that most programs write."""
    mask = IDS.copy()
    if void:
        mask[0, 0] = 255
    for used in (LABELS.colors, [(9, 8, 7), (1, 1, 1), (2, 2, 2)], [(0, 0, 0)] * 3):
        found = masks.decode(mask, palette(*used), LABELS, TABLE, "m")
        np.testing.assert_array_equal(found, mask)


def test_a_palette_in_another_order_is_meant_by_its_colours(refused):
    order = [2, 0, 1]  # index 0 is shown in the colour of class 2
    used = palette(*(LABELS.colors[label] for label in order))
    found = masks.decode(IDS, used, LABELS, TABLE, "m")
    np.testing.assert_array_equal(found, np.array(order, np.uint8)[IDS])
    used[1] = 77, 7, 7
    assert "colour (77, 7, 7)" in refused(masks.decode, IDS, used, LABELS, TABLE, "m")


def test_ids_of_labels_json_go_before_a_palette():
    labels = LabelSet(LABELS.names, LABELS.colors, ids={0: 1, 1: 0, 2: 2})
    found = masks.decode(IDS, palette(*LABELS.colors), labels, TABLE, "m")
    np.testing.assert_array_equal(found, np.array([1, 0, 2], np.uint8)[IDS])


def labels_of(*arrays):
    def files():
        for number, array in enumerate(arrays):
            stream = __import__("io").BytesIO()
            Image.fromarray(np.asarray(array, np.uint8)).save(stream, "PNG")
            yield stream, f"{number}.png"

    return mask_labels.values_in(files(), "all").labels("all")


def test_a_few_colour_masks_are_left_to_the_survey():
    found = labels_of(IDS, IDS, colors(IDS))
    assert found.names == ("class_0", "class_1", "class_2")


def test_colour_masks_without_names_are_listed_by_colour(refused):
    message = refused(labels_of, colors(IDS), np.zeros((2, 2, 3)))
    assert message.startswith("all: masks in 3 colours ((") and "labels.json" in message
    for color in LABELS.colors:
        assert str(color) in message


def smoothed(mask):
    image = Image.fromarray(mask)
    small = image.resize((20, 20), Image.Resampling.BILINEAR)
    return np.asarray(small.resize(mask.shape[::-1], Image.Resampling.BILINEAR))


def disc(value):
    rows, columns = np.mgrid[:64, :64]
    return np.where((rows - 30) ** 2 + (columns - 33) ** 2 < 300, value, 0).astype(np.uint8)


def test_blended_masks_are_refused_with_the_reason(refused):
    message = refused(labels_of, *[smoothed(disc(255))] * 3)
    assert "resized with smoothing or saved lossily" in message
    color = np.stack([smoothed(disc(value)) for value in (250, 120, 30)], -1)
    assert "resized with smoothing or saved lossily" in refused(labels_of, *[color] * 3)


def test_many_small_classes_are_no_blend():
    mask = np.zeros((200, 200), np.uint8)
    for value in range(1, 60):
        row, column = divmod(value, 8)
        mask[row * 20 : row * 20 + 4, column * 20 : column * 20 + 5] = value
    assert len(labels_of(mask)) == 60


@pytest.mark.parametrize("count, says", [(1, "What is not c0 is a class too"), (256, "at most")])
@pytest.mark.parametrize("where", ["labels.json", "labelmap.txt"])
def test_too_few_and_too_many_names_get_one_line(refused, tmp_path, count, says, where):
    save(picture(), tmp_path / "images/train/a.png")
    save(np.zeros((24, 32), np.uint8), tmp_path / "masks/train/a.png")
    names = [f"c{index}" for index in range(count)]
    rows = (f"{name}:{index // 256},{index % 256},7::" for index, name in enumerate(names))
    write(tmp_path / where, {"names": names} if where == "labels.json" else "\n".join(rows))
    message = refused(open_source, "folder", tmp_path, split="train")
    assert says in message and str(tmp_path) in message


@pytest.mark.parametrize(
    "file, line",
    [
        ("labelmap.txt", "leaf"),
        ("labelmap.txt", "leaf:1,2::"),
        ("labelmap.txt", "leaf:1,2,300::"),
        ("label_colors.txt", "1 2 leaf"),
        ("label_colors.txt", "1 2 x leaf"),
        ("label_colors.txt", "1 2 3"),
    ],
)
def test_a_line_of_colours_that_is_none_is_named(refused, tmp_path, file, line):
    write(tmp_path / file, f"{line}\n")
    read = {"labelmap.txt": mask_labels.labelmap_txt, "label_colors.txt": None}[file]
    message = refused(read or mask_labels.label_colors_txt, tmp_path / file)
    assert f"{tmp_path / file}, line 1: {line!r}; expected" in message


def test_labels_json_has_the_last_word_on_labelmap_txt(refused, tmp_path):
    save(picture(), tmp_path / "images/train/a.png")
    mask = np.zeros((24, 32, 3), np.uint8)
    mask[2:] = 9, 9, 1
    save(mask, tmp_path / "masks/train/a.png")
    write(tmp_path / "labelmap.txt", "sky:0,0,0::\nsea:9,9,1::\n")
    for config, expected in (
        ({"names": ["sea", "sky"]}, (1, 0)),
        ({"names": ["x", "y"], "colors": [[9, 9, 1], [0, 0, 0]]}, (1, 0)),
        ({"names": ["x", "y"], "colors": [[0, 0, 0], [9, 9, 1]]}, (0, 1)),
    ):
        write(tmp_path / "labels.json", config)
        source = open_source("folder", tmp_path, split="train")
        assert list(source.labels.names) == config["names"]
        assert source.read(0)[1][[0, 5], 0].tolist() == list(expected)
    write(tmp_path / "labels.json", {"names": ["sky", "lake"]})
    message = refused(open_source, "folder", tmp_path, split="train")
    assert "'sea' is not in labels.json" in message


def test_named_void_is_void_in_labelmap_txt(tmp_path):
    write(tmp_path / "labelmap.txt", "# label:color_rgb:parts:actions\nVoid:1,2,3::\na:4,5,6::\n")
    labels, void = mask_labels.labelmap_txt(tmp_path / "labelmap.txt")
    assert labels.names == ("a",) and void == ((1, 2, 3),)


def unnamed(root, *values):
    """A folder that nobody has named, whose masks hold these values."""
    mask = np.resize(np.repeat(np.array(values, np.uint8), 24), (24, 32))
    save(picture(), root / "images/val/a.png")
    save(mask, root / "masks/val/a.png")
    return mask


def test_an_unnamed_folder_is_read_with_the_ids_of_the_model(tmp_path):
    model = LabelSet(("class_0", "class_1", "class_2"), ids={0: 0, 1: 1, 2: 2})
    mask = unnamed(tmp_path / "less", 0, 2)
    source = open_source("folder", tmp_path / "less", split="val", labels=model)
    assert source.labels is model and not source.named
    np.testing.assert_array_equal(source.read(0)[1], mask)
    unnamed(tmp_path / "one", 2)  # a class alone is no fault there
    assert open_source("folder", tmp_path / "one", split="val", labels=model).labels is model


def test_a_value_that_the_model_does_not_know_is_an_error(refused, tmp_path):
    model = LabelSet(("class_0", "class_1", "class_2"), ids={0: 0, 1: 1, 2: 2})
    unnamed(tmp_path, 0, 7)
    source = open_source("folder", tmp_path, split="val", labels=model)
    assert "label 7 is out of range" in refused(source.read, 0)


@pytest.mark.parametrize("high, other", [(1, 255), (255, 1)])
def test_binary_masks_of_two_conventions_agree(tmp_path, high, other):
    model = LabelSet(("background", "object"), ids={0: 0, high: 1}, ignore=254)
    mask = unnamed(tmp_path, 0, other)
    source = open_source("folder", tmp_path, split="val", labels=model)
    np.testing.assert_array_equal(source.read(0)[1], mask > 0)


def test_a_named_folder_keeps_its_labels(tmp_path):
    model = LabelSet(("class_0", "class_1"), ids={0: 1, 1: 0})
    mask = unnamed(tmp_path, 0, 1)
    (tmp_path / "labels.json").write_text(json.dumps({"names": ["x", "y"]}))
    source = open_source("folder", tmp_path, split="val", labels=model)
    assert source.labels.names == ("x", "y") and source.named
    np.testing.assert_array_equal(source.read(0)[1], mask)


@pytest.mark.parametrize("palette_of", ["black", "grey steps"])
def test_a_palette_that_shows_nothing_gives_no_colours(tmp_path, palette_of):
    table = np.zeros((256, 3), np.uint8)
    if palette_of == "grey steps":
        table += np.arange(256, dtype=np.uint8)[:, None]
    for split in ("train", "val"):
        image = Image.fromarray(IDS)
        image.putpalette(table.tobytes())
        save(picture()[:2, :4], tmp_path / f"images/{split}/a.png")
        save(image, tmp_path / f"masks/{split}/a.png")
    labels = open_source("folder", tmp_path, split="val").labels
    assert labels.colors == LabelSet(("a", "b", "c")).colors


def test_a_colour_between_two_others_is_found_by_binary_search():
    """Colours of every byte order: the table is searched as numbers."""
    random = np.random.default_rng(0)
    labels = LabelSet(
        [f"c{index}" for index in range(200)],
        tuple(map(tuple, random.permutation(256**3)[:200, None] >> np.array([16, 8, 0]) & 255)),
    )
    ids = random.integers(0, 200, (40, 50)).astype(np.uint8)
    found = masks.decode(colors(ids, labels), None, labels, masks.color_table(labels), "m")
    np.testing.assert_array_equal(found, ids)


def test_a_model_without_mask_values_decodes_an_unnamed_folder_by_its_class_ids(tmp_path, refused):
    model = LabelSet(("ground", "leaf", "bug"))
    mask = np.array([[0, 0, 2, 2]] * 3, np.uint8)
    for kind, array in (("images", np.zeros((3, 4, 3), np.uint8)), ("masks", mask)):
        (tmp_path / kind / "val").mkdir(parents=True)
        Image.fromarray(array).save(tmp_path / kind / "val" / "a.png")
    source = open_source("folder", tmp_path, split="val", labels=model)
    assert source.labels == model
    np.testing.assert_array_equal(source.read(0)[1], mask)
    Image.fromarray(np.array([[0, 2, 7, 7]] * 3, np.uint8)).save(tmp_path / "masks/val/a.png")
    source = open_source("folder", tmp_path, split="val", labels=model)
    assert "label 7 is out of range" in refused(source.read, 0)


def test_binary_masks_are_not_void_in_silence_where_two_classes_are_named(tmp_path, refused):
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (tmp_path / kind / split).mkdir(parents=True)
        Image.fromarray(np.zeros((3, 4, 3), np.uint8)).save(tmp_path / "images" / split / "a.png")
        mask = Image.fromarray(np.array([[0, 0, 255, 255]] * 3, np.uint8))
        mask.save(tmp_path / "masks" / split / "a.png")
    named = {"names": ["ground", "leaf"]}
    (tmp_path / "labels.json").write_text(json.dumps(named))
    message = refused(open_source, "folder", tmp_path, split="train")
    assert '255 would be void; add "ids": {"0": 0, "255": 1}, "ignore": 254' in message
    named |= {"ids": {"0": 0, "255": 1}, "ignore": 254}
    (tmp_path / "labels.json").write_text(json.dumps(named))
    mask = open_source("folder", tmp_path, split="train").read(0)[1]
    np.testing.assert_array_equal(mask, [[0, 0, 1, 1]] * 3)


@pytest.mark.parametrize(
    "values, note",
    [
        (
            (0, 128, 255),
            "nobody has named the 2 classes: values 0, 128 are classes, 255 is void; name them in "
            "labels.json if 255 is a class",
        ),
        ((1, 2, 255), "nobody has named the 2 classes: values 1, 2 are classes, 255 is void; "),
        ((*range(0, 24, 2), 255), "values 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, ... are classes, "),
        ((0, 1, 2, 255), "nobody has named the 3 classes: values 0, 1, 2 are classes, 255 is void"),
        ((0, 128), "nobody has named the 2 classes: they are the values of the masks"),
    ],
)
def test_what_the_values_of_unnamed_masks_are_taken_for_is_said(tmp_path, values, note):
    mask = unnamed(tmp_path, *values)
    source = open_source("folder", tmp_path, split="val")
    assert [one for one in source.notes if note in one] and not source.named
    np.testing.assert_array_equal(source.read(0)[1] == 255, mask == 255)


def test_255_is_a_class_where_labels_json_names_it(tmp_path):
    mask = unnamed(tmp_path, 0, 128, 255)
    labels = {"names": ["a", "b", "c"], "ids": {"0": 0, "128": 1, "255": 2}, "ignore": 254}
    write(tmp_path / "labels.json", labels)
    source = open_source("folder", tmp_path, split="val")
    np.testing.assert_array_equal(source.read(0)[1], mask // 127)
    assert not [note for note in source.notes if "void" in note]


def binary_masks(root, *highs):
    """A mask of 0 and each value, the last in val."""
    for number, high in enumerate(highs):
        split = "train" if number < len(highs) - 1 else "val"
        picture = np.full((3, 4, 3), 50 + number, np.uint8)
        mask = np.array([[0, 0, high, high]] * 3, np.uint8)
        for array, kind in ((picture, "images"), (mask, "masks")):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(root / kind / split / f"{number}.png")
    return [root / "masks" / ("train" if n < len(highs) - 1 else "val") / f"{n}.png"
            for n in range(len(highs))]  # fmt: skip


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("highs", [(1, 255, 255, 255), (255, 255, 255, 1)])
def test_binary_masks_of_two_kinds_are_refused_and_one_of_each_is_named(
    tmp_path, refused, highs, named
):
    files = binary_masks(tmp_path, *highs)
    if named:
        write(tmp_path / "labels.json", {"names": ["ground", "leaf"]})
    one, other = files[highs.index(255)], files[highs.index(1)]
    message = refused(open_source, "folder", tmp_path, split="train")
    assert message.startswith(f"{one}: holds 0 and 255 alone, {other} 0 and 1; write a labels.json")
    for says, void in (
        ('"ids": {"0": 0, "1": 1, "255": 1}, "ignore": 254', False),
        ('"ids": {"0": 0, "1": 1}', True),
    ):
        assert says in message
        write(tmp_path / "labels.json", '{"names": ["background", "object"], ' + says + "}")
        for split, index in (("train", 0), ("val", -1)):
            expected = 255 if void and highs[index] == 255 else 1
            mask = open_source("folder", tmp_path, split=split).read(0)[1]
            np.testing.assert_array_equal(mask, [[0, 0, expected, expected]] * 3)


def test_a_model_of_binary_masks_does_not_score_two_kinds_in_silence(tmp_path, refused):
    binary_masks(tmp_path, 1, 255)
    names = ("background", "object")
    either = LabelSet(names, ids={0: 0, 1: 1}), LabelSet(names, ids={0: 0, 255: 1}, ignore=254)
    for model in either:
        message = refused(open_source, "folder", tmp_path, split="val", labels=model)
        assert "holds 0 and 255 alone" in message
    both = LabelSet(names, ids={0: 0, 1: 1, 255: 1}, ignore=254)
    mask = open_source("folder", tmp_path, split="val", labels=both).read(0)[1]
    np.testing.assert_array_equal(mask, [[0, 0, 1, 1]] * 3)


def test_void_beside_the_object_is_void(tmp_path):
    first, *_ = binary_masks(tmp_path, 1, 255, 1)
    Image.fromarray(np.array([[0, 255, 1, 1]] * 3, np.uint8)).save(first)
    mask = open_source("folder", tmp_path, split="train").read(0)[1]
    np.testing.assert_array_equal(mask, [[0, 255, 1, 1]] * 3)


GREYS = {"names": ["a", "b", "c"], "colors": [[0, 0, 0], [128, 128, 128], [255, 255, 255]]}


@pytest.mark.parametrize(
    "values, expected",
    [
        ((0, 128, 255), (0, 1, 2)),
        ((0, 128, 0), (0, 1, 0)),
        ((0, 255, 0), (0, 255, 0)),  # nothing says that void is a class
        ((0, 1, 255), (0, 1, 255)),
        ((2, 2, 255), (2, 2, 255)),
    ],
)
def test_values_are_grey_colours_where_they_can_be_nothing_else(tmp_path, values, expected):
    unnamed(tmp_path, *values)
    write(tmp_path / "labels.json", GREYS)
    source = open_source("folder", tmp_path, split="val")
    table = np.zeros(256, np.uint8)
    table[list(values)] = expected
    mask = np.asarray(Image.open(next((tmp_path / "masks/val").iterdir())))
    np.testing.assert_array_equal(source.read(0)[1], table[mask])


def test_black_and_white_masks_of_black_and_white_classes_need_no_ids(tmp_path):
    binary_masks(tmp_path, 255, 255)
    colors = {"names": ["a", "b"], "colors": [[0, 0, 0], [255, 255, 255]]}
    write(tmp_path / "labels.json", colors)
    mask = open_source("folder", tmp_path, split="val").read(0)[1]
    np.testing.assert_array_equal(mask, [[0, 0, 1, 1]] * 3)


@pytest.mark.parametrize(
    "color", ["#000000", "123", [1, 2], [0, 0, 256], [-1, 0, 0], None, ["a"] * 3]
)
def test_a_colour_that_is_none_gets_one_line(tmp_path, refused, color):
    unnamed(tmp_path, 0, 1)
    write(tmp_path / "labels.json", {"names": ["a", "b"], "colors": [[0, 0, 0], color]})
    message = refused(open_source, "folder", tmp_path, split="val")
    assert message.endswith(f"the color {color!r}; expected [r, g, b] with values in 0..255")


def test_uncovered_in_labels_json_is_for_polygons(tmp_path, refused):
    unnamed(tmp_path, 0, 1)
    write(tmp_path / "labels.json", {"names": ["a", "b"], "uncovered": "void"})
    message = refused(open_source, "folder", tmp_path, split="val")
    assert message == (
        f"{tmp_path / 'labels.json'}, uncovered: {tmp_path} holds masks, which have a value for "
        "every pixel; leave it out"
    )
