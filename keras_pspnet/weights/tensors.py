"""Storages and tensors of PyTorch, and the memory that the arrays of a file may take."""

import numpy as np

from keras_pspnet.errors import UserError

STORAGES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
    "BFloat16Storage": np.dtype([("bfloat16", "<u2")]),  # a record, to differ from uint16
}

BFLOAT16 = STORAGES["BFloat16Storage"]

EXPANDED_BYTES = 2**28
"""Maximum size of a tensor larger than its storage, which strides of 0 allow."""


def bfloat16_to_float32(bits):
    """Convert the bits of bfloat16, the upper half of a float32, as uint16 to float32."""
    return (bits.astype("<u4") << 16).view("<f4")


class Room:
    """The memory that the arrays of a file may take: a few times its size, at least 256 MB.

    Arrays that share their bytes, or are compressed, would take any amount.
    """

    def __init__(self, file_bytes: int):
        self.left = 4 * file_bytes + EXPANDED_BYTES

    def take(self, count: int) -> None:
        """Count the bytes of one more array.

        Raises:
            UserError: there is no place for it.
        """
        self.left -= count
        if self.left < 0:
            raise UserError("its arrays are far larger than the file; expected a state dict")


class Storage:
    """A flat array of numbers; the pickle refers to it, its values are elsewhere in the file."""

    def __init__(self, dtype: np.dtype, count: int):
        self.dtype, self.count, self.values = dtype, count, None

    def fill(self, raw: bytes, count: int) -> None:
        """Set the values from bytes of the file.

        Raises:
            UserError: there are not as many as the pickle says.
        """
        if count != self.count or len(raw) != count * self.dtype.itemsize:
            raise UserError("a truncated PyTorch checkpoint; copy or download it again")
        self.values = np.frombuffer(raw, self.dtype)
        if self.dtype == BFLOAT16:
            self.values = bfloat16_to_float32(self.values["bfloat16"])
            self.dtype = self.values.dtype


class Tensor:
    """A view of a storage, which becomes an array once the storage has been filled."""

    def __init__(self, storage, offset, size, stride, *_):
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def bytes(self) -> int:
        """Return the size of the copy in bytes."""
        return int(np.prod(self.size, dtype=object)) * self.storage.dtype.itemsize

    def array(self) -> np.ndarray:
        """Copy the view into an array.

        Raises:
            UserError: it reaches outside its storage, or repeats it beyond EXPANDED_BYTES.
        """
        last = self.offset + sum((n - 1) * s for n, s in zip(self.size, self.stride))
        inside = 0 <= self.offset <= last < self.storage.count
        if min(self.stride, default=0) < 0 or (min(self.size, default=1) > 0 and not inside):
            raise UserError("a tensor reaches outside its storage")
        if self.bytes() > max(self.storage.values.nbytes, EXPANDED_BYTES):
            raise UserError("a tensor is far larger than its storage")
        strides = [step * self.storage.dtype.itemsize for step in self.stride]
        view = np.lib.stride_tricks.as_strided(
            self.storage.values[self.offset :], tuple(self.size), strides, writeable=False
        )
        return view.copy()
