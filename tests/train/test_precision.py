"""Half precision: what computes in it, what stays float32, and what keeps it."""

import keras
import numpy as np
import pytest

import keras_pspnet
from keras_pspnet import private_api, scenes
from keras_pspnet.labels import LabelSet
from keras_pspnet.network.batch_norm import BatchNormalization
from keras_pspnet.network.transfer import with_classes
from keras_pspnet.train import recipes
from keras_pspnet.train.build import at_full_resolution, build, build_network

LABELS = LabelSet.numbered(12)
TINY = recipes.recipe(
    "scenes_tiny", crop=(49, 49), channels=8, batch_size=2, epochs=2, coarse_epochs=1
)
KEPT = {"normalization", "cls_3", "aux_3", "main", "aux"}
"""The layers that compute in float32."""


def policies(model):
    """What each layer computes in and keeps its weights in."""
    layers = private_api.inner_layers(model)
    return {
        layer.name: (layer.compute_dtype, layer.variable_dtype)
        for layer in layers
        if not isinstance(layer, keras.layers.InputLayer)  # it computes nothing
    }


@pytest.fixture(scope="module", params=["bfloat16", "float16"])
def half(request):
    """A recipe and its compiled network."""
    recipe = TINY.change(precision=request.param)
    return recipe, build(recipe, LABELS, np.ones(12), 10, coarse=True)


def test_what_stays_float32(half):
    recipe, model = half
    assert keras.config.dtype_policy().name == "float32"
    found = policies(model)
    assert {name for name, (dtype, _) in found.items() if dtype == "float32"} == KEPT
    others = {dtype for name, dtype in found.items() if name not in KEPT}
    assert others == {(recipe.precision, "float32")}
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    assert {v.dtype for v in model.optimizer.variables} <= {"float32", "int64"}
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (recipe.precision == "float16")
    losses = [loss.dtype for loss in model.loss.values()]
    assert losses == ["float32", "float32"]


def test_batch_norm_and_pyramid_compute_their_means_in_float32(half):
    """Of values around 1000, where bfloat16 is 4 wide, and that float16 cannot add up."""
    dtype = f"mixed_{half[0].precision}"
    x = np.random.default_rng(0).integers(900, 1100, (2, 48, 48, 4)).astype(np.float32)
    x = np.asarray(keras.ops.cast(keras.ops.cast(x, half[0].precision), "float32"))
    norm = BatchNormalization(momentum=0.0, dtype=dtype)
    norm(keras.ops.cast(x, half[0].precision), training=True)
    np.testing.assert_allclose(norm.moving_mean, x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, x.var((0, 1, 2)), rtol=1e-3)
    pyramid = keras_pspnet.PyramidPoolingModule(
        (1,), reduce_channels=False, upsample=False, dtype=dtype
    )
    pooled = np.asarray(keras.ops.cast(pyramid(x)[1], "float32"))[:, 0, 0]
    rounded = keras.ops.cast(keras.ops.cast(x.mean((1, 2)), half[0].precision), "float32")
    np.testing.assert_array_equal(pooled, rounded)


def test_the_finer_network_keeps_it(half):
    recipe, coarse = half
    fine = at_full_resolution(coarse, recipe)
    assert policies(fine).items() <= policies(coarse).items()  # a padding is gone
    assert policies(fine)["layer4_0_conv2"] == (recipe.precision, "float32")
    assert fine.get_compile_config() == coarse.get_compile_config()
    for one, other in zip(coarse.optimizer.variables, fine.optimizer.variables, strict=True):
        assert np.array_equal(one, other)


def test_a_saved_network_computes_the_same(half, tmp_path):
    """In training too, with its dropout."""
    _, model = half
    model.save(tmp_path / "half.keras")
    loaded = keras_pspnet.load_model(tmp_path / "half.keras")
    assert policies(loaded) == policies(model)
    images, _ = scenes.scenes(2, split="val", size=(49, 49))
    outputs = []
    for network in (model, loaded):
        for variable in network.non_trainable_variables:
            if variable.name == "seed_generator_state":
                variable.assign([3, 4])
        outputs.append(network(images.astype(np.float32), training=True)["main"])
    assert outputs[0].dtype == "float32"
    assert np.array_equal(*outputs)
    assert policies(with_classes(loaded, ["car", "boat"])) == policies(model)


def test_an_export_has_the_float32_weights(tmp_path):
    """Of bfloat16; tests/export/test_deliver.py exports a float16 network."""
    recipe = TINY.change(precision="bfloat16")
    model = build(recipe, LABELS, np.ones(12), 10, coarse=True)
    files = keras_pspnet.export_model(model, tmp_path, formats=("float32",), output="logits")
    images, _ = scenes.scenes(2, split="val", size=(49, 49))
    coarse = build_network(recipe.change(precision="float32"), LABELS, coarse=True)
    coarse.set_weights(model.get_weights())
    expected = coarse.predict(images, verbose=0)["main"]
    found = keras_pspnet.load_model(files["float32"])(images)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def keras_backbone():
    """A small functional model with a dropout and a composite activation."""
    image = keras.Input((49, 49, 3))
    x = keras.layers.Conv2D(8, 3, strides=8, padding="same", name="a")(image)
    x = keras.layers.SpatialDropout2D(0.1, name="drop")(x)
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="b")(x)
    return keras.Model(image, x)


@pytest.mark.parametrize("kind", ["named", "keras"])
def test_a_training_takes_its_start_in_the_recipes_precision(kind):
    recipe = TINY.change(coarse_epochs=0, precision="bfloat16")
    backbone = keras_backbone() if kind == "keras" else recipe.backbone
    start = keras_pspnet.build_pspnet(
        12, input_shape=(49, 49, 3), backbone=backbone, channels=8, labels=LABELS
    )
    half = build_network(recipe, LABELS, start=start)
    found = policies(half)
    assert {name for name, (dtype, _) in found.items() if dtype == "float32"} <= KEPT
    assert found["cls_4"] == ("bfloat16", "float32") == found["a" if kind == "keras" else "cls_0"]
    again = build_network(recipe.change(precision="float32"), LABELS, start=half)
    assert {dtype for dtype, _ in policies(again).values()} == {"float32"}
    for model in (half, again):
        for one, other in zip(start.get_weights(), model.get_weights(), strict=True):
            assert np.array_equal(one, other)
