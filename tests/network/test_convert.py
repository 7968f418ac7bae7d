"""Somebody else's PSPNets: tiny ones (tests/verify/torch_pspnet.py) with PyTorch's logits."""

import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_pspnet
from keras_pspnet.cli import main
from keras_pspnet.errors import UserError
from keras_pspnet.inference.load import load_model
from keras_pspnet.network import authors_names
from keras_pspnet.network.backbones import ResNet
from keras_pspnet.network.convert import convert, from_weights
from keras_pspnet.network.main_head import labels_of
from keras_pspnet.weights import caffe, foreign
from keras_pspnet.weights.mmseg import from_mmseg
from keras_pspnet.weights.reader import read_checkpoint
from keras_pspnet.weights.recognise import recognise

FILES = Path(__file__).parents[1] / "weights" / "checkpoints"
TINY = ResNet((1, 1, 1, 1), width=2)


@pytest.fixture(scope="module")
def expected():
    with np.load(FILES / "logits.npz") as file:
        return dict(file)


def assert_near(result, expected):
    result, span = np.asarray(result), np.ptp(expected)
    assert result.shape == expected.shape and span > 1
    assert np.abs(result - expected).max() < 1e-5 * span
    assert np.array_equal(result.argmax(-1), expected.argmax(-1))


@pytest.mark.parametrize(
    "file, network",
    [
        ("semseg.pth", "semseg"),
        ("semseg_legacy.pth", "semseg"),
        ("semseg.safetensors", "semseg"),
        ("mmseg.pth", "mmseg"),
        ("caffe.h5", "caffe"),
        ("caffe50.npy", "caffe50"),
    ],
)
def test_both_heads_give_the_logits_of_pytorch(expected, file, network):
    model = convert(FILES / file)
    output = model(expected["image"][None].astype(np.float32))
    if isinstance(output, dict):
        assert_near(output["aux"][0], expected[f"{network}_aux"])
        output = output["main"]
    else:
        assert file not in ("semseg.pth", "semseg.safetensors", "mmseg.pth")
    assert_near(output[0], expected[f"{network}_main"])


def test_the_example_tells_the_variants_apart(expected):
    """Each trait that a format has by itself changes the logits."""
    image = expected["image"][None].astype(np.float32)
    for file, network, trait in (
        ("mmseg.pth", "mmseg", {"align_corners": True}),
        ("mmseg.pth", "mmseg", {"contract_dilation": False}),
        ("caffe50.npy", "caffe50", {"stride_on_first": False}),
        ("caffe50.npy", "caffe50", {"normalization": foreign.IMAGENET}),
    ):
        weights = recognise(read_checkpoint(FILES / file), file)
        for name, value in trait.items():
            assert getattr(weights, name) != value
            setattr(weights, name, value)
        output = from_weights(weights, FILES / file)(image)
        output = output["main"] if isinstance(output, dict) else output
        reference = expected[f"{network}_main"]
        assert np.abs(np.asarray(output[0]) - reference).max() > 1e-3 * np.ptp(reference), trait


def test_a_converted_model_keeps_what_it_came_from(tmp_path, expected):
    model = convert(FILES / "mmseg.pth")
    model.save(tmp_path / "m.keras")
    loaded = load_model(tmp_path / "m.keras")
    source = loaded.get_layer("main").source
    assert source["file"] == "mmseg.pth" and source["format"] == "mmsegmentation"
    assert len(source["sha256"]) == 64
    labels = labels_of(loaded)
    assert labels.names == ("sky", "sea", "land") and labels.colors[1] == (4, 5, 6)
    result = loaded(expected["image"][None].astype(np.float32))["main"][0]
    assert_near(result, expected["mmseg_main"])
    assert keras_pspnet.segment(loaded, expected["image"][:30, :33]).shape == (30, 33)


def test_dropout_is_the_sources():
    spatial, plain = convert(FILES / "semseg.pth"), convert(FILES / "caffe.h5")
    assert isinstance(spatial.get_layer("cls_3"), keras.layers.SpatialDropout2D)
    layer = plain.get_layer("cls_3")
    assert type(layer) is keras.layers.Dropout and layer.rate == 0.1


def test_a_size_can_be_fixed():
    assert convert(FILES / "semseg.pth").input.shape == (None, None, None, 3)
    assert convert(FILES / "semseg.pth", size=(41, 57)).input.shape == (None, 41, 57, 3)


