"""The branch for thin things: what it computes, keeps and becomes in an exported file."""

import collections

import keras
import numpy as np
import pytest

import keras_pspnet
from keras_pspnet import scenes
from keras_pspnet.export.delegate import operators
from keras_pspnet.network import backbones
from keras_pspnet.network.main_head import main_network, output_stride_of
from keras_pspnet.network.resampling import resize

SIZE = (49, 57)


def network(**arguments):
    return keras_pspnet.build_pspnet(
        **{
            "num_classes": 12,
            "input_shape": (*SIZE, 3),
            "backbone": "resnet14_narrow",
            "channels": 8,
            "detail": 6,
            **arguments,
        }
    )


@pytest.fixture(scope="module")
def model():
    """A network whose batch norms have seen pictures."""
    keras.utils.set_random_seed(3)
    model, (images, _) = network(), scenes.scenes(8, split="train", size=SIZE)
    for _ in range(20):
        model(images.astype(np.float32), training=True)
    return model


def layers_of(model):
    return [layer.name for layer in model.layers if layer.name.startswith("detail")]


@pytest.mark.parametrize("name", backbones.NAMES)
def test_the_fine_features_of_every_backbone_are_at_stride_4(name):
    image = keras.Input((97, 129, 3))
    _, features = backbones.backbone(name, image, 16)
    fine = keras.Model(image, features).get_layer(backbones.fine_layer(name)).output
    assert fine.shape[1:3] == (25, 33)


def test_a_network_has_no_such_branch_unless_asked():
    plain = network(detail=0)
    assert not layers_of(plain) and plain.get_layer("main").plan["detail"] == 0
    assert plain.get_layer("main").input[0] is plain.get_layer("cls_4").output


def test_a_keras_model_is_refused():
    image = keras.Input((*SIZE, 3))
    backbone = keras.Model(image, keras.layers.Conv2D(4, 3, strides=8, padding="same")(image))
    with pytest.raises(ValueError, match="`detail` takes the features of a named backbone"):
        network(backbone=backbone)
    with pytest.raises(ValueError, match="`detail` must be an integer, at least 0"):
        network(detail=-1)


def test_the_branch_corrects_the_logits_at_stride_4(model):
    picture = np.random.default_rng(0).uniform(0, 255, (1, *SIZE, 3)).astype(np.float32)
    names = ("cls_4", "detail_cls", "main", "detail_add", "detail_relu", "detail_late_bn")
    names += ("detail_early_bn",)
    outputs = [model.get_layer(name).output for name in names]
    found = dict(zip(names, map(np.asarray, keras.Model(model.input, outputs)(picture))))
    assert found["detail_cls"].shape == (1, 13, 15, 12)
    assert output_stride_of(network(input_shape=(None, None, 3))) == 8
    joined = found["detail_early_bn"] + np.asarray(resize(found["detail_late_bn"], (13, 15), True))
    np.testing.assert_allclose(found["detail_add"], joined, atol=1e-5)
    np.testing.assert_allclose(found["detail_relu"], np.maximum(joined, 0), atol=1e-5)
    logits = np.asarray(resize(found["cls_4"], (13, 15), True)) + found["detail_cls"]
    np.testing.assert_allclose(found["main"], np.asarray(resize(logits, SIZE, True)), atol=1e-4)
    assert np.abs(found["detail_cls"]).max() > 0.01


def test_every_weight_has_a_gradient():
    import tensorflow as tf

    model = network()
    with tf.GradientTape() as tape:
        outputs = model(np.random.default_rng(0).uniform(0, 255, (2, *SIZE, 3)), training=True)
        loss = tf.reduce_sum(tf.square(outputs["main"])) + tf.reduce_sum(tf.square(outputs["aux"]))
    weights = model.trainable_variables
    for weight, gradient in zip(weights, tape.gradient(loss, [w.value for w in weights])):
        assert gradient is not None and np.abs(gradient).max() > 0, weight.path
    assert sum(weight.path.startswith("detail") for weight in weights) == 11


def test_other_classes_keep_the_branch(model):
    names = ["sky", "class_3", "class_7"]
    new = keras_pspnet.with_classes(model, names, input_shape=(65, 65, 3))
    assert layers_of(new) == layers_of(model) and new.get_layer("main").plan["detail"] == 6
    for name in layers_of(model):
        before, after = (of.get_layer(name).get_weights() for of in (model, new))
        if name == "detail_cls":
            before = [values[..., [3, 7]] for values in before]
            after = [values[..., 1:] for values in after]
        for value, expected in zip(after, before, strict=True):
            np.testing.assert_array_equal(value, expected)


def test_an_exported_file_folds_every_batch_norm(model, tmp_path):
    """It adds 4 convolutions, 2 sums and 2 enlargements, and nothing else; pixels are compared."""
    counts = []
    for number, one in enumerate((network(detail=0), main_network(model))):
        pictures = scenes.scenes(4, split="val", size=SIZE)[0]
        files = keras_pspnet.export_model(
            one,
            tmp_path / str(number),
            formats=("float32", "int8"),
            output="logits",
            calibration=pictures,
        )
        counts.append({kind: collections.Counter(operators(file)) for kind, file in files.items()})
    for kind in ("float32", "int8"):
        more = counts[1][kind] - counts[0][kind]
        assert more["CONV_2D"] == 4 and more["RESIZE_BILINEAR"] == 2 and more["ADD"] == 2, more
        assert not {"MUL", "SUB", "DEQUANTIZE"} & set(more), more
