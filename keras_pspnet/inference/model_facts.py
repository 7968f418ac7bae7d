"""Say of a model what its classes are called and at which size it looks at pictures."""

import json
import os

from keras_pspnet.files import read_bytes
from keras_pspnet.inference.load import as_predictor, load_model, read_labels
from keras_pspnet.inference.predictor import Predictor, check_number
from keras_pspnet.inference.presets import recipe_file
from keras_pspnet.inference.segment import Protocol, largest_whole
from keras_pspnet.labels import LabelSet, as_labels


def known_labels(model, labels=None) -> LabelSet | None:
    """Return `labels`, else the model's own, else None; TensorFlow is not imported for a path.

    Args:
        model: a path, or anything that `load_model` returns.
        labels: what the model's classes are called, see `labels.as_labels`; None for its own.

    Raises:
        UserError: no such labels, or another number of them than the model has classes.
    """
    given = None if labels is None else as_labels(labels)
    own = read_labels(model) if _is_path(model) else as_predictor(model).labels
    if given and own:
        check_number(own, given)
    return given or own


def named_predictor(model, labels=None) -> Predictor:
    """Return a model, loaded if it is a path, whose classes are called `labels`.

    Arguments and errors are those of `known_labels`, and those of `load_model`.
    """
    predictor = as_predictor(load_model(model) if _is_path(model) else model)
    return predictor if labels is None else predictor.with_labels(as_labels(labels))


def _is_path(model) -> bool:
    return isinstance(model, (str, os.PathLike))


def describe(predictor: Predictor, protocol: Protocol) -> str:
    """Return at which size a model looks at pictures, in one line; sizes are height x width."""
    if protocol.crop:
        text = "windows of {}x{}".format(*protocol.crop)
        text += f", long side {protocol.base}" if protocol.base else ", pictures at their own size"
    elif predictor.size:
        text = "whole pictures resized to {}x{}".format(*predictor.size)
    else:
        most = largest_whole(predictor) / 1e6
        text = f"whole pictures at their own size, above {most:.1f} megapixels in windows"
    if tuple(protocol.scales) != (1.0,):
        text += f", at scales {', '.join(f'{scale:g}' for scale in protocol.scales)}"
    return text + ", and mirrored" * protocol.flip


class Sizes:
    """The greatest height and width of the pictures seen."""

    def __init__(self):
        self.height = self.width = 0

    def add(self, name, image, *_) -> None:
        """Count a picture (H, W, 3)."""
        self.height = max(self.height, image.shape[0])
        self.width = max(self.width, image.shape[1])


def crop_notes(model, predictor: Predictor, protocol: Protocol, seen: Sizes, data) -> list[str]:
    """Return a line if pictures are shrunk for a model that was trained on crops of full size.

    Of other pictures nothing is said: where they are larger their things can be larger too, and
    windows at their own size then score far worse.

    Args:
        model: its path or preset:NAME, see `recipe_file`. Of a loaded model nothing is known.
        predictor: the model.
        protocol: how it was fed.
        seen: the pictures' sizes.
        data: the dataset's name and its folder or None. Folders of one's own have one name, so
            theirs must be the one that the model was trained on.
    """
    if not _is_path(model):
        return []
    name, path = data
    file = recipe_file(model)
    try:
        recipe = json.loads(read_bytes(file))
        recipe = recipe.get("recipe", recipe)  # a preset's card holds it beside other things
        crop = tuple(int(side) for side in recipe["crop"])
        same = recipe["dataset"] == name and not recipe["resize_to_crop"]
        if same and name == "folder":
            same = os.path.realpath(file.parent / recipe["data_dir"]) == os.path.realpath(path)
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
    shrunk = predictor.size == crop and protocol.crop is None
    if not (same and shrunk and (seen.height > crop[0] or seen.width > crop[1])):
        return []
    return [
        "note: this model was trained on crops of {0}x{1} of this data set's pictures, and sees "
        "them shrunk; --crop {0} {1} shows them at the size of the training".format(*crop)
    ]
