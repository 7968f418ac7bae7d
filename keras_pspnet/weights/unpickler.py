"""A reader of pickles that executes nothing: arrays and tensors come out, all else is inert."""

from __future__ import annotations

import collections
import pickle
import sys
from typing import ClassVar

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
    "BFloat16Storage": np.dtype([("brain", "<u2")]),
}

BFLOAT16 = STORAGES["BFloat16Storage"]
"""The upper half of a float32."""

EXPANDED_BYTES = 2**28
"""What a tensor may hold beyond its storage: a stride of 0 makes much of little."""


def widened(values):
    """bfloat16, as its bits, as float32."""
    return (values.astype("<u4") << 16).view("<f4")


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

    def fill(self, raw: bytes, count: int) -> None:
        """Takes its values from a file's bytes.

        Raises:
            UserError: there are fewer than the pickle says.
        """
        if count != self.count or len(raw) != count * self.dtype.itemsize:
            raise UserError("a truncated PyTorch checkpoint; copy or download it again")
        self.values = np.frombuffer(raw, self.dtype)
        if self.dtype == BFLOAT16:
            self.values = widened(self.values["brain"])
            self.dtype = self.values.dtype


class Tensor:
    """A view of a storage, made into an array once the storage has been read."""

    def __init__(self, storage, offset, size, stride, *_):
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def array(self) -> np.ndarray:
        last = self.offset + sum((n - 1) * s for n, s in zip(self.size, self.stride))
        inside = 0 <= self.offset <= last < self.storage.count
        if min(self.stride, default=0) < 0 or (min(self.size, default=1) > 0 and not inside):
            raise UserError("a tensor reaches outside its storage")
        size = int(np.prod(self.size, dtype=object)) * self.storage.dtype.itemsize
        if size > max(self.storage.values.nbytes, EXPANDED_BYTES):
            raise UserError("a tensor that repeats its storage without end")
        strides = [step * self.storage.dtype.itemsize for step in self.stride]
        view = np.lib.stride_tricks.as_strided(
            self.storage.values[self.offset :], tuple(self.size), strides, writeable=False
        )
        return view.copy()


def _tensor(storage, *form):
    """torch._utils._rebuild_tensor_v2; inert where the numbers are of an unknown kind."""
    return Tensor(storage, *form) if isinstance(storage, Storage) else Inert()


def _parameter(data, *_):
    """torch.nn.Parameter: the tensor inside."""
    return data


def _getattr(*_):
    """getattr: how protocol 2 writes methods, as of mmengine's HistoryBuffer. None is looked up."""
    return Inert()


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


def _encode(text, encoding):
    """_codecs.encode: how Python 3 writes bytes in an old protocol."""
    return text.encode(encoding) if encoding == "latin1" else Inert()


KNOWN = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("_codecs", "encode"): _encode,
    ("builtins", "getattr"): _getattr,
    ("__builtin__", "getattr"): _getattr,
    **{("torch", name): dtype for name, dtype in STORAGES.items()},
}

HARMLESS = ("collections", "datetime", "pathlib", "argparse", "copyreg", "_codecs", "enum")
"""Modules of Python whose objects checkpoints hold; they become inert as those of packages."""

HARMLESS_BUILTINS = ("set", "frozenset", "object", "complex", "slice", "range", "bytearray")


# In Python's own: it can be told what BUILD may do, and a large memo index takes no memory.
class Unpickler(pickle._Unpickler):
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
        if self.inert and foreign:
            return Inert
        raise UserError(f"the pickle asks for {module}.{name}, which a checkpoint does not need")

    def persistent_load(self, reference):
        kind, dtype, key, _, count, *view = reference
        if kind != "storage" or (view and view[0] is not None):
            raise UserError("the pickle refers to something that is no whole storage")
        if not isinstance(dtype, np.dtype):
            return Inert()
        return self.storages.setdefault(key, Storage(dtype, count))

    def load_build(self):
        """BUILD: states for what is made here; a dict's attributes, as `_metadata`, go."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], (_Array, _DType, Inert)):
            self.stack[-1].__setstate__(state)

    dispatch: ClassVar[dict] = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: load_build}


def plain(value, made=None):
    """Tensors and arrays inside dicts as numpy arrays, everything else as it is.

    A dict that stands in several places is one in the result, too.
    """
    made = {} if made is None else made
    if isinstance(value, Tensor):
        return value.array()
    if isinstance(value, _Array):
        boxed = value.values.dtype.hasobject and value.values.shape == ()
        return plain(value.values[()], made) if boxed else value.values
    if isinstance(value, dict):
        if id(value) not in made:
            made[id(value)] = {}
            for key, inside in value.items():
                made[id(value)][_text(key)] = plain(inside, made)
        return made[id(value)]
    return value


def _text(value):
    """What Python 2 wrote as a string."""
    return value.decode("latin1") if isinstance(value, bytes) else value
