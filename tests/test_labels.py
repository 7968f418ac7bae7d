"""Label sets: what they accept, what their masks mean, how they are painted."""

import json

import numpy as np
import pytest

from keras_pspnet.labels import (
    ADE20K,
    CAMVID,
    CITYSCAPES,
    CITYSCAPES_RAW,
    NAMED,
    SCENES,
    VOC2012,
    LabelSet,
    load_labels,
    voc_palette,
)


@pytest.mark.parametrize(
    "labels",
    [
        CAMVID,
        SCENES,
        LabelSet.numbered(3),
        LabelSet(("a", "b"), ((1, 2, 3), (4, 5, 6)), ignore=9, ids={0: 1, 200: 0, 7: 9}),
    ],
)
def test_a_config_round_trips_through_json(labels):
    assert LabelSet.from_config(json.loads(json.dumps(labels.to_config()))) == labels


def test_a_config_needs_only_names():
    labels = LabelSet.from_config({"names": ["road", "car"]})
    assert labels.names == ("road", "car") and len(labels) == 2
    assert labels.colors == ((128, 0, 0), (0, 128, 0))
    assert labels.ignore == 255 and labels.ids is None


def test_ids_become_numbers():
    labels = LabelSet.from_config({"names": ["a", "b"], "ids": {"7": 0, "8": "1"}})
    assert labels.ids == {7: 0, 8: 1}


@pytest.mark.parametrize(
    "config, says",
    [
        ({"names": []}, "no names"),
        ({}, "names"),
        ([], "names"),
        ({"names": "road"}, "names"),
        ({"names": ["a", "b", "b"]}, "the name 'b' appears twice"),
        ({"names": ["a", "a\nb"]}, r"the name 'a\nb' is not one line"),
        ({"names": ["a", "b\n"]}, "is not one line"),
        ({"names": ["a\rb"]}, "is not one line"),
        ({"names": ["a\u2028b"]}, "is not one line"),
        ({"names": ["a", ""]}, "the name '' is not one line"),
        ({"names": [" ", "b"]}, "the name ' ' is not one line"),
        ({"names": ["a"], "colors": [[0, 0, 0], [1, 1, 1]]}, "2 colors for 1"),
        ({"names": ["a"], "colors": [[0, 0, 256]]}, "0..255"),
        ({"names": ["a"], "colors": [[0, 0]]}, "[r, g, b]"),
        ({"names": ["a"], "colors": [["x", 0, 0]]}, "'x'"),
        ({"names": ["a"], "colors": 7}, "int"),
        ({"names": ["a"], "ignore": 256}, "256"),
        ({"names": ["a"], "ignore": -1}, "-1"),
        ({"names": ["a"], "ignore": None}, "None"),
        ({"names": ["a"], "ignore": float("inf")}, "inf"),
        ({"names": ["a", "b"], "ignore": 1}, "also a class id"),
        ({"names": ["a"], "ids": {"256": 0}}, "256"),
        ({"names": ["a"], "ids": {"3": 1}}, "3 to 1"),
        ({"names": ["a"], "ids": {"x": 0}}, "'x'"),
        ({"names": ["a"], "ids": [0]}, "ids is a list; expected a table of mask value to class id"),
        ({"names": ["a"], "colour": []}, "'colour' is not known; expected names, colors, ignore"),
    ],
)
def test_a_config_that_means_nothing_gets_one_line(refused, config, says):
    message = refused(LabelSet.from_config, config)
    assert message.startswith("labels: ") and says in message


def test_a_text_instead_of_names_is_refused(refused):
    assert "no names; expected a list" in refused(LabelSet, "road")


def test_label_sets_can_be_dict_keys():
    """With and without ids; equal ones have equal hashes whatever the order of their ids."""
    sets = {labels: name for name, labels in {**NAMED, "raw": CITYSCAPES_RAW}.items()}
    assert sets[ADE20K] == "ade20k" and sets[CITYSCAPES] == "cityscapes"
    assert sets[CITYSCAPES_RAW] == "raw" and len(sets) == 6
    one, other = (LabelSet(("a", "b"), ids=ids) for ids in ({1: 0, 2: 1}, {2: 1, 1: 0}))
    assert one == other and hash(one) == hash(other)
    assert one != LabelSet(("a", "b"), ids={1: 1, 2: 0}) and one != LabelSet(("a", "b"))


def test_the_published_tables():
    """Sizes, first and last rows, mask values, as each dataset's authors publish them."""
    assert list(NAMED) == ["ade20k", "camvid", "cityscapes", "scenes", "voc2012"]
    assert [len(labels) for labels in NAMED.values()] == [150, 11, 19, 12, 21]
    rows = [(ADE20K, 0, "wall", (120, 120, 120)), (ADE20K, 149, "flag", (92, 0, 255))]
    rows += [(CAMVID, 3, "Road", (128, 64, 128)), (CAMVID, 10, "Bicyclist", (0, 128, 192))]
    rows += [(CITYSCAPES, 0, "road", (128, 64, 128)), (CITYSCAPES, 18, "bicycle", (119, 11, 32))]
    rows += [(VOC2012, 0, "background", (0, 0, 0)), (VOC2012, 20, "tvmonitor", (0, 64, 128))]
    for labels, index, name, color in rows:
        assert (labels.names[index], labels.colors[index]) == (name, color)
    assert ADE20K.ignore == 0 and ADE20K.ids == {index + 1: index for index in range(150)}
    assert [labels.ignore for labels in (CAMVID, CITYSCAPES, SCENES, VOC2012)] == [11] + [255] * 3
    assert all(labels.ids is None for labels in (CAMVID, CITYSCAPES, SCENES, VOC2012))


