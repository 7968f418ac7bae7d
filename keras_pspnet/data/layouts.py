"""Datasets in the layouts that their authors hand out: ADE20K, Cityscapes, VOC 2012."""

from __future__ import annotations

from pathlib import Path

from keras_pspnet.data.pairs import Source, paired, paired_files
from keras_pspnet.errors import UserError
from keras_pspnet.files import read_bytes
from keras_pspnet.images import is_picture, pictures_in
from keras_pspnet.labels import ADE20K, CITYSCAPES, CITYSCAPES_RAW, VOC2012

ADE20K_SPLITS = {"train": "training", "val": "validation"}

VOC_LISTS = {  # split -> the names that its list goes by
    "train": ("train",),
    "val": ("val",),
    "trainval": ("trainval",),
    "train_aug": ("train_aug", "trainaug"),
}


def ade20k(path: Path, split: str) -> Source:
    """ADEChallengeData2016: images/training/*.jpg beside annotations/training/*.png."""
    path = _root(path, "images", "ADEChallengeData2016")
    folder = ADE20K_SPLITS[_known("ade20k", split, ADE20K_SPLITS)]
    return paired_files(path / "images" / folder, path / "annotations" / folder, ADE20K)


def ade20k_splits(path: Path) -> list[str]:
    path = _root(path, "images", "ADEChallengeData2016")
    return [name for name, folder in ADE20K_SPLITS.items() if (path / "images" / folder).is_dir()]


def cityscapes(path: Path, split: str) -> Source:
    """leftImg8bit/SPLIT/CITY/*_leftImg8bit.png beside gtFine/SPLIT/CITY/*_gtFine_*.png.

    Masks are labelTrainIds where there are some, else labelIds, picture by picture.
    """
    images, masks = path / "leftImg8bit" / split, path / "gtFine" / split
    pictures = _frames(images, "_leftImg8bit.png")
    by_frame = _frames(masks, "_gtFine_labelIds.png") | _frames(masks, "_gtFine_labelTrainIds.png")
    if not pictures or not by_frame:
        empty = masks if pictures else images
        expected = "_gtFine_labelTrainIds.png or labelIds" if pictures else "_leftImg8bit.png"
        raise UserError(f"{empty}: no pictures in folders of cities; expected *{expected}")
    return paired(
        pictures,
        by_frame,
        CITYSCAPES,
        (images, masks),
        decode=lambda mask: CITYSCAPES_RAW if mask.name.endswith("_labelIds.png") else CITYSCAPES,
    )


def cityscapes_splits(path: Path) -> list[str]:
    return [split for split in ("train", "val") if (path / "leftImg8bit" / split).is_dir()]


def voc2012(path: Path, split: str) -> Source:
    """JPEGImages/ and SegmentationClass/ with ImageSets/Segmentation/SPLIT.txt.

    "train_aug" takes its masks from SegmentationClassAug/, those of SBD; without a list it is all
    of them that are not in val.txt.
    """
    path = _root(path, "JPEGImages", "VOC2012", "VOCdevkit/VOC2012")
    _known("voc2012", split, VOC_LISTS)
    folder = "SegmentationClassAug" if split == "train_aug" else "SegmentationClass"
    names = _voc_list(path, split)
    if names is None and split == "train_aug":
        held_out = _voc_list(path, "val")
        if held_out is not None:
            names = [f.stem for f in pictures_in(path / folder) if f.stem not in held_out]
    if not names:
        lists = " or ".join(f"{name}.txt" for name in VOC_LISTS[split])
        raise UserError(f"{path}: no split {split!r}; expected ImageSets/Segmentation/{lists}")
    pictures = {name: path / "JPEGImages" / f"{name}.jpg" for name in names}
    masks = {name: path / folder / f"{name}.png" for name in names}
    neither = [
        UserError(f"{pictures[name]}: no such file, though {split} lists it; add or unlist it")
        for name in names
        if not pictures[name].is_file() and not masks[name].is_file()
    ]
    return paired(
        {name: file for name, file in pictures.items() if file.is_file()},
        {name: file for name, file in masks.items() if file.is_file()},
        VOC2012,
        (path / "JPEGImages", path / folder),
        neither,
    )


def voc2012_splits(path: Path) -> list[str]:
    path = _root(path, "JPEGImages", "VOC2012", "VOCdevkit/VOC2012")
    listed = [split for split in VOC_LISTS if _voc_list(path, split)]
    aug = "train_aug"
    if not (path / "SegmentationClassAug").is_dir():
        return [split for split in listed if split != aug]
    return [*listed, *([] if aug in listed else [aug])]


def _voc_list(path, split) -> list[str] | None:
    """The stems of a split. A line may also hold the paths of a picture and its mask."""
    for name in VOC_LISTS[split]:
        file = path / "ImageSets" / "Segmentation" / f"{name}.txt"
        if file.is_file():
            lines = read_bytes(file).decode("utf-8-sig", errors="replace").splitlines()
            return [Path(line.split()[0]).stem for line in lines if line.strip()]
    return None


def _frames(folder: Path, ending: str) -> dict[str, Path]:
    files = (f for f in sorted(folder.glob(f"*/*{ending}")) if is_picture(f))
    return {f"{f.parent.name}/{f.name.removesuffix(ending)}": f for f in files}


def _root(path: Path, inside: str, *below: str) -> Path:
    """The folder itself, or the one of the archive's name in it."""
    return next((path / name for name in ("", *below) if (path / name / inside).is_dir()), path)


def _known(dataset, split, splits) -> str:
    if split not in splits:
        raise UserError(f"{dataset}: no split {split!r}; expected one of {', '.join(splits)}")
    return split
