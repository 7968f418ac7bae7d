"""Find the file that MODEL names: a file, a run folder, a preset or an address.

A preset is a trained network that comes along. Its card, NAME.card.json, stands in `presets/` of
this package or of a clone; its file, NAME.keras, beside the card or in the cache.
"""

import hashlib
import json
import os
import re
from pathlib import Path

from keras_pspnet.errors import UserError
from keras_pspnet.files import read_bytes, write_bytes

PREFIX = "preset:"

ADDRESS = "https://github.com/keras-pspnet/keras_pspnet/raw/main/presets/{}.keras"
"""Where the repository offers the presets that are not in the wheel."""

SHIPPED = tuple(parent / "presets" for parent in Path(__file__).parents[1:3])
"""The package's own presets, then those of a clone, which stand beside the package."""

TIMEOUT = 60
"""Maximum seconds without a byte from a server."""


def cache_folder() -> Path:
    """Return the user's folder for presets that were fetched; create nothing."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache) / "keras_pspnet"


def cards() -> dict[str, dict]:
    """Return the card of each preset that is known, by its name; docs/presets.md has the keys."""
    found = {}
    for folder in SHIPPED:
        for file in sorted(folder.glob("*.card.json")):
            card = json.loads(read_bytes(file))
            if card.get("file", ".keras").endswith(".keras"):  # other cards are of exported files
                found.setdefault(file.name.removesuffix(".card.json"), card)
    return found


def preset_file(name: str) -> Path:
    """Return the .keras file of a preset.

    Raises:
        UserError: no such preset, a file that is not here, or another file than its card's.
    """
    known = cards()
    if name not in known:
        raise UserError(f"preset {name!r} is not known; expected one of {', '.join(known)}")
    places = [folder / f"{name}.keras" for folder in (*SHIPPED, cache_folder())]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise UserError(
            f"preset {name!r}: its file is not here; fetch {ADDRESS.format(name)} and put it at "
            f"{places[-1]}"
        )
    _check_digest(file, read_bytes(file), known[name]["sha256"], "fetch it again")
    return file


def model_file(model) -> Path:
    """Return the file or folder that MODEL names.

    Args:
        model: `preset:NAME`; a run folder, which stands for its best.keras; else the path itself.

    Raises:
        UserError: as `preset_file`.
    """
    if str(model).startswith(PREFIX):
        return preset_file(str(model).removeprefix(PREFIX))
    path = Path(model)
    best = path / "best.keras"
    return best if best.is_file() and not (path / "saved_model.pb").is_file() else path


def recipe_file(model) -> Path:
    """Return the JSON file, if there is one, that holds the recipe of MODEL's training.

    It is the recipe.json beside the model, or the card of a preset, under the key "recipe".
    """
    if not str(model).startswith(PREFIX):
        return model_file(model).with_name("recipe.json")
    name = f"{str(model).removeprefix(PREFIX)}.card.json"
    return next((folder / name for folder in SHIPPED if (folder / name).is_file()), Path(name))


def locate(name_or_path, sha256: str | None) -> Path:
    """Return the .keras file that `from_preset` loads; it fetches an address into the cache.

    Raises:
        UserError: as `from_preset`, but for what is inside the file.
    """
    text = str(name_or_path)
    if sha256 is not None:
        sha256 = sha256.lower()
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise UserError(f"sha256={sha256!r}: expected 64 hexadecimal digits")
    if re.match("(https?|file)://", text):
        return _fetched(text, sha256)
    is_name = isinstance(name_or_path, str) and (text in cards() or not _is_path(text))
    file = preset_file(text) if is_name else model_file(name_or_path)
    if sha256 is not None and file.is_file():
        _check_digest(file, read_bytes(file), sha256, "take the file that it belongs to")
    return file


def _is_path(text: str) -> bool:
    """Return whether a text that names no preset is a path, or `preset:NAME`, not a wrong name."""
    path = Path(text)
    return len(path.parts) != 1 or bool(path.suffix) or ":" in text or os.path.exists(text)


def _fetched(address: str, sha256: str | None) -> Path:
    """Return the cached file of an address; download it first if it is not there.

    Raises:
        UserError: no `sha256`, no answer, or another content; then nothing is kept.
    """
    import http.client
    import urllib.request

    if sha256 is None:
        raise UserError(f"{address}: give sha256=, the SHA-256 of the file that you expect there")
    file = cache_folder() / f"{sha256}.keras"
    if file.is_file() and hashlib.sha256(read_bytes(file)).hexdigest() == sha256:
        return file
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:
            data = answer.read()
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = str(getattr(error, "reason", error)) or type(error).__name__
        raise UserError(
            f"{address}: cannot be downloaded ({reason}); download it in another way and give its "
            "path"
        ) from error
    _check_digest(address, data, sha256, "nothing was kept; ask who offers the file")
    write_bytes(file, data)
    return file


def _check_digest(source, data: bytes, expected: str, remedy: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise UserError(f"{source}: its SHA-256 is {found}, expected {expected}; {remedy}")
