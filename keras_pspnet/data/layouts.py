"""Open datasets on disk: CamVid, ADE20K, Cityscapes, VOC 2012."""

from pathlib import Path

from keras_pspnet.data.pairs import (
    Source,
    by_stems,
    check_split,
    masks_in,
    paired,
    paired_files,
    source,
)
from keras_pspnet.errors import UserError
from keras_pspnet.files import is_picture, pictures_in, read_bytes
from keras_pspnet.labels import ADE20K, CAMVID, CITYSCAPES, CITYSCAPES_RAW, VOC2012

ADE20K_SPLITS = {"train": "training", "val": "validation"}

VOC_LISTS = {  # split -> the file names of its list, without .txt
    "train": ("train",),
    "val": ("val",),
    "trainval": ("trainval",),
    "train_aug": ("train_aug", "trainaug"),
}


def camvid(path: Path, split: str) -> Source:
    """Open a split of CamVid as SegNet lays it out: SPLIT/*.png beside SPLITannot/*.png.

    Neighbouring frames of a drive look alike, and the frames of val lie between those of train. To
    validate on another drive, "train+val" joins both, "clip:ID" takes the frames of one drive out
    of them ("clip:0006R0": names that begin with 0006R0_), and "not-clip:ID" all others.
    """
    _refuse_original_camvid(path)
    way, _, clip = split.partition(":")
    folders = ("train", "val") if clip or split == "train+val" else (split,)
    unpaired: list[UserError] = []
    pictures, masks = (
        by_stems([f for name in folders for f in listed(path / f"{name}{end}")], unpaired)
        for end, listed in (("", pictures_in), ("annot", masks_in))
    )
    if clip:
        clips = sorted({_clip(stem) for stem in pictures})
        if way not in ("clip", "not-clip") or clip not in clips:
            expected = ", ".join(f"clip:{name}, not-clip:{name}" for name in clips)
            raise UserError(f"{path}: no split {split!r}; expected one of {expected}")
        kept = way == "clip"
        pictures, masks = (
            {stem: file for stem, file in files.items() if (_clip(stem) == clip) == kept}
            for files in (pictures, masks)
        )
    places = [path if len(folders) > 1 else path / f"{split}{end}" for end in ("", "annot")]
    pairs, errors = paired(pictures, masks, places, lambda _: CAMVID)
    return source(pairs, CAMVID, (*unpaired, *errors))


def _clip(stem: str) -> str:
    """Return the drive of a frame, as 0006R0 of 0006R0_f00930."""
    return stem.partition("_")[0]


def camvid_splits(path: Path) -> list[str]:
    """Return the folders that have a folder of masks beside them."""
    _refuse_original_camvid(path)
    found = _folders(path)
    return in_order(split for split in found if f"{split}annot" in found)


def _refuse_original_camvid(path: Path) -> None:
    if (path / "701_StillsRaw_full").is_dir():
        raise UserError(
            f"{path}: CamVid's original, whose masks have 32 colours; use --dataset folder for it. "
            "camvid is the copy of SegNet with 11 classes: train/ and trainannot/"
        )


def ade20k(path: Path, split: str) -> Source:
    """Open a split of ADEChallengeData2016: images/training/*.jpg, annotations/training/*.png."""
    check_split("ade20k", split, ADE20K_SPLITS)
    path, folder = _root(path, "images", "ADEChallengeData2016"), ADE20K_SPLITS[split]
    return paired_files(path / "images" / folder, path / "annotations" / folder, ADE20K)


def ade20k_splits(path: Path) -> list[str]:
    """Return the splits whose folder of pictures exists."""
    path = _root(path, "images", "ADEChallengeData2016")
    return [name for name, folder in ADE20K_SPLITS.items() if (path / "images" / folder).is_dir()]


