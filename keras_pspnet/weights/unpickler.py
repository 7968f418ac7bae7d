"""Read arrays and tensors from a pickle without executing anything in it.

Objects of all other classes are replaced by an `Inert` object, which does nothing.
"""

import collections
import pickle
import sys
from typing import ClassVar

import numpy as np

from keras_pspnet.errors import UserError
from keras_pspnet.weights.tensors import STORAGES, Room, Storage, Tensor

OTHER_KEYS = 10_000
"""Maximum number of keys that are no text. Python hides how it hashes text; numbers can be chosen
so that a dict of them takes minutes."""


class Inert:
    """Replace an object of any other class: accept all calls of the pickle and do nothing."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def ignore(self, *args, **kwargs):
        pass

    __setstate__ = __setitem__ = append = extend = add = ignore


def _tensor(storage, *form):
    """Stand in for torch._utils._rebuild_tensor_v2; Inert if the kind of number is unknown."""
    return Tensor(storage, *form) if isinstance(storage, Storage) else Inert()


def _parameter(data, *_):
    """Stand in for torch._utils._rebuild_parameter: return the tensor inside."""
    return data


class _OrderedDict(collections.OrderedDict):
    """Stand in for collections.OrderedDict, which Python 2 gives its items at once."""

    def __init__(self, items=()):
        super().__init__()
        _fill(self, [part for item in items for part in item])


def _fill(target, items) -> None:
    """Add keys and values, one after the other, to a dict or to a stand-in.

    Raises:
        UserError: more than OTHER_KEYS keys that are no text.
    """
    other = sum(not isinstance(key, (str, bytes)) for key in items[::2])
    if other and other + len(target if isinstance(target, dict) else ()) > OTHER_KEYS:
        raise UserError(f"a dict with {other} keys that are no text; expected named arrays")
    for key, value in zip(items[::2], items[1::2]):
        target[key] = value


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
    ("collections", "OrderedDict"): _OrderedDict,
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

    def load_bytearray8(self):
        """Read the bytes that there are; Python's own method first makes as many as it is told."""
        self.append(self.read(int.from_bytes(self.read(8), "little")))

    def load_set(self):
        """Replace a set, which no state dict needs."""
        self.append(Inert())

    def load_frozenset(self):
        """Replace a frozenset."""
        self.pop_mark()
        self.append(Inert())

    def load_dict(self):
        """Make a dict of the items since the mark."""
        items = self.pop_mark()
        self.append({})
        _fill(self.stack[-1], items)

    def load_setitem(self):
        """Add one key and its value to the dict below them."""
        value, key = self.stack.pop(), self.stack.pop()
        _fill(self.stack[-1], [key, value])

    def load_setitems(self):
        """Add the items since the mark to the dict below it."""
        items = self.pop_mark()
        _fill(self.stack[-1], items)

    dispatch: ClassVar[dict] = {
        **pickle._Unpickler.dispatch,
        pickle.BUILD[0]: load_build,
        pickle.BYTEARRAY8[0]: load_bytearray8,
        pickle.EMPTY_SET[0]: load_set,
        pickle.FROZENSET[0]: load_frozenset,
        pickle.DICT[0]: load_dict,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
    }


def to_arrays(value, room: Room, made=None):
    """Convert tensors and arrays, also those inside dicts, to numpy arrays; keep all else.

    A dict that appears in several places is one dict in the result, too.

    Raises:
        UserError: a tensor that does not fit its storage; more arrays than `room` has place for.
    """
    made = {} if made is None else made
    if isinstance(value, Tensor):
        room.take(value.bytes())
        return value.array()
    if isinstance(value, _Array):
        boxed = value.values.dtype.hasobject and value.values.shape == ()
        room.take(value.values.nbytes)
        return to_arrays(value.values[()], room, made) if boxed else value.values
    if isinstance(value, dict):
        if id(value) not in made:
            made[id(value)] = {}
            for key, inside in value.items():
                made[id(value)][_text(key)] = to_arrays(inside, room, made)
        return made[id(value)]
    return value


def _text(value):
    """Return a string of Python 2, which arrives as bytes, as str."""
    return value.decode("latin1") if isinstance(value, bytes) else value
