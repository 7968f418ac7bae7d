"""The networks that come along: what they are, how they score, where they are found."""

import hashlib
import http.server
import importlib.util
import io
import json
import re
import threading
import tomllib
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

import keras_pspnet
from keras_pspnet import from_preset, segment
from keras_pspnet.data.datasets import open_source
from keras_pspnet.inference import presets
from keras_pspnet.inference.load import load_model, read_labels
from keras_pspnet.labels import LabelSet
from keras_pspnet.network.main_head import labels_of
from keras_pspnet.scoring import metrics

ROOT = Path(__file__).parents[2]
CARDS = presets.cards()

spec = importlib.util.spec_from_file_location("make_preset", ROOT / "benchmarks/make_preset.py")
make_preset = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_preset)


@pytest.mark.parametrize("name", CARDS)
def test_a_preset_is_what_its_card_says(name):
    card, file = CARDS[name], presets.preset_file(name)
    data = file.read_bytes()
    assert (card["name"], card["file"], card["bytes"]) == (name, file.name, len(data))
    assert card["sha256"] == hashlib.sha256(data).hexdigest() and len(data) <= 10e6
    assert file.with_suffix(".card.json").is_file()
    assert card["recipe"]["data_dir"] is None and not re.search(r"(^|[\s=])[/~]", card["command"])
    assert card["licence"] and card["trained_on"] and card["agreement"] >= 0.999
    labels = LabelSet.from_config(card["labels"])
    assert read_labels(f"preset:{name}") == labels
    model = from_preset(name)
    assert labels_of(model) == labels and not model.compiled
    assert list(model.input.shape[1:3]) == card["size"] == card["recipe"]["crop"]
    assert {w.dtype for w in model.weights} <= {"float32", "uint32"}  # seeds of dropout


@pytest.mark.parametrize("name", [n for n, card in CARDS.items() if card["dataset"] == "scenes"])
def test_a_preset_repeats_its_score(name):
    expected = CARDS[name]["scores"][1]
    model = from_preset(name)
    size = tuple(CARDS[name]["size"])
    source = open_source("scenes", split=expected["split"], size=size).first(expected["pictures"])
    found = metrics.evaluate(lambda image: segment(model, image), source.examples(), source.labels)
    assert found["images"] == 20
    # Another processor rounds otherwise; a class of the fewest pixels moves by this.
    assert found["mIoU"] == pytest.approx(expected["mIoU"], abs=1e-3)
    assert found["pixel_accuracy"] == pytest.approx(expected["pixel_accuracy"], abs=1e-4)


def test_the_package_has_the_card_of_every_preset_and_no_code():
    package, clone = presets.SHIPPED
    assert clone == ROOT / "presets" and (package / "scenes.keras").is_file()
    assert {path.suffix for path in package.iterdir()} <= {".json", ".keras"}
    assert {path.stem for path in package.glob("*.keras")} == {"scenes"}  # the wheel stays small
    for file in clone.glob("*.keras"):
        card = file.with_suffix(".card.json")
        assert card.read_bytes() == (package / card.name).read_bytes()


def test_the_card_of_an_exported_file_is_no_preset(tmp_path, monkeypatch):
    for file in ("street.keras", "street_int8.tflite"):
        card = tmp_path / file.replace(file[file.index(".") :], ".card.json")
        card.write_text(json.dumps({"file": file}))
    monkeypatch.setattr(presets, "SHIPPED", (tmp_path,))
    assert presets.cards() == {"street": {"file": "street.keras"}}


def test_the_page_lists_every_preset():
    rows = re.findall(r"^\| `(\w+)` .*$", (ROOT / "docs/presets.md").read_text(), flags=re.M)
    listed = {name for name in rows if name in CARDS}
    assert listed == set(CARDS)
    (row,) = re.findall(r"^\| `scenes`.*$", (ROOT / "docs/presets.md").read_text(), flags=re.M)
    card = CARDS["scenes"]
    assert f"| {card['bytes'] / 1e6:.1f} MB | {card['scores'][0]['mIoU']:.3f} on 100 " in row


