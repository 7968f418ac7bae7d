"""`keras-pspnet look`: every bad file in one run, and what a good dataset holds."""

import json
import os
import re

import numpy as np
import pytest
from PIL import Image

from keras_pspnet import cli
from keras_pspnet.data.datasets import open_source
from keras_pspnet.labels import CAMVID, SCENES
from keras_pspnet.scenes import scene, write_folder

VOID = {"folder": 255, "camvid": 11}


def save(array, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(path, **options)


def places(layout, root, split, name):
    """The paths of a picture and of its mask."""
    if layout == "folder":
        return root / "images" / split / name, root / "masks" / split / name
    return root / split / name, root / f"{split}annot" / name


def dataset(layout, root, count=6):
    """Noise with stripes of the first 4 classes as masks; the first row is void."""
    rng = np.random.default_rng(0)
    for split, pictures in (("train", count), ("val", 2)):
        for index in range(pictures):
            picture, mask = places(layout, root, split, f"{index}.png")
            save(rng.integers(0, 256, (40, 50, 3), np.uint8), picture)
            ids = rng.integers(0, 4, (1, 50), np.uint8).repeat(40, 0)
            ids[0] = VOID[layout]
            save(ids, mask)
    if layout == "folder":
        names = {"names": ["sky", "sea", "sand", "stone"]}
        (root / "labels.json").write_text(json.dumps(names))
    return root


def spoil(layout, root, splits=("train",) * 4):
    """Breaks four pairs, each in its own way; returns what must be named, in order."""
    pictures, masks = zip(*(places(layout, root, splits[i], f"{i}.png") for i in range(4)))
    masks[0].unlink()
    save(np.zeros((41, 50), np.uint8), masks[1])
    pictures[2].write_bytes(pictures[2].read_bytes()[:2000])
    save(np.full((40, 50), 77, np.uint8), masks[3])
    return [pictures[0], masks[1], pictures[2], masks[3]]


def run(capfd, *arguments):
    """(exit code, lines of stdout, lines of stderr) of a command."""
    capfd.readouterr()
    code = cli.main([str(argument) for argument in arguments])
    captured = capfd.readouterr()
    return code, captured.out.splitlines(), captured.err.splitlines()


@pytest.mark.parametrize("layout", ["folder", "camvid"])
def test_four_bad_files_are_named_in_one_run(tmp_path, capfd, layout):
    root = dataset(layout, tmp_path / "data")
    files = spoil(layout, root)
    out = tmp_path / "seen"
    code, lines, errors = run(capfd, "look", "--dataset", layout, "--data-dir", root, "--out", out)
    assert code == 2
    bad = [line for line in lines if line.startswith("bad: ")]
    says = ("no mask of this name", "is 50x41 pixels, its picture 50x40", "not a readable picture",
            "label 77 is out of range")  # fmt: skip
    assert len(bad) == 4
    for line, file, words in zip(bad, files, says):
        assert line.startswith(f"bad: {file}: {words}")
    assert errors == [f"keras-pspnet: {root}: 4 bad pairs, named above; fix or remove them"]
    assert "train: 2 good pairs, 50x40 pixels" in lines
    assert "val: 2 good pairs, 50x40 pixels" in lines
    assert not out.exists()


@pytest.mark.parametrize("layout", ["folder", "camvid"])
@pytest.mark.parametrize("splits", [("train",) * 4, ("train", "val", "train", "train")])
def test_a_training_stops_before_its_first_step(tmp_path, capfd, monkeypatch, layout, splits):
    root = dataset(layout, tmp_path / "data")
    files = spoil(layout, root, splits)
    monkeypatch.setattr("keras_pspnet.train.loop.build", lambda *_: pytest.fail("it began"))
    out = tmp_path / "runs" / "one"
    code, _, errors = run(capfd, "train", f"{layout}_lite0", "--data-dir", root, "--out", out)
    assert code == 2
    assert len(errors) == 1
    assert errors[0].startswith(f"keras-pspnet: {files[0]}: no mask of this name")
    assert errors[0].endswith("(and 3 more bad pairs)")
    assert not out.parent.exists()


def test_a_training_without_a_single_pair_names_a_file(tmp_path, capfd):
    root = dataset("folder", tmp_path / "data", 1)
    picture, mask = places("folder", root, "train", "0.png")
    mask.rename(mask.with_name("zero.png"))
    code, _, errors = run(
        capfd, "train", "folder_lite0", "--data-dir", root, "--out", tmp_path / "run"
    )
    assert code == 2 and len(errors) == 1
    assert (
        f"{mask.parent}: no mask has the name of a picture: {picture.name} beside zero.png"
        in (errors[0])
    )


def numbers_of(lines, name):
    """[share, pictures, ...] of a class, split by split, as the table says."""
    (line,) = (line for line in lines if re.match(rf" *\d* +{name} ", line))
    return [float(text) for text in re.findall(r"([\d.]+)(?: %|\b)", line.split(name)[1])]


@pytest.mark.parametrize("layout", ["folder", "camvid"])
def test_a_good_dataset_is_counted(tmp_path, capfd, layout):
    root = dataset(layout, tmp_path / "data")
    code, lines, errors = run(capfd, "look", "--dataset", layout, "--data-dir", root)
    assert code == 0 and not errors and not any(line.startswith("bad") for line in lines)
    if layout == "folder":
        assert lines.pop(0) == f"{root}: pictures and masks"
    assert lines[:2] == ["train: 6 good pairs, 50x40 pixels", "val: 2 good pairs, 50x40 pixels"]
    names = ["sky", "sea", "sand", "stone"] if layout == "folder" else list(CAMVID.names)
    assert [line.split()[1] for line in lines[3:-1]] == names and "void" in lines[-1]
    for value, name in [*enumerate(names), (VOID[layout], "void")]:
        expected = []
        for split, count in (("train", 6), ("val", 2)):
            masks = [
                np.asarray(Image.open(places(layout, root, split, f"{index}.png")[1]))
                for index in range(count)
            ]
            expected.append(round(100 * float(np.mean([mask == value for mask in masks])), 2))
            expected.append(sum(bool((mask == value).any()) for mask in masks))
        assert numbers_of(lines, name) == expected
        (line,) = (line for line in lines if re.match(rf" *\d* +{name} ", line))
        assert line.endswith("never in train, val") == (expected == [0, 0, 0, 0])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["data"]


def test_the_shares_of_a_small_dataset_by_hand(tmp_path, capfd):
    for split, rows in (("train", [[0, 0, 1], [0, 255, 0]]), ("val", [[1, 1, 1], [1, 1, 1]])):
        picture, mask = places("folder", tmp_path, split, f"{split}.png")
        save(np.full((2, 3, 3), 17 if split == "val" else 99, np.uint8), picture)
        save(np.array(rows, np.uint8), mask)
    code, lines, _ = run(capfd, "look", "--dataset", "folder", "--data-dir", tmp_path)
    assert code == 0 and lines == [
        f"{tmp_path}: pictures and masks",
        "nobody has named the 2 classes: values 0, 1 are classes, 255 is void; name them in "
        "labels.json if 255 is a class",
        "train: 1 good pair, 3x2 pixels",
        "val: 1 good pair, 3x2 pixels",
        "class            train  pictures       val  pictures",
        "  0 class_0    66.67 %         1    0.00 %         0  never in val",
        "  1 class_1    16.67 %         1  100.00 %         1",
        "    void       16.67 %         1    0.00 %         0",
    ]


def test_written_scenes_are_a_good_dataset(tmp_path, capfd):
    write_folder(tmp_path / "data", train=3, val=1, size=(49, 65))
    out = tmp_path / "seen"
    arguments = ("look", "--dataset", "folder", "--data-dir", tmp_path / "data", "--out", out)
    code, lines, errors = run(capfd, *arguments)
    assert code == 0 and not errors
    assert f"{out / 'samples_train.png'}: samples" in lines
    assert Image.open(out / "samples_train.png").height > Image.open(out / "samples_val.png").height
    source = open_source("folder", tmp_path / "data", split="train")
    assert source.labels == SCENES
    for index in range(3):
        for found, drawn in zip(source.read(index), scene(index, split="train", size=(49, 65))):
            assert np.array_equal(found, drawn)


def test_a_split_whose_masks_are_not_there_does_not_hide_the_others(tmp_path, capfd):
    root = dataset("folder", tmp_path / "data")
    files = spoil("folder", root)
    for file in (root / "masks" / "val").iterdir():
        file.unlink()
    code, lines, errors = run(capfd, "look", "--dataset", "folder", "--data-dir", root)
    assert code == 2 and errors[-1].startswith(f"keras-pspnet: {root}: 5 bad pairs")
    bad = [line for line in lines if line.startswith("bad: ")]
    assert [line.split(": ")[1] for line in bad] == [*map(str, files), str(root / "masks" / "val")]


def test_masks_of_a_wrong_mode_are_all_named_also_without_labels(tmp_path, capfd):
    root = dataset("folder", tmp_path / "data", count=2)
    (root / "labels.json").unlink()
    masks = [root / "masks" / split / f"{i}.png" for split in ("train", "val") for i in range(2)]
    for mask in masks:
        save(Image.open(mask).convert("LA"), mask)
    code, lines, errors = run(capfd, "look", "--dataset", "folder", "--data-dir", root)
    assert code == 2 and "4 bad pairs" in errors[-1]
    bad = [line for line in lines if line.startswith("bad: ")]
    assert [line.split(": ")[1] for line in bad] == list(map(str, masks))
    assert all("mode LA" in line for line in bad)


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--dataset", "imagenet"], "imagenet"),
        (["--dataset", "folder"], "--data-dir"),
        (["--dataset", "folder", "--data-dir", "nowhere"], "nowhere: no such folder"),
        (["--dataset", "camvid", "--data-dir", "."], "no split in it"),
    ],
)
def test_what_cannot_be_looked_at_gets_one_line(tmp_path, monkeypatch, capfd, arguments, says):
    monkeypatch.chdir(tmp_path)
    code, lines, errors = run(capfd, "look", *arguments, "--out", "seen")
    assert code == 2 and not lines and len(errors) == 1 and says in errors[0]
    assert not list(tmp_path.iterdir())


