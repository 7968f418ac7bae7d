"""The script that a user writes, as the README shows it."""

import numpy as np

import keras_pspnet
from keras_pspnet import scenes


def test_a_users_own_script(tmp_path):
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
    model.fit(train.take(2), epochs=2, verbose=0)
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
