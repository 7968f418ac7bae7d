"""Batches of this package's pipeline, some for each line read: `reading.py` starts it."""

import json
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
from keras_pspnet.data import pipeline
from keras_pspnet.data.augment import Augmentation
from keras_pspnet.data.datasets import open_source

settings = json.loads(sys.argv[1])
source = open_source("folder", settings["folder"], split="train").paired()
first = 0
for _ in sys.stdin:
    batches = pipeline.training_steps(
        source,
        first,
        first + settings["batches"],
        crop=(settings["crop"],) * 2,
        batch_size=settings["batch"],
        augmentation=Augmentation(),
        seed=0,
    )
    first += settings["batches"]
    for number, _ in enumerate(batches):
        if number == settings["warm"] - 1:
            start = time.perf_counter()
        end = time.perf_counter()  # before the readers are put away
    pictures = (settings["batches"] - settings["warm"]) * settings["batch"]
    print(json.dumps({"pictures_a_second": pictures / (end - start)}), flush=True)
