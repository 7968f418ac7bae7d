"""Pictures and masks are read and checked; files are written atomically."""

import concurrent.futures
import io
import os
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_pspnet import errors, files, images

COLORS = np.array([[[200, 10, 30], [0, 0, 0], [9, 99, 255]]] * 2, np.uint8)
COLORS[1] = COLORS[1, ::-1] // 2


def test_a_colour_picture_is_read_exactly(tmp_path):
    Image.fromarray(COLORS).save(tmp_path / "a.png")
    image = images.read_image(tmp_path / "a.png")
    assert image.dtype == np.uint8 and np.array_equal(image, COLORS)


def test_grey_palette_and_alpha_pictures_become_rgb(tmp_path):
    grey = np.array([[0, 7], [200, 255]], np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(images.read_image(tmp_path / "grey.png"), np.stack([grey] * 3, -1))

    palette = Image.fromarray(np.array([[0, 1], [1, 2]], np.uint8))
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    palette.save(tmp_path / "palette.png")
    expected = [[[10, 20, 30], [40, 50, 60]], [[40, 50, 60], [70, 80, 90]]]
    assert images.read_image(tmp_path / "palette.png").tolist() == expected

    alpha = np.dstack([COLORS, np.full(COLORS.shape[:2], 128, np.uint8)])
    Image.fromarray(alpha).save(tmp_path / "alpha.png")
    assert np.array_equal(images.read_image(tmp_path / "alpha.png"), COLORS)


@pytest.mark.parametrize(
    "orientation, stored",
    [(1, COLORS), (3, COLORS[::-1, ::-1]), (6, np.rot90(COLORS)), (8, np.rot90(COLORS, -1))],
)
def test_a_picture_is_turned_as_its_exif_says(tmp_path, orientation, stored):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(images.read_image(tmp_path / "a.png"), COLORS)


def test_a_sixteen_bit_grey_picture_keeps_its_contrast(tmp_path):
    Image.fromarray(np.array([[0, 0x4000, 0x8000, 0xFFFF]], np.uint16)).save(tmp_path / "a.png")
    image = images.read_image(tmp_path / "a.png")
    assert np.abs(image[0, :, 0] - np.array([0.0, 64, 128, 255])).max() <= 1


def damaged(kind, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    chunk = b"eXIfII*\0"  # ends before it says where its entries are
    chunk = len(chunk[4:]).to_bytes(4) + chunk + zlib.crc32(chunk).to_bytes(4)
    content = {
        "truncated": whole[:700],
        "header": whole[:20],
        "exif": whole[:33] + chunk + whole[33:],
        "text": b"not a picture\n",
        "empty": b"",
    }[kind]
    (tmp_path / "bad.png").write_bytes(content)
    return tmp_path / "bad.png"


@pytest.mark.parametrize("kind", ["truncated", "header", "exif", "text", "empty"])
@pytest.mark.parametrize("read", [images.read_image, images.read_mask])
def test_a_damaged_picture_gets_one_line_with_its_name(refused, tmp_path, read, kind):
    file = damaged(kind, tmp_path)
    message = refused(read, file)
    assert str(file) in message and "not a readable" in message


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "WEBP"])
def test_a_picture_cut_anywhere_is_refused_or_whole(tmp_path, form):
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 3
    noise = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    Image.fromarray(noise).save(stream, form, **({} if form == "BMP" else {"exif": exif}))
    whole, file = stream.getvalue(), tmp_path / "picture"
    file.write_bytes(whole)
    expected, refusals = images.read_image(file), 0
    for cut in range(0, len(whole), 5):
        file.write_bytes(whole[:cut])
        try:
            assert np.array_equal(images.read_image(file), expected)
        except errors.UserError as error:
            assert str(file) in str(error) and "\n" not in str(error)
            refusals += 1
    assert refusals > len(whole) // 5 * 0.5


@pytest.mark.parametrize("read", [images.read_image, images.read_mask])
def test_bytes_are_read_as_a_file_is_and_called_by_their_name(refused, tmp_path, read):
    whole = io.BytesIO(damaged("truncated", tmp_path).with_name("whole.png").read_bytes())
    for found, expected in zip(read(whole, "tfds:a/0"), read(tmp_path / "whole.png"), strict=True):
        assert np.array_equal(found, expected)
    cut = io.BytesIO((tmp_path / "bad.png").read_bytes())
    assert refused(read, cut, "tfds:a/0").startswith("tfds:a/0: not a readable ")


