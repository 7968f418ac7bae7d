"""What the authors' test protocol costs on one picture of Cityscapes' size: time and memory.

    python benchmarks/protocol.py

Writes results/protocol.json. The networks have random weights and 19 classes; each case runs in a
process of its own, whose peak memory (resident, TensorFlow and the network included) is taken.
"""

import dataclasses
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from machine import machine

RESULT = Path(__file__).parent / "results" / "protocol.json"
CASES = {
    "resnet50, scale 1": ["resnet50", "8", "1"],
    "efficientnet_lite0, 6 scales, flip": [
        "efficientnet_lite0",
        "16",
        "0.5,0.75,1,1.25,1.5,1.75",
        "flip",
    ],
}


def main():
    if len(sys.argv) > 1:
        print(json.dumps(measured(*sys.argv[1:])))
        return
    cases = {}
    for name, arguments in CASES.items():
        print(name, flush=True)
        command = [sys.executable, __file__, *arguments]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        cases[name] = json.loads(done.stdout.splitlines()[-1])
    result = {
        "command": "python benchmarks/protocol.py",
        "picture": "2048x1024",
        "protocol": "--crop 713 713 --base 2048",
        "machine": machine(),
        "cases": cases,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def measured(backbone, output_stride, scales, flip=""):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import numpy as np

    import keras_pspnet
    from keras_pspnet.inference.load import as_predictor
    from keras_pspnet.inference.segment import segment

    model = keras_pspnet.build_pspnet(
        19, input_shape=(713, 713, 3), backbone=backbone, output_stride=int(output_stride)
    )
    network, windows = as_predictor(model), []
    run = network.run

    def counted(images):
        windows.append(len(images))
        return run(images)

    network = dataclasses.replace(network, run=counted)
    image = np.random.default_rng(0).integers(0, 256, (1024, 2048, 3), np.uint8)
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    scales = tuple(map(float, scales.split(",")))
    segment(network, image, crop=(713, 713), base=2048, scales=scales, flip=bool(flip))
    return {
        "windows": sum(windows),
        "at_once": max(windows),
        "seconds": round(time.perf_counter() - start, 1),
        "peak_gigabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "of_which_before": round(loaded / 2**20, 2),
    }


if __name__ == "__main__":
    main()
