"""Damage flatbuffers, protobufs and pickles by their schema.

Each function takes a random.Random and makes one to three changes.
"""

import copy
import io
import itertools
import pickletools

import numpy as np
from mutate import FLOATS, damaged_bytes

COMMAND = "touch escaped ../escaped"
"""What files ask to be executed; `verify_mutations` looks for the file that it would leave."""


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
