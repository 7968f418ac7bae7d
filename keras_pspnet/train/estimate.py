"""Estimate how long a training takes, before it starts."""

import time

import numpy as np

from keras_pspnet.progress import clock
from keras_pspnet.train.recipe_fields import Recipe

FINE_COST = 2.6
"""Cost of a step at output stride 8, in steps at 16; measured on EfficientNet-Lite0."""

PRODUCTS = {
    ("efficientnet_lite0", 16): 356.0,
    ("efficientnet_lite0", 8): 356.0 * FINE_COST,
    ("resnet14_narrow", 8): 230.0,
    ("resnet50", 8): 4370.0,
}
"""(backbone, output stride) -> GFLOP of numpy's float32 matrix product that take as long as a
training step of a million pixels. From benchmarks/results/: the seconds of training_steps.json
times the 199 GFLOP/s of the same machine in peers.json."""

VALIDATION = 1 / 3
"""Cost of a picture that is validated, in pictures that are trained on: the forward pass alone."""


SIDE, TIMES = 1024, 20
"""Rows and columns of the matrices of `matrix_product`, and how often it multiplies them."""


def matrix_product() -> float:
    """Measure numpy's float32 matrix product, in GFLOP/s.

    The best of many short products: other work on the machine leaves at least one of them alone.
    """
    a, seconds = np.ones((SIDE, SIDE), np.float32), []
    for _ in range(TIMES):
        start = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - start)
    return 2 * SIDE**3 / min(seconds) / 1e9


def seconds(recipe: Recipe, train_images: int, val_images: int, speed: float) -> float | None:
    """Estimate the seconds of a training on a CPU that does nothing else.

    Args:
        train_images, val_images: numbers of pictures.
        speed: what `matrix_product` returns.

    Returns:
        A float; None for a network whose steps were not measured.
    """
    epochs, coarse = recipe.lengths(train_images)
    pictures = train_images // recipe.step_size * recipe.step_size + VALIDATION * val_images
    total = 0.0
    for number, stride in (
        (coarse, 2 * recipe.output_stride),
        (epochs - coarse, recipe.output_stride),
    ):
        if number and (recipe.backbone, stride) not in PRODUCTS:
            return None
        if number:
            total += number * PRODUCTS[recipe.backbone, stride]
    return total * pictures * recipe.crop[0] * recipe.crop[1] / 1e6 / speed


def line(recipe: Recipe, train_images: int, val_images: int, on_cpu: bool) -> str:
    """Return one line on what a training will do: epochs, steps and, on a CPU, about how long.

    Args:
        train_images, val_images: numbers of pictures.
        on_cpu: whether it computes on this machine's processor.
    """
    epochs, _ = recipe.lengths(train_images)
    steps = train_images // recipe.step_size
    text = f"{train_images} pictures: {epochs} epochs of {steps} steps"
    if epochs > recipe.epochs:
        text += f", as so few need more epochs to make {recipe.least_steps} steps"
    taken = seconds(recipe, train_images, val_images, matrix_product()) if on_cpu else None
    if taken is None:
        return text
    return f"{text}; about {clock(taken)} if this machine does nothing else"
