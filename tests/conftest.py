import contextlib
import functools
import gc
import os
import random
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
from PIL import Image

from keras_pspnet.errors import UserError

LONGEST = (
    "test_examples.py", "test_notebooks.py", "test_release.py", "test_devices.py",
    "test_deliver.py", "test_run.py", "test_coarse.py", "test_accumulate.py", "test_dilation.py",
    "test_user_script.py", "test_demo.py", "test_docs.py",
)  # fmt: skip
"""Names of the files whose tests take longest."""


def pytest_collection_modifyitems(items):
    """Begin with the longest files: two workers then end at about the same time."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(autouse=True)
def seeded():
    """Seed every random generator; Keras only if it is imported, as some tests run without it."""
    random.seed(0)
    np.random.seed(0)
    keras = sys.modules.get("keras")
    if keras is not None:
        keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True, scope="module")
def few_objects_to_collect():
    """Hide what a module's tests leave from Python's garbage collector.

    It would look through all of it during each later training, which then takes half as long again.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def refused():
    """Calls what must raise a UserError and returns its message, which must be one line."""

    def call(function, *args, **kwargs):
        with pytest.raises(UserError) as caught:
            function(*args, **kwargs)
        message = str(caught.value)
        assert message and "\n" not in message
        return message

    return call


@pytest.fixture
def folder(tmp_path):
    """A dataset in the folder layout: 5 pairs to train, without labels.json.

    Picture p{index} is one grey, 10 * index; its mask is id index % 3, with one void pixel.
    """
    for index in range(5):
        mask = np.full((9, 11), index % 3, np.uint8)
        mask[0, 0] = 255
        picture = np.full((9, 11, 3), 10 * index, np.uint8)
        for array, kind in ((picture, "images"), (mask, "masks")):
            (tmp_path / kind / "train").mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(tmp_path / kind / "train" / f"p{index}.png")
    return tmp_path


@pytest.fixture(scope="session")
def eagerly():
    """A context in which models are trained without tracing graphs.

    For what happens around a few steps: to trace the smallest network takes seconds.
    """

    @contextlib.contextmanager
    def context():
        import keras

        # Not by `compile`: a model whose class has another one is loaded without its losses.
        always = property(lambda model: True, lambda model, value: None)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(keras.Model, "run_eagerly", always)
            yield

    return context


@pytest.fixture(scope="session")
def seen_network():
    """Makes a tiny network whose batch norms have seen pictures, so that its classes vary.

    Tests share it: change only copies.
    """

    @functools.cache
    def make(channels):
        import keras

        import keras_pspnet
        from keras_pspnet import scenes
        from keras_pspnet.labels import SCENES
        from keras_pspnet.network.main_head import set_labels

        size = (49, 57)
        keras.utils.set_random_seed(3)
        model = keras_pspnet.build_pspnet(
            12, input_shape=(*size, 3), backbone="resnet14_narrow", channels=channels
        )
        set_labels(model, SCENES)
        images, _ = scenes.scenes(8, split="train", size=size)
        for _ in range(20):
            model(images.astype(np.float32), training=True)
        return model

    return make
