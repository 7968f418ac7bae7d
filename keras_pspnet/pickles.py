"""A reader of pickles that executes nothing: arrays and tensors come out, all else is inert."""

from __future__ import annotations

import collections
import pickle
import sys

import numpy as np

from keras_pspnet.files import UserError

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
}


class Inert:
    """What stands for an object of any other class: it takes everything and does nothing."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def ignore(self, *args, **kwargs):
        pass

    __setstate__ = __setitem__ = append = extend = add = ignore


class Storage:
    """A flat run of numbers; its values stand outside the pickle that refers to it."""

    def __init__(self, dtype: np.dtype, count: int):
        self.dtype, self.count, self.values = dtype, count, None


class Tensor:
    """A view of a storage, made into an array once the storage has been read."""

    def __init__(self, storage, offset, size, stride, *_):
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def array(self) -> np.ndarray:
        last = self.offset + sum((n - 1) * s for n, s in zip(self.size, self.stride))
        inside = 0 <= self.offset <= last < self.storage.count
        if min(self.stride, default=0) < 0 or (min(self.size, default=1) > 0 and not inside):
            raise UserError("a tensor reaches outside its storage")
        strides = [step * self.storage.dtype.itemsize for step in self.stride]
        view = np.lib.stride_tricks.as_strided(
            self.storage.values[self.offset :], tuple(self.size), strides, writeable=False
        )
        return view.copy()


def _parameter(data, *_):
    """torch.nn.Parameter: the tensor inside."""
    return data


class _DType:
    """A numpy.dtype as pickles build it."""

    def __init__(self, kind, *_):
        self.dtype = np.dtype(_text(kind))

    def __setstate__(self, state):
        order = _text(state[1])
        if order in "<>":
            self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """A numpy.ndarray as pickles build it."""

    def __init__(self, *_):
        self.values = np.zeros(0)

    def __setstate__(self, state):
        _, shape, kind, fortran, data = state
        if kind.dtype.hasobject:
            self.values = np.empty(len(data), object)
            self.values[:] = data
        else:
            data = data.encode("latin1") if isinstance(data, str) else data
            self.values = np.frombuffer(data, kind.dtype)
        self.values = self.values.reshape(shape, order="F" if fortran else "C")


class _Class:
    """A class that is only named, as numpy.ndarray in an array's pickle."""


def _encode(text, encoding):
    """_codecs.encode: how Python 3 writes bytes in an old protocol."""
    return text.encode(encoding) if encoding == "latin1" else Inert()


KNOWN = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): Tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("numpy", "ndarray"): _Class,
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("_codecs", "encode"): _encode,
    **{("torch", name): dtype for name, dtype in STORAGES.items()},
}
HARMLESS = ("collections", "datetime", "pathlib", "argparse", "copyreg", "_codecs", "enum")
"""Modules of Python whose objects checkpoints hold; they become inert as those of packages."""
HARMLESS_BUILTINS = ("set", "frozenset", "object", "complex", "slice", "range", "bytearray")


class Unpickler(pickle.Unpickler):
    """Knows arrays, tensors and their storages; classes of other packages become inert.

    Args:
        storages: key -> Storage, filled as the pickle refers to them.
        inert: False refuses classes of other packages too.

    Raises:
        UserError: the pickle asks for something of Python itself, as os.system.
    """

    def __init__(self, stream, storages, inert=True):
        super().__init__(stream, encoding="latin1")  # Python 2's arrays
        self.storages, self.inert = storages, inert

    def find_class(self, module, name):
        if (module, name) in KNOWN:
            return KNOWN[module, name]
        package = module.split(".")[0]
        if module in ("builtins", "__builtin__"):
            foreign = name in HARMLESS_BUILTINS
        else:
            foreign = package in HARMLESS or package not in sys.stdlib_module_names
            # Python 2 had other names for what can do harm.
            foreign = foreign and package not in ("commands", "os2", "popen2", "__main__")
        unknown_numbers = module == "torch" and name.endswith("Storage")
        if self.inert and foreign and not unknown_numbers:
            return Inert
        raise UserError(f"the pickle asks for {module}.{name}, which a checkpoint does not need")

    def persistent_load(self, reference):
        kind, dtype, key, _, count, *_ = reference
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise UserError("the pickle refers to something that is no storage")
        return self.storages.setdefault(key, Storage(dtype, count))


def plain(value):
    """Tensors and arrays inside dicts as numpy arrays, everything else as it is."""
    if isinstance(value, Tensor):
        return value.array()
    if isinstance(value, _Array):
        return plain(value.values[()]) if value.values.shape == () else value.values
    if isinstance(value, dict):
        return {_text(key): plain(inside) for key, inside in value.items()}
    return value


def _text(value):
    """What Python 2 wrote as a string."""
    return value.decode("latin1") if isinstance(value, bytes) else value
