"""Pictures of any number of pixels, of every depth, and arrays of every range."""

import io
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from keras_pspnet import images
from keras_pspnet.images import as_picture, check_picture, read_image, read_mask

GREY = np.linspace(0, 65535, 97).astype(np.uint16)[None].repeat(3, 0)


def file_of(array, form="PNG", **options):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, form, **options)
    return stream


@pytest.mark.parametrize("form", ["PNG", "TIFF", "JPEG", "GIF", "BMP", "WEBP"])
def test_pillows_limit_of_pixels_does_not_hold(monkeypatch, form):
    array = np.arange(1200, dtype=np.uint8).reshape(30, 40) // 6
    stream = file_of(array, form)
    for limit in (1000, 100):  # Pillow warns above the first, and raises above twice the second
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with warnings.catch_warnings(action="error"):
            assert read_image(stream, "a").shape == (30, 40, 3)
            check_picture(stream, "a")
        assert limit == Image.MAX_IMAGE_PIXELS
    if form == "PNG":
        assert np.array_equal(read_mask(stream, "a")[0], array)


def test_the_limit_is_back_when_the_last_thread_has_read(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    streams = [file_of(np.zeros((30, 40), np.uint8)) for _ in range(2)]
    first_reads, second_has_read = threading.Event(), threading.Event()

    def read():
        with images.opened_picture(streams[0], "a") as image:
            first_reads.set()
            second_has_read.wait(10)
            image.load()

    thread = threading.Thread(target=read)
    thread.start()
    assert first_reads.wait(10)
    read_image(streams[1], "b")
    assert Image.MAX_IMAGE_PIXELS is None
    second_has_read.set()
    thread.join()
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize("read", [read_image, read_mask, check_picture])
def test_a_picture_larger_than_the_memory_gets_one_line(refused, monkeypatch, read):
    stream = file_of(np.zeros((30, 40), np.uint8))
    monkeypatch.setattr(images, "UNCHECKED", 0)
    monkeypatch.setattr(images, "free_memory", lambda: 30 * 40 * 16 - 1)
    message = refused(read, stream, "a.png")
    assert message.startswith("a.png: 40x30 pixels take 0.0 GB to decode, more than half of the ")
    for free in (30 * 40 * 16, None):
        monkeypatch.setattr(images, "free_memory", lambda free=free: free)
        read(stream, "a.png")


@pytest.mark.parametrize("kind, says", [(np.int32, "integers"), (np.float32, "floats")])
@pytest.mark.parametrize("read", [read_image, check_picture])
def test_32_bit_grey_gets_one_line(refused, kind, says, read):
    message = refused(read, file_of(GREY.astype(kind), "TIFF"), "a.tif")
    assert message.startswith(f"a.tif: 32-bit grey ({says}); expected 8 or 16 bits")


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_files_and_arrays_are_divided_by_257(form):
    expected = np.rint(GREY / 257)
    assert expected[0, 0] == 0 and expected[0, -1] == 255
    stream = file_of(GREY, form)
    check_picture(stream, "a")
    assert np.array_equal(read_image(stream, "a")[..., 1], expected)
    assert np.array_equal(as_picture(GREY[..., None].repeat(3, 2))[..., 1], expected)


def png_of_16_bits(array):
    """A PNG of 16 bits a channel, which Pillow does not write: array (H, W, C) of 3 or 4."""
    height, width, channels = array.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    stream = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        stream += struct.pack(">I", len(data)) + kind + data
        stream += struct.pack(">I", zlib.crc32(kind + data))
    return io.BytesIO(stream)


def test_8_bits_in_a_file_of_16_get_one_line(refused):
    grey = np.uint16([[28, 90, 238]])
    message = refused(read_image, file_of(grey), "a.png")
    assert message.startswith("a.png: values in 28..238 as 16 bits a channel; expected 0..65535")
    for channels in (3, 4):
        color = np.uint16([[[28, 90, 238, 65535][:channels]]])
        assert refused(read_image, png_of_16_bits(color), "a.png") == message
        color[..., :3] = 0
        assert not read_image(png_of_16_bits(color)).any()  # black is black
        color[..., :3] = [256, 512, 65535]
        assert read_image(png_of_16_bits(color)).tolist() == [[[1, 2, 255]]]
    assert not read_image(file_of(0 * grey)).any()


@pytest.mark.parametrize(
    "array, says",
    [
        (np.full((2, 2, 3), 0.5), "values in 0.5..0.5; expected 0..255: multiply by 255"),
        (np.eye(3, dtype=np.float16)[None], "values in 0..1; expected 0..255: multiply by 255"),
        (np.array([[[-1, 0, 0.9]]]), "values in -1..0.9; expected 0..255: undo the normalization"),
        (np.array([[[-2.1, 0, 2.6]]]), "values in -2.1..2.6; expected 0..255: undo the norm"),
        (np.array([[[0, 9, np.nan]]]), "NaN or infinite"),
        (np.array([[[0, 9, np.inf]]], np.float32), "NaN or infinite"),
        (np.ones((2, 2, 3), bool), "dtype bool; expected numbers in 0..255"),
        (np.ones((2, 2, 3), complex), "dtype complex128"),
        (np.array([[["1", "2", "3"]]]), "dtype <U1"),
        (np.array([[[0, 9, 320]]]), "values in 0..320; expected 0..255"),
        (np.array([[[-65.0, 9, 20]]]), "values in -65..20; expected 0..255"),
        (np.array([[[0, 9, 255]]], np.uint16), "values in 0..255 as uint16; expected 0..65535"),
        (np.zeros((2, 2)), "shape (2, 2)"),
    ],
)
def test_arrays_that_are_no_pictures_get_one_line(refused, array, says):
    assert says in refused(as_picture, array)


@pytest.mark.parametrize(
    "values, expected",
    [
        (np.uint8([0, 1, 1]), [0, 1, 1]),
        (np.float32([0, 0, 0]), [0, 0, 0]),
        (np.uint16([0, 0, 0]), [0, 0, 0]),
        (np.int64([0, 1, 255]), [0, 1, 255]),
        (np.float64([-64, 127.6, 319]), [0, 128, 255]),  # what cubic resizing gives
    ],
)
def test_arrays_that_are_pictures(values, expected):
    result = as_picture(values[None, None])
    assert result.dtype == np.uint8 and result.tolist() == [[expected]]


def test_checking_decodes_nothing(refused, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (400, 400), np.uint8)
    (tmp_path / "cut.png").write_bytes(file_of(noise).getvalue()[:9000])
    check_picture(tmp_path / "cut.png")
    assert "truncated" in refused(read_image, tmp_path / "cut.png")
    assert "no such file" in refused(check_picture, tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no picture")
    assert "not a readable picture" in refused(check_picture, tmp_path / "text.png")
