"""The authors' PSPNet-50 for the race: a checkpoint, and ONNX files in float and in int8 (QDQ).

Runs in the environment that peers.py makes: PyTorch, ONNX Runtime.

python benchmarks/peers/reference.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
import torch
from onnxruntime import quantization
from torch_pspnet import random_network

NETWORK = {"blocks": (3, 4, 6, 3), "classes": 150}


class MainHead(torch.nn.Module):
    """What a device computes: the auxiliary head is left out."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, image):
        return self.network(image)[1]


class Calibration(quantization.CalibrationDataReader):
    def __init__(self, pictures):
        self.pictures = iter(pictures)

    def get_next(self):
        picture = next(self.pictures, None)
        return None if picture is None else {"image": nchw(picture)}


def nchw(picture):
    return picture.astype(np.float32).transpose(2, 0, 1)[None]


def main(folder):
    network = random_network(**NETWORK)
    torch.save(network.state_dict(), folder / "reference.pth")
    network.aux = None
    pictures = np.load(folder / "pictures.npy")
    example = torch.from_numpy(nchw(pictures[0]))
    torch.onnx.export(
        MainHead(network).eval(),
        example,
        folder / "float.onnx",
        input_names=["image"],
        output_names=["logits"],
        opset_version=17,
        dynamo=False,
    )
    prepared = folder / "prepared.onnx"
    quantization.quant_pre_process(folder / "float.onnx", prepared)
    quantization.quantize_static(
        prepared,
        folder / "int8.onnx",
        Calibration(pictures),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
