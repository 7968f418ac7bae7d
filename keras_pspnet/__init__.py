"""PSPNet (Zhao et al., CVPR 2017) in Keras 3: train on a desk, run on a phone.

The public names are listed in `__init__.pyi`. Each is loaded on first use, so that
`import keras_pspnet` does not import TensorFlow.
"""

import lazy_loader

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
