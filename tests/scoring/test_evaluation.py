"""`keras_pspnet.evaluate`: the scores of a model on a dataset, from Python."""

import dataclasses
import json

import numpy as np
import pytest

import keras_pspnet
from keras_pspnet import cli, scenes
from keras_pspnet.data import datasets
from keras_pspnet.inference.segment import Protocol
from keras_pspnet.labels import SCENES, LabelSet
from keras_pspnet.scoring import metrics
from keras_pspnet.scoring.evaluation import protocol_on


@pytest.fixture(scope="module")
def network(seen_network):
    return seen_network(8)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setitem(datasets.SCENES, "val", 3)


def counted(network, **protocol):
    """An independent count on the first three held-out scenes of the network's size."""
    matrix = metrics.ConfusionMatrix(12)
    for index in range(3):
        image, mask = scenes.scene(index, split="val", size=(49, 57))
        matrix.update(mask, keras_pspnet.segment(network, image, **protocol))
    return matrix


@pytest.mark.parametrize("protocol", [{}, {"crop": (49, 57), "base": 70, "flip": True}])
def test_the_scores_are_those_of_segment(network, protocol):
    scores = keras_pspnet.evaluate(network, "scenes", verbose=False, **protocol)
    expected = counted(network, **protocol).scores(SCENES)
    assert {key: scores[key] for key in expected} == expected
    assert scores["images"] == 3 and scores["seconds"] > 0 and scores["mIoU"] > 0
    expected = dataclasses.asdict(Protocol(**protocol))
    assert scores["protocol"] == json.loads(json.dumps(expected))  # with lists


def test_the_command_gives_the_same(network, tmp_path, capsys):
    network.save(tmp_path / "model.keras")
    scenes.write_folder(tmp_path / "data", train=1, val=2, size=(40, 60))
    command = ["evaluate", tmp_path / "model.keras", "--dataset", "folder", "--data-dir"]
    command += [tmp_path / "data", "--boundary", "--json", tmp_path / "scores.json"]
    assert cli.main([str(word) for word in command]) == 0
    expected = json.loads((tmp_path / "scores.json").read_text())
    seen = []
    capsys.readouterr()
    for model in (network, str(tmp_path / "model.keras")):
        scores = keras_pspnet.evaluate(
            model, "folder", tmp_path / "data", boundary=True, on_picture=lambda *s: seen.append(s)
        )
        scores = json.loads(json.dumps(scores))
        assert scores.pop("seconds") > 0
        assert scores == {key: expected[key] for key in expected if key != "seconds"}
    assert len(seen) == 4 and seen[0][0].endswith(".png")
    assert "whole pictures resized to 49x57" in capsys.readouterr().out
    assert keras_pspnet.evaluate(network, "scenes", verbose=False) and not capsys.readouterr().out


def test_labels_name_the_models_classes(network, tmp_path, refused):
    def scored(labels):
        return keras_pspnet.evaluate(network, "scenes", labels=labels, verbose=False)

    (tmp_path / "labels.json").write_text(json.dumps(SCENES.to_config()))
    numbers = [scored(given)["mIoU"] for given in (None, SCENES, list(SCENES.names), "scenes")]
    assert len(set(numbers)) == 1 and scored(tmp_path / "labels.json")["mIoU"] == numbers[0]
    other = ["dragon", *SCENES.names[1:]]
    assert "class 0 is 'dragon' in the model" in refused(scored, other)
    assert "the model has 12 classes, the labels are 2" in refused(scored, ["a", "b"])
    assert "neither a file nor one of" in refused(scored, "nowhere")
    assert "expected a LabelSet, a list of names" in refused(scored, 12)


def test_what_is_wrong_is_said_before_a_picture_is_read(network, tmp_path, refused):
    def scored(*place, **named):
        return keras_pspnet.evaluate(network, *place, verbose=False, **named)

    assert "'nowhere' is not known" in refused(scored, "nowhere")
    assert "no split 'test'" in refused(scored, "scenes", split="test")
    assert "give --crop" in refused(scored, "scenes", scales=(0.5, 1))
    assert "expected --crop 49 57" in refused(scored, "scenes", crop=(33, 33))
    assert "no such file" in refused(keras_pspnet.evaluate, tmp_path / "no.keras", "scenes")


@pytest.mark.parametrize(
    "name, base", [("ade20k", 512), ("voc2012", 512), ("cityscapes", 2048), ("camvid", None)]
)
def test_the_long_side_of_the_authors_test(name, base):
    assert protocol_on(name, (49, 57), None, [1, 2], False).base == base
    assert protocol_on(name, (49, 57), 100, [1, 2], True) == Protocol((49, 57), 100, (1, 2), True)
    assert protocol_on(name, None, None, (1.0,), False) == Protocol()


def test_overlay_takes_names(network):
    image, mask = scenes.scene(0, size=(49, 57))
    names = [f"class {n}" for n in range(12)]
    found = keras_pspnet.overlay(image, mask, names)
    expected = keras_pspnet.overlay(image, mask, LabelSet(tuple(names)))
    np.testing.assert_array_equal(found, expected)
