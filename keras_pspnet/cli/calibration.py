"""Choose the pictures on which `keras-pspnet export` calibrates and compares files."""

import dataclasses
import json
import os
from pathlib import Path

from keras_pspnet.cli import quiet
from keras_pspnet.errors import UserError
from keras_pspnet.export.calibration import (
    SCENES,
    check_calibration,
    check_pictures,
    pictures_of,
)
from keras_pspnet.export.formats import CALIBRATED, COMMAND_FORMATS, COMPARED_PICTURES
from keras_pspnet.files import evenly_spaced, read_bytes
from keras_pspnet.images import as_picture, read_image
from keras_pspnet.inference.presets import recipe_file
from keras_pspnet.labels import LabelSet
from keras_pspnet.train.recipe_fields import Recipe


@dataclasses.dataclass
class Choice:
    """What `export` makes, and on which pictures.

    Args:
        formats: names of formats.
        pictures: the calibration of `export_model`.
        source: what the pictures are, for the cards.
        labels: the classes of the pictures' masks; None for pictures that were given.
    """

    formats: list[str]
    pictures: list | str | None
    source: str
    labels: LabelSet | None = None

    def for_model(self, labels: LabelSet) -> list | str | None:
        """Return the pictures, without masks of other classes than the model's; say which."""
        if self.labels is None:
            return self.pictures
        same = self.labels.names == labels.names
        masks = "" if same else " without masks, as their classes changed"
        print(f"no --calibration: using {len(self.pictures)} training pictures{masks}", flush=True)
        return self.pictures if same else [image for image, _ in self.pictures]


def choose(model, given, formats) -> Choice:
    """Choose pictures: the given ones, those of the model's training, or generated scenes.

    Without any, the formats that need them are left out, and a line says so.

    Args:
        model: MODEL, of which load_model returns a keras.Model.
        given: --calibration, or None.
        formats: names of formats; None for the command's own.

    Raises:
        UserError: formats that were named need pictures, and there are none; pictures that cannot
            be read, or that show nothing.
    """
    chosen = list(formats or COMMAND_FORMATS)
    if given == SCENES:
        return Choice(chosen, SCENES, "generated scenes")
    if given:
        pictures = pictures_of(given)
        # export_files takes the same ones.
        checked = evenly_spaced(pictures, COMPARED_PICTURES)
        check_pictures((str(path), read_image(path)) for path in checked)
        return Choice(chosen, pictures, "given pictures")
    run, why = recipe_file(model), ""
    if run.is_file():
        try:
            pictures, labels = training_sample(run)
        except (UserError, ValueError) as error:
            why = f"no training data ({error})"
        else:
            check_pictures(
                (f"training picture {given if isinstance(given, Path) else i}", as_picture(given))
                for i, (given, _) in enumerate(pictures)
            )
            return Choice(chosen, pictures, "training pictures", labels)
    if formats:
        check_calibration(formats, None, why)
    left_out = "".join(f"{name} is left out, " for name in chosen if name in CALIBRATED)
    because = f"no --calibration{why and f' and {why}'}"
    print(f"{because}: {left_out}files are compared on 8 generated scenes", flush=True)
    chosen = [name for name in chosen if name not in CALIBRATED]
    return Choice(chosen, None, "generated scenes")


def training_sample(file: Path) -> tuple[list, LabelSet]:
    """Read training pictures of a model. Downloads nothing.

    Args:
        file: `recipe.json` of the model's run folder, which holds the data folder; a preset's card.

    Returns:
        At most 32 (image, mask) pairs, evenly spaced, and the classes of the masks. An image is its
        file, by whose name a warning can call it, or a uint8 array where it has none. Generated
        scenes are of the recipe's crop.

    Raises:
        UserError, ValueError: the recipe or the data cannot be read.
    """
    from keras_pspnet.data.datasets import open_source

    try:
        run = dict(json.loads(read_bytes(file)))
        run = dict(run.get("recipe", run))  # a card holds it beside other things
        # If relative, to the run; normalized, as messages name its files.
        data_dir = run["data_dir"] and os.path.normpath(file.parent / run["data_dir"])
        used = ("dataset", "train_split", "train_images", "crop")
        recipe = Recipe(**{name: run[name] for name in used if name in run})
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: not the recipe of a training ({error})") from error
    quiet.quiet_datasets(recipe.dataset)
    size = recipe.crop if "crop" in run else None
    options = {"split": recipe.train_split, "size": size, "download": False}
    source = open_source(recipe.dataset, data_dir, **options).first(recipe.train_images).paired()
    pairs = []
    for index in evenly_spaced(range(len(source)), COMPARED_PICTURES):
        image, mask = source.read(index)
        pairs.append((next(iter(source.files(index)), image), mask))
    return pairs, source.labels
