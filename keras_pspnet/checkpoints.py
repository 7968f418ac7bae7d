"""Foreign weight files -> named numpy arrays. Nothing in a file is executed."""

from __future__ import annotations

import collections
import io
import pickle
from pathlib import Path

import numpy as np

from keras_pspnet.files import UserError, read_bytes

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py, before the zip format of torch 1.6
LEGACY_PROTOCOL = 1001
DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ByteStorage": np.dtype("u1"),
}


def read_torch(path) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch state dict in the legacy (before torch 1.6) format, by name.

    Raises:
        UserError: not such a file, truncated, or a pickle that asks for anything but tensors.
    """
    path = Path(path)
    stream = io.BytesIO(read_bytes(path))  # the whole file: its own errors name it
    storages: dict[str, _Storage] = {}
    try:
        if _Unpickler(stream, storages).load() != LEGACY_MAGIC:
            raise UserError("not a PyTorch checkpoint of the legacy format")
        if _Unpickler(stream, storages).load() != LEGACY_PROTOCOL:
            raise UserError("a legacy PyTorch checkpoint of an unknown protocol")
        _Unpickler(stream, storages).load()  # byte order and type sizes of the writer
        state = _Unpickler(stream, storages).load()
        for key in _Unpickler(stream, storages).load():
            count = int.from_bytes(stream.read(8), "little")
            storage = storages[key]
            raw = stream.read(count * storage.dtype.itemsize)
            if count != storage.count or len(raw) != count * storage.dtype.itemsize:
                raise UserError("a truncated PyTorch checkpoint; copy or download it again")
            storage.values = np.frombuffer(raw, storage.dtype)
        return {name: tensor.array() for name, tensor in state.items()}
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle can raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: not a readable PyTorch checkpoint ({reason})") from error


class _Storage:
    """A flat run of numbers; its values stand behind the pickle that refers to it."""

    def __init__(self, dtype: np.dtype, count: int):
        self.dtype, self.count, self.values = dtype, count, None


class _Tensor:
    """A view of a storage, made into an array once the storage has been read."""

    def __init__(self, storage, offset, size, stride, requires_grad=False, hooks=None):
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


class _Unpickler(pickle.Unpickler):
    """Knows ordered dicts, tensors and storages, and refuses every other name."""

    def __init__(self, stream, storages):
        super().__init__(stream)
        self.storages = storages

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Tensor
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        raise UserError(f"the pickle asks for {module}.{name}, which a state dict does not need")

    def persistent_load(self, reference):
        kind, dtype, key, _, count, _ = reference
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise UserError("the pickle refers to something that is no storage")
        return self.storages.setdefault(key, _Storage(dtype, count))
