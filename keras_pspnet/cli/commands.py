"""Run each command of the command line.

A command checks its arguments before it imports TensorFlow, which takes seconds and prints lines.
"""

from pathlib import Path

from keras_pspnet.cli import quiet
from keras_pspnet.errors import UserError
from keras_pspnet.files import writable_folder


def demo(options) -> None:
    """Run the demo."""
    writable_folder(options.out)
    quiet.make_training_repeatable()
    quiet.quiet_tensorflow()
    from keras_pspnet.cli import demo

    demo.run(options.out)


def train(options) -> None:
    """Train a recipe."""
    from keras_pspnet.train import processes, recipes
    from keras_pspnet.train.recipe_fields import parse_texts
    from keras_pspnet.train.run_folder import check_run, is_resumable
    from keras_pspnet.train.splits import fingerprint, open_splits
    from keras_pspnet.train.start import follow, read_start

    place = processes.read_processes(options.coordinator, options.processes, options.process)
    changes = parse_texts(dict(options.set))
    recipe = recipes.recipe(options.recipe, **changes)
    start, teacher = read_start(options.start), read_start(options.teacher)
    recipe = follow(recipe, start, changes)
    check_run(recipe, writable_folder(options.out), options.resume, start, teacher)
    quiet.check_backend()
    quiet.make_training_repeatable()
    quiet.quiet_datasets(recipe.dataset)
    splits = open_splits(recipe, options.data_dir)
    if teacher:
        teacher.check_teaches(splits[0].labels)
    if options.resume:
        is_resumable(recipe, options.out, fingerprint(*splits, options.data_dir), start, teacher)
    if place:
        processes.join(place)
    with quiet.quiet_stderr():
        from keras_pspnet.train.devices import open_devices

        open_devices(options.devices, recipe.batch_size)  # before TensorFlow starts
    quiet.quiet_tensorflow()
    from keras_pspnet.train.run import fit

    given = {"data_dir": options.data_dir, "start": start, "teacher": teacher}
    given |= {"resume": options.resume, "skip_broken": options.skip_broken}
    with quiet.quiet_stdout(place is not None and place.process > 0):  # the first one reports
        fit(recipe, options.out, devices=options.devices, **given)
    if place:
        processes.leave()


def look(options) -> None:
    """Check a dataset and draw samples."""
    from keras_pspnet.data.inspect import inspect_dataset

    if options.out:
        writable_folder(options.out)
    quiet.quiet_datasets(options.dataset)
    inspect_dataset(
        options.dataset,
        options.data_dir,
        options.out,
        write_labels=options.write_labels,
        uncovered=options.uncovered,
    )


def import_folder(options) -> None:
    """Turn a folder that `look` recognises into the plain layout; print what it holds."""
    from keras_pspnet.data.datasets import check_folder
    from keras_pspnet.data.folder import read_layout
    from keras_pspnet.data.layouts import in_order
    from keras_pspnet.data.plain_copy import write_plain
    from keras_pspnet.progress import track

    out = writable_folder(options.out)
    source = check_folder("folder", options.source)
    layout = read_layout(source, options.uncovered)
    for note in (f"{source}: {layout.what}", *layout.notes):
        print(note)
    warnings = write_plain(layout, out, lambda work: track(work, "importing", len(work)))
    counts = (f"{len(layout.splits[split])} {split}" for split in in_order(layout.splits))
    print(f"{out}: {', '.join(counts)}, {len(layout.labels)} classes; names in labels.json")
    for line in warnings:
        print(line)


def evaluate(options) -> None:
    """Score a model; print the scores, and write them as asked."""
    from keras_pspnet.cli import evaluation

    evaluation.run(options)


def predict(options) -> None:
    """Segment pictures."""
    from keras_pspnet.cli import prediction

    prediction.run(options)


def export(options) -> dict:
    """Export a model; return format -> file."""
    from keras_pspnet.cli import calibration
    from keras_pspnet.export.formats import COMMAND_FORMATS, check_request
    from keras_pspnet.inference.load import check_model, load_model
    from keras_pspnet.labels import load_labels

    check_model(options.model, "keras")
    labels = load_labels(options.labels) if options.labels else None
    writable_folder(options.out)
    named = options.formats
    if named is not None:
        named = named.replace(",", " ").split()
    request = {"output": options.output, "size": options.size}
    request["min_agreement"] = options.min_agreement
    check_request(COMMAND_FORMATS if named is None else named, **request)
    choice = calibration.choose(options.model, options.calibration, named)
    quiet.quiet_tensorflow()
    from keras_pspnet.export.card import without_folders
    from keras_pspnet.export.deliver import export_files
    from keras_pspnet.network.main_head import labels_of

    model = load_model(options.model)
    pictures = choice.for_model(labels_of(model))
    with quiet.quiet_stderr():  # the converters print many lines
        return export_files(
            model,
            options.out,
            formats=choice.formats,
            calibration=pictures,
            source=choice.source,
            labels=labels,
            command=without_folders(options.typed),
            say=lambda line: print(line, flush=True),
            **request,
        )


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


def presets(_) -> None:
    """Print a table of the presets."""
    from keras_pspnet.inference.presets import cards, preset_file

    table = [("name", "data", "classes", "size (MB)", "mIoU", "licence", "file")]
    for name, card in cards().items():
        try:
            place = str(preset_file(name))
        except UserError as error:  # not here, or another file
            place = str(error)
        score = f"{card['scores'][0]['mIoU']:.3f}" if card["scores"] else "not measured"
        described = (card["dataset"], len(card["labels"]["names"]), f"{card['bytes'] / 1e6:.1f}")
        table.append((name, *map(str, described), score, card["licence"], place))
    print_table(table)
    print("Write preset:NAME where a command takes MODEL.")


def recipes(_) -> None:
    """Print a table of the recipes: data, backbone, epochs and, where measured, cost and score."""
    from keras_pspnet.train.measured import MEASURED
    from keras_pspnet.train.recipes import RECIPES

    table = [("recipe", "data", "size", "backbone", "epochs", "cost", "mIoU")]
    for name, recipe in RECIPES.items():
        cost, score = MEASURED.get(name, (None, None))
        size = "{}x{}".format(*recipe.crop)
        about = (recipe.dataset, size, str(recipe.backbone), str(recipe.epochs))
        table.append((name, *about, cost or "-", "-" if score is None else f"{score:.3f}"))
    print_table(table)
    print("Cost on two cores of an AMD EPYC, mIoU on the validation pictures; - was not measured.")
    print("keras-pspnet train --help lists what --set changes.")


def info(_) -> None:
    """Print versions and devices."""
    from keras_pspnet.cli import info

    info.run()


def print_table(rows) -> None:
    """Print rows of texts as columns."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
