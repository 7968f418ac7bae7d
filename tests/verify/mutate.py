"""Damage bytes, JSON, texts, zip archives and HDF5 files.

Each function takes a random.Random and returns a new value with one to three changes.
"""

import contextlib
import copy
import io
import json
import stat
import warnings
import zipfile

import numpy as np

NUMBERS = (0, 1, -1, 2, 17, 255, 256, 65_536, 2**31 - 1, 2**31, -(2**31), 2**63, -(2**63), 10**100)
FLOATS = (0.5, -1.5, 1e-320, 1e308, float("nan"), float("inf"), -float("inf"))
TEXTS = ("", " ", "\ud800", "a\nb", "../escaped", "/", "\0", "x" * 3000, "é", "none", "1.2.3")
OTHERS = (None, True, False, [], {}, [[]], {"": {}}, [None], "1", ["a", 1])


def damaged_bytes(random, data: bytes) -> bytes:
    """Flip bits; insert, remove, double or overwrite a piece; cut the end off."""
    data = bytearray(data)
    for _ in range(random.randint(1, 3)):
        begin = random.randrange(len(data) + 1)
        if random.random() < 0.5:  # headers matter more than pixels and weights
            begin = random.randrange(min(len(data), 512) + 1)
        end = min(len(data), begin + random.choice((1, 2, 4, 8, 64, 1000)))
        way = random.randrange(7)
        if way == 0 and end > begin:
            data[begin] ^= 1 << random.randrange(8)
        elif way == 1:
            data[begin:begin] = random.randbytes(random.choice((1, 4, 300)))
        elif way == 2:
            del data[begin:end]
        elif way == 3:
            data[begin:begin] = data[begin:end]
        elif way == 4:
            data[begin:end] = random.choice((b"\xff", b"\0", b"\x7f", b"\x80")) * (end - begin)
        elif way == 5:
            data[begin:end] = random.randbytes(end - begin)
        elif random.random() < 0.3:
            del data[begin:]
    return bytes(data)


def damaged_json(random, value):
    """Replace, remove, rename, copy or nest some values of a tree of dicts and lists."""
    value = copy.deepcopy(value)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        places = _places(value) if isinstance(value, (dict, list)) else []
        if not places:
            return _other(random, value)
        container, key = random.choice(places)
        way = random.randrange(10)
        if way == 0:
            del container[key]
        elif way == 1 and isinstance(container, dict):
            container[random.choice((key + "x", key.upper(), *TEXTS))] = container.pop(key)
        elif way == 1:
            container.insert(key, copy.deepcopy(container[key]))
        elif way == 2:
            other, name = random.choice(places)
            if name in other if isinstance(other, dict) else name < len(other):
                container[key] = copy.deepcopy(other[name])
        elif way == 3:
            container[key] = random.choice(([container[key]], {"a": container[key]}))
        elif way == 4 and random.random() < 0.2:
            container[key] = _nested(random.choice((50, 3000)))
        elif way == 5 and isinstance(container[key], list) and container[key]:
            container[key] = container[key] * random.choice((2, 100))
        else:
            container[key] = _other(random, container[key])
    return value


def _places(value) -> list:
    found, open_ones = [], [value]
    for container in open_ones:
        keys = container if isinstance(container, dict) else range(len(container))
        for key in keys:
            found.append((container, key))
            if isinstance(container[key], (dict, list)):
                open_ones.append(container[key])
    return found


def _nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def _other(random, value):
    if isinstance(value, (int, float)) and random.random() < 0.7:
        return random.choice((*NUMBERS, *FLOATS, value + 1, -value))
    if isinstance(value, str) and random.random() < 0.5:
        return random.choice((*TEXTS, value + value))
    return random.choice((*OTHERS, *NUMBERS, *FLOATS, *TEXTS))


def damaged_text(random, data: bytes) -> bytes:
    """Change a JSON file as JSON, or now and then as bytes."""
    with contextlib.suppress(ValueError, RecursionError):  # damaged before, or nested too deeply
        if random.random() < 0.8:
            return json.dumps(damaged_json(random, json.loads(data))).encode()
    return damaged_bytes(random, data)