def test_a_mask_of_another_kind_is_called_by_its_name(refused):
    stream = io.BytesIO()
    Image.fromarray(COLORS[..., :2].copy()).save(stream, "PNG")
    assert refused(images.read_mask, stream, "tfds:a/0").startswith("tfds:a/0: a mask of mode LA")


@pytest.mark.parametrize("read", [images.read_image, images.read_mask, files.read_bytes])
def test_a_missing_file_gets_one_line_with_its_name(refused, tmp_path, read):
    message = refused(read, tmp_path / "none.png").lower()
    assert "none.png" in message and "no such file" in message


@pytest.mark.parametrize("read", [images.read_image, images.read_mask, files.read_bytes])
def test_a_folder_is_no_file(refused, tmp_path, read):
    assert str(tmp_path) in refused(read, tmp_path)


def test_mask_values_are_ids_in_grey_palette_and_one_bit_masks(tmp_path):
    ids = np.array([[0, 1, 2], [255, 7, 1]], np.uint8)
    Image.fromarray(ids).save(tmp_path / "grey.png")
    palette = Image.fromarray(ids)
    colors = np.arange(255, -1, -1)[:, None].repeat(3, 1) // [1, 2, 3]
    palette.putpalette(colors.astype(np.uint8).tobytes())
    palette.save(tmp_path / "palette.png")
    for name in ("grey.png", "palette.png"):
        mask, found = images.read_mask(tmp_path / name)
        assert mask.dtype == np.uint8 and np.array_equal(mask, ids)
        assert found is None if name == "grey.png" else np.array_equal(found, colors)
    Image.fromarray(ids == 1).save(tmp_path / "bits.png")
    mask, found = images.read_mask(tmp_path / "bits.png")
    assert mask.tolist() == [[0, 1, 0], [0, 0, 1]] and found is None


def test_a_short_palette_is_black_beyond_its_end(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8))
    image.putpalette([9, 8, 7, 6, 5, 4])
    image.save(tmp_path / "mask.png")
    _, palette = images.read_mask(tmp_path / "mask.png")
    assert palette.shape == (256, 3) and palette[:2].tolist() == [[9, 8, 7], [6, 5, 4]]
    assert not palette[2:].any()


@pytest.mark.parametrize("alpha", [False, True])
def test_a_mask_in_colours_is_read_as_colours(tmp_path, alpha):
    array = np.dstack([COLORS, np.full(COLORS.shape[:2], 9, np.uint8)]) if alpha else COLORS
    Image.fromarray(array).save(tmp_path / "mask.png")
    mask, palette = images.read_mask(tmp_path / "mask.png")
    assert np.array_equal(mask, COLORS) and palette is None


@pytest.mark.parametrize(
    "mode, array", [("I;16", np.full((2, 2), 300, np.uint16)), ("LA", COLORS[..., :2].copy())]
)
def test_masks_of_other_kinds_are_refused_by_mode(refused, tmp_path, mode, array):
    Image.fromarray(array).save(tmp_path / "mask.png")
    message = refused(images.read_mask, tmp_path / "mask.png")
    assert "mask.png" in message and f"mode {mode};" in message


