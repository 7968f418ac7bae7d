"""What TensorFlow Datasets cannot give gets one line, and none of it asks the network."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from keras_pspnet.data import tfds_source
from keras_pspnet.data.datasets import open_source, splits_of


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def connect(*_):
        pytest.fail("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [])


@pytest.mark.parametrize(
    "name, says",
    [
        ("scene_parse150", "get ADEChallengeData2016 and use --dataset ade20k"),
        ("scene_parse150:1.0.0", "instances of 100 things"),
        ("voc", "boxes, no masks"),
        ("voc/2012", "get VOC 2012 itself and use --dataset voc2012"),
        ("cityscapes", "raw label ids"),
        ("cityscapes/semantic_segmentation", "use --dataset cityscapes"),
    ],
)
@pytest.mark.parametrize("call", [open_source, splits_of])
def test_builders_without_the_masks_one_expects_are_refused(
    refused, tmp_path, monkeypatch, call, name, says
):
    monkeypatch.setattr(tfds, "builder", lambda *_, **__: pytest.fail("it was opened"))
    arguments = {"split": "train"} if call is open_source else {}
    message = refused(call, f"tfds:{name}", tmp_path, **arguments)
    assert message.startswith(f"tfds:{name}: ") and says in message
    assert not list(tmp_path.iterdir())


def test_without_a_network_one_line_says_where_it_was_looked_for(refused, tmp_path, monkeypatch):
    def fail(*_):
        raise ConnectionError("HTTPSConnectionPool: retries exceeded\nand a page of text")

    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", fail)
    message = refused(open_source, "tfds:oxford_iiit_pet", tmp_path, split="train")
    assert message == (
        f"tfds:oxford_iiit_pet: is not in {tmp_path} and cannot be downloaded (ConnectionError: "
        "HTTPSConnectionPool: retries exceeded); connect, or give --data-dir with the prepared "
        "dataset"
    )


def test_without_names_for_addresses_nothing_is_tried(refused, tmp_path, monkeypatch):
    def fail(*_):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr(tfds_source.urllib.request, "getproxies", dict)
    monkeypatch.setattr(
        tfds.core.DatasetBuilder, "download_and_prepare", lambda _: pytest.fail("it was tried")
    )
    message = refused(open_source, "tfds:oxford_iiit_pet", tmp_path / "data", split="train")
    assert "name resolution" in message and not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", [open_source, splits_of])
def test_features_are_looked_at_before_anything_is_downloaded(refused, tmp_path, monkeypatch, call):
    monkeypatch.setattr(
        tfds.core.DatasetBuilder, "download_and_prepare", lambda _: pytest.fail("it was tried")
    )
    arguments = {"split": "train"} if call is open_source else {}
    message = refused(call, "tfds:mnist", tmp_path, **arguments)
    assert "image (1)" in message


@pytest.mark.parametrize("text", ["", "\n", "one\ntwo"])
def test_whatever_a_download_raises_is_one_line(refused, monkeypatch, text):
    def fail(_):
        raise RuntimeError(text)

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    message = refused(splits_of, "tfds:oxford_iiit_pet", None)
    assert f"(RuntimeError{': one' if text[:3].strip() else ''})" in message
    assert f"oxford_iiit_pet{os.sep}4.0.0 and cannot" in message  # TFDS's own place


def test_without_tfds_one_line_says_what_to_install(refused, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)  # an import raises ImportError
    message = refused(open_source, "tfds:oxford_iiit_pet", tmp_path, split="train")
    assert "pip install 'keras-pspnet[datasets]'" in message


def test_nothing_imports_tfds_before_it_is_asked_for(tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind / "train").mkdir(parents=True)
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / "images" / "train" / "a.png")
    Image.fromarray(np.eye(6, 8, dtype=np.uint8)).save(tmp_path / "masks" / "train" / "a.png")
    lines = [
        "import sys",
        "sys.modules['tensorflow'] = sys.modules['tensorflow_datasets'] = None",
        "from keras_pspnet.data.datasets import open_source, splits_of",
        "from keras_pspnet.errors import UserError",
        f"source = open_source('folder', {str(tmp_path)!r}, split='train')",
        "assert source.survey().pixels[:2].tolist() == [42, 6]",
        "for name in ('tfds:voc', 'tfds:oxford_iiit_pet'):",
        "    try: splits_of(name)",
        "    except UserError as error: print(error)",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], check=True, capture_output=True, text=True
    )
    refused, missing = done.stdout.splitlines()
    assert "boxes" in refused and "is not installed" in missing
