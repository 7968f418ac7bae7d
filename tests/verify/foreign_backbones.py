"""Backbones of keras.applications, keras-hub and keras-cv: dilated, trained, saved, exported.

    python tests/verify/foreign_backbones.py [NAME ...]     where keras-hub, keras-cv are

The networks are narrow ones of each kind, without weights, so that nothing is downloaded. For each
it proves that the dilated network computes what the strided one does, that both heads train, that
the saved file needs nothing but this package, and that the exported file is as fused as that of the
strided network and equal to the Keras model. The last line is JSON.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import keras_cv
import keras_hub
import numpy as np

import keras_pspnet
from keras_pspnet import scenes
from keras_pspnet.export.delegate import delegation, operators
from keras_pspnet.network.dilation import DilatedPooling2D
from keras_pspnet.network.losses import VoidCrossentropy

SIZES = ((96, 128), 8), ((97, 129), 16)  # with the output stride that it is dilated to
ANY = {"image_shape": (None, None, 3)}
PLAIN = {"include_rescaling": False}
TOPLESS = {"include_top": False, "weights": None}

EFFICIENT = {
    "stackwise_kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
    "stackwise_num_repeats": [1, 2, 2, 3, 3, 4, 1],
    "stackwise_input_filters": [32, 16, 24, 40, 80, 112, 192],
    "stackwise_output_filters": [16, 24, 40, 80, 112, 192, 320],
    "stackwise_expansion_ratios": [1, 6, 6, 6, 6, 6, 6],
    "stackwise_strides": [1, 2, 2, 2, 1, 2, 1],
}


def application(name, **options):
    """keras.applications pads by the input's size, so it is made for that."""
    make = getattr(keras.applications, name)
    return lambda size: make(input_shape=(*size, 3), **TOPLESS, **options)


def hub_resnet(block, pre_activation=False):
    stem = [32, 32, 64] if block.endswith("vd") else [64]
    return keras_hub.models.ResNetBackbone(
        input_conv_filters=stem,
        input_conv_kernel_sizes=[3, 3, 3] if len(stem) == 3 else [7],
        stackwise_num_filters=[64, 16, 16, 16],
        stackwise_num_blocks=[2, 2, 2, 2],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type=block,
        use_pre_activation=pre_activation,
        **ANY,
    )


def hub_mobilenet():
    return keras_hub.models.MobileNetBackbone(
        stackwise_expansion=[[40, 56], [64, 144, 144], [72, 72], [144, 288, 288]],
        stackwise_num_blocks=[2, 3, 2, 3],
        stackwise_num_filters=[[16, 16], [24, 24, 24], [24, 24], [48, 48, 48]],
        stackwise_kernel_size=[[3, 3], [5, 5, 5], [5, 5], [5, 5, 5]],
        stackwise_num_strides=[[2, 1], [2, 1, 1], [1, 1], [2, 1, 1]],
        stackwise_se_ratio=[[None, None], [0.25] * 3, [0.3, 0.3], [0.3, 0.25, 0.25]],
        stackwise_activation=[["relu"] * 2, ["hard_swish"] * 3, ["hard_swish"] * 2]
        + [["hard_swish"] * 3],
        stackwise_padding=[[1, 1], [2, 2, 2], [2, 2], [2, 2, 2]],
        output_num_filters=288,
        depthwise_filters=8,
        depthwise_stride=2,
        depthwise_residual=False,
        last_layer_filter=96,
        squeeze_and_excite=0.5,
        **ANY,
    )


def hub_efficientnet(blocks):
    return keras_hub.models.EfficientNetBackbone(
        stackwise_width_coefficients=[0.25] * 7,
        stackwise_depth_coefficients=[0.5] * 7,
        stackwise_squeeze_and_excite_ratios=[0.25] * 7,
        stackwise_block_types=blocks,
        input_shape=(None, None, 3),
        **EFFICIENT,
    )


def hub_hgnet():
    return keras_hub.models.HGNetV2Backbone(
        depths=[1, 1, 1, 1],
        embedding_size=16,
        hidden_sizes=[16, 24, 32, 48],
        stem_channels=[3, 8, 16],
        hidden_act="relu",
        use_learnable_affine_block=False,
        stackwise_stage_filters=[
            [16, 16, 24, 1, 3, 3],
            [24, 24, 32, 1, 3, 3],
            [32, 24, 48, 1, 3, 5],
            [48, 32, 64, 1, 3, 5],
        ],
        apply_downsample=[False, True, True, True],
        use_lightweight_conv_block=[False, False, True, True],
        **ANY,
    )


