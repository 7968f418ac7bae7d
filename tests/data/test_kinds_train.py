"""A network is trained a step on every kind of annotations, and scored as on the plain layout."""

import numpy as np
import pytest
from annotation_kinds import KINDS, NAMED, masks_of, write

import keras_pspnet
from keras_pspnet.data import pipeline
from keras_pspnet.data.datasets import open_source
from keras_pspnet.inference.load import as_predictor
from keras_pspnet.scoring import metrics


@pytest.fixture(scope="module")
def network():
    model = keras_pspnet.build_pspnet(
        3,
        input_shape=(33, 33, 3),
        backbone="resnet14_narrow",
        channels=8,
        output_stride=16,
        dropout=0.0,
    )
    loss = keras_pspnet.losses.VoidCrossentropy()
    model.compile("sgd", loss={"main": loss, "aux": loss}, loss_weights={"main": 1.0, "aux": 0.4})
    return model, as_predictor(model), model.get_weights()


def trained_and_scored(network, root):
    """The loss of a step, and the scores after it."""
    model, predictor, weights = network
    model.set_weights(weights)
    batches = pipeline.load("folder", root, split="train", crop=(33, 33), batch_size=2)
    loss = model.train_on_batch(*next(iter(batches)))
    source = open_source("folder", root, split="val").paired()
    scores = metrics.evaluate(
        lambda image: keras_pspnet.segment(predictor, image), source.examples(), source.labels
    )
    del scores["seconds"]
    return np.asarray(loss), scores


@pytest.fixture(scope="module")
def plain(network, tmp_path_factory):
    """Of the plain layout with PNG and with JPEG pictures."""
    found = {}
    for suffix in (".png", ".jpg"):
        root = tmp_path_factory.mktemp("plain")
        masks_of(lambda mask: mask, NAMED, suffix=suffix)(root)
        found[suffix] = trained_and_scored(network, root)
    return found


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "ids"])
def test_every_kind_is_trained_and_scored_as_the_plain_layout(network, plain, tmp_path, kind):
    KINDS[kind](tmp_path)
    if kind.startswith("LabelMe"):  # in alphabetical order by itself
        write(tmp_path / "labels.json", NAMED)
    expected, expected_scores = plain[".jpg" if next(tmp_path.rglob("*.jpg"), None) else ".png"]
    loss, scores = trained_and_scored(network, tmp_path)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert scores == expected_scores


def test_other_masks_are_seen_in_the_loss_and_the_scores(network, plain, tmp_path):
    masks_of(lambda mask: 2 - mask, NAMED)(tmp_path)
    loss, scores = trained_and_scored(network, tmp_path)
    assert abs(loss[0] - plain[".png"][0][0]) > 1e-3 and scores != plain[".png"][1]
