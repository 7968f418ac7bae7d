"""Split a data set that has no validation pictures: by groups, by the hash of their names."""

import hashlib
import os
import re

SHARE = 0.2
"""Of the groups that go to val."""
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
