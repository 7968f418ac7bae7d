"""Stochastic gradient descent as the reference trains: coupled decay, a faster head."""

from __future__ import annotations

import keras

from keras_pspnet import private_api
from keras_pspnet.network.model import HEADS


@keras.saving.register_keras_serializable("keras_pspnet")
class PSPNetSGD(keras.optimizers.SGD):
    """SGD with momentum whose L2 decay and head factor act on the gradient, as PyTorch's groups do.

    Each step uses g = multiplier(v) * (gradient + decay * v). With momentum that equals a learning
    rate of multiplier * rate for that variable. The rate goes into the momentum, as in Keras and in
    Caffe, with which the paper trained; PyTorch's differs from that while the rate falls. Keras's
    own `weight_decay` is decoupled from the momentum and has a tenth of the effect at 0.9.

    Args:
        learning_rate: a float or a schedule; semseg's tool/train.py: 0.01, poly with power 0.9.
        momentum: 0.9 (paper section 5.1).
        decay: L2 decay of every weight, also of biases and batch norms; 1e-4 (paper section 5.1).
        head_multiplier: factor of variables outside the backbone; 10 in semseg's tool/train.py.
        heads: how the paths of those variables begin.
    """

    def __init__(
        self,
        learning_rate=0.01,
        momentum=0.9,
        decay=1e-4,
        head_multiplier=1.0,
        heads=HEADS,
        name="pspnet_sgd",
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, momentum=momentum, name=name, **kwargs)
        self.decay = decay
        self.head_multiplier = head_multiplier
        self.heads = tuple(heads)

    def build(self, variables):
        # By index: update_step gets the backend's own variable, which has no Keras path.
        self.multipliers = [
            self.head_multiplier if variable.path.startswith(self.heads) else 1.0
            for variable in variables
        ]
        super().build(variables)

    def update_step(self, gradient, variable, learning_rate):
        multiplier = self.multipliers[private_api.variable_index(self, variable)]
        gradient = multiplier * (gradient + self.decay * variable)
        super().update_step(gradient, variable, learning_rate)

    def get_config(self):
        return {
            **super().get_config(),
            "decay": self.decay,
            "head_multiplier": self.head_multiplier,
            "heads": list(self.heads),
        }
