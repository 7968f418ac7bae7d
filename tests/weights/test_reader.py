"""Checkpoints of PyTorch's legacy format, written here byte by byte; nothing in one may run."""

import io
import json
import os
import pickle
import resource
import sys
import time
import types
import zipfile
from collections import OrderedDict

import h5py
import numpy as np
import pytest

from keras_pspnet.errors import UserError
from keras_pspnet.weights import tensors
from keras_pspnet.weights.reader import LEGACY_MAGIC, read_arrays
from keras_pspnet.weights.unpickler import Inert, Unpickler

STORAGES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2"}
STORAGES |= {"LongStorage": "<i8", "IntStorage": "<i4", "ByteStorage": "u1"}


@pytest.fixture(autouse=True)
def names(monkeypatch):
    """Stand-ins for the names that a checkpoint refers to."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in (*STORAGES, "ComplexFloatStorage"):
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2():
        raise AssertionError("only its name is written")

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    torch._utils = utils
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


class Storage:
    def __init__(self, key, values, kind="FloatStorage"):
        self.key, self.kind = key, kind
        self.values = np.asarray(values, STORAGES.get(kind, "u1"))


class Tensor:
    def __init__(self, storage, offset, size, stride):
        self.arguments = (storage, offset, size, stride, False, OrderedDict())

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.arguments


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        if isinstance(value, Storage):
            kind = getattr(sys.modules["torch"], value.kind)
            return ("storage", kind, value.key, "cpu", value.values.size, None)
        return None


def legacy(state, storages, magic=LEGACY_MAGIC, protocol=1001):
    stream = io.BytesIO()
    for value in (magic, protocol, {"little_endian": True}, state, [s.key for s in storages]):
        Pickler(stream, protocol=2).dump(value)
    for storage in storages:
        stream.write(storage.values.size.to_bytes(8, "little") + storage.values.tobytes())
    return stream.getvalue()


@pytest.fixture
def write(tmp_path):
    def to_file(content):
        (tmp_path / "weights.pth").write_bytes(content)
        return tmp_path / "weights.pth"

    return to_file


A, B = Storage("140", np.arange(24) / 8), Storage("7", [3, -(2**40)], "LongStorage")


def test_tensors_are_views_of_their_storages(write):
    state = OrderedDict(
        whole=Tensor(A, 0, (2, 3, 4), (12, 4, 1)),
        transposed=Tensor(A, 0, (4, 6), (1, 4)),
        column=Tensor(A, 5, (3,), (8,)),
        repeated=Tensor(A, 2, (3, 2), (0, 1)),
        scalar=Tensor(B, 1, (), ()),
        empty=Tensor(A, 0, (0, 3), (3, 1)),
    )
    result = read_arrays(write(legacy(state, [B, A])))
    values = np.arange(24, dtype=np.float32) / 8
    expected = {
        "whole": values.reshape(2, 3, 4),
        "transposed": values.reshape(6, 4).T,
        "column": values[[5, 13, 21]],
        "repeated": np.array([values[2:4]] * 3),
        "scalar": np.array(-(2**40), np.int64),
        "empty": np.zeros((0, 3), np.float32),
    }
    assert list(result) == list(expected)
    for name, array in expected.items():
        assert result[name].dtype == array.dtype and result[name].shape == array.shape
        assert np.array_equal(result[name], array)
        assert result[name].flags.writeable and result[name].flags.owndata


@pytest.mark.parametrize("kind", STORAGES)
def test_every_type_of_number(write, kind):
    storage = Storage("1", [1, 2, 250], kind)
    result = read_arrays(write(legacy({"x": Tensor(storage, 0, (3,), (1,))}, [storage])))
    assert result["x"].dtype == np.dtype(STORAGES[kind]) and result["x"].tolist() == [1, 2, 250]


def test_a_file_cut_anywhere_gets_one_line_with_its_name(refused, write):
    whole = legacy({"a": Tensor(A, 0, (24,), (1,)), "b": Tensor(B, 0, (2,), (1,))}, [A, B])
    for cut in range(0, len(whole), 3):
        assert "weights.pth" in refused(read_arrays, write(whole[:cut]))
    assert "truncated" in refused(read_arrays, write(whole[:-1]))


class Evil:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("place", ["state", "first", "keys"])
@pytest.mark.parametrize("function", [os.system, eval, compile])
def test_a_pickle_that_calls_something_is_refused_and_nothing_runs(
    refused, write, tmp_path, function, place
):
    proof = tmp_path / "ran"
    command = {
        os.system: f"touch {proof}",
        eval: f"open({str(proof)!r}, 'w')",
        compile: "x",
    }[function]
    evil = Evil(function, command, *(["x", "eval"] if function is compile else []))
    if place == "state":
        content = legacy({"x": evil}, [])
    elif place == "first":
        content = pickle.dumps(evil, 2)
    else:
        good = legacy({"x": Tensor(A, 0, (2,), (1,))}, [])
        content = good[: -len(pickle.dumps([], 2))] + pickle.dumps([evil], 2)
    message = refused(read_arrays, write(content))
    assert function.__name__ in message and not proof.exists()
    assert "weights.pth" in message


def test_no_function_of_python_is_ever_looked_up():
    """Names of modules that checkpoints need give Inert; all other modules are refused."""
    modules = {*sys.stdlib_module_names, "__main__", "__builtin__", "commands", "os2", "popen2"}
    unpickler, inert = Unpickler(io.BytesIO(), {}), set()
    for module in modules:
        for path in (module, f"{module}.sub"):
            try:
                assert unpickler.find_class(path, "call") is Inert
                inert.add(module)
            except UserError as error:
                assert f"{path}.call" in str(error)
    expected = {"collections", "datetime", "pathlib", "argparse", "copyreg", "_codecs", "enum"}
    assert inert == expected
    assert unpickler.find_class("mmengine.config", "Config") is Inert
    assert unpickler.find_class("builtins", "set") is Inert


@pytest.mark.parametrize(
    "tensor",
    [
        Tensor(A, 0, (25,), (1,)),
        Tensor(A, 1, (24,), (1,)),
        Tensor(A, -1, (2,), (1,)),
        Tensor(A, 23, (2,), (-1,)),
        Tensor(A, 24, (), ()),
        Tensor(A, 0, (2, 2), (23, 1)),
        Tensor(A, 0, (1000,), ()),
        Tensor(A, 0, (2, 1000), (1,)),
        Tensor(A, 0, (-1, -1), (1, 1)),
        Tensor(A, 10, (-2, 5), (8, 1)),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(refused, write, tensor):
    assert "weights.pth" in refused(read_arrays, write(legacy({"x": tensor}, [A])))


def test_a_storage_that_never_comes_is_refused(refused, write):
    assert "weights.pth" in refused(read_arrays, write(legacy({"x": Tensor(A, 0, (2,), (1,))}, [])))


def test_other_types_of_number_are_named(refused, write):
    storage = Storage("1", [1, 0], "ComplexFloatStorage")
    content = legacy({"x": Tensor(storage, 0, (1,), (1,))}, [storage])
    assert "unknown kind" in refused(read_arrays, write(content))


@pytest.mark.parametrize(
    "content",
    [
        b"not a checkpoint\n",
        b"",
        b"PK\x03\x04 the zip format",
        pickle.dumps({"a": 1}),
        legacy({}, [], magic=7),
        legacy({}, [], protocol=1002),
        legacy([1, 2], []),
        legacy({"epoch": 3}, []),
    ],
)
def test_a_file_that_is_no_state_dict_gets_one_line_with_its_name(refused, write, content):
    assert "weights.pth" in refused(read_arrays, write(content))


def test_a_file_that_is_no_pickle_is_called_so(refused, write):
    message = refused(read_arrays, write(b"x-ray\n"))
    assert "not a PyTorch checkpoint" in message and "KeyError" not in message


def test_a_missing_file_gets_one_line_with_its_name(refused, tmp_path):
    assert "none.pth" in refused(read_arrays, tmp_path / "none.pth")


MODULUS = 2**61 - 1  # Python hashes whole numbers by their remainder


def pickled(*operations):
    return b"\x80\x04" + b"".join(operations) + b"."


def long(number):
    return b"\x8a\x0a" + number.to_bytes(10, "little")


COLLIDING = [long(n * MODULUS) for n in range(1, 20_001)]
HOSTILE = {
    "a bytearray of 4 GB": b"\x96" + (2**32).to_bytes(8, "little"),
    "a set of one hash": b"\x8f(" + b"".join(COLLIDING) + b"\x90",
    "a frozenset of one hash": b"(" + b"".join(COLLIDING) + b"\x91",
    "keys of one hash": b"}(" + b"N".join(COLLIDING) + b"Nu",
    "keys of one hash, one by one": b"}" + b"".join(key + b"Ns" for key in COLLIDING),
    "keys of one hash, after a mark": b"(" + b"N".join(COLLIDING) + b"Nd",
    "an OrderedDict of one hash": b"ccollections\nOrderedDict\n(("
    + b"".join(key + b"N\x86" for key in COLLIDING)
    + b"ltR",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_pickle_takes_no_time_and_no_memory(refused, write, kind):
    before, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(read_arrays, write(pickled(HOSTILE[kind])))
    assert time.process_time() - before < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < peak + 2**19  # KiB


def test_arrays_far_larger_than_the_file_are_refused(refused, write, monkeypatch):
    """Views of one storage, expanded ones, datasets without bytes: each alone is small enough."""
    views = {f"a{n}": Tensor(A, 0, (24, 2**21), (1, 0)) for n in range(2)}
    assert "far larger than the file" in refused(read_arrays, write(legacy(views, [A])))
    monkeypatch.setattr(tensors, "EXPANDED_BYTES", 100)
    whole = {f"a{n}": Tensor(A, 0, (24,), (1,)) for n in range(50)}
    assert "far larger than the file" not in str(read_arrays(write(legacy(whole, [A]))))
    many = {f"a{n}": Tensor(A, 0, (24,), (1,)) for n in range(1000)}
    many = {"a": many["a0"], **{name: many["a0"] for name in many}}
    assert "far larger than the file" in refused(read_arrays, write(legacy(many, [A])))
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for number in range(30):
            file.create_dataset(f"a{number}", (10_000,), "f4")  # unwritten
    assert "far larger than the file" in refused(read_arrays, write(stream.getvalue()))
    for size, limit in ((6, None), (6000, "far larger than the file")):
        entry = {"dtype": "F32", "shape": [size], "data_offsets": [0, 4 * size]}
        header = json.dumps({f"a{n}": entry for n in range(500)}).encode()
        file = write(len(header).to_bytes(8, "little") + header + bytes(4 * size))
        assert limit in refused(read_arrays, file) if limit else len(read_arrays(file)) == 500


def test_a_zip_file_whose_members_overlap_is_refused(refused, write):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x/data.pkl", pickled(b"}"))
        archive.writestr("x/data/0", bytes(1000))
    data = stream.getvalue().replace((1000).to_bytes(4, "little"), (2**20).to_bytes(4, "little"))
    assert "overlap" in refused(read_arrays, write(data))
