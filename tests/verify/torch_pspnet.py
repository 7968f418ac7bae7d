"""The authors' networks once more, in PyTorch: what the converters are compared with.

    python tests/verify/torch_pspnet.py    writes tests/weights/checkpoints/ and their logits

Written from the description of the architecture (paper, figure 3; the names are those of the
authors' state dict). Weights and statistics are random.
"""

import collections
import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

BINS = (1, 2, 3, 6)
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
CAFFE_MEAN = (103.939, 116.779, 123.68)  # BGR


class Bottleneck(nn.Module):
    def __init__(self, before, width, strides, dilation, project):
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 1, strides[0], bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, strides[1], dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = None
        if project:
            conv = nn.Conv2d(before, 4 * width, 1, max(strides), bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(4 * width))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class PSPNet(nn.Module):
    """`kind` is "semseg", "mmseg" or "caffe"."""

    def __init__(self, blocks, classes, width=64, channels=512, kind="semseg", aux=True):
        super().__init__()
        self.kind, self.align = kind, kind != "mmseg"
        stem = (width // 2, width // 2, width) if kind == "mmseg" else (width, width, 2 * width)
        layers, before = [], 3
        for index, out in enumerate(stem):
            conv = nn.Conv2d(before, out, 3, 2 if index == 0 else 1, 1, bias=False)
            layers += [conv, nn.BatchNorm2d(out), nn.ReLU()]
            before = out
        self.layer0 = nn.Sequential(*layers, nn.MaxPool2d(3, 2, 1))
        for stage, count in enumerate(blocks, start=1):
            dilation = (1, 1, 2, 4)[stage - 1]
            first = max(dilation // 2, 1) if kind == "mmseg" else dilation
            step = 2 if stage == 2 else 1
            strides = (step, 1) if kind == "caffe" and tuple(blocks) == (3, 4, 6, 3) else (1, step)
            out = width * 2 ** (stage - 1)
            made = []
            for block in range(count):
                how = (strides, first, True) if block == 0 else ((1, 1), dilation, False)
                made.append(Bottleneck(before, out, *how))
                before = 4 * out
            setattr(self, f"layer{stage}", nn.Sequential(*made))
        branch = before // len(BINS)
        self.ppm = nn.Module()
        self.ppm.features = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(bins),
                nn.Conv2d(before, branch, 1, bias=False),
                nn.BatchNorm2d(branch),
                nn.ReLU(),
            )
            for bins in BINS
        )
        self.cls = self.head(before + 4 * branch, channels, classes)
        self.aux = self.head(before // 2, channels // 2, classes) if aux else None

    def head(self, before, channels, classes):
        conv = nn.Conv2d(before, channels, 3, 1, 1, bias=False)
        rest = nn.BatchNorm2d(channels), nn.ReLU(), nn.Dropout2d(0.1)
        return nn.Sequential(conv, *rest, nn.Conv2d(channels, classes, 1))

    def resize(self, x, size):
        return F.interpolate(x, size, mode="bilinear", align_corners=self.align)

    def forward(self, image):
        """RGB in 0..255, (B, 3, H, W) -> logits of the auxiliary (or None) and of the main head."""
        if self.kind == "caffe":
            x = image.flip(1) - torch.tensor(CAFFE_MEAN)[:, None, None]
        else:
            x = (image - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        third = self.layer3(self.layer2(self.layer1(self.layer0(x))))
        x = self.layer4(third)
        levels = [self.resize(level(x), x.shape[2:]) for level in self.ppm.features]
        if self.kind == "caffe":
            levels = levels[::-1]
        x = self.cls(torch.cat([x, *levels], 1))
        size = image.shape[2:]
        aux = self.resize(self.aux(third), size) if self.aux is not None else None
        return aux, self.resize(x, size)


def random_network(seed=0, **options):
    """In evaluation mode, with random statistics too; values stay of one size through it."""
    torch.manual_seed(seed)
    network = PSPNet(**options).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.normal_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            for values, low, high in (
                (module.weight, 0.5, 1.2),
                (module.bias, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 1.5),
            ):
                nn.init.uniform_(values, low, high)
            module.num_batches_tracked += 1
    for module in network.modules():
        if isinstance(module, Bottleneck):  # or each of many blocks doubles what comes in
            module.bn3.weight.data *= 0.3
    return network


# --- Files ---


def mmseg_state(network):
    """The names of mmsegmentation's ResNetV1c, PSPHead and FCNHead."""
    renamed = collections.OrderedDict()
    for key, value in network.state_dict().items():
        part, _, rest = key.partition(".")
        place, _, leaf = rest.rpartition(".")
        if part.startswith("layer"):
            key = f"backbone.stem.{rest}" if part == "layer0" else f"backbone.{key}"
        elif part == "ppm":
            _, level, index = place.split(".")
            kind = {"1": "conv", "2": "bn"}[index]
            key = f"decode_head.psp_modules.{level}.1.{kind}.{leaf}"
        else:
            names = {"0": "bottleneck.conv", "1": "bottleneck.bn", "4": "conv_seg"}
            if part == "aux":
                names = {"0": "convs.0.conv", "1": "convs.0.bn", "4": "conv_seg"}
            head = {"cls": "decode_head", "aux": "auxiliary_head"}[part]
            key = f"{head}.{names[place]}.{leaf}"
        renamed[key] = value
    return renamed


def caffe_layers(network):
    """{layer: {array: values}} as ports of the Caffe network have them, kernels (k, k, in, out)."""
    stem = ("conv1_1_3x3_s2", "conv1_2_3x3", "conv1_3_3x3")
    parts = {"conv1": "1x1_reduce", "conv2": "3x3", "conv3": "1x1_increase"}
    parts |= {"bn1": "1x1_reduce", "bn2": "3x3", "bn3": "1x1_increase", "downsample": "1x1_proj"}
    leaves = {"weight": "scale", "bias": "offset", "running_mean": "mean"}
    leaves["running_var"] = "variance"
    layers = {}
    for key, value in network.state_dict().items():
        value, (*place, leaf) = value.numpy(), key.split(".")
        if leaf == "num_batches_tracked":
            continue
        norm = value.ndim == 1
        if place[0] == "layer0":
            name = stem[int(place[1]) // 3]
        elif place[0] == "ppm":
            name = f"conv5_3_pool{BINS[int(place[2])]}_conv"
        elif place[0] == "cls":
            name, norm = ("conv6", False) if place[1] == "4" else ("conv5_4", norm)
        else:
            name = f"conv{int(place[0][-1]) + 1}_{int(place[1]) + 1}_{parts[place[2]]}"
        if norm:
            layers.setdefault(f"{name}_bn", {})[leaves[leaf]] = value
        else:
            value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
            layers.setdefault(name, {})[{"weight": "weights", "bias": "biases"}[leaf]] = value
    return layers


def save_h5(layers, path):
    """Keras 2's weights file."""
    import h5py

    names = {"weights": "kernel:0", "biases": "bias:0", "scale": "gamma:0", "offset": "beta:0"}
    names |= {"mean": "moving_mean:0", "variance": "moving_variance:0"}
    with h5py.File(path, "w") as file:
        for layer, arrays in layers.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}/{names[name]}".encode() for name in arrays]
            for name, value in arrays.items():
                group.create_dataset(f"{layer}/{names[name]}", data=value)


def save_safetensors(state, path):
    header, body = {}, b""
    for key, value in state.items():
        raw = value.contiguous().numpy().tobytes()
        kind = {"torch.float32": "F32", "torch.int64": "I64"}[str(value.dtype)]
        ends = [len(body), len(body) + len(raw)]
        header[key] = {"dtype": kind, "shape": list(value.shape), "data_offsets": ends}
        body += raw
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + body)


def logits(network, image):
    """(auxiliary or None, main), (H, W, C), of a picture (H, W, 3)."""
    with torch.no_grad():
        outputs = network(torch.tensor(image.astype(np.float32).transpose(2, 0, 1)[None]))
    return [None if out is None else out[0].numpy().transpose(1, 2, 0) for out in outputs]


TINY = {"blocks": (1, 1, 1, 1), "classes": 3, "width": 2, "channels": 8}


def write_tiny(folder):
    """A tiny network of each layout, and the logits of one picture."""
    image = np.random.default_rng(0).integers(0, 256, (41, 57, 3), np.uint8)
    expected = {"image": image}
    semseg = random_network(1, **TINY, kind="semseg")
    wrapped = {f"module.{key}": value for key, value in semseg.state_dict().items()}
    content = {"epoch": 3, "state_dict": wrapped, "optimizer": {"state": {}, "param_groups": []}}
    torch.save(content, folder / "semseg.pth")
    main_only = {k: v for k, v in semseg.state_dict().items() if not k.startswith("aux")}
    torch.save(main_only, folder / "semseg_legacy.pth", _use_new_zipfile_serialization=False)
    save_safetensors(semseg.state_dict(), folder / "semseg.safetensors")
    bare = {}
    for key, value in semseg.state_dict().items():
        if key.startswith("layer0."):
            index, _, leaf = key.removeprefix("layer0.").partition(".")
            key = f"{'bn' if int(index) % 3 else 'conv'}{int(index) // 3 + 1}.{leaf}"
        if key.startswith(("layer", "conv", "bn")):
            bare[key] = value
    bare |= {"fc.weight": torch.ones(5, 64), "fc.bias": torch.ones(5)}
    torch.save(bare, folder / "resnet_bare.pth")
    mmseg = random_network(2, **TINY, kind="mmseg")
    meta = {"classes": ["sky", "sea", "land"], "palette": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]}
    torch.save(
        {"meta": {"dataset_meta": meta}, "state_dict": mmseg_state(mmseg)}, folder / "mmseg.pth"
    )
    caffe = random_network(3, **TINY, kind="caffe", aux=False)
    save_h5(caffe_layers(caffe), folder / "caffe.h5")
    fifty = {**TINY, "blocks": (3, 4, 6, 3), "width": 1}
    caffe50 = random_network(4, **fifty, kind="caffe", aux=False)
    np.save(folder / "caffe50.npy", caffe_layers(caffe50), allow_pickle=True)
    networks = {"semseg": semseg, "mmseg": mmseg, "caffe": caffe, "caffe50": caffe50}
    for name, network in networks.items():
        aux, main = logits(network, image)
        expected[f"{name}_main"] = main
        if aux is not None:
            expected[f"{name}_aux"] = aux
    np.savez_compressed(folder / "logits.npz", **expected)


