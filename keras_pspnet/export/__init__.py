"""From a trained model to files for devices."""

import importlib

_HOME = {"export_model": "deliver", "available_formats": "formats"}

__all__ = list(_HOME)


def __getattr__(name):
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