def hub_hgnet_alone():
    """It has an output for each stage; a backbone has one."""
    model = hub_hgnet()
    last = max(model.outputs, key=lambda x: x.shape[-1])
    return keras.Model(model.inputs, last)


def cv_mobilenet_v3():
    return keras_cv.models.MobileNetV3Backbone(
        stackwise_expansion=[1, 72 / 16, 88 / 24, 4, 6, 6, 3, 3, 6, 6, 6],
        stackwise_filters=[16, 24, 24, 40, 40, 40, 48, 48, 96, 96, 96],
        stackwise_kernel_size=[3, 3, 3, *[5] * 8],
        stackwise_stride=[2, 2, 1, 2, 1, 1, 1, 1, 2, 1, 1],
        stackwise_se_ratio=[0.25, None, None, *[0.25] * 8],
        stackwise_activation=["relu"] * 3 + ["hard_swish"] * 8,
        alpha=0.5,
        **PLAIN,
    )


def cv_efficientnet(name, **options):
    coefficients = {"width_coefficient": 0.25, "depth_coefficient": 0.5}
    make = getattr(keras_cv.models, name)
    return make(**{**coefficients, **EFFICIENT, **PLAIN, **options})


def cv_resnet(name, **options):
    return getattr(keras_cv.models, name)(
        stackwise_filters=[64, 16, 16, 16],
        stackwise_blocks=[2, 2, 2, 2],  # of one block a stage keras-cv 0.9 makes two of a name
        stackwise_strides=[1, 2, 2, 2],
        **options,
        **PLAIN,
    )


BACKBONES = {
    "applications ResNet50": application("ResNet50"),
    "applications ResNet50V2": application("ResNet50V2"),
    "applications MobileNet": application("MobileNet", alpha=0.25),
    "applications MobileNetV2": application("MobileNetV2", alpha=0.35),
    "applications MobileNetV3Small": application("MobileNetV3Small"),
    "applications MobileNetV3Large": application("MobileNetV3Large"),
    "applications EfficientNetB0": application("EfficientNetB0"),
    "applications EfficientNetV2B0": application("EfficientNetV2B0"),
    "applications DenseNet121": application("DenseNet121"),
    "applications Xception": application("Xception"),
    "applications InceptionV3": application("InceptionV3"),
    "applications VGG16": application("VGG16"),
    "applications ConvNeXtTiny": application("ConvNeXtTiny"),
    "hub ResNet, basic": lambda _: hub_resnet("basic_block"),
    "hub ResNet, bottleneck": lambda _: hub_resnet("bottleneck_block"),
    "hub ResNetV2": lambda _: hub_resnet("bottleneck_block", True),
    "hub ResNet-vd": lambda _: hub_resnet("bottleneck_block_vd"),
    "hub MobileNet": lambda _: hub_mobilenet(),
    "hub EfficientNet": lambda _: hub_efficientnet(["v1"] * 7),
    "hub EfficientNetV2": lambda _: hub_efficientnet(["fused"] * 3 + ["unfused"] * 4),
    "hub DenseNet": lambda _: keras_hub.models.DenseNetBackbone(
        stackwise_num_repeats=[2, 2, 2, 2], compression_ratio=0.5, growth_rate=16, **ANY
    ),
    "hub VGG": lambda _: keras_hub.models.VGGBackbone(
        stackwise_num_repeats=[1] * 5, stackwise_num_filters=[8, 8, 16, 16, 16], **ANY
    ),
    "hub Xception": lambda _: keras_hub.models.XceptionBackbone(
        stackwise_conv_filters=[[32, 64], [72, 72], [96, 96], [128, 128]]
        + [[128, 128], [160, 160], [64, 64]],
        stackwise_pooling=[False, True, True, True, False, True, False],
        **ANY,
    ),
    "hub HGNetV2": lambda _: hub_hgnet_alone(),
    "cv ResNet, basic": lambda _: cv_resnet("ResNetBackbone", block_type="basic_block"),
    "cv ResNet, bottleneck": lambda _: cv_resnet("ResNetBackbone", block_type="block"),
    "cv ResNetV2": lambda _: cv_resnet("ResNetV2Backbone"),
    "cv MobileNetV3": lambda _: cv_mobilenet_v3(),
    "cv EfficientNetV1": lambda _: cv_efficientnet(
        "EfficientNetV1Backbone", stackwise_squeeze_and_excite_ratios=[0.25] * 7
    ),
    "cv EfficientNetLite": lambda _: cv_efficientnet(
        "EfficientNetLiteBackbone", width_coefficient=1.0
    ),
    "cv EfficientNetV2": lambda _: cv_efficientnet(
        "EfficientNetV2Backbone",
        stackwise_squeeze_and_excite_ratios=[0, 0, 0, *[0.25] * 4],
        stackwise_conv_types=["fused"] * 3 + ["unfused"] * 4,
    ),
    "cv DenseNet": lambda _: keras_cv.models.DenseNetBackbone(
        stackwise_num_repeats=[2, 2, 2, 2], **PLAIN
    ),
    "cv CSPDarkNet": lambda _: keras_cv.models.CSPDarkNetBackbone(
        stackwise_channels=[16, 16, 32, 32], stackwise_depth=[1, 1, 1, 1], **PLAIN
    ),
    "cv VGG16": lambda _: keras_cv.models.VGG16Backbone(
        include_top=False, input_shape=(None, None, 3), **PLAIN
    ),
}
EVEN_ONLY = ("cv CSPDarkNet",)  # its stem puts the pixels of 2x2 squares on each other

