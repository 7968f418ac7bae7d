"""Datasets: from pictures and masks on disk to batches for `model.fit`."""

import importlib

_HOME = {
    "Augmentation": "augment",
    "inspect_dataset": "inspect",
    "load": "pipeline",
    "open_source": "datasets",
    "splits_of": "datasets",
    "with_aux": "pipeline",
}

__all__ = list(_HOME)


def __getattr__(name):
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
