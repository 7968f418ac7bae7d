"""Write any annotated data set in the plain layout: pictures, masks of class ids, labels.json."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from keras_pspnet.data.annotated import Layout
from keras_pspnet.data.survey import turned_by_exif
from keras_pspnet.errors import UserError, raise_first
from keras_pspnet.files import folder_or_nothing, unique_stems, writable_folder, write_json
from keras_pspnet.images import ORIENTATION, orientation, read_image, turned_upright
from keras_pspnet.labels import LabelSet


def write_plain(layout: Layout, out, progress: Callable = iter) -> list[str]:
    """Write images/SPLIT, masks/SPLIT and labels.json.

    Pictures are copied as they are. Masks are 8-bit PNGs of one channel, whose values are the ids
    0..n-1 in the order of the names, and 255 for void. A mask has its picture's EXIF orientation:
    programs that turn both and programs that turn neither get masks that fit.

    Args:
        layout: the data set, see `folder.read_layout`.
        out: a folder that is empty or not there.
        progress: wraps the list of pictures, to show how many are done.

    Returns:
        What a user should know of the pictures, as lines of text.

    Raises:
        UserError: `out` holds files; a picture or an annotation that cannot be used. Nothing is
            left then.
    """
    out = writable_folder(out)
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out}: is not empty; choose another --out")
    raise_first([error for errors in layout.errors.values() for error in errors])
    work = [
        (split, item, stem)
        for split, items in layout.splits.items()
        for item, stem in zip(items.values(), unique_stems([i.picture for i in items.values()]))
    ]
    turned = 0
    with (
        folder_or_nothing(out.parent),
        tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch,
    ):
        partial = Path(scratch) / out.name
        try:
            for split, item, stem in progress(work):
                picture = partial / "images" / split / f"{stem}{item.picture.suffix.lower()}"
                mask = partial / "masks" / split / f"{stem}.png"
                for file in (picture, mask):
                    file.parent.mkdir(parents=True, exist_ok=True)
                classes = item.mask(read_image(item.picture).shape[:2])
                turned += item.turned()
                turn, exif = orientation(item.picture), Image.Exif()
                if turn != 1:
                    exif[ORIENTATION] = turn
                Image.fromarray(turned_upright(classes, turn, back=True)).save(mask, exif=exif)
                shutil.copyfile(item.picture, picture)
            labels = LabelSet(layout.labels.names, layout.labels.colors)
            write_json(partial / "labels.json", labels.to_config())
            if out.is_dir():
                out.rmdir()
            partial.replace(out)
        except OSError as error:
            raise UserError(f"{out}: cannot be written: {error.strerror or error}") from error
    return turned_by_exif(turned, layout.uncovered is not None)