def test_label_ids_of_cityscapes_are_the_same_classes():
    """cityscapesScripts labels.py: ids 0..33, of which 19 have a train id."""
    trained = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    decoded = CITYSCAPES_RAW.decode(np.arange(35, dtype=np.uint8)[None])[0]
    assert decoded[trained].tolist() == list(range(19))
    assert (np.delete(decoded, trained) == 255).all()
    assert CITYSCAPES_RAW.names == CITYSCAPES.names and CITYSCAPES_RAW.colors == CITYSCAPES.colors


def test_class_ids_decode_to_themselves_and_void_to_255():
    labels = LabelSet(("a", "b", "c"), ignore=11)
    decoded = labels.decode(np.array([[0, 1], [2, 11]], np.uint8))
    assert decoded.dtype == np.uint8 and decoded.tolist() == [[0, 1], [2, 255]]


def test_raw_ids_decode_by_their_table():
    labels = LabelSet(("a", "b"), ids={7: 1, 8: 0, 9: 1, 10: 255})
    decoded = labels.decode(np.array([[7, 8, 9], [10, 255, 7]], np.uint8))
    assert decoded.tolist() == [[1, 0, 1], [255, 255, 1]]


def test_void_may_be_a_raw_value_that_is_also_a_class_id():
    """As in ADE20K: 0 is void in the file, 1 is class 0."""
    labels = LabelSet(("wall", "floor"), ignore=0, ids={1: 0, 2: 1})
    assert labels.decode(np.array([[0, 1, 2]], np.uint8)).tolist() == [[255, 0, 1]]


def test_a_mask_value_without_meaning_gets_one_line(refused):
    mask = np.array([[0, 1, 12]], np.uint8)
    message = refused(LabelSet(("a", "b"), ignore=11).decode, mask)
    assert "label 12" in message and "0..1" in message and "11 (void)" in message
    message = refused(LabelSet(("a", "b"), ids={1: 0, 12: 1}).decode, mask)
    assert "label 0" in message and "[1, 12]" in message


def test_an_empty_mask_decodes():
    assert CAMVID.decode(np.zeros((0, 4), np.uint8)).shape == (0, 4)


def test_the_default_colours_are_those_of_voc():
    published = [(128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128)]
    published += [(0, 128, 128), (128, 128, 128), (64, 0, 0), (192, 0, 0), (64, 128, 0)]
    published += [(192, 128, 0), (64, 0, 128), (192, 0, 128), (64, 128, 128), (192, 128, 128)]
    published += [(0, 64, 0), (128, 64, 0), (0, 192, 0), (128, 192, 0), (0, 64, 128)]
    assert list(voc_palette(20)) == published
    assert len(set(voc_palette(255))) == 255


def test_a_palette_has_the_colours_and_black():
    palette = LabelSet(("a", "b"), ((1, 2, 3), (4, 5, 6))).palette()
    assert palette.shape == (256, 3) and palette.dtype == np.uint8
    assert palette[:2].tolist() == [[1, 2, 3], [4, 5, 6]] and not palette[2:].any()


@pytest.mark.parametrize("count", [1, 255, 256, 300])
def test_any_number_of_classes_can_go_unnamed(count):
    labels = LabelSet.numbered(count)
    assert len(labels) == count and labels.names[-1] == f"class_{count - 1}"


def test_labels_load_by_name_and_from_a_file(tmp_path):
    assert load_labels("camvid") is CAMVID and load_labels("scenes") is SCENES
    file = tmp_path / "labels.json"
    file.write_text(json.dumps(CAMVID.to_config()))
    assert load_labels(str(file)) == CAMVID
    file.write_text(json.dumps(CAMVID.to_config() | {"uncovered": "void"}))  # for polygons
    assert load_labels(str(file)) == CAMVID


@pytest.mark.parametrize(
    "content",
    ["", "{", "[1, 2]", '{"names": []}', '{"names": ["a"], "ignore": 1e999}', b"\xff\xfe"],
)
def test_a_file_without_labels_gets_one_line_with_its_name(refused, tmp_path, content):
    file = tmp_path / "labels.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert str(file) in refused(load_labels, str(file))


def test_an_unknown_name_lists_the_known_ones(refused):
    message = refused(load_labels, "nowhere")
    assert "nowhere" in message and "camvid" in message and "scenes" in message


def test_mask_values_are_what_decode_takes(refused):
    labels = LabelSet(("a", "b", "c"), ids={5: 2, 90: 0, 181: 1, 7: 255})
    values = labels.mask_values()
    assert values.tolist() == [90, 181, 5] and values.dtype == np.uint8
    np.testing.assert_array_equal(labels.decode(values), [0, 1, 2])
    assert ADE20K.mask_values().tolist() == list(range(1, 151))
    several = LabelSet(("a", "b"), ids={1: 0, 2: 0, 3: 1})
    assert "class 'a' the values 1, 2" in refused(several.mask_values)
    assert "class 'b' no value" in refused(LabelSet(("a", "b"), ids={1: 0}).mask_values)
    assert "no ids" in refused(LabelSet(("a", "b")).mask_values)
