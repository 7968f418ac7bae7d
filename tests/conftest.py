import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

from keras_pspnet.files import UserError


@pytest.fixture(autouse=True)
def seeded():
    import keras

    keras.utils.set_random_seed(0)


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
