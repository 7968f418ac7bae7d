"""Any Keras model as a backbone: what is dilated computes what was strided, on a denser map."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_pspnet
from keras_pspnet import scenes
from keras_pspnet.export.delegate import delegation, operators
from keras_pspnet.network.dilation import DilatedPooling2D, dilate
from keras_pspnet.network.losses import VoidCrossentropy
from keras_pspnet.network.normalization import CaffeNormalization
from keras_pspnet.network.optimizer import PSPNetSGD

FAMILIES = {  # (model, the tensor that the auxiliary head takes, what normalizes in front)
    "ResNet50": (keras.applications.ResNet50, "conv4_block6_out", CaffeNormalization()),
    "MobileNetV2": (
        lambda **options: keras.applications.MobileNetV2(alpha=0.35, **options),
        "block_12_add",
        ((127.5,) * 3, (127.5,) * 3),
    ),
    "EfficientNetB0": (keras.applications.EfficientNetB0, "block5c_add", None),
    "MobileNetV3Small": (keras.applications.MobileNetV3Small, "expanded_conv_7_add", None),
}


def family(name, size):
    return FAMILIES[name][0](include_top=False, weights=None, input_shape=(*size, 3))


def randomise(model):
    """Statistics, biases and gates that a value test can see."""
    rng = np.random.default_rng(0)
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, layers.BatchNormalization):
            if layer.scale:
                layer.gamma.assign(rng.uniform(0.7, 1.3, layer.gamma.shape))
            layer.beta.assign(rng.normal(0, 0.2, layer.beta.shape))
            layer.moving_mean.assign(rng.normal(0, 0.2, layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.7, 1.3, layer.moving_variance.shape))
        elif getattr(layer, "bias", None) is not None:
            layer.bias.assign(rng.normal(0, 0.2, layer.bias.shape))
    return model


def hold_gates(model):
    """Squeeze-and-excitation by its bias alone: the mean of a denser map is another one."""
    for layer in model.layers:
        if layer.name.endswith(("se_expand", "squeeze_excite_conv_1")):
            layer.kernel.assign(np.zeros(layer.kernel.shape))
    return model


def picture(size, channels=3, scale=1.0):
    return np.random.default_rng(1).uniform(-scale, scale, (1, *size, channels)).astype("float32")


def assert_denser(new, old, step, interior=False):
    """Every step-th row and column of a new map is the old one's."""
    new, old = np.asarray(new), np.asarray(old)
    assert old.std() > 0.01 * np.abs(old).max() > 0
    subsampled = new[:, ::step, ::step]
    if interior:
        rows, columns = (min(a, b) - 1 for a, b in zip(subsampled.shape[1:3], old.shape[1:3]))
        assert rows > 0 and columns > 0
        subsampled, old = subsampled[:, :rows, :columns], old[:, :rows, :columns]
    np.testing.assert_allclose(subsampled, old, rtol=1e-5, atol=2e-6 * np.abs(old).max())


