"""Run each command of the command line.

A command checks its arguments before it imports TensorFlow, which takes seconds and prints lines.
"""

import dataclasses
import json
from pathlib import Path

from keras_pspnet.cli import quiet
from keras_pspnet.errors import UserError
from keras_pspnet.files import evenly_spaced, read_bytes, writable_folder
from keras_pspnet.images import list_images, read_image


def demo(options) -> None:
    """Run the demo."""
    writable_folder(options.out)
    quiet.make_training_repeatable()
    quiet.quiet_tensorflow()
    from keras_pspnet.cli import demo

    demo.run(options.out)


def train(options) -> None:
    """Train a recipe."""
    from keras_pspnet.data.datasets import open_source
    from keras_pspnet.train import recipes
    from keras_pspnet.train.recipe_fields import parse_texts
    from keras_pspnet.train.run_folder import check_run

    recipe = recipes.recipe(options.recipe, **parse_texts(dict(options.set)))
    check_run(recipe, writable_folder(options.out), options.resume)
    quiet.make_training_repeatable()
    quiet.quiet_datasets(recipe.dataset)
    open_source(recipe.dataset, options.data_dir, split=recipe.train_split)
    quiet.quiet_tensorflow()
    from keras_pspnet.train.run import fit

    fit(recipe, options.out, data_dir=options.data_dir, resume=options.resume)


def look(options) -> None:
    """Check a dataset and draw samples."""
    from keras_pspnet.data.inspect import inspect_dataset

    if options.out:
        writable_folder(options.out)
    quiet.quiet_datasets(options.dataset)
    inspect_dataset(options.dataset, options.data_dir, options.out)


def evaluate(options) -> None:
    """Score a model; print the scores, and write them as JSON and as a page if asked."""
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
    protocol = protocol_of(options)
    quiet.quiet_datasets(options.dataset)
    source = open_source(options.dataset, options.data_dir, split=options.split).paired()
    if kind in ("keras", "saved_model"):
        quiet.quiet_tensorflow()
    predictor = as_predictor(load_model(options.model))
    predictor.check_labels(source.labels)
    protocol.check(predictor)
    if options.dataset == "scenes":  # generated at the size that the model takes
        source = open_source("scenes", split=options.split, size=predictor.size)
    examples = track(source.examples(), "evaluating", len(source))
    collected = report.Report(source.labels)
    scores = metrics.evaluate(
        lambda image: segment(predictor, image, protocol),
        examples,
        source.labels,
        on_picture=collected.add if page else None,
    )
    scores["protocol"] = dataclasses.asdict(protocol)
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
        files[page] = collected.page(scores, **described, command=options.typed)
    write_together(files)
    if page:
        print(f"look at {page}")


def protocol_of(options):
    """Return the Protocol that --crop, --base, --scales and --flip describe."""
    from keras_pspnet.data.datasets import BASES
    from keras_pspnet.inference.segment import Protocol

    if options.scales is not None and not options.crop:
        raise UserError("--scales needs the sliding window; give --crop H W too")
    try:
        scales = tuple(map(float, ("1" if options.scales is None else options.scales).split(",")))
    except ValueError as error:
        raise UserError(f"--scales {options.scales}: expected numbers, as 0.5,1,1.5") from error
    crop, base = options.crop and tuple(options.crop), options.base
    if crop and base is None:
        base = BASES.get(options.dataset)
    return Protocol(crop, base, scales, options.flip)


def predict(options) -> None:
    """Segment pictures; write class ids and overlays."""
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
    for path in images:  # a picture that cannot be read stops the command before it writes
        read_image(path)
    if kind in ("keras", "saved_model"):
        quiet.quiet_tensorflow()
    predictor = as_predictor(load_model(options.model))
    if labels:
        predictor.check_labels(labels)
    labels = labels or predictor.labels
    pairs = list(zip(images, unique_stems(images)))
    for path, stem in track(pairs, "predicting", len(pairs)):
        image = read_image(path)
        classes = segment(predictor, image)
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
    """Export a model; return format -> file."""
    from keras_pspnet.export.formats import CALIBRATION_PICTURES, check_request
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
        pictures, kind = list_images(options.calibration), "given pictures"
        for path in evenly_spaced(pictures, CALIBRATION_PICTURES):  # export_files takes the same
            read_image(path)
    quiet.quiet_tensorflow()
    from keras_pspnet.export.card import without_folders
    from keras_pspnet.export.deliver import export_files
    from keras_pspnet.network.main_head import labels_of

    model = load_model(options.model)
    if not options.calibration:
        run = Path(options.model).parent / "recipe.json"
        pictures, kind = training_sample(run, labels_of(model)), "training pictures"
    with quiet.quiet_stderr():  # the converters print many lines
        return export_files(
            model,
            options.out,
            formats=formats,
            calibration=pictures,
            source=kind,
            labels=labels,
            command=without_folders(options.typed),
            say=lambda line: print(line, flush=True),
            **request,
        )


def training_sample(file: Path, labels) -> list | None:
    """Read training pictures of a model, to calibrate an export without --calibration.

    Prints which pictures it found. Downloads nothing.

    Args:
        file: `recipe.json` of the model's run folder, which holds the data folder.
        labels: the model's labels.

    Returns:
        At most 32 (image, mask) pairs; images alone if the classes of the data have changed; None
        if the data cannot be read.
    """
    from keras_pspnet.data.datasets import open_source
    from keras_pspnet.export.formats import CALIBRATION_PICTURES

    scenes = "ranges and agreement come from 8 generated scenes"
    if not file.is_file():
        print(f"no --calibration: {scenes}", flush=True)
        return None
    try:
        run = json.loads(read_bytes(file))
        quiet.quiet_datasets(run["dataset"])
        data_dir = run["data_dir"] and file.parent / run["data_dir"]  # if relative, to the run
        split = run["train_split"]
        source = open_source(run["dataset"], data_dir, split=split, download=False).paired()
        chosen = evenly_spaced(range(len(source)), CALIBRATION_PICTURES)
        sample = [source.read(index) for index in chosen]
    except (UserError, ValueError, KeyError, TypeError) as error:
        print(f"no --calibration and no training data ({error}): {scenes}", flush=True)
        return None
    masks = ""
    if source.labels.names != labels.names:
        sample, masks = [image for image, _ in sample], " without masks, as their classes changed"
    print(f"no --calibration: using {len(sample)} training pictures{masks}", flush=True)
    return sample


def convert(options) -> None:
    """Convert a checkpoint of another project to a .keras file."""
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
    pspnet = recognise(read_checkpoint(options.source), options.source)
    quiet.quiet_tensorflow()
    from keras_pspnet.network.convert import from_weights
    from keras_pspnet.network.saving import save_model

    model = from_weights(pspnet, options.source, options.size)
    save_model(model, out)
    heads = "both heads" if isinstance(model.output, dict) else "no auxiliary head"
    names = ", ".join(pspnet.labels.names[:3])
    if pspnet.labels in foreign.PUBLISHED.values():
        names += " ..., the names of the published dataset with as many classes"
    size = "{}x{}".format(*options.size) if options.size else "any size"
    print(
        f"{out}: {pspnet.name} of {pspnet.format}, {heads}, {size}, "
        f"{len(pspnet.labels)} classes: {names}"
    )
