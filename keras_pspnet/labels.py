"""Label sets: what a class id is called, how it is painted, which id means "do not count"."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from keras_pspnet.errors import UserError
from keras_pspnet.files import read_bytes

IGNORE = 255
"""Void in every mask this package hands on (semseg config/*: ignore_label 255)."""


def default_void_label(num_classes: int) -> int:
    """The void label where none is given: 255, or 65535 where 255 is a class id."""
    return IGNORE if num_classes <= IGNORE else 65535


def voc_palette(count: int) -> tuple[tuple[int, int, int], ...]:
    """The VOC colour map without its black entry: the bits of id + 1 over R, G and B."""
    colors = []
    for index in range(1, count + 1):
        rgb = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                rgb[channel] |= ((index >> (3 * bit + channel)) & 1) << (7 - bit)
        colors.append(tuple(rgb))
    return tuple(colors)


@dataclasses.dataclass(frozen=True)
class LabelSet:
    """Names and RGB colours of the classes 0..n-1, and what the values of their masks mean.

    Args:
        names: one name a class.
        colors: one (r, g, b) in 0..255 a class; the VOC colour map if empty.
        ignore: the mask value of void pixels; they never count, in the loss or in a score.
        ids: mask value -> class id, or the void label, where masks do not hold class ids; a
            mask value that is in neither `ids` nor `ignore` is an error.

    Raises:
        UserError: no names, a name twice, another number of colours, a value out of range.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...] = ()
    ignore: int = IGNORE
    ids: dict[int, int] | None = None

    def __post_init__(self):
        names = tuple(str(name) for name in self.names)
        colors = tuple(tuple(int(v) for v in c) for c in self.colors) or voc_palette(len(names))
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "colors", colors)
        if not names:
            raise UserError("labels: no names; expected one name a class")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"labels: the name {twice!r} stands twice; every class needs its own")
        if len(colors) != len(names):
            raise UserError(
                f"labels: {len(colors)} colors for {len(names)} names; expected as many"
            )
        if any(len(c) != 3 or min(c) < 0 or max(c) > 255 for c in colors):
            raise UserError("labels: a color is not [r, g, b] with values in 0..255")
        if not 0 <= self.ignore <= default_void_label(len(names)):
            raise UserError(f"labels: ignore {self.ignore} is no value of a mask")
        if self.ids is None and self.ignore < len(names):
            raise UserError(
                f"labels: ignore {self.ignore} is also a class id (0..{len(names) - 1})"
            )
        if self.ids is not None:
            ids = {int(raw): int(label) for raw, label in self.ids.items()}
            object.__setattr__(self, "ids", ids)
            for raw, label in ids.items():
                if not 0 <= raw <= 255 or raw == self.ignore:
                    raise UserError(f"labels: ids maps {raw}, which is void or no 8-bit value")
                if not (0 <= label < len(names) or label in (IGNORE, self.ignore)):
                    raise UserError(f"labels: ids maps {raw} to {label}, which is no class id")

    @classmethod
    def numbered(cls, count: int) -> LabelSet:
        """`count` classes that nobody has named: class_0, class_1, ..."""
        return cls(
            tuple(f"class_{index}" for index in range(count)), ignore=default_void_label(count)
        )

    @classmethod
    def from_config(cls, config: dict) -> LabelSet:
        """The inverse of `to_config`; also reads a labels.json, where only `names` is required."""
        if not isinstance(config, dict) or not isinstance(config.get("names"), (list, tuple)):
            raise UserError('labels: expected {"names": [...], ...}')
        known = [field.name for field in dataclasses.fields(cls)]
        for key in config:
            if key not in known:
                raise UserError(f"labels: {key!r} is not known; expected {', '.join(known)}")
        try:
            return cls(
                names=tuple(config["names"]),
                colors=tuple(config.get("colors") or ()),
                ignore=int(config.get("ignore", default_void_label(len(config["names"])))),
                ids=config.get("ids"),
            )
        except UserError:
            raise
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            raise UserError(f"labels: {error}") from error

    def to_config(self) -> dict:
        """Plain lists and numbers, ready for JSON."""
        config = {
            "names": list(self.names),
            "colors": [list(color) for color in self.colors],
            "ignore": self.ignore,
        }
        if self.ids is not None:
            config["ids"] = {str(raw): label for raw, label in self.ids.items()}
        return config

    def __len__(self) -> int:
        return len(self.names)

    def decode(self, mask: np.ndarray) -> np.ndarray:
        """Raw mask ids (H, W) uint8 -> class ids, void as 255.

        Raises:
            UserError: a value that is no class and not void.
        """
        table = np.full(256, -1)
        if self.ids is None:
            table[: len(self)] = np.arange(min(len(self), 256))
        else:
            for raw, label in self.ids.items():
                table[raw] = label if label < len(self) else IGNORE
        if self.ignore <= 255:
            table[self.ignore] = IGNORE
        classes = table[mask]
        if classes.min(initial=0) < 0:
            wrong = int(mask[classes < 0][0])
            known = f"0..{len(self) - 1}" if self.ids is None else f"one of {sorted(self.ids)}"
            raise UserError(
                f"label {wrong} is out of range; expected {known} or {self.ignore} (void)"
            )
        return classes.astype(np.uint8)

    def palette(self) -> np.ndarray:
        """(256, 3) uint8: the colour of every 8-bit mask value; void and unknown ids are black."""
        table = np.zeros((256, 3), np.uint8)
        shown = min(len(self), 256)
        table[:shown] = self.colors[:shown]
        return table


CAMVID = LabelSet(
    names=("Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car")
    + ("Pedestrian", "Bicyclist"),
    colors=((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222))
    + ((128, 128, 0), (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192)),
    ignore=11,
)
"""The 11 classes of the SegNet copy of CamVid; mask value 11 is void there."""

SCENES = LabelSet(
    names=("sky", "building", "road", "car", "pole", "water", "boat", "buoy", "wall", "floor")
    + ("bed", "pillow"),
    colors=((135, 190, 235), (150, 105, 85), (95, 95, 105), (205, 45, 50), (250, 205, 60))
    + ((40, 95, 160), (240, 240, 235), (255, 120, 20), (205, 185, 160), (125, 90, 60))
    + ((115, 75, 155), (235, 150, 195)),
)
"""The generated scenes: a street, a sea and a room (scenes.py)."""

_ADE20K_NAMES = (
    "wall building sky floor tree ceiling road bed windowpane grass cabinet sidewalk person "
    "earth door table mountain plant curtain chair car water painting sofa shelf house sea "
    "mirror rug field armchair seat fence desk rock wardrobe lamp bathtub railing cushion base "
    "box column signboard chest_of_drawers counter sand sink skyscraper fireplace refrigerator "
    "grandstand path stairs runway case pool_table pillow screen_door stairway river bridge "
    "bookcase blind coffee_table toilet flower book hill bench countertop stove palm "
    "kitchen_island computer swivel_chair boat bar arcade_machine hovel bus towel light truck "
    "tower chandelier awning streetlight booth television_receiver airplane dirt_track apparel "
    "pole land bannister escalator ottoman bottle buffet poster stage van ship fountain "
    "conveyer_belt canopy washer plaything swimming_pool stool barrel basket waterfall tent bag "
    "minibike cradle oven ball food step tank trade_name microwave pot animal bicycle lake "
    "dishwasher screen blanket sculpture hood sconce vase traffic_light tray ashcan fan pier "
    "crt_screen plate monitor bulletin_board shower radiator glass clock flag "
)

_ADE20K_COLORS = (
    "787878b4787806e6e650323204c8037878508c8c8ccc05ffe6e6e604fa07e005ffebff0796053d78784608ff33"
    "ff06528fff8cccff04ff3307cc46030066c83de6faff06330b66ffff0747ff09e00907e6dcdcdcff095c7009ff"
    "08ffd607ffe0ffb8060aff47ff290a07ffffe0ff086608ffff3d06ffc207ff7a0800ff14ff0829ff05990633ff"
    "eb0cffa0961400a3ff8c8c8cfa0a0f14ff001fff00ff1f00ffe00099ff000000ffff470000ebff00adff1f00ff"
    "0bc8c8ff520000fff5003dff00ff7000ff85ff0000ffa300ff6600c2ff00008fff33ff000052ff00ff2900ffad"
    "0a00ffadff0000ff99ff5c00ff00ffff00f5ff0066ffad00ff0014ffb8b8001fff00ff3d0047ffff00cc00ffc2"
    "00ff52000aff0070ff3300ff00c2ff007aff00ffa3ff990000ff0aff70008fff005200ffa3ff00ffeb0008b8aa"
    "8500ff00ff5cb800ffff001f00b8ff00d6ffff00705cff0000e0ff70e0ff46b8a0a300ff9900ff47ff00ff00a3"
    "ffcc00ff008f00ffeb85ff00ff00ebf500ffff007afff5000abed4d6ff0000ccff1400ffffff000099ff0029ff"
    "00ffcc2900ff29ff00ad00ff00f5ff4700ff7a00ff00ffb8005cffb8ff000085ffffd60019c2c266ff005c00ff"
)

ADE20K = LabelSet(
    names=tuple(name.replace("_", " ") for name in _ADE20K_NAMES.split()),
    colors=tuple(zip(*[iter(bytes.fromhex(_ADE20K_COLORS))] * 3)),
    ignore=0,
    ids={index + 1: index for index in range(150)},
)
"""The 150 classes of ADE20K's scene parsing benchmark; its masks hold 1..150, 0 is void."""

CITYSCAPES = LabelSet(
    names=("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light")
    + ("traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus")
    + ("train", "motorcycle", "bicycle"),
    colors=((128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153))
    + ((153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152))
    + ((70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100))
    + ((0, 80, 100), (0, 0, 230), (119, 11, 32)),
)
"""The 19 train ids of Cityscapes: the values of its labelTrainIds."""

_CITYSCAPES_RAW = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

CITYSCAPES_RAW = dataclasses.replace(
    CITYSCAPES,
    ids={raw: IGNORE for raw in range(35)}
    | {raw: index for index, raw in enumerate(_CITYSCAPES_RAW)},
)
"""The same classes in masks of labelIds: 0..33, and 34 or 255 for the license plate's -1."""

VOC2012 = LabelSet(
    names=("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat")
    + ("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant")
    + ("sheep", "sofa", "train", "tvmonitor"),
    colors=((0, 0, 0), *voc_palette(20)),
)
"""PASCAL VOC 2012; mask value 255 is the border of objects."""

NAMED = {
    "ade20k": ADE20K,
    "camvid": CAMVID,
    "cityscapes": CITYSCAPES,
    "scenes": SCENES,
    "voc2012": VOC2012,
}


def load_labels(name_or_file: str) -> LabelSet:
    """A label set by the name of its dataset or from a labels.json.

    Raises:
        UserError: neither a known name nor a readable labels file.
    """
    if name_or_file in NAMED:
        return NAMED[name_or_file]
    path = Path(name_or_file)
    if not path.is_file():
        raise UserError(f"labels: {name_or_file} is neither a file nor one of {', '.join(NAMED)}")
    try:
        return LabelSet.from_config(json.loads(read_bytes(path)))
    except (UserError, ValueError) as error:
        raise UserError(f"{path}: not a labels file: {error}") from error