@pytest.mark.parametrize("turn", range(1, 10))  # 9 means nothing
def test_an_array_is_turned_as_pillow_turns_a_picture_and_back(tmp_path, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    stored = np.arange(6, dtype=np.uint8).reshape(2, 3)
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    assert images.orientation(tmp_path / "a.png") == (turn if turn <= 8 else 1)
    upright = images.turned_upright(stored, turn)
    assert np.array_equal(upright, images.read_image(tmp_path / "a.png")[..., 0])
    assert np.array_equal(images.turned_upright(upright, turn, back=True), stored)


@pytest.mark.parametrize("ending", [".jfif", ".gif", ".avif"])
def test_pictures_of_phones_and_the_web_are_read(tmp_path, ending):
    if ending not in files.PICTURES:
        pytest.skip("this Pillow reads no AVIF")
    form = {".jfif": "JPEG"}.get(ending)
    Image.fromarray(np.full((8, 8, 3), 120, np.uint8)).save(tmp_path / f"a{ending}", form)
    assert files.pictures_in(tmp_path) == [tmp_path / f"a{ending}"]
    assert np.abs(images.read_image(tmp_path / f"a{ending}").astype(int) - 120).max() <= 3


@pytest.mark.parametrize("name", ["a.HEIC", "a.jpg", "a.dng"])
def test_pictures_that_are_not_read_are_called_what_they_are(refused, tmp_path, name):
    heic = b"\0\0\0\x18ftypheic" + bytes(40)
    (tmp_path / name).write_bytes(bytes(40) if name == "a.dng" else heic)
    ending = ".dng" if name == "a.dng" else ".heic"
    message = refused(images.read_image, tmp_path / name)
    expected = f"{tmp_path / name}: {ending} is not read here; convert it to JPEG or PNG"
    assert message == expected
    if name != "a.jpg":
        message = refused(files.pictures_in, tmp_path)
        assert f"{name} is there, but {ending} is not read" in message
        assert files.unread_pictures(tmp_path) == [tmp_path / name]


def test_files_that_are_not_read_are_counted(tmp_path):
    for name in ("a.png", "b.heic", "notes.txt", ".hidden", "._b.png"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    assert files.passed_over(tmp_path) == 2 and files.passed_over(tmp_path / "folder") == 0


def test_pictures_are_listed_in_order(tmp_path):
    for name in ("b.JPG", "a.png", "c.txt", ".d.png.partial"):
        (tmp_path / name).touch()
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "z.webp").touch()
    listed = files.list_images(tmp_path / "inside", tmp_path, tmp_path / "c.txt")
    expected = ["inside/z.webp", "a.png", "b.JPG", "c.txt"]
    assert listed == [tmp_path / name for name in expected]


def test_nothing_to_list_gets_one_line(refused, tmp_path):
    assert str(tmp_path) in refused(files.list_images, tmp_path)
    message = refused(files.list_images, tmp_path / "none")
    assert "none" in message and "no such file or folder" in message


def test_bytes_are_written_with_their_folders_and_nothing_beside(tmp_path):
    files.write_bytes(tmp_path / "x" / "y" / "file", b"one")
    files.write_bytes(tmp_path / "x" / "y" / "file", b"two")
    assert (tmp_path / "x" / "y" / "file").read_bytes() == b"two"
    assert [p.name for p in (tmp_path / "x" / "y").iterdir()] == ["file"]


def test_threads_that_write_one_file_write_it_whole(tmp_path):
    contents = [bytes([65 + i]) * 50_000 for i in range(4)]

    def work(content):
        for _ in range(40):
            files.write_bytes(tmp_path / "file", content)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(work, contents))
    assert (tmp_path / "file").read_bytes() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_process_left_is_written_over(tmp_path):
    with files.partial_beside(tmp_path / "file") as partial:
        pass
    partial.write_bytes(b"half of something longer")
    files.write_bytes(tmp_path / "file", b"new")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"file": b"new"}
    assert (tmp_path / "file").stat().st_mode & 0o111 == 0


FULL_DISK = """
import resource, sys
from keras_pspnet import errors, files
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    files.write_bytes(sys.argv[1], b"new" * 1000)
except errors.UserError as error:
    print(error)
"""


def write_on_a_full_disk(path):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=True
    )
    (line,) = done.stdout.splitlines()
    assert str(path) in line and "cannot be written" in line


def test_on_a_full_disk_the_old_file_stays_and_nothing_else(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    write_on_a_full_disk(tmp_path / "file")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"file": b"old"}


def test_on_a_full_disk_no_new_folder_stays(tmp_path):
    write_on_a_full_disk(tmp_path / "new" / "file")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("folder", ["there", "new", "new/nested"])
def test_whatever_fails_nothing_half_written_stays(refused, tmp_path, monkeypatch, call, folder):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_bytes(b"old")
    before = sorted(tmp_path.rglob("*"))

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    message = refused(files.write_bytes, tmp_path / folder / "file", b"new")
    assert "No space left on device" in message
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "there" / "file").read_bytes() == b"old"


