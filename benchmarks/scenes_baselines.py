"""How far one gets on the generated scenes without context: one pixel's colour, one 9x9 patch.

    python benchmarks/scenes_baselines.py [--json FILE]

Both classifiers learn from the train split and are scored on the held-out one. They are meant to be
strong: the pixel gets the better of a colour histogram and a network, the patch a network trained
on 32 000 crops four times over with a falling rate, and all may trade frequent classes for rare
ones, tuned for mIoU on train scenes they have not seen. Ten to twenty minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from keras_pspnet import scenes
from keras_pspnet.files import write_json
from keras_pspnet.scoring.metrics import ConfusionMatrix

CLASSES = len(scenes.LABELS)
VOID = scenes.LABELS.ignore
SIZE = (185, 185)
TRAIN, TUNE, HELD_OUT = 4000, 60, 300
PRIORS = (0.0, 0.25, 0.5, 0.75, 1.0)


def measure(log_posterior, log_prior, tune, held_out) -> dict:
    """Scores on the held-out scenes, with the share of the prior that does best on `tune`.

    Args:
        log_posterior: images (N, H, W, 3) -> (N, H, W, C).
        tune, held_out: images and masks.
    """

    def scores(split, shares):
        matrices = [ConfusionMatrix(CLASSES) for _ in shares]
        for image, mask in zip(*split):
            logs = log_posterior(image[None])[0]
            for matrix, share in zip(matrices, shares):
                matrix.update(mask, np.argmax(logs - share * log_prior, -1))
        return [matrix.scores(scenes.LABELS) for matrix in matrices]

    best = int(np.argmax([tuned["mIoU"] for tuned in scores(tune, PRIORS)]))
    return scores(held_out, PRIORS[best : best + 1])[0]


def histogram(images, masks):
    """Counts of every class for each of 32 x 32 x 32 colours, as a log posterior."""
    counts = np.zeros((32**3, CLASSES))
    for image, mask in zip(images, masks):
        known = mask != VOID
        cells = color_cell(image[known]) * CLASSES + mask[known]
        counts += np.bincount(cells, minlength=counts.size).reshape(counts.shape)
    prior = counts.sum(0) / counts.sum()
    table = np.log((counts + prior) / (counts + prior).sum(1, keepdims=True))
    return lambda batch: table[color_cell(batch)]


def color_cell(pixels) -> np.ndarray:
    red, green, blue = np.moveaxis(pixels.astype(int) >> 3, -1, 0)
    return red * 1024 + green * 32 + blue


def network(kernels, channels, images, masks, *, crop, crops_each, epochs):
    """A network that sees exactly 1 + sum(kernel - 1) pixels across, trained; its log posterior."""
    stack = [keras.Input((None, None, 3)), keras.layers.Rescaling(1 / 64, offset=-2)]
    for kernel in kernels:
        stack += [
            keras.layers.Conv2D(channels, kernel, use_bias=False),
            keras.layers.BatchNormalization(momentum=0.97),
            keras.layers.ReLU(),
        ]
    stack += [keras.layers.Conv2D(2 * channels, 1, activation="relu")]
    stack += [keras.layers.Conv2D(CLASSES, 1)]
    model = keras.Sequential(stack)

    margin = sum(kernel - 1 for kernel in kernels) // 2
    count = len(images) * crops_each
    pictures = np.empty((count, crop, crop, 3), np.uint8)
    targets = np.empty((count, crop - 2 * margin, crop - 2 * margin), np.uint8)
    rng = np.random.default_rng(0)
    for number in range(count):
        top, left = rng.integers(0, SIZE[0] - crop + 1), rng.integers(0, SIZE[1] - crop + 1)
        rows, columns = slice(top, top + crop), slice(left, left + crop)
        pictures[number] = images[number % len(images)][rows, columns]
        inner = slice(margin, crop - margin)
        targets[number] = masks[number % len(images)][rows, columns][inner, inner]

    batch = 32
    rate = keras.optimizers.schedules.CosineDecay(3e-3, epochs * (count // batch))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=VOID)
    model.compile(keras.optimizers.Adam(rate), loss, jit_compile=False)
    model.fit(pictures, targets, batch_size=batch, epochs=epochs, verbose=2)

    def log_posterior(batch):
        # Mirrored edges, so that every pixel of a scene is scored; zeros would show where they are.
        edges = [(0, 0), (margin, margin), (margin, margin), (0, 0)]
        return keras.ops.convert_to_numpy(model(np.pad(batch, edges, mode="reflect")))

    return log_posterior


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write the scores here")
    file = parser.parse_args().json

    print(f"drawing {TRAIN + TUNE + HELD_OUT} scenes of {SIZE[0]}x{SIZE[1]}", flush=True)
    images, masks = scenes.scenes(TRAIN + TUNE, split="train", size=SIZE)
    tune = images[TRAIN:], masks[TRAIN:]
    images, masks = images[:TRAIN], masks[:TRAIN]
    held_out = scenes.scenes(HELD_OUT, split="val", size=SIZE)
    occurs = np.bincount(masks.ravel(), minlength=256)[:CLASSES]
    log_prior = np.log(occurs / occurs.sum())

    print("one pixel: colour histogram", flush=True)
    pixel = measure(histogram(images, masks), log_prior, tune, held_out)
    print("one pixel: network", flush=True)
    learned = network((1, 1, 1), 64, images, masks, crop=32, crops_each=2, epochs=2)
    pixel = max(pixel, measure(learned, log_prior, tune, held_out), key=lambda s: s["mIoU"])
    print("9x9 patch: network", flush=True)
    learned = network((3, 3, 3, 3), 48, images, masks, crop=41, crops_each=8, epochs=4)
    patch = measure(learned, log_prior, tune, held_out)

    print(f"\nIoU on {HELD_OUT} held-out scenes\n{'':10}{'pixel':>8}{'9x9':>8}")
    for name, value in pixel["classes"].items():
        print(f"{name:10}{value:8.3f}{patch['classes'][name]:8.3f}")
    print(f"{'mIoU':10}{pixel['mIoU']:8.3f}{patch['mIoU']:8.3f}")
    if file:
        write_json(file, {"pixel": pixel, "patch9": patch})


if __name__ == "__main__":
    main()
