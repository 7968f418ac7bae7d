"""The network as a whole: sizes, counts, outputs, both losses, saving."""

import json
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

import keras_pspnet
from keras_pspnet.images import IMAGENET_MEAN
from keras_pspnet.labels import SCENES
from keras_pspnet.network import pretrained
from keras_pspnet.network.dilation import DilatedPooling2D
from keras_pspnet.network.losses import VoidCrossentropy
from keras_pspnet.network.main_head import labels_of, main_network, output_stride_of, set_labels
from keras_pspnet.network.normalization import CaffeNormalization
from keras_pspnet.network.optimizer import PSPNetSGD

TINY = {"backbone": "resnet14_narrow", "channels": 8, "input_shape": (49, 49, 3)}


def build(classes=12, **changes):
    return keras_pspnet.build_pspnet(classes, **{**TINY, **changes})


def trainable(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def pictures(count=2, side=49, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def test_parameters_of_the_papers_networks():
    # reference: semseg model/pspnet.py, 150 classes, with and without the auxiliary head
    with_aux = keras_pspnet.build_pspnet(150)
    assert trainable(with_aux) == 49_180_908
    assert trainable(main_network(with_aux)) == 46_782_550
    assert trainable(keras_pspnet.build_pspnet(150, aux=False)) == 46_782_550


def test_parameters_of_the_101_layers():
    assert trainable(keras_pspnet.build_pspnet(150, backbone="resnet101")) == 68_173_036


def test_outputs():
    model = build()
    assert list(model.output) == ["aux", "main"]
    outputs = model(pictures())
    for output in outputs.values():
        assert output.shape == (2, 49, 49, 12) and output.dtype == "float32"
    single = build(aux=False)(pictures())
    assert single.shape == (2, 49, 49, 12)


def test_uint8_and_float_pictures_are_the_same():
    model = build()
    images = pictures()
    expected = model.predict(images.astype(np.float32), verbose=0)["main"]
    np.testing.assert_array_equal(model.predict(images, verbose=0)["main"], expected)
    # A fraction counts: the input is not rounded.
    assert np.abs(model.predict(images + 0.5, verbose=0)["main"] - expected).max() > 0


def test_pictures_are_normalized_by_the_model():
    mean = IMAGENET_MEAN
    first = keras.Model(*(lambda m: (m.input, m.get_layer("normalization").output))(build()))
    image = np.broadcast_to(np.array(mean, np.float32), (1, 49, 49, 3))
    np.testing.assert_allclose(first(image), 0, atol=1e-6)
    np.testing.assert_allclose(
        first(image + np.array([58.395, 57.12, 57.375], np.float32)), 1, atol=1e-5
    )
    own = build(normalization=((0, 0, 0), (255, 255, 255)))
    np.testing.assert_allclose(own.get_layer("normalization")(image), image / 255, atol=1e-6)


def test_pictures_are_normalized_by_a_copy_of_a_given_layer(tmp_path):
    images = pictures().astype(np.float32)
    adapted = keras.layers.Normalization(name="mine")
    adapted.adapt(images)
    for layer in (keras.layers.Rescaling(1 / 127.5, offset=-1.0), adapted, CaffeNormalization()):
        model = build(normalization=layer)
        copy = model.get_layer("normalization")
        assert copy is not layer and layer.name != "normalization"
        clone = keras.models.clone_model(model)
        clone.set_weights(model.get_weights())
        for one in (copy, clone.get_layer("normalization")):
            np.testing.assert_array_equal(one(images), layer(images))
    model.save(tmp_path / "model.keras")
    copy = keras_pspnet.load_model(tmp_path / "model.keras").get_layer("normalization")
    np.testing.assert_array_equal(copy(images), layer(images))


def test_caffe_normalization_is_that_of_keras_applications():
    images = pictures().astype(np.float32)
    expected = keras.applications.resnet.preprocess_input(images.copy())
    np.testing.assert_allclose(CaffeNormalization()(images), expected, atol=1e-5)


def test_every_weight_of_both_heads_gets_a_gradient():
    import tensorflow as tf

    model = build()
    with tf.GradientTape() as tape:
        outputs = model(pictures(4).astype(np.float32), training=True)
        loss = sum(tf.reduce_mean(output**2) for output in outputs.values())
    gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    for variable, gradient in zip(model.trainable_variables, gradients):
        assert gradient is not None, variable.path
        if variable.path.split("/")[-1] != "beta":  # a shift in front of a batch norm may cancel
            assert np.abs(gradient).max() > 0, variable.path


@pytest.mark.parametrize("head, weight", [("main", 1.0), ("aux", 0.4)])
def test_each_loss_reaches_its_head_with_its_weight(head, weight):
    """One step of plain SGD, with masks that are void for the other head, moves biases alike."""
    images = pictures(2)
    masks = np.random.default_rng(1).integers(0, 12, (2, 49, 49))
    void = np.full_like(masks, 255)
    moves = {}
    for factor in (1.0, weight):
        keras.utils.set_random_seed(0)
        model = build(dropout=0.0)
        losses = {"aux": VoidCrossentropy(), "main": VoidCrossentropy()}
        weights = {"aux": 0.0, "main": 0.0, head: factor}
        if factor == weight:
            weights = {"aux": 0.4, "main": 1.0}
        model.compile(
            keras.optimizers.SGD(1.0), loss=losses, loss_weights=weights, run_eagerly=True
        )
        layer = {"main": "cls_4", "aux": "aux_4"}
        before = {name: model.get_layer(layer[name]).get_weights()[1] for name in layer}
        target = {name: masks if name == head else void for name in layer}
        model.fit(images, target, epochs=1, batch_size=2, verbose=0)
        moves[factor] = {
            name: model.get_layer(layer[name]).get_weights()[1] - before[name] for name in layer
        }
    other = {"main": "aux", "aux": "main"}[head]
    assert np.abs(moves[1.0][head]).max() > 1e-3
    np.testing.assert_allclose(moves[weight][head], weight * moves[1.0][head], rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(moves[weight][other], 0)


def test_the_reported_loss_is_main_plus_the_weighted_auxiliary_loss():
    model = build()
    losses = {"aux": VoidCrossentropy(), "main": VoidCrossentropy()}
    model.compile("sgd", loss=losses, loss_weights={"main": 1.0, "aux": 0.4})
    masks = np.random.default_rng(1).integers(0, 12, (2, 49, 49))
    masks[0] = 255
    logs = model.evaluate(pictures(), {"aux": masks, "main": masks}, return_dict=True, verbose=0)
    assert logs["loss"] == pytest.approx(logs["main_loss"] + 0.4 * logs["aux_loss"], rel=1e-5)
    outputs = model.predict(pictures(), verbose=0)
    for head in ("aux", "main"):
        logits = outputs[head][1].astype(np.float64)
        log_sums = np.log(np.exp(logits).sum(-1))
        picked = np.take_along_axis(logits, masks[1][..., None], -1)[..., 0]
        assert logs[f"{head}_loss"] == pytest.approx((log_sums - picked).mean(), rel=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_logits_are_float32_under_mixed_precision(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = build()
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("layer1_0_conv1").compute_dtype == policy.split("_")[1]
    for output in model(pictures()).values():
        assert output.dtype == "float32"
        assert np.isfinite(output).all()


@pytest.mark.parametrize("align_corners", [True, False])
def test_any_size_also_unknown_ones(align_corners):
    model = build(input_shape=(None, None, 3), align_corners=align_corners)
    fixed = build(input_shape=(57, 49, 3), align_corners=align_corners)
    fixed.set_weights(model.get_weights())
    for height, width in ((49, 49), (57, 49), (64, 50), (33, 90)):
        images = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
        outputs = model.predict(images, verbose=0)
        assert outputs["main"].shape == outputs["aux"].shape == (1, height, width, 12)
        if (height, width) == (57, 49):
            expected = fixed.predict(images, verbose=0)["main"]
            np.testing.assert_allclose(outputs["main"], expected, atol=1e-5)
    assert output_stride_of(model) == 8


def test_output_stride_16():
    model = build(input_shape=(None, None, 3), output_stride=16)
    assert output_stride_of(model) == 16
    assert build(output_stride=16).get_layer("cls_4").output.shape[1:3] == (4, 4)


@pytest.mark.parametrize("output_stride", [8, 32])
def test_mobilenet_v2_by_its_name(output_stride):
    model = build(backbone="mobilenet_v2", input_shape=(None, None, 3), output_stride=output_stride)
    assert output_stride_of(model) == output_stride
    (node,) = model.get_layer("aux_0")._inbound_nodes
    assert node.input_tensors[0]._keras_history.operation.name == "block_12_add"
    assert model.get_layer("cls_0").kernel.shape == (3, 3, 2 * 1280, 8)
    normalization = model.get_layer("normalization")
    np.testing.assert_allclose(normalization(np.full((1, 1, 1, 3), 255.0, np.float32)), 1.0)
    assert model.get_layer("block_1_pad").padding == ((0, 1), (0, 1))


def test_weights_of_mobilenet_v2_are_downloaded_by_keras(monkeypatch, tmp_path):
    """With a stand-in for the file that Keras would fetch."""
    source = keras.applications.MobileNetV2(include_top=False, weights=None)
    file = tmp_path / "weights.weights.h5"
    source.save_weights(file)
    asked = []

    def get_file(name, origin, **options):
        asked.append(origin)
        return str(file)

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", get_file)
    for weights in ("imagenet", file):
        model = build(backbone="mobilenet_v2", backbone_weights=weights)
        # It pads as keras.applications does, by the size that it is made for.
        assert model.get_layer("block_1_pad").padding == ((1, 1), (1, 1))
        assert model.get_layer("cls_4").output.shape[1:3] == (7, 7)
        for name in ("Conv1", "block_13_depthwise", "block_16_project_BN", "Conv_1_bn"):
            pairs = zip(model.get_layer(name).get_weights(), source.get_layer(name).get_weights())
            assert all(np.array_equal(one, other) for one, other in pairs)
    assert len(asked) == 1 and asked[0].endswith("_1.0_224_no_top.h5")


def test_weights_of_mobilenet_v2_without_a_network_get_one_line(refused, monkeypatch, tmp_path):
    def get_file(*arguments, **options):
        raise Exception("URL fetch failure on https://storage.googleapis.com: None -- [Errno -2]")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", get_file)
    message = refused(pretrained.load_weights, None, "mobilenet_v2", "imagenet")
    assert "imagenet" in message and "URL fetch failure" in message and "a network" in message
    file = tmp_path / "missing.h5"
    assert str(file) in refused(pretrained.load_weights, None, "mobilenet_v2", file)
    file.write_text("no weights")
    assert str(file) in refused(pretrained.load_weights, None, "mobilenet_v2", file)


def test_without_the_pyramid():
    model = build(bins=())
    assert "ppm" not in {layer.name for layer in model.layers}
    assert model.get_layer("cls_0").kernel.shape == (3, 3, 512, 8)
    assert build().get_layer("cls_0").kernel.shape == (3, 3, 1024, 8)
    assert build(reduce_channels=False).get_layer("cls_0").kernel.shape == (3, 3, 512 * 5, 8)


def test_the_auxiliary_head_sees_the_stage_before_the_last():
    model = build()
    (node,) = model.get_layer("aux_0")._inbound_nodes
    assert node.input_tensors[0]._keras_history.operation.name == "layer3_0_relu3"
    assert model.get_layer("aux_0").filters == 4


@pytest.mark.parametrize("backbone", ["resnet14_narrow", "efficientnet_lite0"])
def test_saving_and_loading_in_safe_mode_and_cloning(tmp_path, backbone):
    model = build(backbone=backbone, input_shape=(65, 49, 3), output_stride=16)
    set_labels(model, SCENES)
    images = np.random.default_rng(0).integers(0, 256, (1, 65, 49, 3), np.uint8)
    expected = model.predict(images, verbose=0)["main"]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    for copy in (loaded, clone, keras_pspnet.load_model(tmp_path / "model.keras")):
        np.testing.assert_array_equal(copy.predict(images, verbose=0)["main"], expected)
        assert labels_of(copy) == SCENES


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Files that hold every class that this package registers for networks."""
    folder = tmp_path_factory.mktemp("saved")
    image = x = keras.Input((49, 49, 3))
    for _ in range(4):  # the pooling comes where the map is dilated already
        x = keras.layers.Conv2D(4, 3, strides=2, padding="same")(x)
    pooled = keras.Model(image, keras.layers.MaxPooling2D(3, strides=2, padding="same")(x))
    compiled, loss = build(), VoidCrossentropy(class_weights=[1] * 12, ohem_threshold=0.7)
    compiled.compile(PSPNetSGD(0.01, heads=("cls",)), loss={"main": loss, "aux": loss})
    models = {
        "compiled": compiled,
        "caffe": build(normalization=CaffeNormalization()),
        "pooled": build(backbone=pooled),
    }
    assert any(isinstance(layer, DilatedPooling2D) for layer in models["pooled"].layers)
    for name, model in models.items():
        model.save(folder / f"{name}.keras")
    return folder


@pytest.mark.parametrize(
    "load",
    [
        "import keras, keras_pspnet.network; load = keras.saving.load_model",
        "import keras_pspnet; load = keras_pspnet.load_model",
    ],
)
def test_a_fresh_process_loads_a_saved_model(saved, load):
    code = f"""{load}
import sys
for path in sys.argv[1:]:
    model = load(path)
    kind = type(model.optimizer).__name__ if model.compiled else "uncompiled"
    print(sorted(model.output_names), kind)"""
    files = [saved / f"{name}.keras" for name in ("compiled", "caffe", "pooled")]
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == [
        "['aux', 'main'] PSPNetSGD",
        "['aux', 'main'] uncompiled",
        "['aux', 'main'] uncompiled",
    ]


@pytest.mark.parametrize(
    "kind, old", [("PyramidPoolingModule", "channels"), ("VoidCrossentropy", "hard_below")]
)
def test_a_file_of_version_0_1_0_gets_one_line(refused, saved, tmp_path, kind, old):
    """Version 0.1.0 wrote keys into these configs that are no longer known."""

    def changed(config):
        if isinstance(config, dict):
            if config.get("class_name") == kind:
                config["config"][old] = None
            for value in config.values():
                changed(value)
        elif isinstance(config, list):
            for value in config:
                changed(value)

    path = tmp_path / "old.keras"
    with zipfile.ZipFile(saved / "compiled.keras") as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name == "config.json":
                config = json.loads(data)
                changed(config)
                data = json.dumps(config)
            target.writestr(name, data)
    message = refused(keras_pspnet.load_model, path)
    assert message == (
        f"{path}: the model cannot be loaded (it was saved by keras_pspnet 0.1.0, which this "
        "version does not read; train or convert again)"
    )


def test_labels_default_to_numbers_and_must_fit():
    model = build(3)
    assert labels_of(model).names == ("class_0", "class_1", "class_2")
    with pytest.raises(ValueError, match="12 labels for 3 classes"):
        set_labels(model, SCENES)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"classes": 0}, "num_classes"),
        ({"classes": 1}, "at least 2, as a softmax .* `background`. Received: 1"),
        ({"input_shape": (49, 49, 4)}, "input_shape"),
        ({"input_shape": (0, 49, 3)}, "input_shape"),
        ({"backbone": "resnet51"}, "resnet50, resnet101.*resnet51"),
        ({"output_stride": 4}, "output_stride"),
        ({"pooling": "median"}, "pooling"),
        ({"bins": (0,)}, "bins"),
        ({"channels": 1}, "channels"),
        ({"backbone": 51}, "functional keras.Model. Received: .*int"),
        ({"normalization": (127.5, 127.5)}, "normalization.*three values each"),
        ({"backbone_weights": "imagenet"}, "no weights at a public address"),
        ({"backbone": "efficientnet_lite0", "backbone_weights": "nowhere.pth"}, "nowhere.pth"),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


def test_weights_are_not_loaded_into_a_given_model():
    image = keras.Input((49, 49, 3))
    model = keras.Model(image, keras.layers.Conv2D(2, 3, strides=8)(image))
    with pytest.raises(ValueError, match="has its own"):
        build(backbone=model, backbone_weights="imagenet")