FULL = {  # name -> (blocks, kind, file); the Caffe networks have no auxiliary head
    "semseg50": ((3, 4, 6, 3), "semseg", "semseg50.pth"),
    "semseg101": ((3, 4, 23, 3), "semseg", "semseg101.pth"),
    "mmseg50": ((3, 4, 6, 3), "mmseg", "mmseg50.pth"),
    "mmseg101": ((3, 4, 23, 3), "mmseg", "mmseg101.pth"),
    "caffe50": ((3, 4, 6, 3), "caffe", "caffe50.npy"),
    "caffe101": ((3, 4, 23, 3), "caffe", "caffe101.h5"),
}
SIZES = (473, 713)
CLASSES = 21


def write_full(name, folder):
    """A whole network as its own package would save it, and its logits at both sizes."""
    blocks, kind, file = FULL[name]
    network = random_network(5, blocks=blocks, classes=CLASSES, kind=kind, aux=kind != "caffe")
    if kind == "semseg":
        state = {f"module.{key}": value for key, value in network.state_dict().items()}
        torch.save({"epoch": 100, "state_dict": state, "optimizer": {}}, folder / file)
    elif kind == "mmseg":
        torch.save({"meta": {}, "state_dict": mmseg_state(network)}, folder / file)
    elif file.endswith(".npy"):
        np.save(folder / file, caffe_layers(network), allow_pickle=True)
    else:
        save_h5(caffe_layers(network), folder / file)
    for size in SIZES:
        image = np.random.default_rng(size).integers(0, 256, (size, size, 3), np.uint8)
        aux, main = logits(network, image)
        heads = {"main": main} if aux is None else {"main": main, "aux": aux}
        np.savez(folder / f"{name}_{size}.npz", image=image, **heads)


if __name__ == "__main__":
    if len(sys.argv) > 1:  # NAME FOLDER, for tests/verify/verify.py
        write_full(sys.argv[1], Path(sys.argv[2]))
    else:
        target = Path(__file__).parents[1] / "weights" / "checkpoints"
        target.mkdir(exist_ok=True)
        write_tiny(target)
