"""Compute a 3x3 convolution with half of the multiplications: Winograd's F(4, 3) along the rows.

From Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (2016, arXiv 1509.09308), in
one dimension: four neighbouring outputs of a row take six products instead of twelve.
"""

import keras
import numpy as np
from keras import layers, ops

TILE = 4
"""Outputs of a row that are computed together."""

INPUT_TRANSFORM = np.array(  # the paper's B transposed: six sums of six neighbouring inputs
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    np.float32,
)

KERNEL_TRANSFORM = np.array(  # the paper's G: six sums of the three taps of a kernel row
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    np.float32,
)


@keras.saving.register_keras_serializable("keras_pspnet")
class WinogradConv2D(layers.Layer):
    """Convolve with a 3x3 kernel, stride 1, padding "same", and a bias, by Winograd's algorithm.

    Call: (B, H, W, C) float32 -> (B, H, W, filters) float32; H, W and C must be known. The results
    differ from a plain convolution's by about 1e-6 of their range.

    Args:
        filters: number of output channels.
        parts: number of groups of input channels that are convolved separately and summed.
        activation: as in keras.layers.Conv2D.
    """

    def __init__(self, filters, *, parts=1, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.parts = parts
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        channels = input_shape[-1]
        shape = (3, 1, channels, self.filters)
        self.kernels = [
            self.add_weight(shape=shape, initializer="zeros", name=f"kernel_{index}")
            for index in range(len(KERNEL_TRANSFORM))
        ]
        self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")

    def assign(self, kernel, bias):
        """Set the weights from a plain convolution's: (3, 3, C, filters) and (filters,)."""
        for weight, taps in zip(self.kernels, KERNEL_TRANSFORM):
            weight.assign(np.einsum("k,ykio->yio", taps, kernel)[:, None])
        self.bias.assign(bias)

    def call(self, inputs):
        _, height, width, channels = inputs.shape
        window = len(INPUT_TRANSFORM)
        tiles = -(-(width + 2) // TILE)
        # Join all rows, each with its padding, to one: TensorFlow's depthwise convolution wants
        # equal strides in both directions, and down a single row the stride has no effect.
        row = ops.pad(inputs, ((0, 0), (0, 0), (1, TILE * tiles - width - 1), (0, 0)))
        row = ops.reshape(row, (-1, 1, height * tiles * TILE, channels))
        row = ops.pad(row, ((0, 0), (0, 0), (0, window - TILE), (0, 0)))
        products = []
        for weights, kernel in zip(INPUT_TRANSFORM, self.kernels):
            weights = np.broadcast_to(weights[None, :, None, None], (1, window, channels, 1))
            sums = ops.depthwise_conv(row, ops.convert_to_tensor(weights), strides=TILE)
            sums = ops.reshape(sums, (-1, height, tiles, channels))
            products.append(conv_in_parts(sums, kernel, None, self.parts, padding="same"))
        # The paper's A transposed: four outputs from six products.
        first, a, b, c, d, last = products
        even, odd, twice_even, twice_odd = a + b, a - b, c + d, c - d
        first = first + self.bias
        outputs = [first + even + twice_even, odd + 2 * twice_odd + self.bias]
        outputs += [even + 4 * twice_even + self.bias, odd + 8 * twice_odd + last + self.bias]
        outputs = ops.concatenate(outputs, axis=-1)
        outputs = ops.reshape(outputs, (-1, height, tiles * TILE, self.filters))
        return self.activation(outputs[:, :, :width])

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "parts": self.parts,
            "activation": keras.activations.serialize(self.activation),
        }


def conv_in_parts(x, kernel, bias, parts, **arguments):
    """Convolve `parts` groups of input channels separately, sum the results and add a bias.

    Args:
        x: (B, H, W, C) float32.
        kernel: (height, width, C, filters).
        bias: (filters,) or None.
        arguments: those of keras.ops.conv.
    """
    size = -(-x.shape[-1] // parts)
    result = None
    for start in range(0, x.shape[-1], size):
        group = slice(start, start + size)
        part = ops.conv(x[..., group], kernel[:, :, group], **arguments)
        if start == 0 and bias is not None:
            part = part + bias  # here, because TFLite fuses it with the first part
        result = part if result is None else result + part
    return result
