"""SGD as the authors train: L2 decay in the gradient, a larger learning rate for the heads."""

import keras

from keras_pspnet import private_api
from keras_pspnet.network.model import HEADS


@keras.saving.register_keras_serializable("keras_pspnet")
class PSPNetSGD(keras.optimizers.SGD):
    """Stochastic gradient descent with momentum, L2 decay and a learning rate factor for the heads.

    Each step uses g = multiplier * (gradient + decay * variable) as the gradient, like parameter
    groups of torch.optim.SGD. With momentum that equals a learning rate of multiplier *
    learning_rate for that variable. The learning rate goes into the momentum, as in Keras and in
    Caffe, with which the paper's networks were trained; PyTorch's differs while the rate falls.

    Keras's own `weight_decay` acts outside the momentum, so at momentum 0.9 it has a tenth of the
    effect. Keras's `exclude_from_weight_decay` has no effect on `decay`.

    Args:
        learning_rate: semseg tool/train.py: 0.01, falling with
            (1 - step / steps) ** 0.9.
        momentum: 0.9 in paper section 5.1.
        decay: L2 decay of all weights, biases and batch norms included; 1e-4 in paper section 5.1.
        head_multiplier: Learning rate factor of variables outside the backbone; 10 in semseg
            tool/train.py.
        heads: Prefixes of the paths of the variables outside the backbone.
        name: Name of the optimizer.
        **kwargs: Other arguments of keras.optimizers.SGD.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.01,
        momentum: float = 0.9,
        decay: float = 1e-4,
        head_multiplier: float = 1.0,
        heads: tuple = HEADS,
        name: str = "pspnet_sgd",
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, momentum=momentum, name=name, **kwargs)
        self.decay = decay
        self.head_multiplier = head_multiplier
        self.heads = tuple(heads)

    def build(self, variables):
        # By index: update_step receives the backend's variable, which has no path.
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
