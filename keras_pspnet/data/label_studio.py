"""Label Studio: a PNG for each brushed region, and the exported JSON that names the pictures."""

import re
import urllib.parse
from pathlib import Path

from keras_pspnet.data.annotated import (
    Classes,
    Given,
    Layout,
    counted,
    drawn_pair,
    folders_below,
    pictures_below,
    read_json,
    visible,
)
from keras_pspnet.data.pairs import Pair, check_sizes
from keras_pspnet.data.regions import Region, paint
from keras_pspnet.data.splitting import UPLOAD
from keras_pspnet.errors import UserError
from keras_pspnet.files import composed
from keras_pspnet.images import read_mask

_REGION = re.compile(r"task-(\d+)-annotation-(\d+)-by-(.+?)-tag-(.+)-(\d+)\.png", re.IGNORECASE)


def label_studio(path: Path, given: Given) -> Layout | None:
    """Read task-T-annotation-A-by-U-tag-LABEL-K.png, and tasks of a JSON file beside them.

    PNGs and pictures may lie in the data set's folder or in folders of it. Classes are the labels
    of the PNGs, in alphabetical order, behind "background".

    Args:
        path: the data set's folder.
        given: what labels.json says.

    Returns:
        The layout, or None if there are no such PNGs, or pictures beside masks/ without a JSON
        file.

    Raises:
        UserError: a task without a picture, of several annotations, or not in the JSON file.
    """
    folders = [path, *folders_below(path)]
    regions: dict[int, list] = {}
    for folder in folders:
        for file in visible(folder, "task-*.png"):
            if found := _REGION.fullmatch(file.name):
                task, annotation, _, label, _ = found.groups()
                regions.setdefault(int(task), []).append((annotation, label.strip(), file))
    tasks = _tasks(path) if regions else {}
    if not regions or (not tasks and (path / "masks").is_dir()):
        return None
    if not tasks:
        raise UserError(
            f"{path}: PNGs of Label Studio, and no JSON that names the picture of each task; "
            "export it as JSON too and put it there"
        )
    used = sorted({label for parts in regions.values() for _, label, _ in parts})
    classes = Classes(used, given, path)
    pictures = {composed(f.name): f for folder in folders for f in pictures_below(folder)}
    pairs: dict[str, Pair] = {}
    errors = []
    for task, parts in sorted(regions.items()):
        try:
            picture = _picture(task, tasks, pictures)
            if len({annotation for annotation, *_ in parts}) > 1:
                raise UserError(f"task {task} has several annotations; keep the PNGs of one")
            pairs[str(picture)] = _pair(picture, parts, classes)
        except UserError as error:
            errors.append(UserError(f"{parts[0][2]}: {error}"))
    bare = len(set(tasks) - set(regions))
    notes = (f"left out, as they have no PNG: {counted(bare, 'task')}",) if bare else ()
    what = "Label Studio's PNG for each region"
    splits = {"": pairs}
    return Layout(what, classes.labels, splits, {"": errors}, notes, uncovered=given.uncovered)


def _tasks(path: Path) -> dict[int, str]:
    """Return the name of the picture of each task, of JSON or JSON-MIN."""
    tasks = {}
    for file in visible(path, "*.json"):
        content = read_json(file)
        for one in content if isinstance(content, list) else ():
            data = one.get("data", one) if isinstance(one, dict) else {}
            texts = data.values() if isinstance(data, dict) else ()
            names = [_file_name(text) for text in texts if isinstance(text, str)]
            name = next((name for name in names if "." in name), None)
            if name is not None and isinstance(one.get("id"), int):
                tasks[one["id"]] = name
    return tasks


def _file_name(address: str) -> str:
    """Return the file name in /data/upload/1/NAME, /data/local-files/?d=folder/NAME or a URL."""
    parts = urllib.parse.urlsplit(address)
    place = urllib.parse.parse_qs(parts.query).get("d", [urllib.parse.unquote(parts.path)])[0]
    return place.replace("\\", "/").rsplit("/", 1)[-1]


def _picture(task, tasks, pictures) -> Path:
    if task not in tasks:
        raise UserError(f"the JSON has no task {task}; export it again")
    name = composed(tasks[task])
    for choice in (name, UPLOAD.sub("", name)):
        if choice in pictures:
            return pictures[choice]
    raise UserError(f"the picture of task {task}, {name}, is not there; add it")


def _pair(picture, parts, classes):
    def draw(size):
        regions = []
        for _, label, file in parts:
            values, _ = read_mask(file)
            check_sizes(values.shape[:2], size, file, picture)
            inside = (values if values.ndim == 2 else values.max(-1)) >= 128
            regions.append(Region(classes[label], inside=inside))
        return paint(regions, size, classes.uncovered)

    files = [file for *_, file in parts]
    return drawn_pair(picture, files[0], None, draw, files[1:])
