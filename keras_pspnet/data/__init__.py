"""Load datasets: pictures and masks on disk become batches for `model.fit`.

The names stand in `__init__.pyi`. They are loaded when they are first used, so that
`data.datasets` and `data.inspect` work without TensorFlow.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
