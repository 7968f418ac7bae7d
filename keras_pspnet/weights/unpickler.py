"""Read arrays and tensors from a pickle without executing anything in it.

Objects of all other classes are replaced by an `Inert` object, which does nothing.
"""

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
    "BFloat16Storage": np.dtype([("bfloat16", "<u2")]),  # a record, to differ from uint16
}

BFLOAT16 = STORAGES["BFloat16Storage"]

EXPANDED_BYTES = 2**28
"""Maximum size of a tensor larger than its storage, which strides of 0 allow."""


def bfloat16_to_float32(bits):
    """Convert the bits of bfloat16, the upper half of a float32, as uint16 to float32."""
    return (bits.astype("<u4") << 16).view("<f4")


class Inert:
    """Replace an object of any other class: accept all calls of the pickle and do nothing."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def ignore(self, *args, **kwargs):
        pass

    __setstate__ = __setitem__ = append = extend = add = ignore


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

    def array(self) -> np.ndarray:
        """Copy the view into an array.

        Raises:
            UserError: it reaches outside its storage, or repeats it beyond EXPANDED_BYTES.
        """
        last = self.offset + sum((n - 1) * s for n, s in zip(self.size, self.stride))
        inside = 0 <= self.offset <= last < self.storage.count
        if min(self.stride, default=0) < 0 or (min(self.size, default=1) > 0 and not inside):
            raise UserError("a tensor reaches outside its storage")
        size = int(np.prod(self.size, dtype=object)) * self.storage.dtype.itemsize
        if size > max(self.storage.values.nbytes, EXPANDED_BYTES):
            raise UserError("a tensor is far larger than its storage")
        strides = [step * self.storage.dtype.itemsize for step in self.stride]
        view = np.lib.stride_tricks.as_strided(
            self.storage.values[self.offset :], tuple(self.size), strides, writeable=False
        )
        return view.copy()


def _tensor(storage, *form):
    """Stand in for torch._utils._rebuild_tensor_v2; Inert if the kind of number is unknown."""
    return Tensor(storage, *form) if isinstance(storage, Storage) else Inert()


def _parameter(data, *_):
    """Stand in for torch._utils._rebuild_parameter: return the tensor inside."""
    return data


def _getattr(*_):
    """Stand in for getattr, with which protocol 2 writes methods; look up nothing.

    mmengine's HistoryBuffer needs it.
    """
    return Inert()


class _DType:
    """Stand in for numpy.dtype."""

    def __init__(self, kind, *_):
        self.dtype = np.dtype(_text(kind))

    def __setstate__(self, state):
        order = _text(state[1])
        if order in "<>":
            self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Stand in for numpy.ndarray; its array is `values`."""

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
    """Stand in for _codecs.encode, with which Python 3 writes bytes in an old protocol."""
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

HARMLESS = {"collections", "datetime", "pathlib", "argparse", "copyreg", "_codecs", "enum"}
"""Python's modules whose objects checkpoints hold; they become Inert, as those of packages do."""

HARMLESS_BUILTINS = {"set", "frozenset", "object", "complex", "slice", "range", "bytearray"}

REFUSED = {*sys.stdlib_module_names, "__main__"} - HARMLESS
REFUSED |= {"__builtin__", "commands", "os2", "popen2"}  # Python 2


# Python's own class, not the one in C: load_build can be replaced, and a large memo index
# allocates nothing.
class Unpickler(pickle._Unpickler):
    """Unpickle arrays, tensors and their storages; objects of other packages become Inert.

    Args:
        storages: key -> Storage, filled as the pickle refers to them.

    Raises:
        UserError: the pickle asks for something of Python itself, such as os.system.
    """

    def __init__(self, stream, storages):
        super().__init__(stream, encoding="latin1")  # for arrays of Python 2
        self.storages = storages

    def find_class(self, module, name):
        if (module, name) in KNOWN:
            return KNOWN[module, name]
        builtin = module in ("builtins", "__builtin__")
        if module.split(".")[0] in REFUSED and not (builtin and name in HARMLESS_BUILTINS):
            raise UserError(
                f"the pickle asks for {module}.{name}, which a checkpoint does not need"
            )
        return Inert

    def persistent_load(self, reference):
        kind, dtype, key, _, count, *view = reference
        if kind != "storage" or (view and view[0] is not None):
            raise UserError("the pickle refers to something other than a whole storage")
        if not isinstance(dtype, np.dtype):
            return Inert()
        return self.storages.setdefault(key, Storage(dtype, count))

    def load_build(self):
        """Set the state of our own stand-ins only; others, as a dict's `_metadata`, are dropped."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], (_Array, _DType, Inert)):
            self.stack[-1].__setstate__(state)

    dispatch: ClassVar[dict] = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: load_build}


def to_arrays(value, made=None):
    """Convert tensors and arrays, also those inside dicts, to numpy arrays; keep all else.

    A dict that appears in several places is one dict in the result, too.
    """
    made = {} if made is None else made
    if isinstance(value, Tensor):
        return value.array()
    if isinstance(value, _Array):
        boxed = value.values.dtype.hasobject and value.values.shape == ()
        return to_arrays(value.values[()], made) if boxed else value.values
    if isinstance(value, dict):
        if id(value) not in made:
            made[id(value)] = {}
            for key, inside in value.items():
                made[id(value)][_text(key)] = to_arrays(inside, made)
        return made[id(value)]
    return value


def _text(value):
    """Return a string of Python 2, which arrives as bytes, as str."""
    return value.decode("latin1") if isinstance(value, bytes) else value
