"""The files for devices: their contract, their agreement, and what happens without it."""

import dataclasses
import hashlib
import json
import re
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

import keras_pspnet
from keras_pspnet import scenes
from keras_pspnet.errors import UserError
from keras_pspnet.export import deliver, tflite_file
from keras_pspnet.export.converters import Converter
from keras_pspnet.export.delegate import delegation, operators
from keras_pspnet.inference.load import as_predictor
from keras_pspnet.labels import SCENES


def test_the_files_and_their_cards(exported):
    out = exported["float32"].parent
    names = {path.name for path in out.iterdir()}
    assert names == {
        "saved_model",
        "saved_model.card.json",
        "pspnet_float32.tflite",
        "pspnet_float32.card.json",
    }
    card = json.loads((out / "pspnet_float32.card.json").read_text())
    data = exported["float32"].read_bytes()
    assert card["sha256"] == hashlib.sha256(data).hexdigest()
    assert card["bytes"] == len(data)
    assert card["labels"] == list(SCENES.names) and card["colors"][0] == list(SCENES.colors[0])
    assert card["input"] == {"name": "image", "dtype": "uint8", "shape": [1, 49, 57, 3]}
    assert card["output"] == {"name": "classes", "dtype": "uint8", "shape": [1, 49, 57]}
    assert card["agreement"] >= 0.999 and card["agreement_on"] == "8 generated scenes"
    assert card["operators"] == operators(exported["float32"])
    assert set(card["agreement_by_class"]) == set(SCENES.names)
    shares = [share for share in card["agreement_by_class"].values() if share is not None]
    assert len(shares) > 3 and all(0 <= share <= 1 for share in shares)
    assert card["mIoU"] is None and card["IoU_by_class"] is None and card["warnings"] == []
    # Not what this process was started with: it may hold paths, in a notebook the kernel's.
    assert card["command"] == (
        "keras_pspnet.export_model(model, out, formats=('saved_model', 'float32'), size=None, "
        "output='classes')"
    )


def test_the_page_on_exports_lists_every_key_of_a_card(exported):
    card = json.loads(exported["float32"].with_suffix(".card.json").read_text())
    page = Path(deliver.__file__).parents[2] / "docs" / "export.md"
    table = page.read_text().partition("| key |")[2].partition("\n\n")[0]
    named = [key for row in re.findall(r"^\| (`.*?) \|", table, re.M) for key in row.split(", ")]
    assert sorted(named) == sorted(f"`{key}`" for key in card)


def test_the_tflite_signature_is_the_contract(exported):
    interpreter = Interpreter(str(exported["float32"]))
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["image"], "outputs": ["classes"]}
    }
    runner = interpreter.get_signature_runner("serving_default")
    image = runner.get_input_details()["image"]
    assert image["dtype"] == np.uint8 and image["shape"].tolist() == [1, 49, 57, 3]
    assert image["quantization"] in ((0.0, 0), (1.0, 0))
    classes = runner.get_output_details()["classes"]
    assert classes["dtype"] == np.uint8 and classes["shape"].tolist() == [1, 49, 57]


def test_every_file_says_what_keras_says(model, exported):
    images, _ = scenes.scenes(4, split="val", size=(49, 57))
    expected = as_predictor(model)(images).argmax(-1)
    assert len(np.unique(expected)) > 3  # a constant map would prove nothing
    for file in exported.values():
        found = keras_pspnet.load_model(file)
        assert found.output == "classes" and found.size == (49, 57) and found.labels == SCENES
        np.testing.assert_array_equal(found(images), expected)


def test_dilated_convolutions_are_fused_and_batch_norms_folded(exported):
    counts = operators(exported["float32"])
    assert "SPACE_TO_BATCH_ND" not in counts and not any("Flex" in name for name in counts)
    assert counts["MUL"] == 1  # the image normalization
    # stem 3, four blocks of 3 and their shortcuts, 4 pyramid levels, 2 of the main head; each
    # level's taps and their spread across, all levels' spread down
    assert counts["CONV_2D"] == 3 + 4 * 4 + 4 + 2 + 4 + 4 + 1


def test_labels_are_in_the_metadata(exported):
    from ai_edge_litert import schema_py_generated as schema

    data = exported["float32"].read_bytes()
    model = schema.Model.GetRootAs(data, 0)
    names = [model.Metadata(i).Name() for i in range(model.MetadataLength())]
    assert b"TFLITE_METADATA" in names
    entry = model.Metadata(names.index(b"TFLITE_METADATA"))
    metadata = model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
    assert metadata == tflite_file._model_metadata("classes")
    with zipfile.ZipFile(exported["float32"]) as archive:
        assert archive.read("labels.txt").decode().split() == list(SCENES.names)
        assert json.loads(archive.read("labels.json")) == SCENES.to_config()


def test_maps_of_any_size_stay_delegated(exported):
    """7x8 is no multiple of 2, 3 and 6; six maps in one CONCATENATION would leave the delegate."""
    partitions, outside = delegation(exported["float32"])
    # the network with the first strip of the class map, then the second strip
    assert partitions == 2
    waiting = ["CAST", "ARG_MAX", "STRIDED_SLICE", "STRIDED_SLICE", "MINIMUM", "CAST"]
    assert outside == [*waiting, "ARG_MAX", "CONCATENATION", "CAST"]


