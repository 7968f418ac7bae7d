import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def folder(folder):
    """The dataset of all tests with a pair to score on: without, the reader would make a split."""
    picture, mask = np.full((9, 11, 3), 50, np.uint8), np.full((9, 11), 2, np.uint8)
    for array, kind in ((picture, "images"), (mask, "masks")):
        (folder / kind / "val").mkdir()
        Image.fromarray(array).save(folder / kind / "val" / "v.png")
    return folder
