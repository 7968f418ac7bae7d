"""A .keras file is looked at before Keras reads it: nothing here builds a network."""

import io
import json
import stat
import zipfile

import h5py
import keras
import numpy as np
import pytest

from keras_pspnet.network.keras_file import read_keras

CONV = {
    "module": "keras.layers",
    "class_name": "Conv2D",
    "config": {"name": "a", "filters": 8, "kernel_size": [3, 3], "activation": "relu"},
}
INPUT = {"module": "keras.layers", "class_name": "InputLayer", "config": {}}


def config_of(conv=None, shape=(None, 49, 49, 3), **changes):
    first = {**INPUT, "config": {"name": "image", "batch_shape": list(shape)}}
    layer = {**CONV, "config": {**CONV["config"], **(conv or {})}, **changes}
    return {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": {"name": "pspnet", "layers": [first, layer]},
    }


def weights(change=lambda file: None):
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["layers/a/vars/0"] = np.zeros((3, 3, 3, 8), np.float32)
        change(file)
    return stream.getvalue()


def good():
    return {
        "config.json": json.dumps(config_of()),
        "metadata.json": "{}",
        "model.weights.h5": weights(),
    }


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a .keras file; Keras would say that it has got it."""

    def to_file(members, edit=lambda archive: None):
        path = tmp_path / "a.keras"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
            edit(archive)
        return path

    monkeypatch.setattr(keras.saving, "load_model", lambda path: "Keras reads it")
    return to_file


def test_a_good_file_is_given_to_keras(write):
    assert read_keras(write(good())) == "Keras reads it"
    assert read_keras(write(good() | {"training_state.json": "{}"})) == "Keras reads it"


def function(module, name):
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


@pytest.mark.parametrize(
    "activation",
    [
        function("keras.utils", "plot_model"),
        function("keras.ops", "while_loop"),
        function("keras.config", "set_backend"),
        function("keras.distribution", "initialize"),
        {"module": "keras.utils", "class_name": "get_file", "config": {}},
        {"module": "keras", "class_name": "KerasTensor", "config": {}},
        {"module": "keras.layers", "class_name": "Lambda", "config": {"function": "a"}},
    ],
)
def test_only_what_networks_are_made_of_is_named(refused, write, activation):
    text = json.dumps(config_of({"activation": activation}))
    said = refused(read_keras, write(good() | {"config.json": text}))
    assert f"{activation['module']}." in said and "a.keras" in said


@pytest.mark.parametrize(
    "activation",
    [
        {"module": "keras.src.activations.activations", "class_name": "ReLU", "config": {}},
        {"module": "keras.src.applications.convnext", "class_name": "LayerScale", "config": {}},
    ],
)
def test_what_backbones_of_keras_are_made_of_is_read(write, activation):
    text = json.dumps(config_of({"activation": activation}))
    assert read_keras(write(good() | {"config.json": text})) == "Keras reads it"


@pytest.mark.parametrize(
    "config",
    [
        config_of({"filters": 30_000_000}),
        config_of({"filters": 2**70}),
        config_of({"kernel_size": [8, 8]}),
        config_of({"kernel_size": [0, 3]}),
        config_of(shape=(None, 0, 49, 3)),
        config_of(shape=(None, "49", 49, 3)),
        config_of(shape=(None, 49, 10**6, 3)),
    ],
)
def test_sizes_that_the_weights_do_not_have_are_refused(refused, write, config):
    refused(read_keras, write(good() | {"config.json": json.dumps(config)}))


def test_members_that_inflate_or_are_none_of_a_keras_file_are_refused(refused, write):
    large = bytes(2**25)
    for name in ("config.json", "model.weights.h5"):
        path = write({key: value for key, value in good().items() if key != name})
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, large)
        assert "inflates to 34 MB" in refused(read_keras, path)
    for name in ("assets/large", "../escaped", "/tmp/escaped", "model.weights.npz"):
        assert "members" in refused(read_keras, write(good() | {name: b"x"}))
    link = zipfile.ZipInfo("assets")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    edit = lambda archive: archive.writestr(link, "/etc")  # noqa: E731
    assert "members" in refused(read_keras, write(good(), edit))


def test_a_member_that_is_there_twice_is_refused(refused, write):
    with pytest.warns(UserWarning, match="Duplicate"):
        path = write(good(), lambda archive: archive.writestr("config.json", "{}"))
    assert "members" in refused(read_keras, path)


def test_weights_that_are_elsewhere_or_nowhere_are_refused(refused, write):
    def unwritten(file):
        file.create_dataset("b", (2**24,), "f4")

    def virtual(file):
        layout = h5py.VirtualLayout((3,), "f4")
        layout[:] = h5py.VirtualSource("/etc/passwd", "a", (3,))
        file.create_virtual_dataset("b", layout)

    for change, says in ((unwritten, "far larger"), (virtual, "in another file")):
        assert says in refused(read_keras, write(good() | {"model.weights.h5": weights(change)}))
