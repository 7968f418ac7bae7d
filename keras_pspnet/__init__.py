"""PSPNet (Zhao et al., CVPR 2017) in Keras 3: train on a desk, run on a phone.

Everything is loaded when it is first used: `import keras_pspnet` does not import TensorFlow.
"""

import importlib

__version__ = "0.1.0"

_NAMES = {
    "build_pspnet": "model",
    "dilate": "dilation",
    "PyramidPoolingModule": "layers",
    "LabelSet": "labels",
    "load_model": "runners",
    "segment": "runners",
    "export_model": "export",
}
_MODULES = ("augment", "backbones", "checkpoints", "data", "export", "files", "labels", "layers")
_MODULES += (
    "contract",
    "convert",
    "demo",
    "dilation",
    "graph",
    "layouts",
    "losses",
    "metrics",
    "model",
    "optimizer",
    "naming",
    "recognise",
    "predict",
    "pretrained",
    "published",
    "recipe",
    "recipes",
    "report",
    "resume",
    "runners",
    "scenes",
    "sources",
    "datasets",
    "tfds_source",
)
_MODULES += ("train", "visualize")

__all__ = [*_NAMES, *_MODULES]


def __getattr__(name):
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