REFUSED = {  # what is said of it
    "applications NASNetMobile": (application("NASNetMobile"), "no single tensor before"),
    "hub HGNetV2": (lambda _: hub_hgnet(), "has 5 outputs; expected one map of features"),
    "cv MiT": (
        lambda _: keras_cv.models.MiTBackbone(
            embedding_dims=[16, 32, 40, 64], depths=[1, 1, 1, 1], **PLAIN
        ),
        "(Reshape) does not take maps of this input size",
    ),
}


def prepared(model):
    """Statistics and biases that matter; gates by bias alone, as a denser map has another mean."""
    rng = np.random.default_rng(0)
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.BatchNormalization):
            for variable in layer.weights:
                positive = variable.name in ("gamma", "moving_variance")
                low, high = (0.7, 1.3) if positive else (-0.3, 0.3)
                variable.assign(rng.uniform(low, high, variable.shape))
        elif getattr(layer, "bias", None) is not None:
            layer.bias.assign(rng.uniform(-0.3, 0.3, layer.bias.shape))
        named = layer.name.endswith(("se_expand", "squeeze_excite_conv_1", "conv_expand"))
        gate = layer if named else getattr(layer, "excite_conv", None)
        if gate is not None and gate.built:
            gate.kernel.assign(np.zeros(gate.kernel.shape))
    return model


def values(make, even_only):
    """The largest difference to the strided network, relative to its largest value."""
    worst = 0.0
    for size, output_stride in SIZES[: 1 if even_only else 2]:
        model = prepared(make(size))
        dilated = keras_pspnet.dilate(model, output_stride, input_shape=(*size, 3), aux=False)
        x = np.random.default_rng(1).uniform(0, 1, (1, *size, 3)).astype("float32")
        if any(isinstance(layer, keras.layers.Rescaling) for layer in model.layers):
            x = 255 * x
        old, new = np.asarray(model(x)), np.asarray(dilated(x))
        step = 32 // output_stride
        subsampled = new[:, ::step, ::step][:, : old.shape[1], : old.shape[2]]
        assert old.std() > 0.01 * np.abs(old).max() > 0
        worst = max(worst, float(np.abs(subsampled - old).max() / np.abs(old).max()))
    return worst


def built(make, size, output_stride):
    keras.utils.set_random_seed(0)
    return keras_pspnet.build_pspnet(
        12,
        input_shape=(*size, 3),
        backbone=make(size),
        output_stride=output_stride,
        channels=8,
        bins=(1, 3),
        normalization=((127.5,) * 3, (127.5,) * 3),
    )