def test_the_bare_imagenet_file_initializes_a_backbone(expected):
    model = keras_pspnet.build_pspnet(
        3,
        input_shape=(41, 57, 3),
        backbone=TINY,
        channels=8,
        backbone_weights=FILES / "resnet_bare.pth",
    )
    whole = convert(FILES / "semseg.pth")
    ours, theirs = map(authors_names.named_variables, (model, whole))
    assert list(ours) == list(theirs)
    for key in ours:
        equal = np.array_equal(ours[key], theirs[key])
        assert equal == key.startswith("layer") or "running" in key or key.endswith("bias"), key


def test_published_class_counts_have_their_names():
    arrays = {"cls.4.weight": np.zeros((150, 8, 1, 1))}
    assert foreign.published_labels(arrays).names[0] == "wall"
    for classes, name in ((19, "road"), (21, "background"), (5, "class_0")):
        arrays["cls.4.weight"] = np.zeros((classes, 8, 1, 1))
        assert foreign.published_labels(arrays).names[0] == name


def test_the_configuration_in_an_mmsegmentation_file_is_read():
    arrays = foreign.state_dict(read_checkpoint(FILES / "mmseg.pth"), "file")
    config = "backbone=dict(dilations=(1, 1, 1, 1), contract_dilation=False), align_corners=True"
    weights = from_mmseg(arrays, {"config": config, "CLASSES": ["a", "b", "c"]})
    assert weights.output_stride == 32 and not weights.contract_dilation and weights.align_corners
    assert weights.labels.names == ("a", "b", "c")
    plain = from_mmseg(arrays, None)
    assert plain.output_stride == 8 and plain.contract_dilation and not plain.align_corners


def test_a_configuration_over_several_lines_is_read_too():
    """As mmengine writes it, with everything that makes another network."""
    arrays = foreign.state_dict(read_checkpoint(FILES / "mmseg.pth"), "file")
    config = "dilations=(\n  1,\n  1,\n  2,\n  2,\n),\npool_scales=(\n 1,\n 2,\n 4,\n 8,\n),"
    config += "style='caffe', mean=[\n 1.5,\n 2.5,\n 3.5\n], std=[1.0, 2.0, 3.0], bgr_to_rgb=False"
    weights = from_mmseg(arrays, {"cfg": config})
    assert weights.output_stride == 16 and weights.bins == (1, 2, 4, 8) and weights.stride_on_first
    assert weights.normalization == ((3.5, 2.5, 1.5), (3.0, 2.0, 1.0))
    assert not weights.contract_dilation
    stem = arrays["backbone.stem.0.weight"]
    assert np.array_equal(weights.arrays["layer0.0.weight"], stem[:, ::-1])


def test_a_configuration_of_another_network_gets_one_line(refused):
    arrays = foreign.state_dict(read_checkpoint(FILES / "mmseg.pth"), "file")
    config = {"cfg": "dilations=(1, 1, 1, 3)"}
    assert "dilation of 3" in refused(from_mmseg, arrays, config)


@pytest.mark.parametrize(
    "names, palette, expected",
    [
        (np.array(["a", "b", "c"]), np.arange(9).reshape(3, 3), ("a", "b", "c")),
        (["a", "b", "c"], "no colours", ("a", "b", "c")),
        (["a", "a", "b"], None, ("class_0", "class_1", "class_2")),
        (["a"], None, ("class_0", "class_1", "class_2")),
    ],
)
def test_names_that_cannot_be_used_are_left(names, palette, expected):
    arrays = foreign.state_dict(read_checkpoint(FILES / "mmseg.pth"), "file")
    about = {"classes": names} | ({} if palette is None else {"palette": palette})
    assert from_mmseg(arrays, {"dataset_meta": about}).labels.names == expected


# --- What does not fit: one line that names it, nothing executed, nothing written ---


def write_safetensors(path, arrays):
    header, body = {}, b""
    for key, value in arrays.items():
        raw = np.asarray(value, np.float32).tobytes()
        ends = [len(body), len(body) + len(raw)]
        header[key] = {"dtype": "F32", "shape": list(np.shape(value)), "data_offsets": ends}
        body += raw
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + body)


