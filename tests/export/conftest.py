"""A tiny network, and its conversion once for the tests of what becomes of the files."""

import contextlib
import shutil

import pytest

import keras_pspnet
from keras_pspnet.export import deliver
from keras_pspnet.export.converters import Converter, write_saved_model


@pytest.fixture(scope="session")
def model(seen_network):
    return seen_network(channels=8)


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """A context in which exports of `model` to class ids are converted once, then copied."""
    kept, files = tmp_path_factory.mktemp("converted") / "saved_model", {}

    class Once(Converter):
        def convert(self, name):
            if name not in files:
                files[name] = super().convert(name), super().changes(name)
            return files[name][0]

        def changes(self, name):
            return files[name][1]

    def write(network, folder, *rest):
        if not kept.exists():
            write_saved_model(network, kept, *rest)
        shutil.copytree(kept, folder)

    @contextlib.contextmanager
    def context():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(deliver, "Converter", Once)
            patch.setattr(deliver, "write_saved_model", write)
            yield

    return context


@pytest.fixture
def converted_once(once):
    with once():
        yield


@pytest.fixture(scope="session")
def exported(model, once, tmp_path_factory):
    """The files of `model`."""
    out = tmp_path_factory.mktemp("export")
    with once():
        return keras_pspnet.export_model(model, out, formats=("saved_model", "float32"))
