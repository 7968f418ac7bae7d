"""The scripts that a user writes, as the README and docs/script.md show them."""

import json
import re
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import keras_pspnet
from keras_pspnet import scenes
from keras_pspnet.labels import SCENES

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "script.md").read_text(encoding="utf-8")
TUNING = (DOCS / "fine-tuning.md").read_text(encoding="utf-8")


@pytest.fixture
def no_warnings(recwarn, capfd):
    """Fails a script that shows a warning of Python, Keras or TensorFlow."""
    for hidden in (DeprecationWarning, PendingDeprecationWarning, ResourceWarning):  # by Python
        warnings.simplefilter("ignore", hidden)
    yield
    assert [str(warning.message) for warning in recwarn] == []
    assert "warn" not in capfd.readouterr().err.lower()


def test_a_users_own_script(tmp_path, no_warnings):
    train = keras_pspnet.data.load(
        "scenes", split="train", crop=(65, 65), batch_size=4, augment=True, seed=0
    )
    model = keras_pspnet.build_pspnet(
        12,
        input_shape=(65, 65, 3),
        backbone="efficientnet_lite0",
        backbone_weights="imagenet",
        output_stride=16,
        channels=16,
    )
    loss = keras_pspnet.losses.VoidCrossentropy()
    weights = {"main": 1.0, "aux": 0.4}
    model.compile("sgd", loss={"main": loss, "aux": loss}, loss_weights=weights)
    model.fit(train.take(2), epochs=2, shuffle=False, verbose=0)
    image, _ = scenes.scene(0, split="val", size=(100, 150))
    classes = keras_pspnet.segment(model, image)
    assert classes.shape == (100, 150)
    files = keras_pspnet.export_model(
        model, tmp_path, formats=("saved_model", "float32"), calibration=[image]
    )
    model.save(tmp_path / "model.keras")
    loaded = keras_pspnet.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras_pspnet.segment(loaded, image), classes)
    device = keras_pspnet.segment(keras_pspnet.load_model(files["float32"]), image)
    assert device.shape == (100, 150)


def test_the_complete_training_of_the_page(tmp_path, monkeypatch, no_warnings):
    section = PAGE.partition("## Validate, stop, keep the best\n")[2].partition("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```", section, flags=re.M | re.S)
    for full, tiny in {
        '"crop": (185, 185)': '"crop": (49, 49)',
        "(185, 185, 3)": "(49, 49, 3)",
        '"batch_size": 8': '"batch_size": 4',
        "seed=0, **size)": "seed=0, **size).take(2)",
        'split="val", **size)': 'split="val", **size).take(2)',
        '"efficientnet_lite0"': '"resnet14_narrow"',
        '    backbone_weights="imagenet",\n': "",
        "channels=128": "channels=8",
        "epochs = 20": "epochs = 2",
    }.items():
        assert code.count(full) == 1, full
        code = code.replace(full, tiny)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    scores = names["history"].history["val_main_mIoU"]
    assert len(scores) == 2 and 0 < max(scores) < 1
    # The model that is loaded is the best one, and its metric is that of its own predictions.
    best = names["model"].evaluate(names["val"], verbose=0, return_dict=True)
    assert best["main_mIoU"] == pytest.approx(max(scores), abs=1e-6)
    confusion = np.zeros((12, 12))
    for images, masks in names["val"]:
        truth = masks["main"].numpy()
        found = names["model"].predict_on_batch(images)["main"].argmax(-1)
        np.add.at(confusion, (truth[truth < 255], found[truth < 255]), 1)
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    expected = (confusion.diagonal()[union > 0] / union[union > 0]).mean()
    assert best["main_mIoU"] == pytest.approx(expected, abs=1e-6)


def test_in_fit_single_pictures_do_not_reach_the_norm_of_the_whole_map():
    """The pyramid's branch of one region has one value a channel: no batch to normalize by."""
    model = keras_pspnet.build_pspnet(
        12, input_shape=(49, 49, 3), backbone="resnet14_narrow", channels=8, aux=False
    )
    model.compile(keras.optimizers.SGD(1e-3), loss=keras_pspnet.losses.VoidCrossentropy())
    train = keras_pspnet.data.load("scenes", split="train", crop=(49, 49), aux=False).take(3)
    one_region, *others = [
        layer for layer in model.get_layer("ppm")._flatten_layers() if hasattr(layer, "moving_mean")
    ]
    assert len(others) == 3
    before = [layer.moving_variance.numpy() for layer in (one_region, *others)]
    history = model.fit(train, epochs=2, shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    after = [layer.moving_variance.numpy() for layer in (one_region, *others)]
    np.testing.assert_array_equal(after[0], before[0])
    assert all((new != old).all() for new, old in zip(after[1:], before[1:]))


def test_a_preset_becomes_a_network_for_two_classes(tmp_path, monkeypatch, no_warnings):
    section = TUNING.partition("## All of it in one script\n")[2].partition("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```", section, flags=re.M | re.S)
    monkeypatch.chdir(tmp_path)
    car = SCENES.names.index("car")
    for index in range(3):  # one of them becomes val
        image, mask = scenes.scene(index, split="train", size=(97, 97))
        for kind, array in (("images", image), ("masks", (mask == car).astype(np.uint8))):
            folder = tmp_path / "cars" / kind / "train"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / f"{index}.png")
    names = {"names": ["background", "car"]}
    (tmp_path / "cars" / "labels.json").write_text(json.dumps(names))
    made = {}
    exec(compile(code, "docs/fine-tuning.md", "exec"), made)
    _, truth = scenes.scene(0, split="val", size=(240, 320))
    assert (made["classes"] == truth)[truth != 255].mean() > 0.8
    assert made["shown"].shape == (240, 320, 3)
    file = keras_pspnet.load_model(made["files"]["float32"])
    assert file.labels.names == ("background", "car") and file.size == (97, 97)
