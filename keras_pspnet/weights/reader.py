"""Read weight files of other projects as named numpy arrays; execute nothing in them."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np

from keras_pspnet.errors import UserError
from keras_pspnet.files import read_bytes
from keras_pspnet.weights.tensors import Room, bfloat16_to_float32
from keras_pspnet.weights.unpickler import Inert, Unpickler, to_arrays

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py, before the zip format of torch 1.6

LEGACY_PROTOCOL = 1001

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"

NPY_MAGIC = b"\x93NUMPY"

SAFETENSORS = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}


def read_checkpoint(path) -> dict:
    """Read a weight file; its format is recognised by its first bytes.

    Formats: PyTorch's (zip and legacy), safetensors, Keras weights (.h5), numpy (.npy) with a dict
    of layers.

    Returns:
        A dict of numpy arrays, or of nested dicts of them; also what else the file holds.

    Raises:
        UserError: not such a file, truncated, or a pickle that asks for more than numbers.
    """
    path = Path(path)
    data = read_bytes(path)
    if data[:4] == b"PK\x03\x04":
        read = _read_torch_zip
    elif data[:8] == HDF5_MAGIC:
        read = _read_hdf5
    elif data[:6] == NPY_MAGIC:
        read = _read_npy
    elif data[8:9] == b"{":
        read = _read_safetensors
    else:
        read = _read_torch_legacy
    try:
        content = read(data)
        if isinstance(content, Inert):
            raise UserError("a pickled object instead of its weights; save model.state_dict()")
        if not isinstance(content, dict):
            raise UserError(f"a {type(content).__name__}; expected named arrays")
        return content
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except zipfile.BadZipFile as error:
        raise UserError(f"{path}: truncated or damaged; copy or download it again") from error
    except MemoryError as error:
        raise UserError(f"{path}: needs more memory than there is") from error
    except Exception as error:  # a damaged file can raise anything
        reason = f"{type(error).__name__} {' '.join(str(error).split())[:160]}".strip()
        raise UserError(
            f"{path}: not a readable checkpoint ({reason}); expected a .pth, .safetensors, .h5 or "
            ".npy file"
        ) from error


def read_arrays(path) -> dict[str, np.ndarray]:
    """Read a file that holds named arrays and nothing else, a state dict; see `read_checkpoint`."""
    state = read_checkpoint(path)
    for name, value in state.items():
        if not isinstance(value, np.ndarray):
            raise UserError(f"{path}: not a state dict: {name} is a {type(value).__name__}")
    return state


def _read_torch_legacy(data):
    stream, storages = io.BytesIO(data), {}
    if data[:1] != b"\x80" or Unpickler(stream, storages).load() != LEGACY_MAGIC:
        raise UserError("not a PyTorch checkpoint; expected .pth, .safetensors, .h5 or .npy")
    if Unpickler(stream, storages).load() != LEGACY_PROTOCOL:
        raise UserError("a legacy PyTorch checkpoint with an unknown protocol")
    if Unpickler(stream, storages).load().get("little_endian") is not True:
        raise UserError("written on a big-endian machine; save it again on a little-endian one")
    state = Unpickler(stream, storages).load()
    for key in Unpickler(stream, storages).load():
        if key not in storages:
            raise UserError("it holds numbers of an unknown kind; expected floats or integers")
        count = int.from_bytes(stream.read(8), "little")
        storages[key].fill(stream.read(count * storages[key].dtype.itemsize), count)
    return to_arrays(state, Room(len(data)))


def _read_torch_zip(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise UserError("a compressed zip file; expected an uncompressed one of torch.save")
        if sum(entry.file_size for entry in archive.infolist()) > len(data):
            raise UserError("a zip file whose members overlap; expected one of torch.save")
        pickles = [name for name in names if name.split("/")[-1] == "data.pkl"]
        if len(pickles) != 1:
            raise UserError("a zip file without data.pkl; expected a PyTorch checkpoint")
        root, storages = pickles[0].removesuffix("data.pkl"), {}
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise UserError("written on a big-endian machine; save it again on a little-endian one")
        state = Unpickler(io.BytesIO(archive.read(pickles[0])), storages).load()
        for key, storage in storages.items():
            storage.fill(archive.read(f"{root}data/{key}"), storage.count)
    return to_arrays(state, Room(len(data)))


def _read_safetensors(data):
    length = int.from_bytes(data[:8], "little")
    if length > len(data) - 8:
        raise UserError("a truncated safetensors file; copy or download it again")
    header, arrays, room = json.loads(data[8 : 8 + length]), {}, Room(len(data))
    body = memoryview(data)[8 + length :]
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        raw = body[begin:end] if 0 <= begin <= end else b""
        room.take(len(raw))
        if entry["dtype"] == "BF16":
            values = bfloat16_to_float32(np.frombuffer(raw, "<u2"))
        elif entry["dtype"] in SAFETENSORS:
            values = np.frombuffer(raw, SAFETENSORS[entry["dtype"]])
        else:
            raise UserError(f"{name} holds numbers of type {entry['dtype']}; expected F32 or F16")
        if values.size != int(np.prod(entry["shape"])):
            raise UserError(f"{name} is incomplete: truncated? copy or download it again")
        arrays[name] = values.reshape(entry["shape"])
    return arrays


def _read_hdf5(data):
    """Return the datasets of an HDF5 file by their path; links to other files are not followed."""
    import h5py

    arrays, room = {}, Room(len(data))

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            if item.is_virtual or item.external:
                raise UserError(f"{name} is in another file; expected all weights in this one")
            if item.dtype.kind in "fiu":
                room.take(item.nbytes)
                arrays[name] = np.asarray(item[()])
            elif not name.startswith("optimizer_weights/"):
                raise UserError(f"{name} does not hold numbers; expected weights only")

    with h5py.File(io.BytesIO(data), "r") as file:
        file.visititems(visit)
    return arrays


def _read_npy(data):
    """Return the dict of an .npy file, which numpy.save writes as an array of one object."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, _, dtype = header[version](stream)
    if shape != () or not dtype.hasobject:
        raise UserError(f"an array of shape {shape}; expected a dict of layers")
    return to_arrays(Unpickler(stream, {}).load(), Room(len(data)))
