"""The table of recipes. Comments give the cost and the score of some that were trained."""

import dataclasses

from keras_pspnet.errors import UserError
from keras_pspnet.train.published_recipes import PUBLISHED
from keras_pspnet.train.recipe_fields import Recipe

CAMVID_LITE0 = Recipe(
    dataset="camvid",
    backbone="efficientnet_lite0",
    backbone_weights="imagenet",
    channels=128,
    crop=(369, 481),
    batch_size=4,
    epochs=36,
    coarse_epochs=24,
    learning_rate=0.03,
    head_multiplier=1.0,
    scales=(0.7, 1.8),
    rotation=0.0,
    blur_share=0.0,
    color=0.3,
    class_weights=True,
    jaccard=0.5,
)

# Six sizes to choose from for a device. Ten epochs each; at output stride 8 the first seven run at
# 16. 30 to 60 minutes on two cores. Scores, file sizes and times: benchmarks/results/mobile.json.
MOBILE = {
    f"camvid_mobile_{stride}_{channels}": dataclasses.replace(
        CAMVID_LITE0,
        output_stride=stride,
        channels=channels,
        epochs=10,
        coarse_epochs=7 if stride == 8 else 0,
    )
    for stride in (16, 8)
    for channels in (512, 128, 64)
}

RECIPES = {
    # Trained by the demo: the paper's network with one block per stage and a quarter of the width.
    "scenes": Recipe(
        dataset="scenes",
        backbone="resnet14_narrow",
        channels=64,
        crop=(185, 185),
        batch_size=8,
        epochs=8,
        learning_rate=0.05,
        head_multiplier=1.0,
        scales=(0.8, 1.25),
    ),
    # Class weights, OHEM and a faster head, in under a minute; the tests interrupt and resume it.
    "scenes_tiny": Recipe(
        dataset="scenes",
        backbone="resnet14_narrow",
        channels=32,
        crop=(97, 97),
        train_images=96,
        val_images=8,
        batch_size=8,
        epochs=14,
        learning_rate=0.02,
        head_multiplier=10.0,
        class_weights=True,
        ohem_threshold=0.7,
        checkpoint_seconds=1.0,
    ),
    # CamVid, 11 classes, 367 training pictures of 480x360, padded to n * 16 + 1. 0.703 mIoU on the
    # 101 pictures of val (benchmarks/results/camvid.json). Colours are augmented because one of the
    # clips was filmed at dusk.
    "camvid_lite0": CAMVID_LITE0,
    # Your own folder of pictures and masks of any size. On two cores a step takes about a second at
    # output stride 16 and 2.6 seconds at 8. Twenty pictures get 120 epochs, as 22 of 5 steps would
    # end before the network has learned; a training that gets no better ends.
    "folder_lite0": Recipe(
        dataset="folder",
        backbone="efficientnet_lite0",
        backbone_weights="imagenet",
        channels=128,
        crop=(385, 385),
        batch_size=4,
        epochs=22,
        coarse_epochs=14,
        least_steps=600,
        patience=8,
        learning_rate=0.02,
        head_multiplier=1.0,
        resize_to_crop=True,
        scales=(0.6, 1.6),
        blur_share=0.0,
        color=0.3,
        jaccard=0.5,
    ),
    **MOBILE,
    **PUBLISHED,
}


def recipe(name: str, /, **changes) -> Recipe:
    """Return a recipe of the table, with other values in some fields.

    Args:
        name: key of `RECIPES`.
        **changes: field values, as `epochs=4, crop=(65, 65)`; see `Recipe.change`.

    Raises:
        UserError: no such recipe or field, or a value that the field does not take.
    """
    if name not in RECIPES:
        raise UserError(f"recipe {name!r} is not known; expected one of {', '.join(RECIPES)}")
    return RECIPES[name].change(**changes)