def test_a_model_that_diverged_is_not_handed_over(model, tmp_path):
    broken = keras.models.clone_model(model)
    broken.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    with pytest.raises(UserError, match="diverged"):
        keras_pspnet.export_model(broken, tmp_path / "out")


def test_the_auxiliary_head_is_left_out(model, exported):
    weights = sum(w.nbytes for layer in model.layers for w in layer.get_weights())
    aux = sum(
        w.nbytes for layer in model.layers if layer.name[:4] == "aux_" for w in layer.get_weights()
    )
    assert exported["float32"].stat().st_size < weights - 0.5 * aux


@pytest.mark.parametrize("output", ["logits", "probabilities"])
def test_scores_as_output(model, tmp_path, output):
    files = keras_pspnet.export_model(model, tmp_path, formats=("float32",), output=output)
    found = keras_pspnet.load_model(files["float32"])
    assert found.output == output
    images, _ = scenes.scenes(2, split="val", size=(49, 57))
    expected = model.predict(images, verbose=0)["main"]
    if output == "probabilities":
        expected = np.exp(expected) / np.exp(expected).sum(-1, keepdims=True)
    np.testing.assert_allclose(found(images), expected, atol=1e-4 * np.abs(expected).max())


def test_a_model_of_unknown_size_needs_one(model, tmp_path):
    free = keras_pspnet.build_pspnet(
        12, input_shape=(None, None, 3), backbone="resnet14_narrow", channels=8
    )
    free.set_weights(model.get_weights())
    with pytest.raises(UserError, match="--size"):
        keras_pspnet.export_model(free, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    files = keras_pspnet.export_model(free, tmp_path, formats=("float32",), size=(49, 57))
    images, _ = scenes.scenes(2, split="val", size=(49, 57))
    expected = as_predictor(model)(images).argmax(-1)
    np.testing.assert_array_equal(keras_pspnet.load_model(files["float32"])(images), expected)


def test_a_model_trained_in_half_precision_is_exported_in_float32(model, tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        half = keras_pspnet.build_pspnet(
            12, input_shape=(49, 57, 3), backbone="resnet14_narrow", channels=8
        )
    finally:
        keras.config.set_dtype_policy("float32")
    half.set_weights(model.get_weights())
    files = keras_pspnet.export_model(half, tmp_path, formats=("float32",), output="logits")
    images, _ = scenes.scenes(2, split="val", size=(49, 57))
    expected = model.predict(images, verbose=0)["main"]
    found = keras_pspnet.load_model(files["float32"])(images)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_pictures_with_masks_give_both_scores(model, tmp_path, converted_once):
    pairs = [scenes.scene(index, split="val", size=(60, 90)) for index in range(3)]
    files = keras_pspnet.export_model(model, tmp_path, formats=("float32",), calibration=pairs)
    card = json.loads(files["float32"].with_name("pspnet_float32.card.json").read_text())
    assert card["agreement_on"] == "3 given pictures"
    assert set(card["mIoU"]) == {"keras", "file"}
    assert card["mIoU"]["file"] == pytest.approx(card["mIoU"]["keras"], abs=0.02)
    assert 0 < card["mIoU"]["keras"] < 1
    classes = [iou["keras"] for iou in card["IoU_by_class"].values() if iou["keras"] is not None]
    assert np.mean(classes) == pytest.approx(card["mIoU"]["keras"])


def test_a_file_that_differs_is_refused_and_not_left_behind(
    model, tmp_path, monkeypatch, converted_once
):
    convert = deliver.Converter.convert

    def broken(self, name):
        """A file whose weights were shifted: it loads and runs, and is wrong."""
        data = bytearray(convert(self, name))
        middle = slice(len(data) // 3, len(data) // 3 + 40_000)
        data[middle] = np.frombuffer(bytes(data[middle]), np.uint8)[::-1].tobytes()
        return bytes(data)

    monkeypatch.setattr(deliver.Converter, "convert", broken)
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"pspnet_float32.tflite: only .*% of the pixels equal"):
        keras_pspnet.export_model(model, out)
    assert not out.exists()


def test_the_bar_can_be_raised(model, tmp_path, monkeypatch, converted_once):
    with pytest.raises(UserError, match="min_agreement"):
        keras_pspnet.export_model(model, tmp_path / "out", min_agreement=1.5)
    monkeypatch.setattr(
        deliver.ComparisonPictures,
        "compare",
        lambda *_, **__: {"agreement": 0.9995, "mIoU": None, "warnings": []},
    )
    keras_pspnet.export_model(model, tmp_path / "out", formats=("saved_model",))
    with pytest.raises(UserError, match=r"99.9500% .* at least 99.99%"):
        keras_pspnet.export_model(
            model, tmp_path / "other", formats=("saved_model",), min_agreement=0.9999
        )


def test_a_warning_is_said_once_and_stands_in_the_cards(model, tmp_path, capfd):
    narrow = keras.models.clone_model(model)
    narrow.set_weights(model.get_weights())
    kernel, bias = narrow.get_layer("cls_4").get_weights()
    narrow.get_layer("cls_4").set_weights([kernel, bias + 1e4 * (np.arange(12) == 3)])
    seen = f"the Keras model predicts {SCENES.names[3]} alone on all 8 pictures"
    expected = f"{seen}; agreement there proves little"
    capfd.readouterr()
    files = keras_pspnet.export_model(narrow, tmp_path)
    printed = capfd.readouterr()
    assert printed.err.count("WARNING") == printed.err.count(f"WARNING: {expected}\n") == 1
    assert not printed.out
    for file in files.values():
        card = json.loads(file.with_name(f"{file.stem}.card.json").read_text())
        assert card["warnings"] == [expected]


def test_a_file_under_95_percent_is_handed_over_with_a_warning(
    model, tmp_path, monkeypatch, converted_once
):
    compare = deliver.ComparisonPictures.compare
    monkeypatch.setattr(
        deliver.ComparisonPictures,
        "compare",
        lambda self, file, *rest, **options: compare(
            self, dataclasses.replace(file, run=lambda x: 0 * file.run(x)), *rest, **options
        ),
    )
    monkeypatch.setitem(deliver.MIN_AGREEMENT, "saved_model", 0.0)
    said = []
    out, formats = tmp_path / "out", ("saved_model",)
    keras_pspnet.export_model(model, out, formats=formats, say=said.append)
    card = json.loads((out / "saved_model.card.json").read_text())
    first, second = card["warnings"]
    assert "of the pixels equal the Keras model's" in first and "classes lose more than" in second
    assert said[-2:] == [f"WARNING: saved_model: {text}" for text in card["warnings"]]


def test_another_backend_says_where_to_export(model, tmp_path, monkeypatch, refused):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    message = refused(keras_pspnet.export_model, model, tmp_path / "out")
    assert "backend jax" in message and "KERAS_BACKEND=tensorflow" in message
    assert not (tmp_path / "out").exists()


def test_a_backbone_of_one_size_says_that_another_cannot_be_taken(refused, tmp_path):
    image = keras.Input((64, 64, 3))
    x = keras.layers.Conv2D(8, 3, 4, padding="same")(image)
    x = keras.layers.Reshape((16, 16, 8))(keras.layers.ReLU()(x))
    features = keras.layers.Conv2D(8, 3, 2, padding="same")(x)
    network = keras.Model(image, keras.layers.Conv2D(3, 1)(features))
    line = refused(deliver.with_fixed_size, network, (32, 32))
    assert "the model cannot take 32x32" in line


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"formats": ("float64",)}, "float64"),
        ({"formats": ()}, "no formats"),
        ({"formats": "float32"}, "expected several names"),
        ({"calibration": [np.zeros((9, 9))]}, "expected .H, W, 3."),
        ({"output": "colors"}, "colors"),
        ({"size": (0, 5)}, "size"),
        ({"calibration": []}, "no pictures"),
        ({"labels": keras_pspnet.LabelSet(("one",))}, "1 labels for a model of 12 classes"),
        ({"labels": "scenes"}, "labels: a str; expected a LabelSet"),
        ({"formats": None}, "expected several names"),
        ({"min_agreement": "0.9"}, "is not a share"),
        ({"formats": ("float32", "int8")}, "int8 needs calibration pictures"),
        ({"calibration": [np.zeros((49, 57, 3), np.uint8)] * 8}, "is one colour"),
        ({"calibration": np.random.default_rng(0).random((8, 49, 57, 3))}, "multiply by 255"),
        ({"formats": ("int8",), "calibration": "scene"}, "scene: no such file or folder"),
    ],
)
def test_requests_that_cannot_be_met(model, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        keras_pspnet.export_model(model, tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_pspnet50_at_473_is_one_delegated_partition(tmp_path):
    """The real network: what a new TensorFlow could quietly undo."""
    network = keras_pspnet.build_pspnet(150, aux=False)
    converter = Converter(network, tmp_path, "logits", keras_pspnet.LabelSet.numbered(150), None)
    file = tmp_path / "pspnet_float32.tflite"
    file.write_bytes(converter.convert("float32"))
    counts = operators(file)
    assert "SPACE_TO_BATCH_ND" not in counts and not any("Flex" in name for name in counts)
    # The image normalization and three of Winograd's sums: no loose batch norm.
    assert counts["MUL"] == 1 + 3
    # stem 3, blocks 3 * 16, shortcuts 4, pyramid 4, head 2, 9 of them dilated; the low-rank half
    # of the head's 3x3 9; its other half by Winograd's algorithm, six in two parts each
    assert converter.changes("float32") == {"cls_0": {"parts": 2, "winograd": True}}
    assert converter.changes("float16") == {"cls_0": {"parts": 4, "winograd": False}}
    assert converter.changes("int8") == {}
    assert counts["CONV_2D"] == 61 + 9 + 11 and counts["DEPTHWISE_CONV_2D"] == 6
    assert delegation(file) == (1, ["CAST"])
