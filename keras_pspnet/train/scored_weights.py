"""The weights that a training is scored with: averaged ones, with batch norm's statistics anew."""

import keras
import numpy as np

from keras_pspnet import private_api
from keras_pspnet.network.batch_norm import reestimate
from keras_pspnet.train.recipe_fields import Recipe


class ScoredWeights:
    """Exchange the weights that are trained for those that are scored, and back.

    Args:
        recipe: its field `ema` takes the averages that the optimizer keeps, `norm_batches` takes
            batch norm's statistics anew; 0 leaves either as it is.
    """

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self.kept = []

    def take(self, model: keras.Model, batches) -> None:
        """Put the weights that are scored into a model.

        Args:
            batches: `norm_batches` batches of training pictures.
        """
        variables = model.weights if self.recipe.ema or self.recipe.norm_batches else []
        self.kept = [(v, np.array(keras.ops.convert_to_numpy(v))) for v in variables]
        if self.recipe.ema:
            averages = private_api.moving_averages(model.optimizer)
            for variable, average in zip(model.trainable_variables, averages, strict=True):
                variable.assign(average)
        if self.recipe.norm_batches:
            reestimate(model, batches)

    def give_back(self) -> None:
        """Put the weights that are trained back into the model, bit by bit."""
        for variable, value in self.kept:
            variable.assign(value)
        self.kept = []
