"""Steps computed in parts: they equal those of the whole batch, and a killed run is resumed."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_pspnet import private_api
from keras_pspnet.labels import LabelSet
from keras_pspnet.network.losses import VoidCrossentropy
from keras_pspnet.train import checkpoint, recipes
from keras_pspnet.train.accumulate import _parts, in_parts
from keras_pspnet.train.build import build
from keras_pspnet.train.run import Run, fit

LABELS = LabelSet.numbered(3)
TINY = recipes.recipe(
    "scenes_tiny",
    crop=(33, 33),
    channels=4,
    bins=2,
    batch_size=2,
    accumulate=3,
    dropout=0,
    ohem_threshold=None,
    learning_rate=0.002,
    checkpoint_seconds=0,
)
STEPS = 3


def batches():
    """Batches of 6 with class weights and void that differ much between their parts."""
    rng = np.random.default_rng(5)
    count = STEPS * TINY.step_size
    images = rng.integers(0, 256, (count, 33, 33, 3)).astype(np.float32)
    masks = rng.choice(3, (count, 33, 33), p=(0.8, 0.18, 0.02)).astype(np.uint8)
    masks[1::3] = rng.choice(3, masks[1::3].shape, p=(0.1, 0.2, 0.7))  # a part of rare classes
    for index, rows in enumerate([0, 30, 33, 5, 12, 33] * STEPS):  # the third part is all void
        masks[index, :rows] = 255
    data = tf.data.Dataset.from_tensor_slices((images, {"aux": masks, "main": masks}))
    return data.batch(TINY.step_size, drop_remainder=True), masks


def trained(parts):
    """The first weights, the model after STEPS steps with frozen batch norm, and the logs."""
    data, masks = batches()
    keras.utils.set_random_seed(1)
    model = build(TINY, LABELS, np.bincount(masks[masks < 3], minlength=3), STEPS)
    for layer in private_api.inner_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    model.compile_from_config(model.get_compile_config())
    model.run_eagerly = True  # to trace the parts takes longer
    first = model.get_weights()
    in_parts(model, parts)
    return first, model, model.fit(data, verbose=0, shuffle=False).history


def differences(one, other):
    pairs = zip(one, other, strict=True)
    return [np.abs(np.asarray(a) - np.asarray(b)).max() for a, b in pairs]


def test_steps_in_parts_equal_those_of_the_whole_batch():
    first, expected, expected_logs = trained(1)
    _, model, logs = trained(3)
    assert max(differences(first, expected.weights)) > 0.01
    assert max(differences(expected.weights, model.weights)) < 1e-6
    assert int(model.optimizer.iterations) == STEPS
    assert max(differences(expected.optimizer.variables, model.optimizer.variables)) < 1e-6
    assert logs.keys() == expected_logs.keys()
    for name, values in logs.items():
        assert values == pytest.approx(expected_logs[name], rel=1e-5), name


def test_each_part_has_the_share_of_its_weights_times_the_number_of_parts():
    weighted = VoidCrossentropy(class_weights=[1, 2, 3])
    model = SimpleNamespace(loss={"main": weighted, "aux": VoidCrossentropy()})
    data, _ = batches()
    x, y = next(iter(data))
    mask = y["main"].numpy()
    factors = {"main": np.array([1, 2, 3, *[0] * 253]), "aux": np.array([1] * 255 + [0])}
    for part, (xs, ys, weights) in enumerate(_parts(model, 3, (x, y))):
        np.testing.assert_array_equal(xs, x[part::3])
        for head, factor in factors.items():
            np.testing.assert_array_equal(ys[head], mask[part::3])
            share = 3 * factor[mask[part::3]].sum() / factor[mask].sum()
            assert weights[head].shape == (2, 1, 1)
            np.testing.assert_allclose(weights[head], share, rtol=1e-6)


def test_a_run_in_parts_of_float16_is_resumed_with_the_same_bits(tmp_path, monkeypatch, capsys):
    """It ends a step in an epoch; what is saved holds the loss scale and its counter."""
    recipe = TINY.change(
        accumulate=2, precision="float16", train_images=9, val_images=2, epochs=1, dropout=0.1
    )
    monkeypatch.setattr(Run, "_draw", lambda self, model: None)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    batches_seen = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda n, _: batches_seen.append(n))
    fit(recipe, whole, callbacks=count)
    assert batches_seen == [0, 1]  # a step is one batch to callbacks
    assert keras.config.dtype_policy().name == "float32"

    class Killed(BaseException):
        pass

    save_step = Run.save_step

    def save_step_and_die(self, step):
        save_step(self, step)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save_step", save_step_and_die)
        with pytest.raises(Killed):
            fit(recipe, killed)
    fit(recipe, killed, resume=True)
    assert "resuming at step 1 of 2" in capsys.readouterr().out
    for name in ("last.keras", "best.keras", "history.csv"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    model, state = checkpoint.load(whole / "last.keras")
    assert state["step"] == 2
    optimizer = model.optimizer
    assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    # A step whose gradients overflow halves the scale and changes no weight.
    left_out = 15 - np.log2(float(optimizer.dynamic_scale))
    assert int(optimizer.iterations) == 2 - left_out
    assert set(optimizer.inner_optimizer.multipliers) == {1.0, recipe.head_multiplier}
    assert model.get_layer("layer1_0_conv1").compute_dtype == "float16"


def test_too_few_pictures_for_a_step(tmp_path, refused):
    message = refused(fit, TINY.change(train_images=5, val_images=2), tmp_path / "run")
    assert message.startswith("batch_size=2 accumulate=3: there are only 5 training pictures")
    assert not (tmp_path / "run").exists()
