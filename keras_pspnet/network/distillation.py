"""Train a network on the soft labels of another one, its teacher.

The temperature 1 and the weight 1 are those of the pixel-wise distillation in CIRKD (Yang et al.
2022), which trains PSPNets on CamVid.
"""

import functools

import keras
from keras import ops

from keras_pspnet.labels import IGNORE


def distil(model: keras.Model, teacher: keras.Model) -> None:
    """Add the distance to a teacher's soft labels to the loss that `model.fit` minimizes.

    The validation's loss stays as it is. The model keeps this until it is saved and loaded.

    Args:
        model: compiled, with the main head's logits (B, H, W, C) under "main", on one device.
        teacher: a network for the same input and the same classes in the same order, with or
            without an auxiliary head. It is frozen.
    """
    teacher.trainable = False
    # On the instance: .keras files would hold the name of a subclass.
    model.compute_loss = functools.partial(_compute_loss, model, teacher)


def _compute_loss(model, teacher, x=None, y=None, y_pred=None, sample_weight=None, training=True):
    """Return the loss of a batch, as `keras.Model.compute_loss`."""
    loss = keras.Model.compute_loss(model, x, y, y_pred, sample_weight, training)
    if not training:
        return loss
    soft = teacher(x, training=False)
    soft = soft["main"] if isinstance(soft, dict) else soft
    return loss + soft_label_loss(y["main"], y_pred["main"], ops.stop_gradient(soft))


def soft_label_loss(masks, logits, teacher_logits):
    """Compute the mean distance (Kullback-Leibler) of a network's probabilities from a teacher's.

    Void pixels do not count; a batch of nothing but void has the loss 0.

    Args:
        masks: (B, H, W) or (B, H, W, 1) class ids, of any integer dtype; void is 255.
        logits: (B, H, W, C).
        teacher_logits: (B, H, W, C), of the classes in the same order.

    Returns:
        A float32 scalar, at least 0 up to rounding.
    """
    if len(masks.shape) == len(logits.shape):
        masks = ops.squeeze(masks, -1)
    valid = ops.cast(ops.not_equal(ops.cast(masks, "int32"), IGNORE), "float32")
    own = ops.log_softmax(ops.cast(logits, "float32"))
    its = ops.log_softmax(ops.cast(teacher_logits, "float32"))
    distance = ops.sum(ops.exp(its) * (its - own), -1)
    return ops.divide_no_nan(ops.sum(distance * valid), ops.sum(valid))
