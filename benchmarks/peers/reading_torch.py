"""Batches of OpenCV in a PyTorch DataLoader, some for each line read: `reading.py` starts it.

The operations, their order and their settings are those of keras_pspnet's `Augmentation`.
"""

import json
import random
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

settings = json.loads(sys.argv[1])
MEAN, VOID = (123.675, 116.28, 103.53), 255
cv2.setNumThreads(0)  # each worker is one core's


class Pairs(Dataset):
    """Augmented pairs: picture (3, H, W) float32 in 0..255 and mask (H, W) uint8."""

    def __init__(self, folder):
        self.pictures = sorted((folder / "images" / "train").iterdir())
        self.masks = [folder / "masks" / "train" / f"{p.stem}.png" for p in self.pictures]

    def __len__(self):
        return settings["batches"] * settings["batch"]

    def __getitem__(self, index):
        index = random.randrange(len(self.pictures))
        image = cv2.cvtColor(cv2.imread(str(self.pictures[index])), cv2.COLOR_BGR2RGB)
        mask = cv2.imread(str(self.masks[index]), cv2.IMREAD_GRAYSCALE)
        image, mask = augmented(np.float32(image), mask)
        return torch.from_numpy(image.transpose(2, 0, 1).copy()), torch.from_numpy(mask.copy())


def augmented(image, mask):
    factor = random.uniform(0.5, 2.0)
    image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    mask = cv2.resize(mask, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
    height, width = mask.shape
    if random.random() < 0.5:
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), random.uniform(-10, 10), 1)
        fill = {"borderMode": cv2.BORDER_CONSTANT}
        size = (width, height)
        image = cv2.warpAffine(image, matrix, size, flags=1, borderValue=MEAN, **fill)
        mask = cv2.warpAffine(mask, matrix, size, flags=0, borderValue=VOID, **fill)
    if random.random() < 0.5:
        image = cv2.GaussianBlur(image, (5, 5), 0)
    if random.random() < 0.5:
        image, mask = cv2.flip(image, 1), cv2.flip(mask, 1)
    crop = settings["crop"]
    down, right = max(crop - height, 0), max(crop - width, 0)
    if down or right:
        edges = (down // 2, down - down // 2, right // 2, right - right // 2)
        image = cv2.copyMakeBorder(image, *edges, cv2.BORDER_CONSTANT, value=MEAN)
        mask = cv2.copyMakeBorder(mask, *edges, cv2.BORDER_CONSTANT, value=VOID)
    top = random.randint(0, mask.shape[0] - crop)
    left = random.randint(0, mask.shape[1] - crop)
    window = (slice(top, top + crop), slice(left, left + crop))
    return image[window], mask[window]


loader = DataLoader(
    Pairs(Path(settings["folder"])),
    settings["batch"],
    num_workers=settings["workers"],
    persistent_workers=True,
)
for _ in sys.stdin:
    for number, _ in enumerate(loader):
        if number == settings["warm"] - 1:
            start = time.perf_counter()
        end = time.perf_counter()  # before the readers are put away
    pictures = (settings["batches"] - settings["warm"]) * settings["batch"]
    print(json.dumps({"pictures_a_second": pictures / (end - start)}), flush=True)
