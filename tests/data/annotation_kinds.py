"""One data set of three pictures as every annotation tool writes it."""

import base64
import io
import json

import numpy as np
from PIL import Image

SIZE = 24, 32
NAMES = ("background", "leaf", "bug")
COLORS = ((0, 0, 0), (10, 200, 30), (200, 10, 30))
LEAF = (4, 3, 21, 19)  # left, top, right, bottom: whole pixels, so that every rule agrees
BUG = (8, 6, 13, 11)  # on the leaf


def corners(box):
    left, top, right, bottom = box
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def shifted(box, number):
    return tuple(value + number for value in box)


def truth(number=0):
    mask = np.zeros(SIZE, np.uint8)
    for label, box in ((1, LEAF), (2, BUG)):
        left, top, right, bottom = shifted(box, number)
        mask[top:bottom, left:right] = label
    return mask


def picture(number=0):
    return np.random.default_rng(number).integers(0, 256, (*SIZE, 3), np.uint8)


def save(array, file):
    file.parent.mkdir(parents=True, exist_ok=True)
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(file)


def write(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))


def pictures(root, place, suffix=".png"):
    """Three pictures, two of them to train on; yields (number, split, stem)."""
    for number, split in enumerate(("train", "train", "val")):
        save(picture(number), root / place.format(split=split, stem=f"p{number}", suffix=suffix))
        yield number, split, f"p{number}"


def masks_of(
    make,
    labels=None,
    folder="masks/{split}/{stem}.png",
    suffix=".png",
    place="images/{split}/{stem}{suffix}",
):
    def build(root):
        for number, split, stem in pictures(root, place, suffix):
            save(make(truth(number)), root / folder.format(split=split, stem=stem))
        if labels:
            write(root / "labels.json", labels)

    return build


def in_colors(mask):
    return np.array(COLORS, np.uint8)[mask]


def with_alpha(mask):
    return np.dstack([in_colors(mask), np.full(mask.shape, 255, np.uint8)])


def as_palette(mask):
    image = Image.fromarray(mask)
    image.putpalette(np.array(COLORS, np.uint8).tobytes().ljust(768, b"\0"))
    return image


def shuffled_palette(mask):
    """The colours of the labels, at other indices: as a paint program writes it."""
    image = Image.fromarray(np.array([2, 0, 1], np.uint8)[mask])
    image.putpalette(np.array([COLORS[1], COLORS[2], COLORS[0]], np.uint8).tobytes())
    return image


def cvat(root):
    for number, _, stem in pictures(root, "JPEGImages/{stem}{suffix}"):
        save(in_colors(truth(number)), root / f"SegmentationClass/{stem}.png")
    write(root / "ImageSets/Segmentation/train.txt", "p0\np1\n")
    write(root / "ImageSets/Segmentation/val.txt", "p2\n")
    labelmap(root)


def coco(region, layout):
    def build(root):
        contents = {}
        places = {"roboflow": "{split}/{stem}{suffix}", "coco": "images/{split}2017/{stem}{suffix}"}
        for number, split, stem in pictures(root, places[layout], ".jpg"):
            content = contents.setdefault(split, {"images": [], "annotations": []})
            size = {"height": SIZE[0], "width": SIZE[1]}
            content["images"].append({"id": number, "file_name": f"{stem}.jpg", **size})
            # The small one first: it must lie over the large one all the same.
            for key, box in ((7, BUG), (3, LEAF)):
                one = {"id": 10 * number + key, "image_id": number, "category_id": key}
                content["annotations"].append(one | region(shifted(box, number)))
        categories = [{"id": 0, "name": "all"}, {"id": 7, "name": "bug"}, {"id": 3, "name": "leaf"}]
        for split, content in contents.items():
            name = {"train": "train", "val": "valid"}[split] if layout == "roboflow" else split
            file = {"roboflow": f"{name}/_annotations.coco.json"}.get(
                layout, f"annotations/instances_{split}2017.json"
            )
            if name == "valid":
                (root / "val").rename(root / "valid")
            write(root / file, content | {"categories": categories})

    return build


def as_polygon(box):
    return {"segmentation": [[value for point in corners(box) for value in point]]}


def runs(box):
    inside = np.zeros(SIZE, bool)
    left, top, right, bottom = box
    inside[top:bottom, left:right] = True
    flat = inside.T.ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=False, append=False))
    return np.diff([0, *edges, flat.size]).tolist()


def as_runs(box):
    return {"segmentation": {"counts": runs(box), "size": list(SIZE)}, "iscrowd": 1}


def compressed(counts):
    """cocoapi common/maskApi.c, rleToString, written out."""
    text = ""
    for index, value in enumerate(counts):
        value -= counts[index - 2] if index > 2 else 0
        more = True
        while more:
            group, value = value & 31, value >> 5
            more = value != -1 if group & 16 else value != 0
            text += chr((group | 32 * more) + 48)
    return text


def as_compressed_runs(box):
    return {"segmentation": {"counts": compressed(runs(box)), "size": list(SIZE)}, "iscrowd": 0}


