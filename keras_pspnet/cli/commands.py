"""What each command of the command line does.

Everything a command was given is looked at before TensorFlow is imported.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from keras_pspnet.cli.quiet import (
    make_training_repeatable,
    quiet_datasets,
    quiet_stderr,
    quiet_tensorflow,
)
from keras_pspnet.errors import UserError
from keras_pspnet.files import evenly_spaced, read_bytes, writable_folder
from keras_pspnet.images import list_images, read_image


def demo(options) -> None:
    writable_folder(options.out)
    make_training_repeatable()
    quiet_tensorflow()
    from keras_pspnet.cli import demo

    demo.run(options.out)


def train(options) -> None:
    from keras_pspnet.data.datasets import open_source
    from keras_pspnet.train.recipes import find_recipe
    from keras_pspnet.train.run_folder import check_run

    recipe = find_recipe(options.recipe).change(options.settings)
    check_run(recipe, writable_folder(options.out), options.resume)
    make_training_repeatable()
    quiet_datasets(recipe.dataset)
    open_source(recipe.dataset, options.data_dir, split=recipe.train_split)
    quiet_tensorflow()
    from keras_pspnet.train.run import fit

    fit(recipe, options.out, data_dir=options.data_dir, resume=options.resume)


def look(options) -> None:
    from keras_pspnet.data.inspect import inspect_dataset

    if options.out:
        writable_folder(options.out)
    quiet_datasets(options.dataset)
    inspect_dataset(options.dataset, options.data_dir, options.out)


def evaluate(options) -> None:
    from keras_pspnet.data.datasets import open_source
    from keras_pspnet.files import write_together
    from keras_pspnet.inference.load import as_predictor, check_model, load_model
    from keras_pspnet.inference.segment import segment
    from keras_pspnet.progress import track
    from keras_pspnet.scoring import metrics, report

    kind = check_model(options.model)
    if options.json:
        writable_folder(Path(options.json).parent)
        if Path(options.json).is_dir():
            raise UserError(f"{options.json}: is a folder; --json takes the name of a file")
    page = report.page_in(options.report) if options.report else None
    if page and options.json and Path(options.json).resolve() == page.resolve():
        raise UserError(f"{page}: is the page of --report; give --json another name")
    look = protocol(options)
    quiet_datasets(options.dataset)
    source = open_source(options.dataset, options.data_dir, split=options.split).paired()
    if kind in ("keras", "saved_model"):
        quiet_tensorflow()
    model = load_model(options.model)
    network = as_predictor(model)
    network.check_labels(source.labels)
    look.check(network)
    if options.dataset == "scenes":  # drawn at the size that the model was made for
        source = open_source("scenes", split=options.split, size=network.size)
    examples = track(source.examples(), "evaluating", len(source))
    watched = report.Report(source.labels)
    scores = metrics.evaluate(
        lambda image: segment(model, image, look),
        examples,
        source.labels,
        watch=watched.watch if page else None,
    )
    scores["protocol"] = dataclasses.asdict(look)
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


def protocol(options):
    """What --crop, --base, --scales and --flip say."""
    from keras_pspnet.data.datasets import BASES
    from keras_pspnet.inference.segment import Protocol

    given = {"flip": options.flip, "base": options.base}
    if options.crop:
        given["crop"] = tuple(options.crop)
        if options.base is None:
            given["base"] = BASES.get(options.dataset)
    if options.scales is not None:
        if not options.crop:
            raise UserError("--scales belongs to the sliding window; give --crop H W too")
        try:
            given["scales"] = tuple(float(scale) for scale in options.scales.split(","))
        except ValueError as error:
            raise UserError(f"--scales {options.scales}: expected numbers, as 0.5,1,1.5") from error
    return Protocol(**given)


def predict(options) -> None:
    from keras_pspnet import visualize
    from keras_pspnet.files import unique_stems, write_together
    from keras_pspnet.inference.load import as_predictor, check_model, load_model
    from keras_pspnet.inference.segment import segment
    from keras_pspnet.labels import load_labels
    from keras_pspnet.progress import track

    kind = check_model(options.model)
    images = list_images(*options.images)
    labels = load_labels(options.labels) if options.labels else None
    out = writable_folder(options.out)
    for path in images:
        read_image(path)
    if kind in ("keras", "saved_model"):
        quiet_tensorflow()
    model = load_model(options.model)
    network = as_predictor(model)
    if labels:
        network.check_labels(labels)
    labels = labels or network.labels
    # Two pictures of one name must not overwrite each other.
    pairs = list(zip(images, unique_stems(images)))
    for path, stem in track(pairs, "predicting", len(pairs)):
        image = read_image(path)
        classes = segment(model, image)
        sheet = visualize.overlay_with_legend(image, classes, labels)
        write_together(
            {
                out / f"{stem}_classes.png": visualize.class_png(classes, labels),
                out / f"{stem}_overlay.png": visualize.png(sheet),
            }
        )
    count = f"{len(images)} picture{'' if len(images) == 1 else 's'}"
    print(f"{out}: {count}, as _classes.png (class ids) and _overlay.png")


def export(options) -> dict:
    from keras_pspnet.export.formats import CALIBRATION, check_request
    from keras_pspnet.inference.load import check_model, load_model
    from keras_pspnet.labels import load_labels

    check_model(options.model, "keras")
    labels = load_labels(options.labels) if options.labels else None
    writable_folder(options.out)
    formats = [name.strip() for name in options.formats.split(",")]
    request = {"output": options.output, "size": options.size}
    request["min_agreement"] = options.min_agreement
    check_request(formats, **request)
    if options.calibration:
        pictures, name = list_images(options.calibration), "given pictures"
        for path in evenly_spaced(pictures, CALIBRATION):  # export_model takes the same
            read_image(path)
    quiet_tensorflow()
    from keras_pspnet.export.deliver import export_model
    from keras_pspnet.network.main_head import labels_of

    model = load_model(options.model)
    if not options.calibration:
        run = Path(options.model).parent / "recipe.json"
        pictures, name = training_sample(run, labels_of(model)), "training pictures"
    with quiet_stderr():  # the converters have much to say
        return export_model(
            model,
            options.out,
            formats=formats,
            calibration=pictures,
            calibration_name=name,
            labels=labels,
            say=lambda line: print(line, flush=True),
            **request,
        )


def training_sample(file: Path, labels) -> list | None:
    """What a model without --calibration is calibrated on: pictures that it was trained on.

    Args:
        file: `recipe.json` of the model's run folder, which also says where the data were.
        labels: the model's.

    Returns:
        (image, mask) pairs, images alone if the data have other classes by now, or None where they
        are not to be had; it says so.
    """
    from keras_pspnet.data.datasets import open_source
    from keras_pspnet.export.formats import CALIBRATION

    if not file.is_file():
        print("no --calibration: ranges and agreement are those of 8 generated scenes", flush=True)
        return None
    try:
        run = json.loads(read_bytes(file))
        quiet_datasets(run["dataset"])
        source = open_source(run["dataset"], run["data_dir"], split=run["train_split"]).paired()
        sample = [source.read(index) for index in evenly_spaced(range(len(source)), CALIBRATION)]
    except (UserError, ValueError, KeyError, TypeError) as error:
        print(f"no --calibration, and no training data ({error}): 8 generated scenes", flush=True)
        return None
    masks = ""
    if source.labels.names != labels.names:
        sample, masks = [image for image, _ in sample], ", without masks: their classes changed"
    print(f"no --calibration: {len(sample)} of its training pictures{masks}", flush=True)
    return sample


def convert(options) -> None:
    from keras_pspnet.images import check_size
    from keras_pspnet.weights import foreign
    from keras_pspnet.weights.reader import read_checkpoint
    from keras_pspnet.weights.recognise import recognise

    out = Path(options.out)
    if out.suffix != ".keras":
        raise UserError(f"--out {out}: expected a file name that ends in .keras")
    if out.is_dir():
        raise UserError(f"{out}: is a folder; --out takes the name of a file")
    writable_folder(out.parent)
    check_size(options.size)
    weights = recognise(read_checkpoint(options.source), options.source)
    quiet_tensorflow()
    from keras_pspnet.network.convert import from_weights
    from keras_pspnet.network.saving import save_model

    model = from_weights(weights, options.source, options.size)
    save_model(model, out)
    heads = "both heads" if isinstance(model.output, dict) else "no auxiliary head"
    names = ", ".join(weights.labels.names[:3])
    if weights.labels in foreign.PUBLISHED.values():
        names += ", as the published dataset of as many"
    size = "{}x{}".format(*options.size) if options.size else "any size"
    print(
        f"{out}: {weights.name} of {weights.format}, {heads}, {size}, "
        f"{len(weights.labels)} classes: {names}"
    )
