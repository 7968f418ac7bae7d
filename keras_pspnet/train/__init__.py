"""Recipes and their training."""

import importlib

_HOME = {"fit": "run", "find_recipe": "recipes", "Recipe": "recipe_fields", "RECIPES": "recipes"}

__all__ = list(_HOME)


def __getattr__(name):
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