@pytest.mark.parametrize("trouble", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_files_that_belong_together_are_replaced_together(tmp_path, monkeypatch, trouble):
    """The second cannot be written: the first one's old content stays too."""
    (tmp_path / "one").write_bytes(b"old")
    fsync, calls = os.fsync, []

    def fail(number):
        calls.append(number)
        if len(calls) == 2:
            raise trouble
        fsync(number)

    monkeypatch.setattr(os, "fsync", fail)
    expected = errors.UserError if isinstance(trouble, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        files.write_together({tmp_path / "one": b"new", tmp_path / "folder" / "two": b"new"})
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"one": b"old"}


def test_a_folder_in_the_way_of_one_of_them_is_named_before_any_is_replaced(refused, tmp_path):
    (tmp_path / "one").write_bytes(b"old")
    (tmp_path / "two").mkdir()
    pair = {tmp_path / "one": b"new", tmp_path / "two": b"new"}
    assert str(tmp_path / "two") in refused(files.write_together, pair)
    assert (tmp_path / "one").read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 2


def test_a_file_in_the_way_of_a_folder_gets_one_line(refused, tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    for path in ("file", "file/out", "file/out/deep"):
        assert str(tmp_path / path) in refused(files.writable_folder, tmp_path / path)
        assert "cannot be" in refused(files.write_bytes, tmp_path / path / "x", b"")
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_checking_a_folder_makes_nothing(tmp_path):
    assert files.writable_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert files.writable_folder(str(tmp_path)) == tmp_path
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_gets_one_line(refused):
    message = refused(files.writable_folder, "/proc/sys/out")
    assert "/proc/sys/out" in message and "cannot be written" in message


def test_names_for_files_of_one_name_differ():
    paths = ["a/x.png", "b/x.png", "a/x.jpg", "c/x.png", "y.png"]
    assert files.unique_stems(paths) == ["x", "x.png", "x.jpg", "x_2", "y"]
    paths = ["a/x.png", "b/x.png", "x_2.jpg", "c/x.png", "d/x.png", "x_2.jpg", "e/x.png"]
    expected = ["x", "x.png", "x_2", "x_3", "x_4", "x_2.jpg", "x_5"]
    assert files.unique_stems(map(Path, paths)) == expected
    assert files.unique_stems([]) == []


def test_names_that_differ_in_case_only_are_the_same_name():
    """They would be one file where the file system ignores case."""
    paths = ["one/A.png", "two/a.png", "three/a.PNG", "four/A.png", "B.jpg", "b.png"]
    assert files.unique_stems(paths) == ["A", "a.png", "a_2", "A_3", "B", "b.png"]


@pytest.mark.parametrize(
    "paths",
    [
        [f"pictures/{index:05d}.jpg" for index in range(20_000)],
        [f"{index}/frame.png" for index in range(2_000)],
    ],
    ids=["different", "equal"],
)
def test_naming_many_files_takes_no_time(paths):
    start = time.process_time()
    names = files.unique_stems(paths)
    assert time.process_time() - start < 1
    assert len({name.lower() for name in names}) == len(paths)


@pytest.mark.parametrize("bits", [2, 4])
def test_a_mask_of_few_bits_holds_its_ids(tmp_path, bits):
    """Written by hand: Pillow does not write grey PNGs of 2 or 4 bits."""
    import struct
    import zlib

    ids = np.arange(4, dtype=np.uint8)[None]
    packed = [sum(int(v) << (8 - bits * (k + 1)) for k, v in enumerate(ids[0][i : i + 8 // bits]))
              for i in range(0, 4, 8 // bits)]  # fmt: skip

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0))
    png += chunk(b"IDAT", zlib.compress(b"\x00" + bytes(packed))) + chunk(b"IEND", b"")
    (tmp_path / "mask.png").write_bytes(png)
    np.testing.assert_array_equal(images.read_mask(tmp_path / "mask.png")[0], ids)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_a_mask_whose_format_changes_ids_is_refused(refused, tmp_path, kind):
    file = tmp_path / "mask.png"
    image = Image.fromarray(np.zeros((8, 8), np.uint8))
    image.convert("RGB" if kind == "WEBP" else "L").save(file, format=kind)
    message = refused(images.read_mask, file)
    assert kind in message and "expected a PNG" in message


def test_hidden_files_are_no_pictures(tmp_path):
    for name in ("a.png", "._a.png", ".b.jpg", "B.PNG"):
        (tmp_path / name).touch()
    assert [file.name for file in files.pictures_in(tmp_path)] == ["B.PNG", "a.png"]


def test_a_sample_is_spread_evenly():
    assert files.evenly_spaced(list(range(5)), 32) == [0, 1, 2, 3, 4]
    assert (
        files.evenly_spaced(range(320), 32)[:3] == [0, 10, 20] and files.evenly_spaced([], 3) == []
    )


@pytest.mark.parametrize("name", ["[2024] run", "a*b", "why?", "back\\slash"])
def test_a_path_that_tensorflow_takes_for_a_pattern_gets_a_link(tmp_path, name):
    (tmp_path / name).mkdir()
    with files.plain_path(tmp_path / name) as place:
        assert not set(str(place)) & set("[]*?\\")
        (place / "file").write_text("x")
    assert (tmp_path / name / "file").read_text() == "x" and not place.exists()
    with files.plain_path(tmp_path) as place:
        assert place == tmp_path
