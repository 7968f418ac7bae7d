"""Damage files by their schema: bytes, JSON, zip archives, flatbuffers, protobufs, pickles.

Each function takes a random.Random and returns a new value with one to three changes.
"""

import copy
import io
import itertools
import json
import pickletools
import stat
import zipfile

import numpy as np

NUMBERS = (0, 1, -1, 2, 17, 255, 256, 65_536, 2**31 - 1, 2**31, -(2**31), 2**63, -(2**63), 10**100)
FLOATS = (0.5, -1.5, 1e-320, 1e308, float("nan"), float("inf"), -float("inf"))
TEXTS = ("", " ", "\ud800", "a\nb", "../escaped", "/", "\0", "x" * 3000, "é", "none", "1.2.3")
OTHERS = (None, True, False, [], {}, [[]], {"": {}}, [None], "1", ["a", 1])

COMMAND = "touch escaped ../escaped"
"""What files ask to be executed; `verify_mutations` looks for the file that it would leave."""


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
        places = _places(value)
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
    if random.random() < 0.2:
        return damaged_bytes(random, data)
    return json.dumps(damaged_json(random, json.loads(data))).encode()


def damaged_zip(random, data: bytes, change) -> bytes:
    """Change one member, by `change(random, name, content)`, or what the archive says of it.

    Members are also made twins, links, bombs, and are given paths that leave the folder.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(entry, archive.read(entry)) for entry in archive.infolist()]
    index, way = random.randrange(len(members)), random.randrange(12)
    stream = io.BytesIO()
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


def damaged_tree(random, root) -> None:
    """Change attributes and items in a tree of objects: the flatbuffer compiler's object API."""
    for _ in range(random.choice((1, 1, 2, 3))):
        kind = random.choice(sorted({type(owner).__name__ for owner, _, _ in _slots(root)}))
        slots = [slot for slot in _slots(root) if type(slot[0]).__name__ == kind]
        owner, name, value = random.choice(slots)
        setattr(owner, name, _damaged_attribute(random, value, slots))


def _slots(root) -> list:
    found, open_ones = [], [root]
    for owner in open_ones:
        for name, value in vars(owner).items():
            found.append((owner, name, value))
            values = value if isinstance(value, list) else [value]
            open_ones += [item for item in values if hasattr(item, "__dict__")]
    return found


