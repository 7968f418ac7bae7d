"""What `look`, `import` and `train` say of pictures that can be read and are doubtful."""

import shutil
import unicodedata

import numpy as np
import pytest
from annotation_kinds import KINDS, SIZE, picture, save, truth, write
from PIL import Image

from keras_pspnet import cli
from keras_pspnet.data.datasets import open_source, splits_of
from keras_pspnet.data.splitting import in_both
from keras_pspnet.train import recipes
from keras_pspnet.train.splits import about, open_splits

SMALL = recipes.recipe("folder_lite0", batch_size=2)


def lines_of(capsys, *arguments):
    assert cli.main(list(map(str, arguments))) == 0
    return capsys.readouterr().out.splitlines()


def said_by_train(root):
    sources = open_splits(SMALL, root)
    return about(SMALL, sources, [source.survey() for source in sources])


def said_by_look(capsys, root):
    return lines_of(capsys, "look", "--dataset", "folder", "--data-dir", root)


def warnings(lines):
    return [line for line in lines if line.startswith(("warning", "note"))]


def turn(file):
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(picture(0)).save(file, exif=exif)


@pytest.mark.parametrize(
    "kind, file, side",
    [
        ("ids", "images/train/p0.png", "its mask has none"),
        ("YOLO images/train", "images/train/p0.jpg", "its annotation does not say which way up"),
        ("Roboflow", "train/p0.jpg", "its annotation does not say which way up"),
    ],
)
def test_look_import_and_train_say_what_exif_turns(tmp_path, capsys, kind, file, side):
    root = tmp_path / "data"
    KINDS[kind](root)
    turn(root / file)
    (line,) = warnings(said_by_look(capsys, root))
    assert line == (
        f"warning: 1 picture is turned by its EXIF, {side}: look at the samples of "
        "`keras-pspnet look`"
    )
    assert warnings(said_by_train(root)) == [line]
    assert warnings(lines_of(capsys, "import", root, "--out", tmp_path / "out")) == [line]


def test_several_turned_pictures_are_several(tmp_path, capsys):
    KINDS["ids"](tmp_path)
    for number in range(2):
        turn(tmp_path / f"images/train/p{number}.png")
    (line,) = warnings(said_by_look(capsys, tmp_path))
    assert "2 pictures are turned by their EXIF, their masks have none:" in line


@pytest.mark.parametrize("high, count", [(4095, 2), (4300, 0)])
def test_pictures_of_12_bits_in_16_bit_files_are_told(tmp_path, capsys, high, count):
    KINDS["ids"](tmp_path)
    files = [tmp_path / f"images/train/p{number}.png" for number in range(2)]
    for file in files:
        values = np.random.default_rng(0).integers(0, high + 1, SIZE)
        values[0, 0] = high
        save(values.astype(np.uint16), file)
    found = warnings(said_by_look(capsys, tmp_path))
    assert found == warnings(said_by_train(tmp_path)) and len(found) == (count > 0)
    for line in found:
        assert line.startswith("warning: 2 pictures are almost black (no value above 16 of 255)")
        assert f"such as {files[0]}: 12 bits in 16-bit files? multiply their values" in line


def renamed(root, stem, new):
    for kind in ("images", "masks"):
        for file in (root / kind).glob(f"*/{stem}.png"):
            file.rename(file.with_stem(new))


@pytest.mark.parametrize(
    "train, val, seen",
    [
        ("street_01", "street_01", True),
        ("a_jpg.rf.0123", "a_jpg.rf.4567", True),
        ("a_jpg.rf.0123", "b_jpg.rf.0123", False),
        ("0001", "0001", False),  # each split counts from 1
        ("street_01", "street_02", False),
        ("caf\u00e9", "cafe\u0301", True),
    ],
)
def test_a_name_in_train_and_val_is_told(tmp_path, capsys, train, val, seen):
    KINDS["ids"](tmp_path)
    renamed(tmp_path, "p0", train)
    renamed(tmp_path, "p2", val)
    found = warnings(said_by_look(capsys, tmp_path))
    assert found == warnings(said_by_train(tmp_path))
    expected = (
        "warning: 1 of 1 pictures of val seem to be in train too, such as "
        f"{tmp_path}/images/val/{val}.png as {tmp_path}/images/train/{train}.png: scores would be "
        "too good; keep each in one split"
    )
    assert found == [expected] * seen


def test_the_bytes_of_a_picture_in_train_and_val_are_told(tmp_path):
    KINDS["ids"](tmp_path)
    shutil.copy(tmp_path / "images/train/p1.png", tmp_path / "images/val/p2.png")
    train, val = (open_source("folder", tmp_path, split=split) for split in ("train", "val"))
    (line,) = in_both(train, val)
    assert f"{tmp_path}/images/val/p2.png as {tmp_path}/images/train/p1.png" in line


def test_folders_of_one_split_may_hold_the_same_names(tmp_path):
    write(tmp_path / "data.yaml", "train: [images/a]\nval: [images/b]\nnames: [leaf]\n")
    for number, folder in enumerate("ab"):
        save(picture(number), tmp_path / f"images/{folder}/street_01.jpg")
        write(tmp_path / f"labels/{folder}/street_01.txt", "0 0.1 0.1 0.5 0.5 0.9 0.1")
    assert not in_both(*(open_source("folder", tmp_path, split=s) for s in ("train", "val")))


def test_a_single_picture_says_what_is_missing(tmp_path, capsys, refused):
    save(picture(), tmp_path / "images/a.png")
    save(truth(), tmp_path / "masks/a.png")
    (line,) = warnings(said_by_look(capsys, tmp_path))
    assert line == "note: val holds no pictures; `train` needs train and val: add some"
    message = refused(open_splits, SMALL, tmp_path)
    assert message == f"{tmp_path}: no pictures to validate on, 1 to train on; add pictures"


def test_a_batch_of_more_pictures_than_there_are_says_what_to_do(tmp_path, refused):
    KINDS["ids"](tmp_path)
    message = refused(open_splits, recipes.recipe("folder_lite0", batch_size=3), tmp_path)
    assert message.endswith("only 2 training pictures; add some, or give a smaller batch_size")


NAME = "straße ü"
DECOMPOSED = unicodedata.normalize("NFD", NAME)


@pytest.mark.parametrize("kind", KINDS)
def test_names_pair_in_both_of_unicodes_forms(tmp_path, kind):
    """Zip archives of macOS decompose the names of files, and no text in files."""
    KINDS[kind](tmp_path)
    for file in [f for f in tmp_path.rglob("*p2*") if f.is_file()]:
        picture_of = "mask" not in str(file) and "Class" not in str(file)
        stem = file.stem.replace("p2", DECOMPOSED if picture_of else NAME)
        if file.suffix in (".json", ".txt"):
            stem = NAME
        file.rename(file.with_stem(stem))
    for file in tmp_path.rglob("*"):
        if file.suffix in (".json", ".txt") and file.is_file():
            file.write_text(file.read_text().replace("p2", NAME))
    source = open_source("folder", tmp_path, split="val").paired()
    assert len(source) == 1 and DECOMPOSED in source.names[0]
    assert (source.read(0)[1] > 0).sum() == (truth(2) > 0).sum()


def test_a_file_instead_of_a_folder_gets_one_line(tmp_path, refused):
    file = tmp_path / "data.yaml"
    write(file, "names: [leaf]\n")
    message = refused(splits_of, "folder", file)
    assert message == f"{file}: is a file; give the folder that holds it"
