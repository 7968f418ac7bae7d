"""Every number format of the export: the contract, the figures in the card, the runtimes."""

import json
import sys

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

import keras_pspnet
from keras_pspnet import contract, proof, scenes
from keras_pspnet.contract import FORMATS
from keras_pspnet.files import UserError
from keras_pspnet.labels import SCENES
from keras_pspnet.model import set_labels
from keras_pspnet.quantize import _widen
from keras_pspnet.tflite_metadata import delegation

SIZE = (49, 57)
DARK = [scenes.scene(i, split="train", size=SIZE)[0] // 3 + 20 for i in range(4)]  # 20..105


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(3)
    model = keras_pspnet.build_pspnet(
        12, input_shape=(*SIZE, 3), backbone="resnet14_narrow", channels=32
    )
    set_labels(model, SCENES)
    images, _ = scenes.scenes(8, split="train", size=SIZE)
    for _ in range(20):
        model(images.astype(np.float32), training=True)
    return model


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("formats")
    return keras_pspnet.export_model(model, out, formats=tuple(FORMATS), calibration=DARK)


@pytest.fixture(scope="module")
def cards(exported):
    return {
        name: json.loads(file.with_name(f"{file.stem}.card.json").read_text())
        for name, file in exported.items()
    }


@pytest.mark.parametrize("name", FORMATS)
def test_each_file_takes_camera_bytes_and_gives_class_ids(exported, cards, name):
    network = keras_pspnet.load_model(exported[name])
    assert (network.output, network.size, network.labels) == ("classes", SIZE, SCENES)
    image = np.stack(DARK[:2])
    classes = network(image)
    assert classes.dtype == np.uint8 and classes.shape == (2, *SIZE)
    assert cards[name]["format"] == name and cards[name]["agreement_on"] == "4 given pictures"
    if exported[name].suffix == ".tflite":
        interpreter = Interpreter(str(exported[name]))
        assert interpreter.get_signature_list() == {
            "serving_default": {"inputs": ["image"], "outputs": ["classes"]}
        }
        spec = interpreter.get_signature_runner().get_input_details()["image"]
        # Whatever the calibration pictures hold, as these dark ones.
        assert spec["dtype"] == np.uint8 and spec["quantization"] in ((0.0, 0), (1.0, 0))
        assert cards[name]["compiled_model_agreement"] == 1.0
        assert not any("Flex" in operator for operator in cards[name]["operators"])


def test_the_cards_say_how_near_each_is(cards):
    agreement = {name: card["agreement"] for name, card in cards.items()}
    assert min(agreement[name] for name in ("saved_model", "float32", "onnx")) > 0.9999
    assert agreement["float16"] > 0.995
    assert min(agreement[name] for name in ("dynamic", "int8", "int16")) > 0.9
    sizes = {name: card["bytes"] / cards["float32"]["bytes"] for name, card in cards.items()}
    assert sizes["float16"] < 0.55 and max(sizes["int8"], sizes["dynamic"], sizes["int16"]) < 0.4
    assert cards["float32"]["long_convolutions"] == {}  # this one has none


def test_the_delegate_takes_all_that_it_can(model, tmp_path):
    """Scores at the network's size; what a new TensorFlow or LiteRT could quietly undo."""
    even = keras_pspnet.build_pspnet(
        12, input_shape=(89, 89, 3), backbone="resnet14_narrow", channels=32
    )
    even.set_weights(model.get_weights())
    names = ("float32", "float16", "int8")
    files = keras_pspnet.export_model(even, tmp_path, formats=names, output="logits")
    assert delegation(files["float32"]) == (1, ["CAST"])
    assert delegation(files["float16"]) == (1, ["CAST"])
    assert delegation(files["int8"]) == (1, ["CAST"])


def test_a_file_without_its_package_is_refused_in_one_line(model, tmp_path, monkeypatch, refused):
    for package in ("tf2onnx", "ai_edge_quantizer"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(contract.importlib.util, "find_spec", lambda name: None)
    assert set(contract.available_formats()) == set(FORMATS) - {"int16", "onnx"}
    message = refused(keras_pspnet.export_model, model, tmp_path / "out", formats=("onnx",))
    assert "tf2onnx and onnxruntime" in message and "keras-pspnet[mobile]" in message
    assert not (tmp_path / "out").exists()


def test_ranges_are_widened_picture_by_picture():
    ranges = {}
    for low, high in ((-1.0, 2.0), (-3.0, 1.0), (0.0, 5.0)):
        _widen(ranges, {"x": {"min": np.array([[low]]), "max": np.array([[high]])}, "y": {}})
    assert ranges == {"x": {"min": -3.0, "max": 5.0}, "y": {}}


def test_a_file_that_litert_cannot_compile_is_said_to_be(tmp_path, exported):
    network = keras_pspnet.load_model(exported["float32"])
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(exported["float32"].read_bytes()[:5000])
    with pytest.raises(UserError, match=r"broken\.tflite: LiteRT's CompiledModel cannot run it"):
        proof.compiled_agreement(broken, DARK[0][None], network)
