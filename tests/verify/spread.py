"""One part of the check `several_devices`: trains every kind of loss, from one start.

    python tests/verify/spread.py FOLDER data
    python tests/verify/spread.py FOLDER NAME DEVICES [HOST:PORT PROCESSES PROCESS]

`data` writes FOLDER/data, whose void is spread unevenly, and FOLDER/start.keras. The other form
writes the runs FOLDER/NAME/LOSS on that many devices; 0 trains without `devices`.
"""

import os
import sys
from pathlib import Path

from PIL import Image

LOSSES = {
    "plain": {},
    "class_weights": {"class_weights": True},
    "ohem": {"ohem_threshold": 0.3},
    "jaccard": {"jaccard": 0.5},
    "dice": {"dice": 0.5},
    "focal": {"focal": 2.0},
    "all": {
        "class_weights": True,
        "ohem_threshold": 0.7,
        "jaccard": 0.5,
        "dice": 0.25,
        "focal": 0.5,
    },
}
SIZE = (49, 49)
SETTINGS = {
    "dataset": "folder",
    "crop": SIZE,
    "dropout": 0.0,
    "batch_size": 8,
    "epochs": 2,  # of four steps each: 35 pictures leave an incomplete batch
    # At ten times this rate a start that differs by 1e-7 ends 3.5e-4 apart, on one device too.
    "learning_rate": 1e-4,
    "head_multiplier": 1.0,
    "scales": (1.0, 1.0),
    "rotation": 0.0,
    "blur_share": 0.0,
    "ohem_threshold": None,
    "class_weights": False,
    "train_images": None,
    "val_images": None,
}


def data(folder):
    """35 scenes to train on and 6 to validate on: some without void, some of little else."""
    import keras
    from jax_parity import randomise_norms

    import keras_pspnet
    from keras_pspnet import scenes
    from keras_pspnet.files import write_json
    from keras_pspnet.labels import SCENES

    for split, count in (("train", 35), ("val", 6)):
        for index in range(count):
            image, mask = scenes.scene(index, split=split, size=SIZE)
            if index % 5 == 1:
                mask[:-2] = 255
            if index % 5 == 3:
                mask[:, : index + 5] = 255
            for kind, array in (("images", image), ("masks", mask)):
                file = folder / "data" / kind / split / f"{index:02d}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(file)
    write_json(folder / "data" / "labels.json", {"names": list(SCENES.names)})
    keras.utils.set_random_seed(0)
    model = keras_pspnet.build_pspnet(
        len(SCENES),
        labels=list(SCENES.names),
        input_shape=(*SIZE, 3),
        backbone="resnet14_narrow",
        channels=8,
        dropout=0.0,
    )
    # A new network has units that are 0 but for rounding, whose gradient is anybody's guess.
    randomise_norms(model)
    model.save(folder / "start.keras")


def train(folder, name, devices, coordinator=None, processes=None, process=None):
    if coordinator:
        import jax

        jax.distributed.initialize(coordinator, int(processes), int(process))
    from keras_pspnet.train import fit, recipe

    for loss, fields in LOSSES.items():
        fit(
            recipe("scenes_tiny", **{**SETTINGS, **fields}),
            folder / name / loss,
            data_dir=folder / "data",
            start=folder / "start.keras",
            devices=int(devices) or None,
        )
    if coordinator:
        jax.distributed.shutdown()


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    folder, name, *rest = Path(sys.argv[1]), *sys.argv[2:]
    if name == "data":
        data(folder)
    else:
        train(folder, name, *rest)
