"""Draw the pictures of a run folder: the curves, and what the network sees."""

from pathlib import Path

import numpy as np

from keras_pspnet import visualize
from keras_pspnet.data.pairs import Source
from keras_pspnet.files import write_bytes
from keras_pspnet.inference.load import as_predictor
from keras_pspnet.inference.segment import segment
from keras_pspnet.train.history import curves, or_warning

SAMPLES = 6
"""Number of validation pictures in samples.png."""


def draw(out: Path, history: list[dict], model, source: Source) -> None:
    """Write curves.png and samples.png of a training; print a warning if one cannot be written.

    Args:
        history: one row per epoch.
        model: a keras.Model.
        source: the validation pictures.
    """
    with or_warning():
        write_bytes(out / "curves.png", curves(history))
    with or_warning():
        visualize.save_png(out / "samples.png", samples(model, source))


def samples(model, source: Source) -> np.ndarray:
    """Draw pictures, truth and prediction side by side; return (H, W, 3) uint8."""
    predictor = as_predictor(model)
    table = []
    for _, image, mask in source.first(SAMPLES).examples():
        prediction = segment(predictor, image)
        overlays = [visualize.overlay(image, ids, source.labels, 0.8) for ids in (mask, prediction)]
        table.append([image, *overlays])
    return visualize.rows(table, ["picture", "truth", "prediction"], labels=source.labels)