def labelme(place, labels=None):
    def build(root):
        if labels:
            write(root / "labels.json", labels)
        for number, split, stem in pictures(root, place + "{suffix}", ".jpg"):
            leaf, bug = (shifted(box, number) for box in (LEAF, BUG))
            shapes = [
                {"label": "bug", "points": [bug[:2], bug[2:]], "shape_type": "rectangle"},
                {"label": "leaf", "points": corners(leaf), "shape_type": "polygon"},
                {"label": "note", "points": [[1, 1]], "shape_type": "point"},
            ]
            if number == 1:  # as LabelMe's own models write it: a PNG from the first point on
                left, top, right, bottom = bug
                stream = io.BytesIO()
                Image.fromarray(np.full((bottom - top, right - left), True)).save(stream, "PNG")
                mask = base64.b64encode(stream.getvalue()).decode()
                shapes[0] |= {"shape_type": "mask", "mask": mask}
            size = {"imageHeight": SIZE[0], "imageWidth": SIZE[1]}
            file = root / (place.format(split=split, stem=stem) + ".json")
            write(file, {"version": "5.0", "shapes": shapes, **size})

    return build


def yolo(images, labels):
    def build(root):
        for number, split, stem in pictures(root, images, ".jpg"):
            lines = []
            for key, box in ((1, BUG), (0, LEAF)):
                points = corners(shifted(box, number))
                shares = (f"{x / SIZE[1]:.9f} {y / SIZE[0]:.9f}" for x, y in points)
                lines.append(f"{key} {' '.join(shares)}")
            write(root / labels.format(split=split, stem=stem), "\n".join(lines))
        write(root / "data.yaml", "train: ../train/images\nval: x\nnc: 2\nnames: [leaf, bug]\n")

    return build


def roboflow_masks(root, header="Pixel Value, Class"):
    for number, split, stem in pictures(root, "{split}/{stem}{suffix}", ".jpg"):
        save(truth(number), root / f"{split}/{stem}_mask.png")
        rows = (f"{value}, {name}" for value, name in enumerate(NAMES))
        write(root / split / "_classes.csv", "\n".join([header, *rows]))
    (root / "val").rename(root / "valid")


def labelmap(root):
    rows = (f"{name}:{r},{g},{b}::" for name, (r, g, b) in zip(NAMES, COLORS))
    write(root / "labelmap.txt", "\n".join(["# label:color_rgb:parts:actions", *rows]))


def plain_with_labelmap(root):
    masks_of(in_colors)(root)
    labelmap(root)


def roboflow_with_other_names(root):
    """Windows' separators, names that other folders stand before."""
    coco(as_polygon, "roboflow")(root)
    for file in root.glob("*/_annotations.coco.json"):
        content = json.loads(file.read_text())
        for image in content["images"]:
            image["file_name"] = f"elsewhere\\{image['file_name']}"
        file.write_text(json.dumps(content))


def label_studio(root):
    """A PNG for each of two regions of the leaf, one for the bug; labels.json for the order."""
    tasks = []
    for number, _, stem in pictures(root, "images/1a2b3c4d-{stem}{suffix}"):
        mask = truth(number)
        parts = np.zeros((3, *SIZE), np.uint8)
        parts[0, :10] = 255 * (mask[:10] > 0)
        parts[1, 10:] = 255 * (mask[10:] > 0)
        parts[2] = 255 * (mask == 2)
        for index, (part, name) in enumerate(zip(parts, ("leaf", "leaf", "bug"))):
            name = f"task-{number + 7}-annotation-{number}-by-1-tag-{name}-{index}.png"
            save(part, root / "pngs" / name)
        image = f"/data/upload/1/1a2b3c4d-{stem}.png"
        tasks.append({"id": number + 7, "data": {"image": image}, "annotations": []})
    write(root / "project-1.json", tasks)
    write(root / "labels.json", NAMED)


NAMED = {"names": NAMES}
KINDS = {
    "ids": masks_of(lambda mask: mask, NAMED),
    "grey RGB": masks_of(lambda mask: np.repeat(mask[..., None], 3, 2), NAMED),
    "RGB": masks_of(in_colors, NAMED | {"colors": COLORS}),
    "RGBA": masks_of(with_alpha, NAMED | {"colors": COLORS}),
    "palette": masks_of(as_palette, NAMED),
    "palette of a paint program": masks_of(shuffled_palette, NAMED | {"colors": COLORS}),
    "one ending": masks_of(lambda mask: mask, NAMED, "masks/{split}/{stem}_mask.png"),
    "split first": masks_of(
        lambda mask: mask,
        NAMED,
        "{split}/masks/{stem}.png",
        ".png",
        "{split}/images/{stem}{suffix}",
    ),
    "CVAT": cvat,
    "labelmap.txt": plain_with_labelmap,
    "two endings": masks_of(lambda mask: mask, NAMED, "masks/{split}/{stem}_gt_ids.png"),
    "Roboflow": coco(as_polygon, "roboflow"),
    "Roboflow masks": roboflow_masks,
    "COCO polygons": coco(as_polygon, "coco"),
    "COCO runs": coco(as_runs, "coco"),
    "COCO compressed runs": coco(as_compressed_runs, "coco"),
    "COCO elsewhere": roboflow_with_other_names,
    "LabelMe in splits": labelme("{split}/{stem}"),
    "LabelMe in images/": labelme("images/{split}/{stem}", NAMED),
    "YOLO images/train": yolo("images/{split}/{stem}{suffix}", "labels/{split}/{stem}.txt"),
    "YOLO train/images": yolo("{split}/images/{stem}{suffix}", "{split}/labels/{stem}.txt"),
}


def reordered(labels, mask):
    """A mask in the order of NAMES: LabelMe's classes are in alphabetical order."""
    return np.array([NAMES.index(name) for name in labels.names], np.uint8)[mask]