def damaged_zip(random, data: bytes, change) -> bytes:
    """Change one member, by `change(random, name, content)`, or what the archive says of it.

    Members are also made twins, links, bombs, and are given paths that leave the folder.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(entry, archive.read(entry)) for entry in archive.infolist()]
    index, way = random.randrange(len(members)), random.randrange(12)
    stream = io.BytesIO()
    warnings.filterwarnings("ignore", "Duplicate name")
    with zipfile.ZipFile(stream, "w") as target:
        for number, (before, content) in enumerate(members):
            entry = zipfile.ZipInfo(before.filename)
            if number != index:
                target.writestr(entry, content)
                continue
            if way == 0:
                continue
            if way == 1:
                target.writestr(zipfile.ZipInfo(before.filename), damaged_bytes(random, content))
            elif way == 2:
                entry.external_attr = (stat.S_IFLNK | 0o777) << 16
                content = random.choice((b"/etc/passwd", b"../escaped", b"/dev/zero"))
            elif way == 3:
                entry.filename = random.choice(("../escaped", "/tmp/escaped", "a/../../escaped"))
            elif way == 4:
                entry.compress_type, content = zipfile.ZIP_DEFLATED, bytes(2**28)
            elif way == 5:
                target.writestr(f"assets/{random.choice(TEXTS[3:])}", content[:1000])
            elif way == 6:
                target.writestr("assets/large", bytes(2**28), zipfile.ZIP_DEFLATED)
            else:
                content = change(random, before.filename, content)
            target.writestr(entry, content)
    return damaged_bytes(random, stream.getvalue()) if way == 7 else stream.getvalue()


def damaged_words(random, data: bytes) -> bytes:
    """Replace, remove or double a word or a line of a text; now and then change bytes."""
    if random.random() < 0.15:
        return damaged_bytes(random, data)
    lines = [line.split(" ") for line in data.decode(errors="replace").split("\n")]
    for _ in range(random.randint(1, 3)):
        line = random.choice(lines)
        place, way = random.randrange(len(line)), random.randrange(6)
        if way == 0:
            lines.insert(random.randrange(len(lines)), list(line))
        elif way == 1:
            line.insert(place, line[place])
        elif way == 2:
            line[place] = ""
        elif way == 3:
            line[place] = random.choice(TEXTS)
        else:
            line[place] = str(random.choice((*NUMBERS, *FLOATS)))
    return "\n".join(" ".join(line) for line in lines).encode(errors="surrogatepass")


def damage_hdf5(random, path) -> None:
    """Change one dataset of an HDF5 file: its shape, its type, where it is; or add large ones."""
    import h5py

    with h5py.File(path, "r+") as file:
        names = []
        file.visititems(lambda name, item: names.append(name) if hasattr(item, "dtype") else None)
        name, way = random.choice(names), random.randrange(8)
        value = file[name][()]
        del file[name]
        if way == 0:
            return
        if way == 1:
            file[name] = h5py.ExternalLink("/etc/passwd", "/")
        elif way == 2:
            file[name] = h5py.SoftLink("/")
        elif way == 3:
            layout = h5py.VirtualLayout((2, 3), "f4")
            layout[0] = h5py.VirtualSource("/etc/passwd", "a", (3,))
            file.create_virtual_dataset(name, layout)
        elif way == 4:
            for number in range(30):  # 256 MB each, which take no place in the file
                file.create_dataset(f"{name}{number}", (2**26,), "f4")
            file[name] = value
        elif way == 5:
            file.create_dataset(name, (2**28,), "f4", chunks=True, compression="gzip")
        elif way == 6:
            file[name] = np.asarray(value).reshape(-1)[: random.choice((0, 1, 3))]
        else:
            file[name] = random.choice((b"text", np.zeros((1, 1, 1, 1, 1)), np.array(1j)))
