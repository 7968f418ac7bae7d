"""The command `evaluate`: score a model, print and write the scores."""

import json
from pathlib import Path

from keras_pspnet.cli import quiet
from keras_pspnet.errors import UserError
from keras_pspnet.files import writable_folder, write_together
from keras_pspnet.inference.load import check_model
from keras_pspnet.inference.segment import Protocol
from keras_pspnet.scoring import report
from keras_pspnet.scoring.evaluation import Evaluation, protocol_on
from keras_pspnet.scoring.picture_table import PictureTable

MEANS = {  # column of the printed table -> its mean
    "IoU": "mIoU",
    "precision": "mean_precision",
    "recall": "mean_recall",
    "F1": "mean_F1",
    "boundary_IoU": "boundary_mIoU",
}


def run(options) -> None:
    """Score a model; print the scores, and write them as asked."""
    kind = check_model(options.model)
    files = _files(options)
    place = {"path": options.data_dir, "split": options.split}
    protocol = protocol_of(options)
    quiet.quiet_datasets(options.dataset)
    evaluation = Evaluation(
        options.model, options.dataset, **place, protocol=protocol, labels=options.labels
    )
    if kind in ("keras", "saved_model"):
        quiet.quiet_tensorflow()
    labels = evaluation.source.labels
    watching = {"report": report.Report(labels), "csv": PictureTable(labels)}
    asked = (watching[option].add for option in files if option in watching)
    scores = evaluation.scores(*asked, boundary=options.boundary)
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
    print("\n".join([*_lines(scores), *evaluation.notes]))
    if "report" in files:
        print(f"look at {files['report']}")


def _files(options) -> dict[str, Path]:
    """Return option -> the file that it asks for.

    Raises:
        UserError: a folder that cannot be written, a folder in the way, one file for two options.
    """
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


def protocol_of(options) -> Protocol:
    """Return the Protocol that --crop, --base, --scales and --flip describe."""
    try:
        text = "1" if options.scales is None else options.scales
        scales = tuple(float(scale) for scale in text.split(","))
    except ValueError as error:
        raise UserError(f"--scales {options.scales}: expected numbers, as 0.5,1,1.5") from error
    if options.scales is not None and not options.crop:
        raise UserError(f"--scales {text}: belongs to the sliding window; give --crop H W too")
    dataset = getattr(options, "dataset", None)  # `predict` has none
    return protocol_on(dataset, options.crop, options.base, scales, options.flip)


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
