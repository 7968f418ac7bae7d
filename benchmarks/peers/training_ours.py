"""Training steps of this package, one for each line read: `training.py` starts it."""

import json
import os
import resource
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")  # as keras_pspnet.fast_cpu
import keras
import numpy as np

import keras_pspnet
from keras_pspnet.network.losses import VoidCrossentropy
from keras_pspnet.network.optimizer import PSPNetSGD

settings = json.loads(sys.argv[1])
size, batch, classes = settings["size"], settings["batch"], settings["classes"]
narrow = {"channels": 128} if settings["name"].startswith("efficientnet") else {}
keras.utils.set_random_seed(0)
model = keras_pspnet.build_pspnet(
    classes,
    input_shape=(*size, 3),
    backbone=settings["name"].rpartition("_")[0],
    output_stride=settings["stride"],
    **narrow,
)
model.compile(
    PSPNetSGD(0.01, momentum=0.9, decay=1e-4),
    loss={"main": VoidCrossentropy(), "aux": VoidCrossentropy()},
    loss_weights={"main": 1.0, "aux": 0.4},
)
rng = np.random.default_rng(0)
images = rng.uniform(0, 255, (batch, *size, 3)).astype("float32")
masks = rng.integers(0, classes, (batch, *size)).astype("uint8")
masks[rng.random(masks.shape) < 0.1] = 255
for _ in sys.stdin:
    start = time.perf_counter()
    loss = model.train_on_batch(images, {"main": masks, "aux": masks})
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    loss = float(np.ravel(loss)[0])
    print(json.dumps({"seconds": seconds, "peak_gigabytes": round(peak, 2), "loss": loss}))
    sys.stdout.flush()
