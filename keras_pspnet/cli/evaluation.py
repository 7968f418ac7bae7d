"""The command `evaluate`: score a model, print and write the scores."""

import contextlib
import dataclasses
import json
from pathlib import Path

from keras_pspnet.cli import quiet
from keras_pspnet.errors import UserError
from keras_pspnet.files import read_bytes, writable_folder, write_together
from keras_pspnet.inference.load import as_predictor, check_model, load_model, read_labels
from keras_pspnet.inference.predictor import Predictor, check_classes, check_number
from keras_pspnet.inference.segment import Protocol, largest_whole, segment_with
from keras_pspnet.labels import IGNORE, LabelSet, load_labels

MEANS = {  # column of the printed table -> its mean
    "IoU": "mIoU",
    "precision": "mean_precision",
    "recall": "mean_recall",
    "F1": "mean_F1",
    "boundary_IoU": "boundary_mIoU",
}


def run(options) -> None:
    """Score a model; print the scores, and write them as asked."""
    from keras_pspnet.data.datasets import open_source
    from keras_pspnet.progress import track
    from keras_pspnet.scoring import boundary, metrics, report
    from keras_pspnet.scoring.picture_table import PictureTable

    kind = check_model(options.model)
    files = _files(options)
    protocol = protocol_of(options)
    source = _source(options)
    if kind in ("keras", "saved_model"):
        quiet.quiet_tensorflow()
    predictor = load(options.model, options.labels)
    predictor.check_labels(source.labels, source.named)
    protocol.check(predictor)
    if options.dataset == "scenes":  # generated at the size that the model takes
        source = open_source("scenes", split=options.split, size=predictor.size)
    for note in source.notes:
        print(note)
    print(describe(predictor, protocol), flush=True)
    sizes = Sizes()
    watching = {"report": report.Report(source.labels), "csv": PictureTable(source.labels)}
    asked = [sizes, *(watching[option] for option in files if option in watching)]
    contours = boundary.BoundaryIoU(source.labels)
    asked += [contours] * options.boundary

    def on_picture(*seen):
        for one in asked:
            one.add(*seen)

    scores = metrics.evaluate(
        lambda image: segment_with(predictor, image, protocol),
        track(source.examples(), "evaluating", len(source)),
        source.labels,
        on_picture,
    )
    if options.boundary:
        contours.add_to(scores)
    scores["protocol"] = dataclasses.asdict(protocol)
    print("\n".join(_lines(scores)))
    for note in crop_notes(options.model, predictor, protocol, sizes):
        print(note)
    contents = {}
    if "json" in files:
        contents[files["json"]] = (json.dumps(scores, indent=2) + "\n").encode()
    if "csv" in files:
        contents[files["csv"]] = watching["csv"].csv()
    if "report" in files:
        described = {"model": options.model, "dataset": options.dataset, "split": options.split}
        described["command"] = options.typed
        contents[files["report"]] = watching["report"].page(scores, **described)
    write_together(contents)
    if "report" in files:
        print(f"look at {files['report']}")


def _files(options) -> dict[str, Path]:
    """Return option -> the file that it asks for.

    Raises:
        UserError: a folder that cannot be written, a folder in the way, one file for two options.
    """
    from keras_pspnet.scoring import report

    files = {}
    for option in ("json", "csv"):
        given = getattr(options, option)
        if given:
            files[option] = Path(given)
            writable_folder(files[option].parent)
            if files[option].is_dir():
                raise UserError(f"{given}: is a folder; --{option} takes the name of a file")
    if options.report:
        files["report"] = report.page_in(options.report)
    places = {}
    for option, file in files.items():
        other = places.setdefault(file.resolve(), option)
        if other != option:
            raise UserError(f"{file}: is written by --{option}; give --{other} another name")
    return files


def _source(options):
    """Open the dataset and compare its classes with the model's."""
    from keras_pspnet.data.datasets import open_source

    quiet.quiet_datasets(options.dataset)
    labels = known_labels(options)
    if labels and labels == LabelSet.numbered(len(labels)):
        labels = None  # neither names nor ids: they do not say what a mask's values mean
    place = {"name": options.dataset, "path": options.data_dir, "split": options.split}
    source = open_source(**place, labels=labels)
    if labels and not source.named:
        with contextlib.suppress(UserError):
            found = open_source(**place)
            ids, own = found.labels.ids or {}, labels.ids or {}
            # Masks of {0, 255}, to a model of {0, 1}: 255 would be void, and all else right.
            if found.labels.names == labels.names or (IGNORE in ids and IGNORE not in own):
                source = found
    if labels:
        check_classes(labels, source.labels, source.named)
    return source.paired()