@pytest.fixture
def changed(tmp_path):
    """A semseg file with some keys changed; None takes one out."""

    def write(**changes):
        arrays = dict(read_checkpoint(FILES / "semseg.safetensors"))
        for key, value in changes.items():
            arrays.pop(key, None)
            if value is not None:
                arrays[key] = value
        write_safetensors(tmp_path / "changed.safetensors", arrays)
        return tmp_path / "changed.safetensors"

    return write


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"layer3.0.conv2.weight": None}, "no layer3.0.conv2.weight"),
        ({"cls.0.weight": None}, "no cls.0.weight"),
        ({"cls.4.weight": None}, "no cls.4.weight"),
        ({"aux.4.bias": None}, "no aux.4.bias"),
        ({"layer1.0.conv1.weight": None}, "no layer1.0.conv1.weight"),
        ({"ppm.features.2.1.weight": None}, "3 levels"),
        ({"layer2.0.bn9.weight": np.ones(4)}, "layer2.0.bn9.weight fits no layer"),
        ({"extra": np.ones(4)}, "extra fits no layer"),
        ({"cls.4.bias": np.ones(4)}, "cls.4.bias has the shape (4,)"),
        ({"layer4.0.conv2.weight": np.ones((16, 16, 1, 1))}, "layer4.0.conv2.weight has the shape"),
        ({"layer0.0.weight": np.ones(3)}, "layer0.0.weight"),
        ({"layer0.1.running_var": np.full(2, np.nan)}, "layer0.1.running_var holds values"),
        ({"cls.1.running_var": -np.ones(8)}, "cls.1.running_var"),
        ({"layer0.3.weight": None}, "no layer0.3.weight"),
        ({"layer1.0.conv1.weight": np.ones((0, 4, 1, 1))}, "layer1.0.conv1.weight"),
        ({"module.cls.4.bias": np.ones(3)}, "cls.4.bias appears twice"),
    ],
)
def test_a_key_too_many_or_too_few_or_of_another_shape_is_named(refused, changed, changes, says):
    path = changed(**changes)
    message = refused(convert, path)
    assert says in message and str(path) in message and len(message) < 400


def test_a_key_is_named_as_the_file_has_it(refused, tmp_path):
    mmseg = dict(foreign.state_dict(read_checkpoint(FILES / "mmseg.pth"), "file"))
    del mmseg["decode_head.psp_modules.1.1.bn.running_var"]
    write_safetensors(tmp_path / "a", mmseg)
    assert "no decode_head.psp_modules.1.1.bn.running_var" in refused(convert, tmp_path / "a")
    caffe = dict(read_checkpoint(FILES / "caffe50.npy"))
    del caffe["conv3_2_1x1_increase_bn"]
    np.save(tmp_path / "b.npy", caffe, allow_pickle=True)
    assert "no conv3_2_1x1_increase_bn/gamma" in refused(convert, tmp_path / "b.npy")


def test_caffe_names_lead_there_and_back():
    for key in foreign.state_dict(read_checkpoint(FILES / "caffe50.npy"), "file"):
        ours, _ = caffe._to_semseg_key(key)
        spelling = caffe._to_caffe_key(ours)
        assert spelling.split("/")[0] == key.split("/")[0]
        assert caffe._to_semseg_key(spelling)[0] == ours


@pytest.mark.parametrize(
    "value, says",
    [
        (np.array(["a", "b", "c"]), "expected numbers"),
        (np.ones(3, complex), "expected numbers"),
        (np.full(3, 1e300), "not finite"),
    ],
)
def test_arrays_of_other_things_are_named(refused, tmp_path, value, says):
    caffe = dict(read_checkpoint(FILES / "caffe50.npy"))
    caffe["conv6"] = {**caffe["conv6"], "biases": value}
    np.save(tmp_path / "a.npy", caffe, allow_pickle=True)
    message = refused(convert, tmp_path / "a.npy")
    assert "conv6/bias" in message and says in message


