"""Batch norm with a faster training step, which never normalizes a single value."""

from collections.abc import Iterable

import keras
import numpy as np
from keras import ops

from keras_pspnet import private_api
from keras_pspnet.network import replicas


@keras.saving.register_keras_serializable("keras_pspnet")
class BatchNormalization(keras.layers.BatchNormalization):
    """Normalize by batch as keras.layers.BatchNormalization does, with a faster training step.

    On TensorFlow, Keras 3 computes the moments and their gradients one operation after the other.
    This layer uses TensorFlow's fused kernel in training, so a training step of EfficientNet-Lite0
    takes 0.86 of the time (benchmarks/results/training_steps.json). Outputs, gradients and moving
    statistics equal those of Keras's layer up to rounding. In inference, on other backends and
    where the kernel does not apply, the layer is Keras's own.

    A map that is known to have 1x1 pixels, in a batch of one, is normalized by the moving
    statistics, which stay as they are: the variance of one value is 0, and the moving variance
    would fall to 0 too.

    Over several devices the statistics are those of the whole batch, as in the paper. Under a
    strategy of `tf.distribute` that is what Keras calls synchronized; it needs no argument here.

    The default momentum and epsilon are those of torch.nn.BatchNorm2d, which semseg
    model/resnet.py uses (its momentum of 0.1 is 0.9 in Keras's terms).
    """

    def __init__(self, momentum=0.9, epsilon=1e-5, **kwargs):
        super().__init__(momentum=momentum, epsilon=epsilon, **kwargs)

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable and mask is None):
            return super().call(inputs, training=training, mask=mask)
        if replicas.count() > 1 and not getattr(self, "renorm", False):
            return self._normalize_over_replicas(inputs)
        if not self._is_one_pixel(inputs):
            return self._normalize(inputs, training)
        if inputs.shape[0] is not None:
            return self._normalize(inputs, inputs.shape[0] > 1)
        # TensorFlow's graph of `fit` alone: elsewhere the number of pictures is known.
        return ops.cond(
            ops.shape(inputs)[0] > 1,
            lambda: self._normalize(inputs, True),
            lambda: self._normalize(inputs, False),
        )

    def _is_one_pixel(self, inputs):
        """Return whether each picture has one value a channel; channels come last."""
        sides = inputs.shape[1:-1]
        return self.axis in (-1, len(inputs.shape) - 1) and all(side == 1 for side in sides)

    def _normalize_over_replicas(self, inputs):
        """Normalize by the mean and variance of the values on all replicas."""
        x = ops.cast(inputs, "float32")
        axes = [axis for axis in range(len(x.shape)) if axis != self.axis % len(x.shape)]
        number = ops.cast(ops.size(x) // x.shape[self.axis], "float32")
        number, total = replicas.add([number, ops.sum(x, axes)])
        mean = total / number
        shape = [x.shape[i] if i not in axes else 1 for i in range(len(x.shape))]
        squares = ops.sum(ops.square(x - ops.reshape(mean, shape)), axes)
        (squares,) = replicas.add([squares])
        several = number > 1  # a single value is normalized by the moving statistics
        statistics = []
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, squares / number)):
            batch = ops.where(several, batch, ops.cast(moving, batch.dtype))
            moving.assign(moving * self.momentum + batch * (1 - self.momentum))
            statistics.append(batch)
        outputs = ops.batch_normalization(
            x,
            *statistics,
            axis=self.axis,
            offset=ops.cast(self.beta, x.dtype) if self.center else None,
            scale=ops.cast(self.gamma, x.dtype) if self.scale else None,
            epsilon=self.epsilon,
        )
        return ops.cast(outputs, self.compute_dtype)

    def _normalize(self, inputs, training):
        if not (training and self._fusible(inputs)):
            return super().call(inputs, training=training)
        import tensorflow as tf

        # The raw operation: in some versions of TensorFlow its wrapper in tf.compat.v1.nn raises
        # epsilon to at least 1.001e-5.
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=ops.cast(self.gamma, "float32"),
            offset=ops.cast(self.beta, "float32"),
            mean=[],
            variance=[],
            epsilon=self.epsilon,
        )
        # The kernel divides the variance by n - 1, Keras by n.
        count = ops.cast(ops.size(inputs) // inputs.shape[-1], "float32")
        for moving, batch in (
            (self.moving_mean, mean),
            (self.moving_variance, variance * ((count - 1) / count)),
        ):
            moving.assign(moving * self.momentum + batch * (1 - self.momentum))
        return outputs

    def _fusible(self, inputs):
        """Return whether the kernel takes this call: 4D, channels last, float32 variables."""
        return (
            keras.backend.backend() == "tensorflow"
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and self.variable_dtype == "float32"
            and (self.scale and self.center)
            and not (self.synchronized or getattr(self, "renorm", False))
        )


def reestimate(model: keras.Model, batches: Iterable) -> None:
    """Replace the moving statistics of a model's batch norms by those of some batches.

    The weights stay as they are. Mean and variance are those of all pixels of all batches together,
    where the layers below normalize batch by batch, as in training (Wu and Johnson 2021,
    "Rethinking 'Batch' in BatchNorm", section 3). Moving statistics lag behind the weights, and are
    not those of weights that were averaged. Batch norms that are frozen keep theirs.

    Args:
        model: any model with batch norms, on one device.
        batches: batches of pictures (B, H, W, 3) in 0..255, augmented as in training, all of the
            same batch size.

    Raises:
        ValueError: no batch.
    """
    norms = [
        layer
        for layer in private_api.inner_layers(model)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    statistics = {id(v) for norm in norms for v in (norm.moving_mean, norm.moving_variance)}
    # The seeds of dropout are restored afterwards, so that this does not change the training.
    others = [v for v in model.non_trainable_variables if id(v) not in statistics]
    kept = [(variable, ops.convert_to_numpy(variable)) for variable in others]
    momenta = [norm.momentum for norm in norms]
    sums, number = [np.zeros((2, norm.moving_mean.shape[0])) for norm in norms], 0
    try:
        for norm in norms:
            norm.momentum = 0.0  # the statistics are then those of the batch
        for number, images in enumerate(batches, start=1):  # noqa: B007
            model(images, training=True)
            for total, norm in zip(sums, norms):
                mean = ops.convert_to_numpy(norm.moving_mean).astype(np.float64)
                total += mean, ops.convert_to_numpy(norm.moving_variance) + mean**2
    finally:
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
        for variable, value in kept:
            variable.assign(value)
    if not number:
        raise ValueError("`batches` holds no batch")
    for (mean, squares), norm in zip(sums, norms):
        norm.moving_mean.assign(mean / number)
        variance = squares / number - (mean / number) ** 2
        norm.moving_variance.assign(np.maximum(variance, 0))  # a rounding may be below
