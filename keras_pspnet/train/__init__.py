"""Recipes and their training.

The names stand in `__init__.pyi`. They are loaded when they are first used, so that `train.recipes`
works without TensorFlow.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
