"""PSPNet (Zhao et al., CVPR 2017) in Keras 3: train on a desk, run on a phone.

Names are loaded when they are first used: `import keras_pspnet` does not import TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.2.0"

if TYPE_CHECKING:  # for editors and type checkers; at run time `__getattr__` loads the same names
    from keras_pspnet import data, export, labels, network, scenes, scoring, train, visualize
    from keras_pspnet.export.deliver import export_model
    from keras_pspnet.inference.load import load_model
    from keras_pspnet.inference.segment import segment
    from keras_pspnet.labels import LabelSet
    from keras_pspnet.network import losses
    from keras_pspnet.network.convert import convert
    from keras_pspnet.network.dilation import dilate
    from keras_pspnet.network.layers import PyramidPoolingModule
    from keras_pspnet.network.model import build_pspnet
    from keras_pspnet.network.normalization import CaffeNormalization
    from keras_pspnet.network.optimizer import PSPNetSGD

_HOME = {
    "build_pspnet": "network.model",
    "convert": "network.convert",
    "dilate": "network.dilation",
    "export_model": "export.deliver",
    "load_model": "inference.load",
    "segment": "inference.segment",
    "CaffeNormalization": "network.normalization",
    "LabelSet": "labels",
    "PSPNetSGD": "network.optimizer",
    "PyramidPoolingModule": "network.layers",
}
_MODULES = {"losses": "network.losses"}
_MODULES |= {
    name: name
    for name in ("data", "export", "labels", "network", "scenes", "scoring", "train", "visualize")
}

__all__ = [
    "CaffeNormalization",
    "LabelSet",
    "PSPNetSGD",
    "PyramidPoolingModule",
    "build_pspnet",
    "convert",
    "data",
    "dilate",
    "export",
    "export_model",
    "labels",
    "load_model",
    "losses",
    "network",
    "scenes",
    "scoring",
    "segment",
    "train",
    "visualize",
]


def __getattr__(name):
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{_MODULES[name]}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