def test_labels_that_cannot_be_used_get_one_line(tmp_path, capfd):
    root = dataset("folder", tmp_path / "data")
    (root / "labels.json").write_text("{")
    code, lines, errors = run(capfd, "look", "--dataset", "folder", "--data-dir", root)
    assert code == 2 and not lines and len(errors) == 1
    assert f"{root / 'labels.json'}: not a labels file" in errors[0]


# --- pictures of any kind ---

RAMP = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, shown standing
    return exif


KINDS = {
    "grey": (Image.fromarray(RAMP), RAMP, {}),
    "palette": (Image.fromarray(RAMP).convert("P"), RAMP, {}),
    "alpha": (Image.fromarray(np.dstack([RAMP] * 3 + [RAMP[::-1]])), RAMP, {}),
    "turned": (Image.fromarray(np.rot90(RAMP).copy()), RAMP, {"exif": turned()}),
    "16 bits": (Image.fromarray(RAMP.astype(np.uint16) * 257), RAMP, {}),
    "1 bit": (Image.fromarray(RAMP > 90), 255 * (RAMP > 90), {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_of_any_kind_are_looked_at(tmp_path, capfd, kind):
    picture, shown, options = KINDS[kind]
    file, mask = places("folder", tmp_path / "data", "train", "a.png")
    save(picture, file, **options)
    save(RAMP % 2, mask)
    out = tmp_path / "seen"
    arguments = ("look", "--dataset", "folder", "--data-dir", tmp_path / "data", "--out", out)
    code, lines, errors = run(capfd, *arguments)
    assert code == 0 and not errors and "train: 1 good pair, 16x12 pixels" in lines
    image, ids = open_source("folder", tmp_path / "data", split="train").read(0)
    assert np.array_equal(image, np.dstack([shown] * 3)) and np.array_equal(ids, RAMP % 2)
    assert (out / "samples_train.png").exists()


def test_pictures_of_many_sizes_are_summed_up(tmp_path, capfd):
    for index, size in enumerate([(3, 90), (70, 8), (5, 6), (4, 4)]):
        split = "train" if index < 3 else "val"
        file, mask = places("folder", tmp_path, split, f"{index}.png")
        save(np.zeros((*size, 3), np.uint8), file)
        save(np.eye(*size, dtype=np.uint8), mask)
    _, lines, _ = run(capfd, "look", "--dataset", "folder", "--data-dir", tmp_path)
    assert "train: 3 good pairs, 3 sizes, 6 to 90 pixels wide, 3 to 70 high" in lines


def test_a_mask_of_16_bits_is_refused(tmp_path, capfd):
    root = dataset("folder", tmp_path)
    _, mask = places("folder", root, "train", "5.png")
    save(np.zeros((40, 50), np.uint16), mask)
    code, lines, errors = run(capfd, "look", "--dataset", "folder", "--data-dir", root)
    assert code == 2 and "1 bad pair, named above" in errors[-1]
    (bad,) = (line for line in lines if line.startswith("bad: "))
    assert bad.startswith(f"bad: {mask}: a mask of mode I;16; expected 8 bits")


def test_a_split_of_nothing_but_void_is_bad(folder, capsys):
    (folder / "labels.json").write_text('{"names": ["a", "b", "c"]}')
    for file in (folder / "masks" / "train").iterdir():
        Image.fromarray(np.full((9, 11), 255, np.uint8)).save(file)
    assert cli.main(["look", "--dataset", "folder", "--data-dir", str(folder)]) == 2
    assert "bad: train: all masks are void" in capsys.readouterr().out


def test_masks_without_a_split_of_pictures_and_a_missing_split_are_told(folder, capsys):
    command = ["look", "--dataset", "folder", "--data-dir", str(folder)]
    for kind in ("images", "masks"):
        (folder / kind / "train").rename(folder / kind / "night")
    assert cli.main(command) == 0
    assert "note: there is no split 'train'" in capsys.readouterr().out
    (folder / "masks" / "train").mkdir()
    Image.fromarray(np.zeros((9, 11), np.uint8)).save(folder / "masks" / "train" / "p.png")
    assert cli.main(command) == 2
    assert "images/train: no such folder" in capsys.readouterr().out.replace(os.sep, "/")


def test_five_complaints_are_printed_and_all_are_counted(tmp_path, capfd):
    root = dataset("folder", tmp_path / "data", count=12)
    for index in range(9):
        save(np.full((40, 50), 77, np.uint8), root / f"masks/train/{index}.png")
    code, lines, errors = run(capfd, "look", "--dataset", "folder", "--data-dir", root)
    assert code == 2 and errors[-1].endswith("9 bad pairs, named above; fix or remove them")
    bad = [line for line in lines if line.startswith("bad: ")]
    assert len(bad) == 5 and lines[lines.index(bad[-1]) + 1] == "and 4 more"


def test_names_that_nowhere_agree_are_one_complaint(tmp_path, capfd):
    root = dataset("folder", tmp_path / "data", count=30)
    for index, file in enumerate(sorted((root / "masks/train").iterdir())):
        file.rename(file.with_name(f"task-{index}-annotation-{index}-by-1-tag-tree-0.png"))
    code, lines, _ = run(capfd, "look", "--dataset", "folder", "--data-dir", root)
    (bad,) = (line for line in lines if line.startswith("bad: "))
    assert code == 2 and "no mask has the name of a picture: 0.png beside task-0-" in bad


@pytest.mark.parametrize("side", ["picture", "mask", "both"])
def test_what_exif_turns_on_one_side_is_counted(tmp_path, capfd, side):
    root = dataset("folder", tmp_path / "data")
    exif = Image.Exif()
    exif[0x0112] = 3
    for file in places("folder", root, "train", "4.png"):
        if side in ("both", "picture" if "images" in str(file) else "mask"):
            with Image.open(file) as image:
                image.load()
            save(image, file, exif=exif)
    code, lines, _ = run(capfd, "look", "--dataset", "folder", "--data-dir", root)
    warning = "warning: 1 picture is turned by its EXIF, its mask has none: look at the "
    assert code == 0 and any(line.startswith(warning) for line in lines) == (side != "both")


def test_sides_that_exif_swaps_are_named(tmp_path, capfd):
    root = dataset("folder", tmp_path / "data")
    exif = Image.Exif()
    exif[0x0112] = 6
    file, mask = places("folder", root, "train", "4.png")
    save(Image.open(file).copy(), file, exif=exif)
    code, lines, _ = run(capfd, "look", "--dataset", "folder", "--data-dir", root)
    (bad,) = (line for line in lines if line.startswith("bad: "))
    assert code == 2 and "(its picture is turned by its EXIF alone)" in bad
    assert f"{mask}: is 50x40 pixels, its picture 40x50" in bad