def prove(name, folder):
    """What is recorded of a backbone; fails where something is not as it should be."""
    make, even_only = BACKBONES[name], name in EVEN_ONLY
    difference = values(make, even_only)
    assert difference < 1e-5, difference
    size, output_stride = SIZES[0]
    model = built(make, size, output_stride)
    foreign = {type(layer).__module__.split(".")[0] for layer in model.layers}
    assert foreign <= {"keras", "keras_pspnet"}, foreign

    images, masks = scenes.scenes(2, split="train", size=size)
    images = images.astype("float32")
    losses = {"aux": VoidCrossentropy(), "main": VoidCrossentropy()}
    weights = {"aux": 0.4, "main": 1.0}
    model.compile(keras.optimizers.SGD(0.1), loss=losses, loss_weights=weights)
    before = model.get_weights()
    # Three steps: stochastic depth leaves out whole branches, in one step for both pictures.
    model.fit(images, {"aux": masks, "main": masks}, batch_size=2, epochs=3, verbose=0)
    # A bias in front of a batch norm has no gradient, a channel of a ReLU may be dead.
    still = [
        variable.path
        for variable, old in zip(model.weights, before)
        if np.array_equal(np.asarray(variable.value), old) and variable.name != "bias"
    ]
    assert len(still) <= 0.02 * len(before), still

    model.save(folder / "model.keras")
    loaded = keras_pspnet.load_model(folder / "model.keras")
    expected = model.predict_on_batch(images)["main"]
    assert np.array_equal(loaded.predict_on_batch(images)["main"], expected)

    counts = {}
    for network, stride in ((model, output_stride), (built(make, size, 32), 32)):
        out = folder / str(stride)
        file = keras_pspnet.export_model(network, out, formats=("float32",))["float32"]
        counts[stride] = operators(file)
        if stride == output_stride:
            card = json.loads(file.with_name("pspnet_float32.card.json").read_text())
            partitions, outside = delegation(file)
    dilated, strided = counts[output_stride], counts[32]
    assert not any("BATCH_ND" in kind or "Flex" in kind for kind in dilated), dilated
    kinds = ("MUL", "CONV_2D", "DEPTHWISE_CONV_2D", "LOGISTIC", "HARD_SWISH")
    added = {kind: dilated.get(kind, 0) - strided.get(kind, 0) for kind in kinds}
    pools = [layer for layer in model.layers if isinstance(layer, DilatedPooling2D)]
    # A mean with holes divides by what it counts.
    added["MUL"] -= sum(pool.pooling == "average" for pool in pools)
    assert not any(added.values()), added
    return {
        "difference": difference,
        "auxiliary": tap(model),
        "weights": len(before),
        "weights_that_stayed": still,
        "multiplications": dilated.get("MUL", 0),
        "agreement": card["agreement"],
        "partitions": partitions,
        "outside": outside,
    }


def tap(model):
    """The layer whose output the auxiliary head takes."""
    (node,) = model.get_layer("aux_0")._inbound_nodes
    return node.input_tensors[0]._keras_history.operation.name


def refusal(make, expected):
    """The one line that is said of a model that cannot be a backbone."""
    model = make((96, 128))
    try:
        keras_pspnet.dilate(model, 8, input_shape=(96, 128, 3))
    except ValueError as error:
        assert expected in str(error) and "\n" not in str(error), error
        return {"message": str(error)}
    raise AssertionError("it was not refused")


def main():
    names = [*BACKBONES, *(f"refused {name}" for name in REFUSED)]
    results, failed = {}, []
    for name in sys.argv[1:] or names:
        start = time.monotonic()
        try:
            if name in BACKBONES:
                with tempfile.TemporaryDirectory() as folder:
                    results[name] = prove(name, Path(folder))
            else:
                results[name] = refusal(*REFUSED[name.removeprefix("refused ")])
        except Exception as error:
            failed.append(name)
            results[name] = {"failed": f"{type(error).__name__}: {error}"[:500]}
        print(f"{name}: {results[name]} in {time.monotonic() - start:.0f} s", flush=True)
        keras.backend.clear_session()
    print(json.dumps(results))
    return f"failed: {failed}" if failed else 0


if __name__ == "__main__":
    sys.exit(main())