def test_what_is_no_pspnet_is_named(refused, tmp_path):
    write_safetensors(tmp_path / "a", {"encoder.0.weight": np.ones(3)})
    assert "encoder.0.weight" in refused(convert, tmp_path / "a")
    write_safetensors(tmp_path / "b", {})
    assert "nothing" in refused(convert, tmp_path / "b")
    assert "backbone_weights" in refused(convert, FILES / "resnet_bare.pth")
    basic = dict(foreign.state_dict(read_checkpoint(FILES / "mmseg.pth"), "file"))
    basic = {key: value for key, value in basic.items() if ".conv3." not in key}
    write_safetensors(tmp_path / "c", basic)
    assert "basic blocks" in refused(convert, tmp_path / "c")
    flat = {key: value for key, value in basic.items() if "stem" not in key}
    write_safetensors(tmp_path / "d", flat)
    assert "ResNetV1c" in refused(convert, tmp_path / "d")


class Evil:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def torch_zip(path, data):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)


@pytest.mark.parametrize("kind", ["zip", "npy"])
def test_a_pickle_that_calls_something_is_named_and_nothing_runs(
    refused, tmp_path, monkeypatch, capsys, kind
):
    proof, path = tmp_path / "ran", tmp_path / f"evil.{kind}"
    state = {"cls.0.weight": Evil(f"touch {proof}")}
    if kind == "zip":
        torch_zip(path, pickle.dumps({"state_dict": state}, 2))
    else:
        np.save(path, state, allow_pickle=True)
    assert ".system" in refused(convert, path)
    out = tmp_path / "out" / "model.keras"
    assert main(["convert", str(path), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "system" in said
    assert not proof.exists() and not out.parent.exists()


def test_a_file_cut_anywhere_is_refused(refused, tmp_path):
    for file in FILES.glob("[!l]*"):
        if file.suffix == ".npz":
            continue
        data = file.read_bytes()
        for share in (0.001, 0.3, 0.9, 0.9999):
            path = tmp_path / file.name
            path.write_bytes(data[: int(len(data) * share)])
            assert str(path) in refused(convert, path)


def test_changed_bytes_never_crash(tmp_path):
    random = np.random.default_rng(0)
    for file in FILES.glob("[!l]*"):
        data = np.frombuffer(file.read_bytes(), np.uint8)
        for _ in range(20):
            noise = data.copy()
            noise[random.integers(0, min(len(data), 4000), 8)] = random.integers(0, 256, 8)
            path = tmp_path / "noise"
            path.write_bytes(noise.tobytes())
            try:
                recognise(read_checkpoint(path), path)
            except UserError as error:
                assert "\n" not in str(error)


def test_classes_of_other_packages_are_inert(tmp_path):
    """As mmsegmentation's: the pickle names a class that nobody here has, state and all."""
    lines = b"\x80\x02}q\x00X\x04\x00\x00\x00metaq\x01cmmengine.logging.history_buffer\n"
    lines += b"HistoryBuffer\nq\x02)\x81q\x03}q\x04X\x01\x00\x00\x00xq\x05K\x01sbs."
    torch_zip(tmp_path / "inert.pth", lines)
    content = read_checkpoint(tmp_path / "inert.pth")
    assert type(content["meta"]).__name__ == "Inert"


def test_methods_that_a_pickle_names_are_not_looked_up(tmp_path):
    """mmengine's HistoryBuffer: getattr(HistoryBuffer, 'min') in protocol 2."""
    lines = b"\x80\x02}X\x01\x00\x00\x00ac__builtin__\ngetattr\ncmmengine.logging\nHistoryBuffer\n"
    lines += b"X\x03\x00\x00\x00min\x86Rs."
    torch_zip(tmp_path / "a.pth", lines)
    assert type(read_checkpoint(tmp_path / "a.pth")["a"]).__name__ == "Inert"
    stolen = b"\x80\x02c__builtin__\ngetattr\ncos\nsystem\nX\x01\x00\x00\x00x\x86R."
    torch_zip(tmp_path / "b.pth", stolen)
    with pytest.raises(UserError, match=r"os\.system"):
        read_checkpoint(tmp_path / "b.pth")


def test_a_pickle_cannot_change_the_program(tmp_path):
    """BUILD with attributes on a class that find_class has returned."""
    from keras_pspnet.weights import unpickler

    before = dict(vars(unpickler.Inert))
    lines = b"\x80\x02cfoo\nBar\n(N}X\x05\x00\x00\x00arrayK\x01stb."
    torch_zip(tmp_path / "a.pth", lines)
    with pytest.raises(UserError):
        read_checkpoint(tmp_path / "a.pth")
    assert dict(vars(unpickler.Inert)) == before


def test_small_files_cannot_take_the_memory(refused, tmp_path):
    large_index = b"\x80\x02}r\x00\x00\x00\x20."  # LONG_BINPUT at 2**29
    torch_zip(tmp_path / "a.pth", large_index)
    assert read_checkpoint(tmp_path / "a.pth") == {}
    nested = {}
    for _ in range(40):
        nested = {"a": nested, "b": nested, "c": 1}
    torch_zip(tmp_path / "b.pth", pickle.dumps(nested, 2))
    content = read_checkpoint(tmp_path / "b.pth")
    assert "same dict appears in several places" in refused(recognise, content, "b.pth")
    with zipfile.ZipFile(tmp_path / "c.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))
    assert "compressed" in refused(read_checkpoint, tmp_path / "c.pth")


@pytest.mark.parametrize("name", ["posix.system", "builtins.eval", "subprocess.Popen", "os.popen"])
@pytest.mark.parametrize("old", ["commands.getoutput", "__builtin__.exec", "__main__.f"])
def test_what_could_do_harm_is_refused_in_every_spelling(refused, tmp_path, name, old):
    for spelling in (name, old, "importlib.import_module", "runpy.run_path", "ctypes.CDLL"):
        module, _, function = spelling.rpartition(".")
        torch_zip(tmp_path / "a.pth", f"\x80\x02c{module}\n{function}\n.".encode("latin1"))
        assert function in refused(read_checkpoint, tmp_path / "a.pth")


def test_numbers_of_every_type_in_safetensors(tmp_path, refused):
    values = np.array([1.5, -2.0, 0.0], np.float32)
    header = {
        "half": {"dtype": "F16", "shape": [3], "data_offsets": [0, 6]},
        "brain": {"dtype": "BF16", "shape": [3], "data_offsets": [6, 12]},
        "__metadata__": {"format": "pt"},
    }
    body = values.astype("<f2").tobytes() + (values.view("<u4") >> 16).astype("<u2").tobytes()
    head = json.dumps(header).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(head).to_bytes(8, "little") + head + body)
    arrays = read_checkpoint(path)
    assert arrays["half"].tolist() == arrays["brain"].tolist() == values.tolist()
    header["half"]["dtype"] = "F8_E4M3"
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + body)
    assert "F8_E4M3" in refused(read_checkpoint, path)


def test_arrays_of_python_2_are_read(tmp_path):
    """The published .npy files come from Python 2: strings are bytes, arrays in protocol 0 to 2."""
    from numpy.lib import format as npy

    layers = {b"conv6": {b"biases": np.arange(3, dtype="<f4")}}
    stream = io.BytesIO()
    npy.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": ()})
    array = np.empty((), object)
    array[()] = layers
    path = tmp_path / "a.npy"
    path.write_bytes(stream.getvalue() + pickle.dumps(array, 2))
    assert read_checkpoint(path)["conv6"]["biases"].tolist() == [0, 1, 2]


def test_links_out_of_an_h5_file_are_not_followed(tmp_path, refused):
    import h5py

    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = np.ones(3)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["conv6/conv6/bias:0"] = np.ones(3)
        file["conv6/link"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/secret")
    assert list(read_checkpoint(tmp_path / "a.h5")) == ["conv6/conv6/bias:0"]
    (tmp_path / "raw").write_bytes(bytes(24))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("x", (3,), "f8", external=[(str(tmp_path / "raw"), 0, 24)])
    assert "another file" in refused(read_checkpoint, tmp_path / "b.h5")


def test_the_command(tmp_path, capsys):
    out = tmp_path / "made" / "model.keras"
    assert main(["convert", str(FILES / "semseg.pth"), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "semseg" in said and "both heads" in said and "any size" in said
    assert load_model(out).input.shape == (None, None, None, 3)
    assert [path.name for path in out.parent.iterdir()] == ["model.keras"]
    for arguments, says in (
        (["--out", str(tmp_path / "a.h5")], ".keras"),
        (["--out", str(out / "b.keras")], "is a file"),
        (["--out", str(tmp_path / "a.keras"), "--size", "0", "3"], "size"),
    ):
        assert main(["convert", str(FILES / "semseg.pth"), *arguments]) == 2
        assert says in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "none.pth"), "--out", str(tmp_path / "a.keras")]) == 2
    assert not (tmp_path / "a.keras").exists()
