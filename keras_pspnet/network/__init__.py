"""The network of the paper. Importing this package registers its classes with Keras.

After `import keras_pspnet.network`, `keras.saving.load_model` reads every `.keras` file that this
package writes, compiled or not.
"""

from keras_pspnet.network import (  # noqa: F401
    dilation,
    layers,
    losses,
    model,
    normalization,
    optimizer,
)