def test_missing_presets_are_offered_by_the_repository():
    homepage = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Homepage"]
    assert f"{homepage}/raw/main/presets/{{}}.keras" == presets.ADDRESS


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny compiled network with an optimizer's state and odd variances, and its file."""
    keras.utils.set_random_seed(1)
    model = keras_pspnet.build_pspnet(
        3, input_shape=(49, 49, 3), backbone="resnet14_narrow", channels=8
    )
    loss = keras_pspnet.losses.VoidCrossentropy()
    model.compile(keras_pspnet.PSPNetSGD(0.01), loss={"main": loss, "aux": loss})
    model.optimizer.build(model.trainable_variables)
    variance = model.get_layer("layer0_1").moving_variance
    variance.assign(np.geomspace(1e-9, 1e6, variance.shape[0], dtype=np.float32))
    file = tmp_path_factory.mktemp("presets") / "trained.keras"
    model.save(file)
    return model, file


@pytest.fixture
def small(trained, tmp_path):
    path = tmp_path / "small.keras"
    path.write_bytes(make_preset.small_file(trained[1]))
    return path


def test_half_precision_is_loaded_as_float32_by_keras_alone(trained, small):
    model, file = trained
    loaded = keras.saving.load_model(small, safe_mode=True)
    assert not loaded.compiled
    halves = 0
    for before, after in zip(model.weights, loaded.weights, strict=True):
        assert (
            after.dtype == before.dtype and after.path.split("/")[1:] == before.path.split("/")[1:]
        )
        before, after = (keras.ops.convert_to_numpy(weight) for weight in (before, after))
        if np.array_equal(before, after):
            continue
        halves += 1
        np.testing.assert_array_equal(after, before.astype(np.float16).astype(np.float32))
        np.testing.assert_allclose(after, before, rtol=2.0**-11, atol=3e-8)
    assert halves > 20
    variances = [m.get_layer("layer0_1").moving_variance.numpy() for m in (model, loaded)]
    np.testing.assert_array_equal(*variances)
    assert small.stat().st_size < 0.3 * file.stat().st_size  # half, without momentum
    assert make_preset.small_file(file) == small.read_bytes()


def test_a_small_file_holds_the_layers_alone(small):
    with zipfile.ZipFile(small) as archive:
        assert archive.namelist() == ["config.json", "metadata.json", "model.weights.h5"]
        assert "compile_config" not in json.loads(archive.read("config.json"))
        assert json.loads(archive.read("metadata.json"))["date_saved"] == ""
        with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
            assert "optimizer" not in weights and "layers" in weights
            kernels = []
            weights.visititems(
                lambda _, item: kernels.append(item.dtype) if getattr(item, "ndim", 0) > 1 else None
            )
    assert len(kernels) > 20 and set(kernels) == {np.dtype(np.float16)}


