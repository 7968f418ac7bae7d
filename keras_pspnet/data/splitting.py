"""Make a val split where there is none, by the hash of names; find what is in both splits."""

import collections
import functools
import hashlib
import os
import re
from pathlib import Path

from keras_pspnet.data.annotated import SPLITS
from keras_pspnet.files import composed, read_bytes

SHARE = 0.2
"""Share of the groups that go to val."""
UPLOAD = re.compile(r"^[0-9a-f]{8}-(?=.)")
"""What Label Studio puts before the name of an uploaded picture."""
_NUMBERED = re.compile(r"^(.*[^\W_].*?)[ _.-]+(?:[a-z]{0,5}[_-]?)?\d+$", re.IGNORECASE)


def group_of(stem: str) -> str:
    """Return the clip, patient or original that a picture's name without its suffix shows.

    `0001TP_006690` is of the clip `0001TP`, `patient7_slice012` of `patient7`, and Roboflow's
    `street_jpg.rf.3f2a` is a variant of `street_jpg`. What Label Studio puts before a name does not
    count. Other names are groups of their own.
    """
    stem = UPLOAD.sub("", stem)
    original, variant, _ = stem.partition(".rf.")
    if variant:
        return original
    found = _NUMBERED.match(stem)
    return found[1] if found else stem


def split(stems: dict[str, str]) -> tuple[dict[str, list[str]], str]:
    """Split pictures into train and val: about 20 % of their groups are val.

    A group is val if the SHA-256 of its name is in the lowest fifth, so that added pictures move
    no other. Of two groups or more neither side is empty; where all names show one group, each
    picture is its own.

    Args:
        stems: key -> the picture's name without its suffix.

    Returns:
        {"train": keys, "val": keys}, in the order given; and which names were hashed, for people.
    """
    groups = {key: group_of(stem) for key, stem in stems.items()}
    count = len(set(groups.values()))
    if count == 1:
        groups = dict(stems)
    grouped = 1 < count < len(stems)
    what = f"their groups' names, {count} groups" if grouped else "their names"
    hashes = {group: _hash(group) for group in set(groups.values())}
    val = {group for group, value in hashes.items() if value < SHARE}
    if len(val) == len(hashes):
        val -= {max(hashes, key=hashes.get)}
    if not val and len(hashes) > 1:
        val = {min(hashes, key=hashes.get)}
    parts = {
        "train": [key for key in stems if groups[key] not in val],
        "val": [key for key in stems if groups[key] in val],
    }
    return parts, what


def _hash(name: str) -> float:
    """Return the SHA-256 of a name as a number in 0..1."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") / 2**64


def in_both(train, val) -> list[str]:
    """Return a warning if pictures of val are in train too, in a list, else an empty list.

    Pictures are the same if their bytes are, if they are variants of one original of Roboflow's,
    or if their names are, numbers aside: every split may count from 1. The very file of both
    splits is left to the reader, who knows why.

    Args:
        train, val: the `Source` of each, of files.
    """
    ours, theirs = (
        [source.files(index)[0] for index in range(len(source))] for source in (train, val)
    )
    files, names, sizes = set(ours), {}, collections.defaultdict(list)
    for picture in ours:
        names.setdefault(_name(picture), picture)
        sizes[picture.stat().st_size].append(picture)
    digest = functools.cache(lambda picture: hashlib.sha256(read_bytes(picture)).digest())
    found = []
    for picture in theirs:
        if picture in files:
            continue
        same = [one for one in sizes[picture.stat().st_size] if digest(one) == digest(picture)]
        name = _name(picture)
        if same or (name in names and not name[-1].isdecimal()):
            found.append((picture, same[0] if same else names[name]))
    if not found:
        return []
    return [
        f"warning: {len(found)} of {len(theirs)} pictures of val seem to be in train too, such as "
        f"{found[0][0]} as {found[0][1]}: scores would be too good; keep each in one split"
    ]


def _name(picture: Path) -> tuple[str, ...]:
    """Return the folders of a picture but those of splits, and its stem or that of its original."""
    parts = picture.parts[:-1]
    folders = (part for part in parts if part.rstrip("0123456789").lower() not in SPLITS)
    return *folders, composed(picture.stem).partition(".rf.")[0]
