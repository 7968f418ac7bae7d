"""The parts of export/on_device/segment.py, export/benchmark.py and export/web/serve.py."""

import argparse
import hashlib
import http.server
import importlib.util
import io
import json
import multiprocessing
import queue
import socket
import struct
import sys
import tarfile
import threading
import time
import types
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shell import call

from keras_pspnet import images
from keras_pspnet.files import unique_stems
from keras_pspnet.labels import LabelSet

EXPORT = Path(__file__).parents[2] / "export"


def program(name):
    spec = importlib.util.spec_from_file_location(Path(name).stem, EXPORT / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


segment = program("on_device/segment.py")


def test_pictures_of_one_name_are_named_as_by_predict():
    paths = ["a/p.png", "b/p.png", "p.jpg", "c/p.png", "q.png", "p_2.png"]
    assert segment.unique_names(paths) == unique_stems(paths)
    assert segment.unique_names(paths) == ["p", "p.png", "p.jpg", "p_2", "q", "p_2.png"]
    cases = ["a/A.png", "b/a.png", "c/a.PNG", "d/A.Png", "a_2", "a_3.png", "A"]
    assert segment.unique_names(cases) == unique_stems(cases)
    assert segment.unique_names(cases) == ["A", "a.png", "a_2", "A_3", "a_2_2", "a_3.png", "A_4"]


def test_names_for_many_pictures_take_no_time():
    paths = [f"{folder}/frame.png" for folder in range(20_000)]
    start = time.perf_counter()
    assert segment.unique_names(paths)[-1] == "frame_19999"
    assert time.perf_counter() - start < 2


def test_a_picture_is_turned_as_its_camera_was(tmp_path):
    image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40).convert("RGB")
    exif = image.getexif()
    exif[0x0112] = 6  # Orientation: turn to the right
    image.save(tmp_path / "turned.png", exif=exif)
    found = segment.read_image(tmp_path / "turned.png")
    np.testing.assert_array_equal(found, np.rot90(np.asarray(image), -1))


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_32_bit_grey_is_refused_as_by_predict(tmp_path, kind, refused):
    Image.fromarray(np.zeros((4, 4), kind)).save(tmp_path / "a.tif")
    with pytest.raises(segment.UserError, match=r"a\.tif: 32-bit grey; expected 8 or 16 bits"):
        segment.read_image(str(tmp_path / "a.tif"))
    assert "a.tif: 32-bit grey" in refused(images.read_image, tmp_path / "a.tif")


def test_16_bit_grey_is_scaled_as_by_predict(tmp_path):
    grey = np.linspace(0, 65535, 97).astype(np.uint16)[None]
    for name in ("a.tif", "a.png"):
        Image.fromarray(grey).save(tmp_path / name)
        found = segment.read_image(str(tmp_path / name))
        assert np.array_equal(found[..., 0], np.rint(grey / 257))
        assert np.array_equal(found, images.read_image(tmp_path / name))


def test_a_picture_of_any_number_of_pixels_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.new("1", (40, 30)).save(tmp_path / "a.png")
    assert segment.read_image(str(tmp_path / "a.png")).shape == (30, 40, 3)


def test_a_picture_larger_than_the_memory_gets_one_line(monkeypatch):
    meminfo = "MemTotal: 9000000 kB\nMemAvailable: 600000 kB\n"
    monkeypatch.setattr("builtins.open", lambda *_, **__: io.StringIO(meminfo))
    with pytest.raises(segment.UserError, match=r"9600x9600 pixels take 0\.7 GB.*\(0\.6 GB\)"):
        segment.check(Image.new("1", (9600, 9600)), "a.png")
    segment.check(Image.new("1", (4800, 4800)), "a.png")


def test_an_overlay_has_the_colours_of_its_classes():
    classes = np.zeros((400, 300), np.int64)
    classes[:, 150:] = 2
    picture = np.full((400, 300, 3), 100, np.uint8)
    labels = {"names": ["a", "b", "c"], "colors": [[200, 0, 0], [0, 200, 0], [0, 0, 200]]}
    sheet = np.asarray(segment.overlay(picture, classes, labels))
    assert sheet.shape[1] == 300 and sheet.shape[0] > 400
    assert sheet[50, 50].tolist() == [155, 45, 45] and sheet[50, 250].tolist() == [45, 45, 155]
    below = {tuple(color) for color in sheet[400:].reshape(-1, 3).tolist()}
    assert {(200, 0, 0), (0, 0, 200)} <= below and (0, 200, 0) not in below


def test_a_class_map_is_enlarged_without_blending():
    small = np.array([[0, 1], [2, 3]], np.uint8)
    found = segment.segment(lambda _: small, (2, 2), np.zeros((4, 6, 3), np.uint8))
    np.testing.assert_array_equal(found, small.repeat(2, 0).repeat(3, 1))


