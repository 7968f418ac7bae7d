"""Training steps of the same network in PyTorch, one for each line read: `training.py` starts it.

The ResNet is the authors' network of tests/verify/torch_pspnet.py; EfficientNet-Lite0 is timm's,
with this package's head.
"""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "verify"))
from torch_pspnet import BINS, PSPNet


class Lite0(nn.Module):
    """EfficientNet-Lite0 with the pyramid and both heads."""

    resize, align = PSPNet.resize, True
    head = PSPNet.head

    def __init__(self, stride, classes, channels=128):
        super().__init__()
        import timm

        self.backbone = timm.create_model(
            "tf_efficientnet_lite0", features_only=True, output_stride=stride, out_indices=(3, 4)
        )
        before_last, last = self.backbone.feature_info.channels()
        branch = last // len(BINS)
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(bins),
                nn.Conv2d(last, branch, 1, bias=False),
                nn.BatchNorm2d(branch),
                nn.ReLU(),
            )
            for bins in BINS
        )
        self.cls = self.head(last + 4 * branch, channels, classes)
        self.aux = self.head(before_last, channels // 2, classes)

    def forward(self, image):
        third, x = self.backbone((image - 127.0) / 128.0)
        levels = [self.resize(level(x), x.shape[2:]) for level in self.levels]
        x = self.cls(torch.cat([x, *levels], 1))
        size = image.shape[2:]
        return self.resize(self.aux(third), size), self.resize(x, size)


settings = json.loads(sys.argv[1])
layout = torch.channels_last if sys.argv[2] == "channels_last" else torch.contiguous_format
size, batch, classes = settings["size"], settings["batch"], settings["classes"]
torch.manual_seed(0)
if settings["name"].startswith("efficientnet"):
    network = Lite0(settings["stride"], classes)
else:
    network = PSPNet((3, 4, 6, 3), classes)
network = network.to(memory_format=layout).train()
optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
rng = np.random.default_rng(0)
images = rng.uniform(0, 255, (batch, 3, *size)).astype("float32")
masks = rng.integers(0, classes, (batch, *size))
masks[rng.random(masks.shape) < 0.1] = 255
images = torch.tensor(images).to(memory_format=layout)
masks = torch.tensor(masks)
for _ in sys.stdin:
    start = time.perf_counter()
    optimizer.zero_grad()
    aux, main = network(images)
    loss = F.cross_entropy(main, masks, ignore_index=255)
    loss = loss + 0.4 * F.cross_entropy(aux, masks, ignore_index=255)
    loss.backward()
    optimizer.step()
    loss = float(loss)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "peak_gigabytes": round(peak, 2), "loss": loss}))
    sys.stdout.flush()