def cityscapes(path: Path, split: str) -> Source:
    """Open leftImg8bit/SPLIT/CITY/*_leftImg8bit.png with gtFine/SPLIT/CITY/*_gtFine_*.png.

    The mask of a picture is its labelTrainIds file if there is one, else its labelIds file.
    """
    images, masks = path / "leftImg8bit" / split, path / "gtFine" / split
    pictures = _frames(images, "_leftImg8bit.png")
    by_frame = _frames(masks, "_gtFine_labelIds.png") | _frames(masks, "_gtFine_labelTrainIds.png")
    if not pictures or not by_frame:
        empty = masks if pictures else images
        what, expected = "pictures", "_leftImg8bit.png"
        if pictures:
            what, expected = "masks", "_gtFine_labelTrainIds.png or labelIds"
        raise UserError(f"{empty}: no {what} in folders of cities; expected *{expected}")
    pairs, errors = paired(
        pictures,
        by_frame,
        (images, masks),
        lambda mask: CITYSCAPES_RAW if mask.name.endswith("_labelIds.png") else CITYSCAPES,
    )
    return source(pairs, CITYSCAPES, errors)


def cityscapes_splits(path: Path) -> list[str]:
    """Return the splits whose folder of pictures exists; "test" has no public masks."""
    return [split for split in ("train", "val") if (path / "leftImg8bit" / split).is_dir()]


def voc2012(path: Path, split: str) -> Source:
    """Open JPEGImages/ and SegmentationClass/ with the list ImageSets/Segmentation/SPLIT.txt.

    "train_aug" takes its masks from SegmentationClassAug/ (SBD). Without a list of its own it
    holds every picture that has a mask there and is not in val.txt.
    """
    path = _root(path, "JPEGImages", "VOC2012", "VOCdevkit/VOC2012")
    check_split("voc2012", split, VOC_LISTS)
    images = path / "JPEGImages"
    masks = path / ("SegmentationClassAug" if split == "train_aug" else "SegmentationClass")
    names = _voc_list(path, split)
    if names is None and split == "train_aug":
        held_out = _voc_list(path, "val")
        if held_out is not None:
            names = [f.stem for f in masks_in(masks) if f.stem not in held_out]
    if not names:
        lists = " or ".join(f"{name}.txt" for name in VOC_LISTS[split])
        raise UserError(f"{path}: no split {split!r}; expected ImageSets/Segmentation/{lists}")
    masks_in(masks)
    by_name = {name: file for name in names if (file := images / f"{name}.jpg").is_file()}
    masks_by_name = {name: file for name in names if (file := masks / f"{name}.png").is_file()}
    missing = [
        UserError(f"{images / name}.jpg: no such file, though {split} lists it; add or unlist it")
        for name in names
        if name not in by_name and name not in masks_by_name
    ]
    pairs, errors = paired(by_name, masks_by_name, (images, masks), lambda _: VOC2012)
    return source(pairs, VOC2012, (*missing, *errors))


def voc2012_splits(path: Path) -> list[str]:
    """Return the splits that have a list; "train_aug" needs SegmentationClassAug/ instead."""
    path = _root(path, "JPEGImages", "VOC2012", "VOCdevkit/VOC2012")
    augmented = (path / "SegmentationClassAug").is_dir()
    return [s for s in VOC_LISTS if (augmented if s == "train_aug" else _voc_list(path, s))]


def _voc_list(path, split) -> dict[str, None] | None:
    """Return the stems that a split lists, in order; a line may hold paths of picture and mask."""
    for name in VOC_LISTS[split]:
        file = path / "ImageSets" / "Segmentation" / f"{name}.txt"
        if file.is_file():
            lines = read_bytes(file).decode("utf-8-sig", errors="replace").splitlines()
            return dict.fromkeys(Path(line.split()[0]).stem for line in lines if line.strip())
    return None


def _frames(folder: Path, ending: str) -> dict[str, Path]:
    files = (f for f in sorted(folder.glob(f"*/*{ending}")) if is_picture(f))
    return {f"{f.parent.name}/{f.name.removesuffix(ending)}": f for f in files}


def _folders(path: Path) -> set[str]:
    folders = path.iterdir() if path.is_dir() else ()
    return {f.name for f in folders if f.is_dir() and not f.name.startswith(".")}


def in_order(splits) -> list[str]:
    """Return names of splits: "train", "val", then the others by name."""
    return sorted(splits, key=lambda split: (split != "train", split != "val", split))


def _root(path: Path, inside: str, *below: str) -> Path:
    """Return the folder that holds `inside`: `path` or one of its subfolders `below`."""
    return next((path / name for name in ("", *below) if (path / name / inside).is_dir()), path)
