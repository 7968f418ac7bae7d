"""A network for trainings that are compiled in no time."""

import pytest


@pytest.fixture(scope="session")
def tiny_network():
    """Makes a compiled network of a few layers for 33x33 pictures, with names, for equal bytes."""

    def make(optimizer=None, labels=None):
        import keras

        import keras_pspnet
        from keras_pspnet.labels import SCENES
        from keras_pspnet.network.losses import VoidCrossentropy
        from keras_pspnet.network.optimizer import PSPNetSGD

        labels = labels or SCENES
        image = x = keras.Input((33, 33, 3), name="picture")
        for stride in (2, 4):
            x = keras.layers.Conv2D(4, 3, stride, "same", name=f"stride_{stride}")(x)
        backbone = keras.Model(image, x, name="backbone")
        model = keras_pspnet.build_pspnet(
            len(labels),
            input_shape=(33, 33, 3),
            backbone=backbone,
            bins=(),
            channels=4,
            labels=labels,
        )
        loss, weights = VoidCrossentropy(), {"aux": 0.4, "main": 1.0}
        metric = keras.metrics.MeanIoU(
            len(labels), name="mIoU", sparse_y_pred=False, ignore_class=255
        )
        optimizer = optimizer or PSPNetSGD(0.05)  # Keras numbers the names of its own
        model.compile(
            optimizer, {"aux": loss, "main": loss}, metrics={"main": metric}, loss_weights=weights
        )
        model.optimizer.build(model.trainable_variables)
        return model

    return make
