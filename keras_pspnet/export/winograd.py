"""A 3x3 convolution with half of the multiplications along its rows: Winograd's F(4, 3).

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (2016, arXiv 1509.09308), in one
dimension: four neighbouring outputs of a row are made of six products instead of twelve.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, ops

TILE = 4

INPUT = np.array(  # B transposed: six sums of six neighbouring inputs
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

KERNEL = np.array(  # G: six sums of the three taps of a row
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
    """A 3x3 convolution, padding "same", with a bias, for maps of a known size.

    Args:
        filters: output channels.
        parts: the input channels are taken in so many groups, whose results are added.
        activation: as in keras.layers.Conv2D.

    Call: (B, H, W, C) float32 -> (B, H, W, filters). Results differ from a plain convolution's by
    about 1e-6 of their range.
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
            for index in range(len(KERNEL))
        ]
        self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")

    def assign(self, kernel, bias):
        """Takes the weights of a plain convolution: (3, 3, C, filters) and (filters,)."""
        for weight, row in zip(self.kernels, KERNEL):
            weight.assign(np.einsum("k,ykio->yio", row, kernel)[:, None])
        self.bias.assign(bias)

    def call(self, inputs):
        _, height, width, channels = inputs.shape
        tiles = -(-(width + 2) // TILE)
        # All rows one behind the other, with their padding between: one row for stride and window.
        row = ops.pad(inputs, ((0, 0), (0, 0), (1, TILE * tiles - width - 1), (0, 0)))
        row = ops.reshape(row, (-1, 1, height * tiles * TILE, channels))
        row = ops.pad(row, ((0, 0), (0, 0), (0, len(INPUT) - TILE), (0, 0)))
        products = []
        for weights, kernel in zip(INPUT, self.kernels):
            window = np.broadcast_to(weights[None, :, None, None], (1, len(INPUT), channels, 1))
            sums = ops.depthwise_conv(row, ops.convert_to_tensor(window), strides=TILE)
            sums = ops.reshape(sums, (-1, height, tiles, channels))
            products.append(conv_in_parts(sums, kernel, None, self.parts, padding="same"))
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
    """The sum of the convolutions of `parts` groups of input channels, and a bias."""
    size = -(-x.shape[-1] // parts)
    result = None
    for start in range(0, x.shape[-1], size):
        group = slice(start, start + size)
        part = ops.conv(x[..., group], kernel[:, :, group], **arguments)
        if start == 0 and bias is not None:
            part = part + bias  # to the first, with which TFLite fuses it
        result = part if result is None else result + part
    return result
