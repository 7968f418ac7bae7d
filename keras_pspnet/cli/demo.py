"""Train a small network on generated scenes, score it, export it and run it without TensorFlow."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from keras_pspnet import visualize
from keras_pspnet.data.datasets import open_source
from keras_pspnet.data.pairs import Source
from keras_pspnet.export.deliver import export_model
from keras_pspnet.files import write_json
from keras_pspnet.inference.load import load_model
from keras_pspnet.progress import clock
from keras_pspnet.scoring.evaluation import evaluate
from keras_pspnet.train import recipes
from keras_pspnet.train.run import fit

WITHOUT_TENSORFLOW = f"""
import sys
sys.path.insert(0, {str(Path(visualize.__file__).parents[1])!r})  # of a clone that is not installed
sys.modules["tensorflow"] = sys.modules["keras"] = None  # an import of either is now an error
from keras_pspnet.cli import main
sys.exit(main(sys.argv[1:]))
"""

RECIPE = {
    "epochs": 4,
    "coarse_epochs": 2,
    "batch_size": 4,
    "jaccard": 1.0,
    # So short a training learns more from scenes as they are drawn: only mirroring augments them.
    "scales": (1.0, 1.0),
    "rotation": 0.0,
    "blur_share": 0.0,
    "dropout": 0.0,
}
"""Changes of the recipe `scenes` that take a quarter of its time."""

ROWS = 6
"""Number of pictures in overview.png."""


def run(out) -> dict:
    """Run the demo; continue a demo that was interrupted.

    Args:
        out: run folder of the recipe `scenes`, plus `export/`, `report.json` and `overview.png`.

    Returns:
        The content of report.json: {"mIoU_keras", "mIoU_tflite", "pixel_agreement", "seconds",
        ...}.

    Raises:
        UserError: the folder cannot be used.
    """
    out, start = Path(out), time.monotonic()
    recipe = recipes.recipe("scenes", **RECIPE)
    print(f"1/4 training a small PSPNet with its auxiliary loss on {recipe.dataset}", flush=True)
    fit(recipe, out, resume=True)

    print("2/4 scoring it on held-out scenes", flush=True)
    model = load_model(out / "best.keras")
    source = open_source(recipe.dataset, split="val", size=recipe.crop)
    keras_scores, expected = _evaluate(model, recipe.dataset)

    print("3/4 exporting", flush=True)
    say = lambda line: print(f"    {line}", flush=True)  # noqa: E731
    files = export_model(model, out / "export", formats=("saved_model", "float32"), say=say)

    print("4/4 running the .tflite file without TensorFlow", flush=True)
    tflite_scores = _evaluate_without_tensorflow(files["float32"], recipe.dataset, out)
    _, found = _evaluate(files["float32"], recipe.dataset)
    equal = [np.mean(a == b) for a, b in zip(expected, found)]
    seconds = time.monotonic() - start
    report = {
        "mIoU_keras": keras_scores["mIoU"],
        "mIoU_tflite": tflite_scores["mIoU"],
        "pixel_agreement": float(np.mean(equal)),
        "seconds": round(seconds, 1),
        "classes": keras_scores["classes"],
        "images": len(source),
        "tflite_bytes": files["float32"].stat().st_size,
        "tflite_seconds_per_image": round(tflite_scores["seconds"] / len(source), 4),
    }
    write_json(out / "report.json", report)
    visualize.save_png(out / "overview.png", overview(source, expected, found, report))
    print(
        f"mIoU {report['mIoU_keras']:.4f} in Keras, {report['mIoU_tflite']:.4f} from the .tflite, "
        f"{report['pixel_agreement']:.4%} equal pixels, {clock(seconds)}\n"
        f"look at {out / 'overview.png'}"
    )
    return report


def _evaluate(model, dataset: str) -> tuple[dict, list[np.ndarray]]:
    """Return the scores of a model and the class ids that it predicts for each picture."""
    predictions = []

    def keep(name, image, mask, prediction, matrix):
        predictions.append(prediction)

    return evaluate(model, dataset, on_picture=keep), predictions


def _evaluate_without_tensorflow(file, dataset, out) -> dict:
    """Score a file with `keras-pspnet evaluate` in a process that cannot import TensorFlow."""
    scores = out / "tflite_scores.json"
    without_tensorflow("evaluate", file, "--dataset", dataset, "--split", "val", "--json", scores)
    return json.loads(scores.read_text())


def without_tensorflow(*arguments) -> None:
    """Run `keras-pspnet` in a process that cannot import TensorFlow or Keras.

    Raises:
        subprocess.SubprocessError: it fails or takes longer than ten minutes.
    """
    # -P: `python -c` would otherwise import modules from the working folder, such as numpy.py.
    command = [sys.executable, "-P", "-c", WITHOUT_TENSORFLOW, *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=600)


def overview(source: Source, expected, found, report) -> np.ndarray:
    """Draw pictures, truth, both predictions and wrong pixels on one sheet, (H, W, 3) uint8.

    Args:
        expected, found: class ids predicted by the Keras model and by the .tflite file.
        report: the content of report.json.
    """
    labels, table = source.labels, []
    for index, (_, image, mask) in enumerate(source.first(ROWS).examples()):
        wrong = (found[index] != mask) & (mask != 255)
        errors = (0.35 * image).astype(np.uint8)
        errors[wrong] = (255, 70, 60)
        shown = [visualize.colorize(classes, labels) for classes in (mask, expected[index])]
        shown.append(visualize.overlay(image, found[index], labels))
        table.append([image, *shown, errors])
    best = sorted(report["classes"].items(), key=lambda entry: -(entry[1] or 0))
    return visualize.rows(
        table,
        ["picture (held out)", "truth", "Keras", ".tflite, as overlay", "its wrong pixels (red)"],
        heading=f"PSPNet on generated scenes: mIoU {report['mIoU_keras']:.3f}",
        notes=(
            f"The .tflite file: mIoU {report['mIoU_tflite']:.3f}, "
            f"{report['pixel_agreement']:.3%} of the pixels equal Keras, "
            f"{1000 * report['tflite_seconds_per_image']:.0f} ms a picture, "
            f"{report['tflite_bytes'] / 1e6:.1f} MB.",
            "The same shape is a car on a road and a boat on water, and road and water look alike.",
            "Only distant context tells them apart: facades, a horizon, pictures on a wall.",
            "IoU: " + ", ".join(f"{name} {iou:.2f}" for name, iou in best[: len(best) // 2]),
            "        " + ", ".join(f"{name} {iou:.2f}" for name, iou in best[len(best) // 2 :]),
        ),
        labels=labels,
    )
