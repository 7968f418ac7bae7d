"""The network of a trained one for other classes: what it keeps, bit by bit."""

from pathlib import Path

import keras
import numpy as np
import pytest

import keras_pspnet
from keras_pspnet import with_classes
from keras_pspnet.labels import LabelSet
from keras_pspnet.network import backbones
from keras_pspnet.network.backbones import ResNet
from keras_pspnet.network.convert import convert
from keras_pspnet.network.main_head import labels_of, main_network
from keras_pspnet.network.normalization import CaffeNormalization

TINY = {"backbone": "resnet14_narrow", "channels": 8, "input_shape": (49, 49, 3)}
NAMES = ("road", "car", "sky")
CHECKPOINTS = Path(__file__).parents[1] / "weights" / "checkpoints"


def build(**changes):
    """A network with a value of its own in every weight."""
    model = keras_pspnet.build_pspnet(3, labels=list(NAMES), **{**TINY, **changes})
    rng = np.random.default_rng(0)
    for weight in model.weights:
        low, high = (0.5, 1.5) if weight.name in ("gamma", "moving_variance") else (-0.2, 0.2)
        weight.assign(rng.uniform(low, high, weight.shape))
    return model


def keras_backbone(side=49):
    """A network with the strides of a backbone, two ends in one convolution each."""
    image = x = keras.Input((side, side, 3))
    for stage in range(5):
        x = keras.layers.Conv2D(4 + stage, 3, strides=2, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    return keras.Model(image, x)


@pytest.fixture(scope="module")
def trained():
    return build()


@pytest.fixture(scope="module")
def on_keras():
    return build(backbone=keras_backbone())


def images(side=49):
    return np.random.default_rng(1).integers(0, 256, (2, side, side, 3)).astype(np.float32)


def weights(model, but=("cls_4", "aux_4")):
    """All weights by layer and position, those of some layers left out."""
    return {
        (layer.name, number): value
        for layer in model.layers
        if layer.name not in but
        for number, value in enumerate(layer.get_weights())
    }


def assert_equal(one, other):
    assert one.keys() == other.keys() and one
    for key, value in one.items():
        np.testing.assert_array_equal(value, other[key], err_msg=str(key))


@pytest.mark.parametrize("kind", ["trained", "on_keras"])
def test_rows_of_classes_with_the_same_name_are_kept(kind, request):
    model = request.getfixturevalue(kind)
    before = weights(model, but=())
    new = with_classes(model, ["sky", "boat", "road", "car"])
    assert labels_of(new) == LabelSet(("sky", "boat", "road", "car"))
    assert new.output["main"].shape == (None, 49, 49, 4)
    assert_equal(weights(new), weights(model))
    for name in ("cls_4", "aux_4"):
        old, values = model.get_layer(name).get_weights(), new.get_layer(name).get_weights()
        for value, trained in zip(values, old):
            np.testing.assert_array_equal(value[..., [2, 3, 0]], trained)
        assert values[0][..., 1].any() and not values[1][1]  # as a new layer's
    outputs, expected = new(images()), model(images())
    for head, logits in expected.items():
        chosen = keras.ops.take(outputs[head], [2, 3, 0], axis=-1)
        np.testing.assert_allclose(chosen, logits, rtol=1e-5, atol=1e-5)
    assert_equal(weights(model, but=()), before)  # it stays as it is
    assert labels_of(model).names == NAMES


# Each with several choices, so that few networks are built.
KINDS = {
    "a ResNet": {
        "backbone": ResNet((1, 1, 1, 1), 4, (2, 3, 5), True, True),
        "bins": (2, 3),
        "pooling": "max",
        "dropout": keras.layers.Dropout(0.3),
        "normalization": CaffeNormalization(),
    },
    "no pyramid": {
        "bins": (),
        "align_corners": False,
        "aux": False,
        "normalization": ((1, 2, 3), (4, 5, 6)),
    },
    "a keras.Model": {"backbone": keras_backbone(), "reduce_channels": False},
}


@pytest.mark.parametrize("kind", KINDS)
def test_with_the_same_classes_it_is_the_same_network(kind, tmp_path):
    model = build(**KINDS[kind])
    model.save(tmp_path / "model.keras")
    new = with_classes(keras_pspnet.load_model(tmp_path / "model.keras"), NAMES)
    new = with_classes(new, NAMES)  # whatever was given as a layer is there another time
    assert_equal(weights(new, but=()), weights(model, but=()))
    assert [layer.name for layer in new.layers] == [layer.name for layer in model.layers]
    for one, other in zip(keras.tree.flatten(new(images())), keras.tree.flatten(model(images()))):
        np.testing.assert_array_equal(one, other)
    one, other = new.get_layer("cls_3"), model.get_layer("cls_3")
    assert type(one) is type(other) and one.rate == other.rate
    assert new.get_layer("main").plan == model.get_layer("main").plan


def test_another_size_and_stride(trained):
    size = {"input_shape": (65, 33, 3), "output_stride": 16}
    new = with_classes(trained, NAMES, **size)
    expected = keras_pspnet.build_pspnet(3, **{**TINY, **size})
    expected.set_weights(trained.get_weights())
    picture = images(65)[:, :, :33]
    result, other = new(picture), expected(picture)
    for head in ("aux", "main"):
        assert result[head].shape == (2, 65, 33, 3)
        np.testing.assert_array_equal(result[head], other[head])
    assert new.get_layer("main").plan["output_stride"] == 16


def test_another_size_on_a_keras_model(on_keras):
    new = with_classes(on_keras, NAMES, input_shape=(81, 81, 3))
    expected = keras_pspnet.build_pspnet(
        3, **{**TINY, "input_shape": (81, 81, 3), "backbone": keras_backbone(81)}
    )
    expected.set_weights(on_keras.get_weights())
    np.testing.assert_array_equal(new(images(81))["main"], expected(images(81))["main"])
    anywhere = with_classes(on_keras, NAMES, input_shape=(None, None, 3))
    np.testing.assert_allclose(anywhere(images(81))["main"], new(images(81))["main"], atol=1e-4)


def test_an_auxiliary_head_comes_and_goes(trained, on_keras):
    for model in (trained, on_keras):
        alone = with_classes(model, NAMES, aux=False)
        assert alone.output.shape == (None, 49, 49, 3)
        assert not [layer for layer in alone.layers if layer.name.startswith("aux")]
        np.testing.assert_array_equal(alone(images()), model(images())["main"])
    both = with_classes(main_network(trained), NAMES, aux=True)
    np.testing.assert_array_equal(both(images())["main"], trained(images())["main"])
    assert not np.array_equal(both.get_layer("aux_0").kernel, trained.get_layer("aux_0").kernel)


def test_what_a_conversion_recorded_survives():
    model = convert(CHECKPOINTS / "mmseg.pth")
    new = with_classes(model, [*labels_of(model).names, "boat"], input_shape=(41, 49, 3))
    assert new.get_layer("main").source == model.get_layer("main").source
    assert new.get_layer("main").source["file"] == "mmseg.pth"
    assert_equal(weights(new), weights(model))
    picture = images()[:1, :41]
    one, other = new(picture)["main"], model(picture)["main"]
    np.testing.assert_allclose(one[..., :-1], other, rtol=1e-4, atol=1e-4)


def test_a_resnet_with_the_numbers_of_a_named_one_has_its_name():
    assert backbones.to_config(ResNet([3, 4, 6, 3], 64, (64, 64, 128))) == "resnet50"
    assert backbones.to_config("mobilenet_v2") == "mobilenet_v2"
    assert backbones.to_config(keras_backbone()) is None
    row = ResNet((3, 4, 6, 3), contract_dilation=True)
    assert backbones.from_config(backbones.to_config(row)) == ResNet(
        (3, 4, 6, 3), 64, (64, 64, 128), contract_dilation=True
    )


@pytest.mark.parametrize("backbone", ["resnet14_narrow", "keras"])
def test_mixed_precision_is_kept(backbone):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build(backbone=keras_backbone() if backbone == "keras" else backbone)
    finally:
        keras.config.set_dtype_policy(before)
    new = with_classes(model, ["car", "boat"], input_shape=(33, 33, 3))
    assert keras.config.dtype_policy() == before
    policies = [{m.name: m.dtype_policy.name for m in net.layers[1:]} for net in (model, new)]
    assert policies[0] == policies[1] and policies[0]["cls_0"] == "mixed_bfloat16"
    assert new(images(33))["main"].dtype == "float32"


@pytest.mark.parametrize("kind", ["trained", "on_keras"])
def test_what_was_frozen_is_trainable_again(kind, request):
    model = request.getfixturevalue(kind)
    count = len(model.trainable_variables)
    model.trainable = False
    try:
        new = with_classes(model, NAMES)
    finally:
        model.trainable = True
    assert len(new.trainable_variables) == count > 30
    assert not new.compiled


def test_what_cannot_be_changed_is_said(trained, on_keras, refused):
    message = refused(with_classes, on_keras, NAMES, output_stride=16)
    assert message.startswith("output_stride=16") and "keeps its output stride, 8;" in message
    alone = with_classes(on_keras, NAMES, aux=False)
    assert "auxiliary head cannot be added" in refused(with_classes, alone, NAMES, aux=True)
    assert "not a model of build_pspnet" in refused(with_classes, keras.Sequential(), NAMES)
    assert "expected a LabelSet" in refused(with_classes, trained, 3)
    assert "appears twice" in refused(with_classes, trained, ["a", "a"])
    for model in (trained, on_keras):
        with pytest.raises(ValueError, match="at least 2, as a softmax"):
            with_classes(model, ["one"])
        with pytest.raises(ValueError, match="`input_shape` must be"):
            with_classes(model, NAMES, input_shape=(49, 49))
    with pytest.raises(ValueError, match="`output_stride` must be 8, 16 or 32"):
        with_classes(trained, NAMES, output_stride=9)


def test_a_file_of_an_earlier_version_can_have_other_classes(trained, refused):
    """Its last layer does not say how it was built."""
    old = with_classes(trained, NAMES)
    old.get_layer("main").plan = None
    new = with_classes(old, ["car", "boat"], input_shape=(65, 65, 3))
    assert_equal(weights(new), weights(trained))
    assert "saved by an earlier version" in refused(with_classes, old, NAMES, output_stride=8)


def test_build_pspnet_names_the_classes(tmp_path):
    model = keras_pspnet.build_pspnet(3, labels=list(NAMES), **TINY)
    model.save(tmp_path / "model.keras")
    assert labels_of(keras_pspnet.load_model(tmp_path / "model.keras")).names == NAMES
    labels = LabelSet(("a", "b", "c"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)))
    assert labels_of(keras_pspnet.build_pspnet(3, labels=labels, **TINY)) == labels
    with pytest.raises(ValueError, match=r"one name for each of the 3 classes. Received: 2"):
        keras_pspnet.build_pspnet(3, labels=["a", "b"], **TINY)
    many = [f"name {number}" for number in range(300)]  # more than a mask of 8 bits holds
    assert labels_of(keras_pspnet.build_pspnet(300, labels=many, **TINY)).names == tuple(many)
