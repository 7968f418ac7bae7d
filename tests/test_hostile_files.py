"""Damaged and hostile pictures, labels and folders: one line each, and nothing is left."""

import io
import json
import os
import struct

import numpy as np
import pytest
from PIL import Image

from keras_pspnet import cli
from keras_pspnet.files import read_bytes
from keras_pspnet.images import check_picture, read_image, read_mask
from keras_pspnet.labels import LabelSet, load_labels

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8)


def encoded(kind, **options):
    stream = io.BytesIO()
    Image.fromarray(np.dstack([GREY] * 3)).save(stream, kind, **options)
    return stream.getvalue()


def jpeg_in_tiff():
    """A TIFF whose strip is said to be a JPEG of another size."""
    data = bytearray(encoded("TIFF", compression="jpeg"))
    place = data.index(struct.pack("<HHIH", 257, 3, 1, 8))  # ImageLength
    data[place + 8] = 0
    return bytes(data)


def with_bad_exif():
    exif = Image.Exif()
    exif[0x010E] = "x" * 40
    data = encoded("JPEG", exif=exif)
    return data.replace(b"x" * 20, b"\xff" * 20)


DAMAGED = {
    "an AVIF": lambda: encoded("AVIF").replace(b"av01", b"av02", 1)[:-40],
    "a BLP": lambda: b"BLP2" + b"\x01" + bytes(200),
    "a program in PostScript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n",
    "a JPEG inside a TIFF": jpeg_in_tiff,
    "a TIFF cut off": lambda: encoded("TIFF", compression="tiff_lzw")[:-150],
    "a TIFF of wrong codes": lambda: encoded("TIFF", compression="tiff_lzw").replace(
        b"\x80\x00", b"\xff\xff", 1
    ),
    "a WebP": lambda: encoded("WEBP")[:-20],
    "a GIF": lambda: encoded("GIF")[:-30],
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_picture_is_one_line(refused, tmp_path, kind):
    file = tmp_path / "a.png"
    file.write_bytes(DAMAGED[kind]())
    for read in (read_image, read_mask):
        assert str(file) in refused(read, file)


def test_no_format_that_starts_a_program_is_read(refused, tmp_path):
    file = tmp_path / "a.jpg"
    file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n")
    assert "no format that is known" in refused(check_picture, file)


def test_what_libraries_say_of_a_picture_is_not_printed(tmp_path, capfd):
    folder = tmp_path / "data"
    for kind in ("images", "masks"):
        (folder / kind / "train").mkdir(parents=True)
        for number, make in enumerate((*DAMAGED.values(), with_bad_exif)):
            (folder / kind / "train" / f"{number}.png").write_bytes(make())
    (folder / "labels.json").write_text(json.dumps({"names": ["a", "b"]}))
    arguments = ["look", "--dataset", "folder", "--data-dir", str(folder)]
    assert cli.main([*arguments, "--out", str(tmp_path / "out")]) == 2
    assert capfd.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_look_that_refuses_leaves_no_samples(folder, capfd):
    mask = folder / "masks" / "train" / "p1.png"
    mask.write_bytes(mask.read_bytes()[:50])
    out = folder / "out"
    arguments = ["look", "--dataset", "folder", "--data-dir", str(folder), "--out", str(out)]
    assert cli.main(arguments) == 2
    assert "1 bad pair" in capfd.readouterr().err
    assert not out.exists()
    (folder / "labels.json").write_text(json.dumps({"names": [f"n{i}" for i in range(300)]}))
    assert cli.main(arguments) == 2
    assert capfd.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", ["\ud800", "a\udfff"])
def test_a_name_that_cannot_be_written_is_refused(refused, tmp_path, name):
    assert "half a character" in refused(LabelSet, ("a", name))
    file = tmp_path / "labels.json"
    file.write_text(json.dumps({"names": ["a", name]}))
    assert str(file) in refused(load_labels, str(file))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_in_the_place_of_a_file_is_refused_at_once(refused, folder, capfd):
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    for read in (read_bytes, read_image, load_labels):
        assert "pipe" in refused(read, str(pipe))
    for place in ("labels.json", "labelmap.txt", "masks/train/p1.png", "images/train/p2.png"):
        file = folder / place
        kept = file.read_bytes() if file.exists() else None
        file.unlink(missing_ok=True)
        os.mkfifo(file)
        cli.main(["look", "--dataset", "folder", "--data-dir", str(folder)])
        assert capfd.readouterr().err.count("\n") <= 1
        file.unlink()
        if kept:
            file.write_bytes(kept)