@pytest.mark.parametrize(
    "array, fits",
    [
        ([1.0, -0.1, 0.0, 65504.0], True),
        ([1.0, 70000.0], False),  # beyond the largest
        ([1.0, 1e-7], False),  # a channel of its own, below the smallest
        ([[1.0, 0.5], [1e-7, 1e-8]], True),  # beside larger weights of its channel
        ([[1.0, 1e-7], [0.5, 1e-7]], False),  # a channel of tiny weights
        ([[0.0, 1.0]], True),
        (3.0, True),
        (1e-7, False),
    ],
)
def test_what_half_precision_does_not_hold_stays_as_it_is(array, fits):
    array = np.array(array, np.float32)
    found = make_preset.half(array)
    assert found.dtype == (np.float16 if fits else np.float32)
    np.testing.assert_array_equal(found, array.astype(found.dtype))
    assert make_preset.half(np.array([1, 2], np.uint32)).dtype == np.uint32


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Empty folders instead of the package's, the clone's and the cache."""
    shipped = (tmp_path / "package", tmp_path / "clone")
    for folder in shipped:
        folder.mkdir()
    monkeypatch.setattr(presets, "SHIPPED", shipped)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return (*shipped, tmp_path / "home" / "keras_pspnet")


def test_a_preset_is_found_in_the_package_the_clone_and_the_cache(places, small, refused):
    package, _, cache = places
    digest = hashlib.sha256(small.read_bytes()).hexdigest()
    (package / "street.card.json").write_text(json.dumps({"sha256": digest}))
    line = refused(from_preset, "street")
    assert line == (
        "preset 'street': its file is not here; fetch https://github.com/keras-pspnet/keras_pspnet/"
        f"raw/main/presets/street.keras and put it at {cache / 'street.keras'}"
    )
    assert not cache.exists()
    assert refused(load_model, "preset:street") == line
    cache.mkdir(parents=True)
    for folder in reversed(places):  # the first place wins
        (folder / "street.keras").write_bytes(small.read_bytes())
        for name in ("street", "preset:street"):
            assert presets.locate(name, None) == folder / "street.keras"
        assert presets.recipe_file("preset:street") == package / "street.card.json"
    (package / "street.keras").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    line = refused(from_preset, "street")
    assert line.startswith(f"{package / 'street.keras'}: its SHA-256 is ")
    assert line.endswith(f"expected {digest}; fetch it again")


def test_an_unknown_name_lists_the_known_ones(places, refused):
    for name in ("sea", "street"):
        (places[0] / f"{name}.card.json").write_text('{"sha256": ""}')
    for call, name in (
        (from_preset, "scnes"),
        (from_preset, "preset:scnes"),
        (load_model, "preset:scnes"),
        (read_labels, "preset:scnes"),
    ):
        line = refused(call, name)
        assert line == "preset 'scnes' is not known; expected one of sea, street"


def test_a_path_is_loaded_as_it_is(places, small, tmp_path, refused, monkeypatch):
    digest = hashlib.sha256(small.read_bytes()).hexdigest()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best.keras").write_bytes(small.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert isinstance(from_preset("run", sha256=digest.upper()), keras.Model)
    for path in (small, "small.keras", "run", tmp_path / "run"):
        assert presets.locate(path, digest).read_bytes() == small.read_bytes()
    for path in ("gone.keras", "gone/model", Path("gone")):
        assert refused(from_preset, path).startswith(f"{path}: no such file or folder; expected a")
    assert "expected 64 hexadecimal digits" in refused(from_preset, small, sha256="12ab")
    line = refused(from_preset, small, sha256="0" * 64)
    assert line.startswith(f"{small}: its SHA-256 is {digest}, expected 0000")
    (tmp_path / "model.tflite").write_bytes(b"\0\0\0\0TFL3")
    line = refused(from_preset, "model.tflite")
    assert line == "model.tflite: is a .tflite file; expected a .keras file"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves /whole.keras; less of it than announced under /part.keras; nothing else."""

    def do_GET(self):
        if self.path not in ("/whole.keras", "/part.keras"):
            return self.send_error(404)
        self.server.asked += 1
        data = self.server.data
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data if self.path == "/whole.keras" else data[:1000])
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def server(small):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.data, server.asked = small.read_bytes(), 0
        server.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_an_address_is_fetched_once(places, server):
    digest = hashlib.sha256(server.data).hexdigest()
    assert isinstance(from_preset(f"{server.address}/whole.keras", sha256=digest), keras.Model)
    presets.locate(f"{server.address}/whole.keras", digest)
    assert server.asked == 1
    (cached,) = places[2].iterdir()
    assert cached.name == f"{digest}.keras" and cached.read_bytes() == server.data
    cached.write_bytes(b"damaged")  # and is fetched anew
    assert presets.locate(f"{server.address}/whole.keras", digest) == cached
    assert server.asked == 2 and cached.read_bytes() == server.data


def test_what_an_address_does_not_give_gets_one_line_and_nothing_is_kept(places, server, refused):
    address, digest = f"{server.address}/whole.keras", hashlib.sha256(server.data).hexdigest()
    assert refused(from_preset, address).startswith(f"{address}: give sha256=")
    line = refused(from_preset, address, sha256="0" * 64)
    assert line.startswith(f"{address}: its SHA-256 is {digest}, expected 0000")
    for name, reason in (("gone.keras", "Not Found"), ("part.keras", "IncompleteRead")):
        line = refused(from_preset, f"{server.address}/{name}", sha256=digest)
        assert f"/{name}: cannot be downloaded ({reason}" in line and line.endswith("its path")
    server.shutdown()
    server.server_close()
    line = refused(from_preset, address, sha256=digest)
    assert "cannot be downloaded (" in line and "refused" in line
    assert not places[2].exists()