@pytest.mark.parametrize(  # all families, and 30 more: tests/verify/foreign_backbones.py
    "name, size, output_stride",
    [
        ("ResNet50", (65, 96), 8),
        ("EfficientNetB0", (80, 97), 16),
        ("MobileNetV3Small", (65, 96), 8),
    ],
)
def test_the_values_of_a_family_are_those_of_the_strided_network(name, size, output_stride):
    """Both sizes have an odd and an even side, which change at each stride: 80 40 20 10 5 3."""
    model = hold_gates(randomise(family(name, size)))
    aux = FAMILIES[name][1]
    strided = keras.Model(model.input, [model.get_layer(aux).output, model.output])
    dilated = dilate(model, output_stride)
    assert dilated.outputs[0]._keras_history.operation.name == aux
    assert {layer.name for layer in dilated.layers if layer.weights} == {
        layer.name for layer in model.layers if layer.weights
    } - {layer.name for layer in model.layers if isinstance(layer, layers.Normalization)}
    x = picture(size, scale=255.0 if name[-2:] in ("B0", "ll") else 1.0)
    for new, old, stride in zip(dilated(x), strided(x), (16, 32)):
        sides = [-(-side // output_stride) for side in size]
        assert new.shape[1:3] == tuple(sides)
        assert_denser(new, old, stride // output_stride)


def test_a_family_at_sizes_that_are_not_known():
    model = randomise(family("MobileNetV2", (None, None)))
    dilated = dilate(model, 8)
    assert_denser(dilated(picture((96, 64)))[1], model(picture((96, 64))), 4)


def test_a_model_for_one_size_is_taken_to_another():
    """Windows that pad with "same" stand as at the new size, the layers of zeros as they did."""
    model = randomise(family("MobileNetV2", (64, 64)))
    other = keras.models.clone_model(model, input_tensors=keras.Input((65, 96, 3)))
    other.set_weights(model.get_weights())
    dilated = dilate(model, 8, input_shape=(65, 96, 3))
    assert_denser(dilated(picture((65, 96)))[1], other(picture((65, 96))), 4, interior=True)


# --- one layer at a time ---


def small(last, size=(12, 13), before=lambda x: x, after=lambda x: x):
    """Stride 2, then what is asked for, then 3x3: at output stride 2 the rest is dilated."""
    image = keras.Input((*size, 3))
    x = layers.Conv2D(4, 3, strides=2, padding="same")(image)
    x = layers.ReLU()(before(x))
    x = layers.Conv2D(5, 3, padding="same")(last(x))
    return randomise(keras.Model(image, after(x)))


WINDOWS = {
    "same": lambda: layers.Conv2D(4, 3, strides=2, padding="same"),
    "5x5": lambda: layers.Conv2D(4, 5, strides=2, padding="same"),
    "even kernel": lambda: layers.Conv2D(4, 4, strides=2, padding="same"),
    "patches": lambda: layers.Conv2D(4, 2, strides=2),
    "1x1": lambda: layers.Conv2D(4, 1, strides=2),
    "flat": lambda: layers.Conv2D(4, (1, 5), strides=2, padding="same"),
    "groups": lambda: layers.Conv2D(4, 3, strides=2, padding="same", groups=2),
    "stride 3": lambda: layers.Conv2D(4, 3, strides=3, padding="same"),
    "depthwise": lambda: layers.DepthwiseConv2D(5, strides=2, padding="same"),
    "separable": lambda: layers.SeparableConv2D(4, 3, strides=2, padding="same"),
    "max": lambda: layers.MaxPooling2D(3, strides=2, padding="same"),
    "max 2x2": lambda: layers.MaxPooling2D(2),
    "max 1x1": lambda: layers.MaxPooling2D(1, strides=2),
    "average": lambda: layers.AveragePooling2D(3, strides=2, padding="same"),
    "average 2x2": lambda: layers.AveragePooling2D(2, padding="same"),
}


@pytest.mark.parametrize("before", ["at once", "dilated already"])
@pytest.mark.parametrize("window", WINDOWS)
def test_windows_that_lose_their_stride(window, before):
    """Alone, and where the map is denser already: with a dilation of their own, or of a pooling."""
    first = layers.Conv2D(4, 3, strides=2, padding="same")
    step = 1 if before == "at once" else 2
    layer = WINDOWS[window]()
    for size in ((24, 25), (27, 22)):
        model = small(layer, size, before=(lambda x: x) if step == 1 else first)
        dilated = dilate(model, 2, aux=False)
        # A window of pixels that are all there leaves out the border of an odd size.
        inside = layer.padding == "valid" and window != "1x1"
        last = layer.strides[0]
        assert_denser(dilated(picture(size)), model(picture(size)), step * last, interior=inside)
        layer = type(layer).from_config(layer.get_config())
        first = type(first).from_config(first.get_config())


@pytest.mark.parametrize("padding", [1, ((0, 1), (0, 1)), ((1, 2), (0, 3)), ((2, 0), (1, 1))])
@pytest.mark.parametrize("window", ["convolution", "depthwise", "max", "average"])
def test_zeros_in_front_of_a_window(padding, window):
    window = {
        "convolution": layers.Conv2D(4, 3, strides=2),
        "depthwise": layers.DepthwiseConv2D(3, strides=2),
        "max": layers.MaxPooling2D(3, strides=2),
        "average": layers.AveragePooling2D(3, strides=2),
    }[window]

    def last(x):
        x = layers.Conv2D(4, 3, strides=2, padding="same")(x)
        return window(layers.ZeroPadding2D(padding)(x))

    model = small(last, (46, 48))
    for input_shape, x in ((None, (46, 48)), ((None, None, 3), (45, 49))):
        dilated = dilate(model, 2, input_shape=input_shape, aux=False)
        same = keras.models.clone_model(model, input_tensors=keras.Input((*x, 3)))
        same.set_weights(model.get_weights())
        inside = padding != 1
        assert_denser(dilated(picture(x)), same(picture(x)), 4, interior=inside)


def test_what_has_no_stride_is_dilated_and_padded_too():
    def last(x):
        x = layers.Conv2D(4, 3, strides=2, padding="same")(x)
        x = layers.Conv2D(4, 3, padding="same", dilation_rate=(2, 3))(x)
        x = layers.Conv2D(4, 2, padding="same")(x)
        x = layers.Conv2D(4, 3)(layers.ZeroPadding2D(((1, 0), (2, 1)))(x))
        x = layers.ZeroPadding2D(((0, 2), (1, 1)))(x)
        x = layers.Cropping2D(((1, 0), (0, 1)))(layers.ReLU()(x))
        x = layers.MaxPooling2D(3, strides=1, padding="same")(x)
        return layers.AveragePooling2D(5, strides=1, padding="same")(x)

    model = small(last, (41, 57))
    dilated = dilate(model, 2, aux=False)
    assert_denser(dilated(picture((41, 57))), model(picture((41, 57))), 2)
    holed = [layer for layer in dilated.layers if "dilation_rate" in layer.get_config()]
    assert [layer.dilation_rate for layer in holed[2:5]] == [(4, 6), (2, 2), (2, 2)]


def test_branches_nested_models_and_composite_layers():
    @keras.saving.register_keras_serializable("test")
    class Block(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.convolution = layers.Conv2D(4, 3, strides=2, padding="same", name="convolution")
            self.norm = layers.BatchNormalization(name="norm")

        def call(self, x, training=None):
            y = ops.silu(self.norm(self.convolution(x), training=training))
            gate = ops.mean(y, axis=(1, 2), keepdims=True)
            return y * (ops.sigmoid(0.0 * gate) + 3.0)

    inner = keras.Input((None, None, 4))
    nested = keras.Sequential(
        [keras.Input((None, None, 4)), layers.Conv2D(4, 3, strides=2, padding="same", name="c")]
    )
    nested = keras.Model(inner, nested(inner) + layers.Conv2D(4, 1, strides=2, name="c")(inner))

    def last(x):
        x = nested(Block(name="block")(x))
        left = layers.Conv2D(4, 3, strides=2, padding="same")(x)
        right = layers.Lambda(lambda y: ops.silu(y))(layers.MaxPooling2D(1, strides=2)(x))
        return layers.Concatenate()([left, right, left - 0.5])

    model = small(last, (40, 57))
    before = [weight.copy() for weight in model.get_weights()]
    config = json.dumps(model.get_config(), default=str)
    dilated = dilate(model, 2, aux=False)
    assert_denser(dilated(picture((40, 57))), model(picture((40, 57))), 8)
    assert not any(isinstance(layer, (Block, layers.Lambda)) for layer in dilated.layers)
    names = [layer.name for layer in dilated.layers if layer.weights]
    assert {"convolution", "norm", "c", f"{nested.name}_c"} <= set(names)
    for old, new in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)
    assert json.dumps(model.get_config(), default=str) == config


def test_a_layer_that_trains_another_way_is_not_taken_apart():
    class Noisy(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.inner = layers.Conv2D(4, 1, name="inner")

        def call(self, x, training=None):
            return self.inner(x) + 1.0 if training else self.inner(x)

    dilated = dilate(small(Noisy(name="noisy")), 2, aux=False)
    assert isinstance(dilated.get_layer("noisy"), Noisy)


def test_a_shared_layer_stays_shared():
    shared = layers.Conv2D(4, 3, padding="same", name="shared")
    model = small(lambda x: shared(shared(layers.Conv2D(4, 1, strides=2)(x))), (24, 25))
    dilated = dilate(model, 2, aux=False)
    assert len(dilated.weights) == len(model.weights)
    assert_denser(dilated(picture((24, 25))), model(picture((24, 25))), 2)


def test_statistics_that_a_normalization_has_adapted_to_stay():
    normalization = layers.Normalization(name="adapted")
    normalization.adapt(np.random.default_rng(0).normal(3, 2, (9, 4)))
    model = small(lambda x: normalization(layers.Conv2D(4, 1, strides=2)(x)), (24, 25))
    dilated = dilate(model, 2, aux=False)
    clone = keras.models.clone_model(dilated)
    clone.set_weights(dilated.get_weights())
    for copy in (dilated, clone):
        assert_denser(copy(picture((24, 25))), model(picture((24, 25))), 2)


def test_names_are_kept_but_for_those_that_clash():
    model = small(
        lambda x: layers.ReLU(name="_hidden")(layers.Conv2D(4, 1, strides=2, name="cls_0")(x)),
        (48, 48),
        before=layers.BatchNormalization(name="normalization"),
        after=layers.Conv2D(4, 1, name="ppm"),
    )
    assert {"cls_0", "normalization", "backbone_hidden"} <= {
        x.name for x in dilate(model, 2).layers
    }
    network = keras_pspnet.build_pspnet(
        2,
        input_shape=(97, 97, 3),
        backbone=keras.Sequential([model, layers.MaxPooling2D()]),
        normalization=layers.Rescaling(2.0),
        channels=4,
        bins=(),
    )
    names = [layer.name for layer in network.layers]
    assert len(names) == len(set(names)) and not any(name.startswith("_") for name in names)
    assert {"backbone_cls_0", "backbone_normalization", "backbone_ppm", "cls_0"} <= set(names)
    assert network.get_layer("normalization").scale == 2.0
    optimizer = PSPNetSGD(head_multiplier=10.0)
    optimizer.build(network.trainable_variables)
    for variable, multiplier in zip(network.trainable_variables, optimizer.multipliers):
        head = variable.path.split("/")[0].split("_")[0] in ("cls", "aux")
        assert multiplier == (10.0 if head else 1.0), variable.path


# --- the auxiliary features ---


def test_the_auxiliary_head_starts_in_front_of_the_last_stride():
    def tap(last, before):
        features = dilate(small(last, before=before), 4).outputs[0]
        return features._keras_history.operation.name

    def stride(x):
        return layers.Conv2D(4, 3, strides=2, padding="same")(x)

    def pooled(x):
        return layers.MaxPooling2D(padding="same")(x)

    def branches(x):
        return layers.Add()([stride(layers.BatchNormalization()(x)), pooled(x)])

    def merged(x):
        return layers.Add(name="merged")([x, layers.ReLU()(x)])

    def widened(x):
        return layers.BatchNormalization()(layers.Conv2D(9, 1)(merged(x)))

    assert tap(stride, lambda x: x).startswith("re_lu")
    assert tap(branches, layers.BatchNormalization()).startswith("re_lu")
    assert tap(lambda x: stride(merged(x)), lambda x: x) == "merged"
    # What widens a map for the strided block belongs to that.
    assert tap(lambda x: stride(widened(x)), lambda x: x) == "merged"
    assert tap(lambda x: stride(layers.Conv2D(3, 1, name="down")(x)), merged) == "down"


def test_without_a_single_tensor_in_front_the_auxiliary_head_is_refused():
    image = keras.Input((33, 33, 3))
    left, right = (layers.Conv2D(4, 3, strides=2, padding="same")(image) for _ in range(2))
    left, right = (layers.Conv2D(4, 3, strides=2, padding="same")(x) for x in (left, right))
    model = keras.Model(image, layers.Add()([left, right]))
    with pytest.raises(ValueError, match=r"no single tensor before its last stride.*aux=False"):
        dilate(model, 2)
    assert dilate(model, 2, aux=False).output.shape == (None, 17, 17, 4)


# --- what is refused ---


class Blur(layers.Layer):
    """Looks at neighbours, says nothing."""

    def call(self, x):
        return x + ops.roll(x, 1, axis=1)


class Least(layers.Layer):
    """The least of 3x3 pixels."""

    def call(self, x):
        return -ops.max_pool(-x, 3, 1, "same")


class Stem(layers.Layer):
    def call(self, x):
        return x[:, ::4, ::4]


def strided(x):
    return layers.Conv2D(4, 3, strides=2, padding="same", name="strided")(x)


@pytest.mark.parametrize(
    "last, message",
    [
        (lambda x: Blur(name="blur")(strided(x)), r"'blur' \(Blur\) mixes neighbouring pixels"),
        (lambda x: ops.roll(strided(x), 1, axis=1), r"\(Roll\) mixes neighbouring pixels"),
        (lambda x: ops.roll(strided(x), -1, axis=2), r"\(Roll\) mixes neighbouring pixels"),
        (lambda x: Least(name="least")(strided(x)), r"'least' \(Least\) mixes neighbouring"),
        (
            lambda x: layers.PReLU(name="each")(strided(x)),
            r"'each' \(PReLU\) does not take maps of (other sizes|this input size)",
        ),
        (Stem(name="stem"), r"'stem' \(Stem\) has strides that cannot become dilations"),
        (
            lambda x: strided(x)[:, ::2, ::2],
            r"\(GetItem\) has strides that cannot become dilations",
        ),
        (lambda x: layers.UpSampling2D(name="up")(strided(x)), r"'up' \(UpSampling2D\) .* resizes"),
        (
            lambda x: layers.Conv2D(4, 3, strides=(2, 1), name="uneven")(x),
            r"'uneven' \(Conv2D\) has strides \(2, 1\), which differ",
        ),
        (
            lambda x: layers.Conv2DTranspose(4, 3, strides=2, name="up")(strided(x)),
            r"'up' \(Conv2DTranspose\) has strides",
        ),
        (
            lambda x: layers.Add(name="join")([strided(x), layers.Cropping2D(3)(x)]),
            r"'join' \(Add\) joins maps of different strides",
        ),
        (
            lambda x: layers.Flatten()(strided(x)),
            "does not end in a map of features.*include_top=False",
        ),
        (
            lambda x: layers.Lambda(lambda y: tf.square(y))(strided(x)),
            r"\(Lambda\) cannot be rebuilt from its config",
        ),
    ],
)
def test_what_cannot_be_dilated_is_named(last, message):
    image = keras.Input((24, 26, 3))
    x = layers.Conv2D(4, 3, strides=2, padding="same")(image)
    model = keras.Model(image, last(x))
    with pytest.raises(ValueError, match=message) as caught:
        dilate(model, 2)
    assert "\n" not in str(caught.value)


def test_models_of_another_kind_are_refused():
    class Subclassed(keras.Model):
        pass

    image = keras.Input((33, 33, 3))
    two = keras.Model([image, keras.Input((33, 33, 3))], image)
    for model, message in (
        (5, "functional keras.Model. Received: .*int"),
        (Subclassed(), "functional keras.Model. Received: .*Subclassed"),
        (two, "one input"),
        (keras.Model(image, [image, image]), "has 2 outputs; expected one map of features"),
        (keras.Model(image, layers.Conv2D(2, 3, strides=4)(image)), "from stride 1 to 4 at once"),
        (
            keras.Model(image, layers.Conv2D(2, 3)(image)),
            "between 1 and the stride of the backbone .*, 1. Rec",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            dilate(model, 2)
    grey = keras.Input((33, 33, 1))
    with pytest.raises(ValueError, match="takes 1 channels, not 3"):
        keras_pspnet.build_pspnet(2, backbone=keras.Model(grey, layers.Conv2D(2, 3)(grey)))
    with pytest.raises(ValueError, match="include_top=False"):
        top = keras.applications.MobileNetV2(weights=None, alpha=0.35)
        keras_pspnet.build_pspnet(2, backbone=top)


# --- as a backbone: trained, saved, exported ---


def network(name, size=(65, 97), output_stride=8):
    return keras_pspnet.build_pspnet(
        12,
        input_shape=(*size, 3),
        backbone=family(name, size),
        output_stride=output_stride,
        channels=8,
        bins=(1, 3),
        normalization=FAMILIES[name][2],
    )


def test_a_family_trains_both_heads_is_saved_and_exported_fused(tmp_path):
    """One with gates and hard sigmoids; the others: tests/verify/foreign_backbones.py."""
    name, size = "MobileNetV3Small", (65, 97)
    model = keras_pspnet.build_pspnet(
        12,
        input_shape=(*size, 3),
        backbone=family(name, size),
        channels=8,
        bins=(1, 3),
        normalization=FAMILIES[name][2],
    )
    images, masks = scenes.scenes(2, split="train", size=size)
    images = images.astype("float32")
    losses = {"aux": VoidCrossentropy(), "main": VoidCrossentropy()}
    model.compile(PSPNetSGD(0.01), loss=losses, loss_weights={"aux": 0.4, "main": 1.0})
    before = model.get_weights()
    model.fit(images, {"aux": masks, "main": masks}, batch_size=2, verbose=0)
    for variable, old in zip(model.weights, before):
        assert np.abs(np.asarray(variable.value) - old).max() > 0, variable.path

    model.save(tmp_path / "model.keras")
    loaded = keras_pspnet.load_model(tmp_path / "model.keras")
    expected = model.predict_on_batch(images)["main"]
    np.testing.assert_array_equal(loaded.predict_on_batch(images)["main"], expected)

    out = tmp_path / "out"
    file = keras_pspnet.export_model(model, out, formats=("float32",), output="logits")["float32"]
    counts = operators(file)
    assert "SPACE_TO_BATCH_ND" not in counts and not any("Flex" in kind for kind in counts)
    card = json.loads((out / "pspnet_float32.card.json").read_text())
    forms = card["long_convolutions"].values()
    # None is a loose batch norm: one rescaling, nine gates and their hard sigmoids; Winograd's
    # algorithm has three of its own.
    assert counts["MUL"] == 1 + 2 * 9 + 3 * sum(form["winograd"] for form in forms)
    assert delegation(file) == (1, ["CAST"])


def test_operations_that_are_no_layers_are_not_halved_by_an_export_in_float32(tmp_path):
    def build():
        model = small(lambda x: strided(x) * (ops.tanh(ops.mean(x, (1, 2), keepdims=True)) + 1.5))
        return keras_pspnet.build_pspnet(
            5, input_shape=(65, 97, 3), backbone=deeper(model), channels=8, output_stride=8
        )

    keras.config.set_dtype_policy("mixed_float16")
    try:
        half = build()
    finally:
        keras.config.set_dtype_policy("float32")
    full = build()
    full.set_weights(half.get_weights())
    images = scenes.scenes(2, split="train", size=(65, 97))[0]
    file = keras_pspnet.export_model(half, tmp_path, formats=("float32",), output="logits")
    found = keras_pspnet.load_model(file["float32"])(images)
    expected = full.predict_on_batch(images)["main"]
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def deeper(model):
    """With two more strides, at any size."""
    image = keras.Input((None, None, 3))
    x = keras.models.clone_model(model, input_tensors=image)(image / 127.5 - 1.0)
    for _ in range(2):
        x = layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2, padding="same")(x))
    return keras.Model(image, x)


def test_poolings_with_holes_are_exported_and_loaded(tmp_path):
    model = deeper(small(layers.AveragePooling2D(3, strides=2, padding="same")))
    x = layers.AveragePooling2D(3, strides=2, padding="same")(model.output)
    model = keras.Model(model.input, layers.MaxPooling2D(3, strides=2, padding="same")(x))
    network = keras_pspnet.build_pspnet(5, input_shape=(65, 97, 3), backbone=model, channels=8)
    pools = [layer for layer in network.layers if isinstance(layer, DilatedPooling2D)]
    assert [(pool.pooling, pool.dilation_rate) for pool in pools] == [
        ("average", (2, 2)),
        ("max", (4, 4)),
    ]
    network.save(tmp_path / "model.keras")
    loaded = keras_pspnet.load_model(tmp_path / "model.keras")
    images = scenes.scenes(2, split="train", size=(65, 97))[0]
    expected = network.predict_on_batch(images)["main"]
    np.testing.assert_array_equal(loaded.predict_on_batch(images)["main"], expected)
    file = keras_pspnet.export_model(network, tmp_path, formats=("float32",), output="logits")
    found = keras_pspnet.load_model(file["float32"])(images)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
