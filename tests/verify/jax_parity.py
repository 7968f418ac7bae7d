"""Half of the check `jax`: numbers of one backend, to be compared with another.

    KERAS_BACKEND=tensorflow python tests/verify/jax_parity.py PART FOLDER   first: makes the models
    KERAS_BACKEND=jax        python tests/verify/jax_parity.py PART FOLDER

PART is predictions, losses, start or trained; see the functions of these names. Each writes
FOLDER/PART_BACKEND.npz, arrays by name.
"""

import sys
from pathlib import Path

import keras
import numpy as np

import keras_pspnet
from keras_pspnet.data.datasets import open_source
from keras_pspnet.network.losses import VoidCrossentropy
from keras_pspnet.train import recipes
from keras_pspnet.train.build import build
from keras_pspnet.train.recipe_fields import parse_texts

BACKEND = keras.backend.backend()
CLASSES = 5
NARROW = {"backbone": "resnet14_narrow", "channels": 16}
MODELS = {  # arguments of build_pspnet, and the sizes of pictures that the model is given
    # With output stride 8, 41x89 gives maps of 6x12: every bin divides them; 65x81 gives 9x11.
    "dividing": (NARROW, [(41, 89)]),
    "aligned": (NARROW, [(65, 81)]),
    "half_pixel": ({**NARROW, "align_corners": False}, [(65, 81)]),
    "max_dividing": ({**NARROW, "pooling": "max"}, [(41, 89)]),
    "max": ({**NARROW, "pooling": "max"}, [(49, 49)]),
    "unreduced": ({**NARROW, "reduce_channels": False}, [(65, 81)]),
    "any_size": (NARROW, [(65, 81), (49, 74), (41, 89)]),
    "any_size_half_pixel": ({**NARROW, "align_corners": False}, [(49, 49), (66, 80)]),
    "lite0": ({"backbone": "efficientnet_lite0", "channels": 16, "output_stride": 16}, [(97, 65)]),
    "resnet50": ({"backbone": "resnet50"}, [(97, 97)]),
}
LOSSES = {
    "plain": {},
    "weighted": {"class_weights": [0.5, 1.0, 2.0, 0.25, 3.0]},
    "hard": {"ohem_threshold": 0.3},
    "hardest": {"ohem_threshold": 1e-4},
    "jaccard": {"jaccard": 0.5},
    "dice": {"dice": 0.5},
    "focal": {"focal": 2.0},
    "all": {
        "class_weights": [0.5, 1, 2, 0.25, 3],
        "ohem_threshold": 0.3,
        "jaccard": 0.5,
        "dice": 0.25,
        "focal": 0.5,
        "ignore": 9,
    },
}


def predictions(folder):
    """Both heads' logits of every model, from weights that TensorFlow wrote, and class ids."""
    results = {}
    for name, (arguments, sizes) in MODELS.items():
        path = folder / f"{name}.keras"
        if not path.exists():
            size = sizes[0] if len(sizes) == 1 else (None, None)
            model = keras_pspnet.build_pspnet(CLASSES, input_shape=(*size, 3), **arguments)
            randomise_norms(model)
            model.save(path)
        model = keras_pspnet.load_model(path)
        for height, width in sizes:
            image = generator(height).integers(0, 256, (1, height, width, 3), np.uint8)
            for head, logits in model.predict_on_batch(image).items():
                results[f"{name}_{height}x{width}_{head}"] = logits
        results[f"{name}_classes"] = keras_pspnet.segment(model, image[0, :-3])
    return results


def randomise_norms(model):
    """Statistics and factors of batch norms as no training begins with."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            rng, shape = generator(layer.gamma.shape[0]), layer.gamma.shape
            layer.gamma.assign(rng.uniform(0.5, 1.5, shape))
            layer.beta.assign(rng.normal(0, 0.2, shape))
            layer.moving_mean.assign(rng.normal(0, 0.2, shape))
            layer.moving_variance.assign(rng.uniform(0.5, 1.5, shape))


def losses(_):
    """Every kind of VoidCrossentropy of a batch, and its gradient by the logits."""
    rng = generator(0)
    logits = rng.normal(0, 3, (2, 13, 17, CLASSES)).astype(np.float32)
    classes = rng.integers(0, CLASSES, (2, 13, 17)).astype(np.uint8)
    void = np.zeros(classes.shape, bool)
    void[0, :5] = True
    results = {}
    for name, arguments in LOSSES.items():
        loss = VoidCrossentropy(**arguments)
        for part, where in (("", void), ("_void", np.ones_like(void))):
            masks = np.where(where, loss.ignore, classes).astype(np.uint8)
            value, gradient = value_and_gradient(loss, masks, logits)
            results |= {f"{name}{part}": value, f"{name}{part}_gradient": gradient}
    return results


def value_and_gradient(loss, masks, logits):
    if BACKEND == "jax":
        import jax

        return jax.jit(jax.value_and_grad(lambda x: loss(masks, x)))(logits)
    import tensorflow as tf

    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(masks, logits)
    return value, tape.gradient(value, logits)


def start(folder):
    """A network for both backends to start from."""
    keras.utils.set_random_seed(0)
    settings = parse_texts(dict(text.split("=") for text in sys.argv[3:]))
    recipe = recipes.recipe("scenes_tiny", **settings)
    source = open_source(recipe.dataset, split="train", size=recipe.crop)
    model = build(recipe, source.labels, np.ones(len(source.labels)), 1)
    # A new network has units that are 0 but for rounding, whose gradient is anybody's guess.
    randomise_norms(model)
    model.save(folder / "start.keras")
    return weights(model)


def trained(folder):
    """Weights and running statistics of a run's `last.keras`."""
    return weights(keras.saving.load_model(folder / "last.keras"))


def weights(model):
    return {v.path: keras.ops.convert_to_numpy(v) for v in model.weights if v.shape}


def generator(seed):
    return np.random.default_rng(seed)


if __name__ == "__main__":
    part, folder = sys.argv[1], Path(sys.argv[2])
    arrays = globals()[part](folder)
    np.savez(folder / f"{part}_{BACKEND}.npz", **{k: np.asarray(v) for k, v in arrays.items()})