@pytest.mark.parametrize("there", [True, False])
def test_what_was_there_stays_until_both_pictures_are_written(tmp_path, monkeypatch, there):
    out, image = tmp_path / "a" / "b", Image.new("L", (3, 3))
    pair = {str(out / "p_classes.png"): image, str(out / "p_overlay.png"): image}
    if there:
        segment.save(pair)
    before = {path: path.read_bytes() for path in out.glob("*")}
    assert len(before) == 2 * there
    save, calls = Image.Image.save, []

    def full(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        save(*arguments, **options)

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(segment.UserError, match="No space left"):
        segment.save({path: Image.new("L", (4, 4)) for path in pair})
    assert {path: path.read_bytes() for path in out.glob("*")} == before
    assert (tmp_path / "a").exists() == there


def test_a_folder_in_the_way_of_a_picture_is_named(tmp_path):
    (tmp_path / "p_overlay.png").mkdir()
    pair = {
        str(tmp_path / f"p_{kind}.png"): Image.new("L", (3, 3)) for kind in ("classes", "overlay")
    }
    with pytest.raises(segment.UserError, match=r"p_overlay\.png: is a folder"):
        segment.save(pair)
    assert [path.name for path in tmp_path.iterdir()] == ["p_overlay.png"]


def test_an_old_pillow_is_told_so():
    """Debian 12 has 9.4, whose own font has one size."""
    code = "import PIL.Image, runpy; PIL.__version__ = '9.4.0'; runpy.run_path({!r})"
    done = call(sys.executable, "-c", code.format(segment.__file__))
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "Pillow is 9.4.0, expected 10.1" in done.stderr


def test_a_process_that_is_killed_is_said_to_be(refused):
    benchmark = program("benchmark.py")
    ours, theirs = multiprocessing.Pipe()

    def die():  # without reading what was asked, as when there is no memory left
        theirs.poll(60)
        theirs.close()

    threading.Thread(target=die).start()
    for word in ("run", "end"):
        assert "a.tflite: its process died" in refused(benchmark._ask, "a.tflite", ours, word)


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """The page's server, with packages of its own as what npm publishes."""
    serve = program("web/serve.py")
    (tmp_path / "npm").mkdir()
    digests = {}
    for name in serve.PACKAGES:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:gz") as archive:
            info = tarfile.TarInfo("package/package.json")
            info.size = 2
            archive.addfile(info, io.BytesIO(b"{}"))
        file = tmp_path / "npm" / name / "-" / f"{name}-{serve.VERSION}.tgz"
        file.parent.mkdir(parents=True)
        file.write_bytes(stream.getvalue())
        digests[name] = hashlib.sha512(stream.getvalue()).hexdigest()
    monkeypatch.setattr(serve, "REGISTRY", (tmp_path / "npm").as_uri())
    monkeypatch.setattr(serve, "PACKAGES", digests)
    monkeypatch.setattr(serve, "CACHE", tmp_path / "cache")
    return serve


def test_the_browsers_runtime_is_downloaded_once(serve, capsys):
    for downloads in (2, 0):
        folder = serve.runtime_folder()
        assert sorted(path.name for path in folder.iterdir()) == ["core", "wasm-utils"]
        assert (folder / "core" / "package.json").read_text() == "{}"
        assert len(capsys.readouterr().out.splitlines()) == downloads


@pytest.mark.parametrize("trouble, says", [("other", "not the published one"), ("none", "can")])
def test_what_was_not_published_is_not_kept(serve, refused, tmp_path, trouble, says):
    for file in (tmp_path / "npm").rglob("*.tgz"):
        file.write_bytes(b"other") if trouble == "other" else file.unlink()
    assert says in refused(serve.runtime_folder)
    assert not serve.CACHE.exists() or not list(serve.CACHE.iterdir())


def test_a_page_that_is_closed_before_its_answer_is_no_error(serve, tmp_path, monkeypatch, capsys):
    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = False  # its end waits for every answer

        def __init__(self, *arguments):
            super().__init__(*arguments)
            opened.put(self)

    opened = queue.Queue()
    described = types.SimpleNamespace(size=(4, 4), output="classes", labels=LabelSet(("a", "b")))
    monkeypatch.setattr(serve, "check_model", lambda *_: "tflite")
    monkeypatch.setattr(serve, "load_model", lambda _: described)
    monkeypatch.setattr(serve.http.server, "ThreadingHTTPServer", Server)
    options = argparse.Namespace(file=tmp_path / "a.tflite", port=0)
    running = threading.Thread(target=serve.serve, args=(options,))
    running.start()
    server = opened.get(timeout=60)
    page = socket.create_connection(server.server_address)
    page.sendall(b"GET /")
    page.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    page.close()  # is a reset, not an end
    with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/model.json") as answer:
        assert json.load(answer)["size"] == [4, 4]
    server.shutdown()
    running.join()
    assert "Traceback" not in capsys.readouterr().err
