"""The command line: parse, call, print."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from keras_pspnet import __version__
from keras_pspnet.files import UserError, list_images, read_image, writable_folder


class Parser(argparse.ArgumentParser):
    """argparse, but a wrong argument is one line, as every other error."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments=None) -> int:
    """Runs one command; 0 when it is done, 2 when something given to it is wrong."""
    parser = Parser(prog="keras-pspnet", description="PSPNet: train, score, export, run.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)

    command = commands.add_parser("demo", help="the whole way once, on generated scenes")
    command.add_argument("--out", default="runs/demo", metavar="DIR", help="(%(default)s)")
    command.set_defaults(call=demo)

    command = commands.add_parser("train", help="train a recipe")
    command.add_argument("recipe", metavar="RECIPE")
    command.add_argument("--data-dir", metavar="DIR", help="the dataset's folder")
    command.add_argument("--out", metavar="RUN", required=True, help="the run folder")
    setting = {"nargs": "+", "action": "extend", "default": [], "metavar": "FIELD=VALUE"}
    command.add_argument("--set", dest="settings", **setting, help="change the recipe")
    command.add_argument("--resume", action="store_true", help="go on where RUN was left")
    command.set_defaults(call=train)

    command = commands.add_parser("look", help="check a dataset, count it, show samples")
    command.add_argument("--dataset", required=True, metavar="NAME")
    command.add_argument("--data-dir", metavar="DIR")
    command.add_argument("--out", metavar="DIR", help="a folder for pictures of samples")
    command.set_defaults(call=look)

    command = commands.add_parser("evaluate", help="score a model on pictures with masks")
    command.add_argument("model", metavar="MODEL", help=".keras, SavedModel folder or .tflite")
    command.add_argument("--dataset", required=True, metavar="NAME")
    command.add_argument("--data-dir", metavar="DIR")
    command.add_argument("--split", default="val", help="(%(default)s)")
    command.add_argument("--json", metavar="FILE", help="write the scores")
    command.add_argument("--report", metavar="DIR", help="write a page to look at")
    command.set_defaults(call=evaluate)

    command = commands.add_parser("predict", help="segment pictures")
    command.add_argument("model", metavar="MODEL", help=".keras, SavedModel folder or .tflite")
    command.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER")
    command.add_argument("--out", metavar="DIR", required=True)
    command.add_argument("--labels", metavar="NAME|FILE", help="instead of the model's own")
    command.set_defaults(call=predict)

    command = commands.add_parser("export", help="write files for devices")
    command.add_argument("model", metavar="MODEL", help="a .keras file")
    command.add_argument("--out", metavar="DIR", required=True)
    command.add_argument("--formats", default="all", metavar="LIST", help="saved_model,float32")
    command.add_argument("--calibration", metavar="DIR", help="pictures to compare on")
    add_export_options(command)
    command.set_defaults(call=export)

    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    options.typed = shlex.join(["keras-pspnet", *arguments])
    return run(options.call, options)


def add_export_options(parser) -> None:
    """What `export` and export/release.py share."""
    parser.add_argument("--size", nargs=2, type=int, metavar=("H", "W"))
    parser.add_argument("--output", default="classes", help="classes, logits or probabilities")
    parser.add_argument("--labels", metavar="NAME|FILE", help="instead of the model's own")
    parser.add_argument("--min-agreement", type=float, metavar="F", help="share of equal pixels")


def run(call: Callable, options) -> int:
    """Calls a command; what the user can mend becomes one line and exit code 2."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        call(options)
    except UserError as error:
        print(f"keras-pspnet: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the output has stopped
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except (OSError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        name = getattr(error, "filename", None) or "a file"
        print(f"keras-pspnet: {str(name)[:80]}: cannot be used: {reason}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("keras-pspnet: interrupted", file=sys.stderr)
        return 130
    return 0


def one_operation_at_a_time() -> None:
    """Before TensorFlow is imported: gradients are added up in one order, so bits can be repeated.

    Each operation still uses all cores; measured, a training step takes as long as before.
    """
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")


def quiet_tensorflow() -> None:
    """Imports TensorFlow without what it prints to stderr while it looks for devices."""
    stderr = os.dup(2)
    with open(os.devnull, "w") as devnull:
        os.dup2(devnull.fileno(), 2)
    try:
        import tensorflow

        tensorflow.zeros(())
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def quiet_datasets(name: str) -> None:
    """TFDS imports TensorFlow, and warns of its own ways."""
    if name.startswith("tfds:"):
        quiet_tensorflow()
        logging.getLogger("absl").setLevel(logging.ERROR)


# Each command looks at everything it was given before TensorFlow is imported.


def demo(options) -> None:
    writable_folder(options.out)
    one_operation_at_a_time()
    quiet_tensorflow()
    from keras_pspnet import demo

    demo.run(options.out)


def train(options) -> None:
    from keras_pspnet.datasets import open_source
    from keras_pspnet.recipes import check_run, find_recipe

    recipe = find_recipe(options.recipe).change(options.settings)
    check_run(recipe, writable_folder(options.out), options.resume)
    one_operation_at_a_time()
    quiet_datasets(recipe.dataset)
    open_source(recipe.dataset, options.data_dir, split="train")
    quiet_tensorflow()
    from keras_pspnet import train

    train.fit(recipe, options.out, data_dir=options.data_dir, resumed=options.resume)


def look(options) -> None:
    from keras_pspnet.look import look

    if options.out:
        writable_folder(options.out)
    quiet_datasets(options.dataset)
    look(options.dataset, options.data_dir, options.out)


def evaluate(options) -> None:
    from keras_pspnet import metrics, report, runners
    from keras_pspnet.datasets import open_source
    from keras_pspnet.files import write_together
    from keras_pspnet.progress import track

    kind = runners.check_model(options.model)
    if options.json:
        writable_folder(Path(options.json).parent)
        if Path(options.json).is_dir():
            raise UserError(f"{options.json}: is a folder; --json takes the name of a file")
    page = report.page_in(options.report) if options.report else None
    quiet_datasets(options.dataset)
    source = open_source(options.dataset, options.data_dir, split=options.split).paired()
    if kind != "tflite":
        quiet_tensorflow()
    model = runners.load_model(options.model)
    network = runners.as_network(model)
    network.check_labels(source.labels)
    if options.dataset == "scenes":  # drawn at the size that the model was made for
        source = open_source("scenes", split=options.split, size=network.size)
    examples = track(source.examples(), "evaluating", len(source))
    watched = report.Report(source.labels)
    scores = metrics.evaluate(
        lambda image: runners.segment(model, image),
        examples,
        source.labels,
        watch=watched.watch if page else None,
    )
    for name, iou in scores["classes"].items():
        print(f"{name:>16}  {'absent' if iou is None else format(iou, '.4f')}")
    print(
        f"mIoU {scores['mIoU']:.4f}  (all classes {scores['mIoU_all']:.4f})  mean accuracy "
        f"{scores['mean_accuracy']:.4f}  pixel accuracy {scores['pixel_accuracy']:.4f}  "
        f"{scores['images']} images in {scores['seconds']:.1f} s"
    )
    files = {}
    if options.json:
        files[Path(options.json)] = (json.dumps(scores, indent=2) + "\n").encode()
    if page:
        described = {"model": options.model, "dataset": options.dataset, "split": options.split}
        files[page] = watched.page(scores, **described, command=options.typed)
    if files:
        write_together(files)
    if page:
        print(f"look at {page}")


def predict(options) -> None:
    from keras_pspnet import runners, visualize
    from keras_pspnet.files import unique_stems, write_together
    from keras_pspnet.labels import load_labels
    from keras_pspnet.progress import track

    kind = runners.check_model(options.model)
    images = list_images(*options.images)
    labels = load_labels(options.labels) if options.labels else None
    out = writable_folder(options.out)
    for path in images:
        read_image(path)
    if kind != "tflite":
        quiet_tensorflow()
    model = runners.load_model(options.model)
    network = runners.as_network(model)
    if labels:
        network.check_labels(labels)
    labels = labels or network.labels
    # Two pictures of one name must not overwrite each other.
    pairs = list(zip(images, unique_stems(images)))
    for path, stem in track(pairs, "predicting", len(pairs)):
        image = read_image(path)
        classes = runners.segment(model, image)
        sheet = visualize.overlay_with_legend(image, classes, labels)
        write_together(
            {
                out / f"{stem}_classes.png": visualize.class_png(classes, labels),
                out / f"{stem}_overlay.png": visualize.png(sheet),
            }
        )
    print(f"{out}: {len(images)} pictures, each as _classes.png (class ids) and _overlay.png")


def export(options) -> dict:
    from keras_pspnet import runners
    from keras_pspnet.contract import FORMATS, check_request
    from keras_pspnet.labels import load_labels

    runners.check_keras_model(options.model)
    labels = load_labels(options.labels) if options.labels else None
    writable_folder(options.out)
    pictures = None
    if options.calibration:
        pictures = list_images(options.calibration)
        for path in pictures:
            read_image(path)
    formats = list(FORMATS) if options.formats == "all" else options.formats.split(",")
    request = {"output": options.output, "size": options.size}
    request["min_agreement"] = options.min_agreement
    check_request(formats, **request)
    quiet_tensorflow()
    from keras_pspnet.export import export_model

    model = runners.load_model(options.model)
    return export_model(
        model,
        options.out,
        formats=formats,
        calibration=pictures,
        labels=labels,
        say=lambda line: print(line, flush=True),
        **request,
    )


if __name__ == "__main__":
    sys.exit(main())