def known_labels(options) -> LabelSet | None:
    """Return the labels of --labels, else the model's, else None, without importing TensorFlow.

    Raises:
        UserError: no such labels, or another number of them than the model has classes.
    """
    given = load_labels(options.labels) if options.labels else None
    own = read_labels(options.model)
    if given and own:
        check_number(own, given)
    return given or own


def load(model, labels) -> Predictor:
    """Load a model; `labels`, the text of --labels, replaces what its classes are called."""
    predictor = as_predictor(load_model(model))
    return predictor.with_labels(load_labels(labels)) if labels else predictor


def protocol_of(options) -> Protocol:
    """Return the Protocol that --crop, --base, --scales and --flip describe."""
    from keras_pspnet.data.datasets import BASES

    try:
        text = "1" if options.scales is None else options.scales
        scales = tuple(float(scale) for scale in text.split(","))
    except ValueError as error:
        raise UserError(f"--scales {options.scales}: expected numbers, as 0.5,1,1.5") from error
    if options.scales is not None and not options.crop:
        raise UserError(f"--scales {text}: belongs to the sliding window; give --crop H W too")
    crop, base = options.crop and tuple(options.crop), options.base
    if crop and base is None:
        base = BASES.get(getattr(options, "dataset", None))
    return Protocol(crop, base, scales, options.flip)


def describe(predictor: Predictor, protocol: Protocol) -> str:
    """Return at which size a model looks at pictures, in one line; sizes are height x width."""
    if protocol.crop:
        text = "windows of {}x{}".format(*protocol.crop)
        text += f", long side {protocol.base}" if protocol.base else ", pictures at their own size"
    elif predictor.size:
        text = "whole pictures resized to {}x{}".format(*predictor.size)
    else:
        megapixels = largest_whole(predictor) / 1e6
        text = f"whole pictures at their own size, above {megapixels:.1f} megapixels in windows"
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


def crop_notes(model, predictor: Predictor, protocol: Protocol, seen: Sizes) -> list[str]:
    """Return a line if a model that was trained on crops of pictures sees larger ones shrunk.

    Args:
        model: path of the model; its run folder holds recipe.json.
        predictor: the model.
        protocol: how it was fed.
        seen: the pictures' sizes.
    """
    try:
        recipe = json.loads(read_bytes(Path(model).parent / "recipe.json"))
        crop = tuple(int(side) for side in recipe["crop"])
        cropped = not recipe["resize_to_crop"]
    except (ValueError, KeyError, TypeError):
        return []
    shrunk = predictor.size == crop and protocol.crop is None
    if not (cropped and shrunk and (seen.height > crop[0] or seen.width > crop[1])):
        return []
    return [
        "note: this model was trained on crops of {0}x{1} of pictures at their own size, and the "
        "pictures here are larger; --crop {0} {1} fits it better".format(*crop)
    ]


def _lines(scores) -> list[str]:
    """Return the scores as a table, one line a class, and a line over all."""
    width = max(16, *map(len, scores["per_class"]))
    columns = [column for column, mean in MEANS.items() if mean in scores]
    lines = [f"{'class':>{width}}" + "".join(f"{column:>14}" for column in columns)]
    for name, row in scores["per_class"].items():
        cells = (f"{'-' if row[c] is None else format(row[c], '.4f'):>14}" for c in columns)
        lines.append(
            f"{name:>{width}}" + (f"{'absent':>14}" if row["IoU"] is None else "".join(cells))
        )
    means = (f"{scores[MEANS[column]]:>14.4f}" for column in columns)
    lines.append(f"{'mean':>{width}}" + "".join(means))
    lines.append(
        f"mIoU {scores['mIoU']:.4f}  (all classes {scores['mIoU_all']:.4f}, weighted by frequency "
        f"{scores['fwIoU']:.4f})  mean accuracy {scores['mean_accuracy']:.4f}  pixel accuracy "
        f"{scores['pixel_accuracy']:.4f}  {scores['images']} images in {scores['seconds']:.1f} s"
    )
    return lines