def _damaged_attribute(random, value, slots):
    if isinstance(value, (bool, int)):
        return random.choice((0, 1, -1, 2, 3, 5, 32, 127, 255, 60_000, 2**31 - 1, value + 1))
    if isinstance(value, float):
        return random.choice(FLOATS)
    if isinstance(value, (bytes, str)):
        return random.choice(
            (
                b"",
                b"x",
                b"\xff\xfe",
                bytes(value, "utf8") * 2 if isinstance(value, str) else value * 2,
            )
        )
    if isinstance(value, np.ndarray) and value.size:
        value = value.copy()
        way = random.randrange(5)
        if way == 0:
            return value[: random.randrange(value.size)]
        if way == 1:
            return np.concatenate([value, value[:1]])
        if way == 2:
            random.shuffle(value)
            return value
        if way == 3 and value.dtype.kind in "iu":
            info = np.iinfo(value.dtype)
            choices = [n for n in (0, 1, -1, 2, 60_000, info.max) if info.min <= n <= info.max]
            value[random.randrange(value.size)] = random.choice(choices)
            return value
        raw = damaged_bytes(random, value.tobytes())
        return np.frombuffer(raw[: len(raw) // value.itemsize * value.itemsize], value.dtype)
    if isinstance(value, list) and value:
        value, place = list(value), random.randrange(len(value))
        way = random.randrange(4)
        if way == 0:
            del value[place]
        elif way == 1:
            value.insert(place, copy.deepcopy(random.choice(value)))
        elif way == 2:
            other = random.randrange(len(value))
            value[place], value[other] = value[other], value[place]
        else:
            return []
        return value
    alike = [other for _, _, other in slots if other is not None]
    return random.choice([None, *alike])


def damaged_message(random, message) -> None:
    """Change fields in a tree of protobuf messages."""
    for _ in range(random.choice((1, 1, 2, 3))):
        kinds = {}
        for owner, field, value in _fields(message):
            kinds.setdefault(field.full_name, []).append((owner, field, value))
        owner, field, value = random.choice(kinds[random.choice(sorted(kinds))])
        try:
            _damage_field(random, owner, field, value)
        except (ValueError, TypeError, OverflowError):  # the field cannot hold it: left as it was
            continue


def _fields(message) -> list:
    found, open_ones = [], [message]
    for owner in open_ones:
        for field, value in owner.ListFields():
            found.append((owner, field, value))
            repeated = hasattr(value, "__len__") and not isinstance(value, (str, bytes))
            values = list(value.values() if hasattr(value, "values") else value) if repeated else []
            open_ones += [item for item in values or [value] if hasattr(item, "ListFields")]
    return found


def _damage_field(random, owner, field, value) -> None:
    if hasattr(value, "keys"):  # a map
        if value:
            value.pop(random.choice(sorted(value)))
    elif hasattr(value, "ListFields"):
        owner.ClearField(field.name)
    elif hasattr(value, "append") or hasattr(value, "add"):
        place, way = random.randrange(len(value)), random.randrange(4)
        if way == 0:
            del value[place]
        elif way == 1 and hasattr(value, "add"):
            value.add().CopyFrom(value[place])
        elif way == 2 and hasattr(value, "add"):
            kept = [copy.deepcopy(item) for item in value]
            random.shuffle(kept)
            del value[:]
            value.extend(kept)
        elif not hasattr(value, "add"):
            value[place] = _scalar(random, value[place])
    else:
        setattr(owner, field.name, _scalar(random, value))


def _scalar(random, value):
    if isinstance(value, bytes):
        return random.choice(
            (b"", value[: len(value) // 2], value * 2, damaged_bytes(random, value))
        )
    if isinstance(value, str):
        return random.choice(("", "x", value * 2, "../escaped", "é" * 200))
    if isinstance(value, float):
        return random.choice(FLOATS)
    return random.choice((0, 1, -1, 2, 3, 7, 17, 60_000, 2**31 - 1, 2**40, value + 1))


def damaged_pickle(random, data: bytes) -> bytes:
    """Remove, double, swap or insert operations of a pickle; put hostile ones before its end."""
    places = [place for _, _, place in pickletools.genops(data)]
    places.append(len(data))
    pieces = [data[a:b] for a, b in itertools.pairwise(places)]
    for _ in range(random.randint(1, 3)):
        place, other = random.randrange(len(pieces)), random.randrange(len(pieces))
        way = random.randrange(5)
        if way == 0:
            del pieces[place : place + random.choice((1, 1, 3, 20))]
            pieces = pieces or [b"."]
        elif way == 1:
            pieces.insert(place, pieces[other])
        elif way == 2:
            pieces[place], pieces[other] = pieces[other], pieces[place]
        elif way == 3:
            integers = [i for i, piece in enumerate(pieces) if piece[:1] in b"KMJ" and piece]
            number = random.choice((0, 1, -1, 65_536, 2**31 - 1)).to_bytes(4, "little", signed=True)
            pieces[random.choice(integers or [place])] = b"J" + number
        else:
            pieces.insert(place, random.choice(hostile_pickles()))
    return b"".join(pieces)


def hostile_pickles() -> list[bytes]:
    """Operations that execute something, or take memory or time."""
    run = COMMAND.encode()
    collide = b"".join(
        b"\x8a\x0a" + (n * (2**61 - 1)).to_bytes(10, "little") for n in range(1, 60_001)
    )
    pairs = b"".join(
        b"\x8a\x0a" + (n * (2**61 - 1)).to_bytes(10, "little") + b"N" for n in range(1, 60_001)
    )
    return [
        b"cos\nsystem\n(V" + run + b"\ntR0",
        b"cposix\nsystem\n(V" + run + b"\ntR0",
        b"cbuiltins\neval\n(V__import__('os').system('" + run + b"')\ntR0",
        b"cnumpy.testing\n_private.utils.runstring\n(V" + run + b"\n}tR0",
        b"cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR0",
        b"\x96" + (2**32).to_bytes(8, "little"),
        b"B\xff\xff\xff\x7f",
        b"\x8f(" + collide + b"\x900",
        b"}(" + pairs + b"u0",
        b"]" * 50_000 + b"a" * 49_999 + b"0",
    ]


def pickle_ends(data: bytes, count: int) -> int:
    """Return where the first `count` pickles in a row end."""
    stream = io.BytesIO(data)
    for _ in range(count):
        for _ in pickletools.genops(stream):
            pass
    return stream.tell()


def damaged_words(random, data: bytes) -> bytes:
    """Replace, remove or double a word or a line of a text; now and then change bytes."""
    if random.random() < 0.15:
        return damaged_bytes(random, data)
    lines = [line.split(" ") for line in data.decode().split("\n")]
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
