"""Check every pair that a training reads; keep what was found beside the run."""

import contextlib
import functools
import hashlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

from keras_pspnet import __version__
from keras_pspnet.data.broken import Broken
from keras_pspnet.data.pairs import Source
from keras_pspnet.data.survey import Survey
from keras_pspnet.files import read_bytes, write_json
from keras_pspnet.progress import track
from keras_pspnet.train.history import or_warning
from keras_pspnet.train.run_folder import SURVEY

PATIENCE = 5.0
"""Seconds before a check goes on beside the training: small datasets are whole by then."""


class PictureCheck:
    """Read every pair once, in parallel; what takes long goes on beside the training.

    A survey that an earlier start of the run kept is taken if no file has another size or time.

    Args:
        out: the run folder.
        sources: split -> pairs.
        broken: counts the pairs that cannot be used.
        about: surveys -> lines that a user should read.
        writes: whether this process writes the run folder.
    """

    def __init__(
        self, out: Path, sources: dict[str, Source], broken: Broken, about: Callable, writes: bool
    ):
        self.file, self.sources, self.broken, self.about = out / SURVEY, sources, broken, about
        self.writes = writes
        self.stamp = _stamp(sources)
        self.surveys = self._kept()
        self.whole = self.surveys is not None  # whether every pair was read
        self.told = False
        self._opened = contextlib.ExitStack()
        self._rest = self._error = None

    def begin(self, needs_all: bool) -> None:
        """Read pairs, for PATIENCE seconds or, if a training `needs_all` of them, until the end.

        Pictures from no files, which cannot be broken, are read until the end, too.

        Raises:
            UserError: more broken pairs than may be; as `tell`.
        """
        if not self.whole:
            self.surveys = {s: Survey(errors=list(of.unpaired)) for s, of in self.sources.items()}
            looks = self._looks()
            total = sum(map(len, self.sources.values()))
            end = time.monotonic() + PATIENCE
            try:
                for _ in track(looks, "checking pictures and masks", total):
                    if self.stamp and not needs_all and time.monotonic() > end:
                        break
                else:
                    self.whole = True
            except BaseException:  # also Ctrl-C
                self.close()
                raise
            if not self.whole:
                self._rest = threading.Thread(target=self._finish, args=(looks,), daemon=True)
                self._rest.start()
                print("the check of the pictures goes on beside the training", flush=True)
        self.tell()

    def tell(self, wait: bool = False) -> None:
        """Print what the check found, once, when it is whole.

        Args:
            wait: wait until it is.

        Raises:
            UserError: more broken pairs than may be.
        """
        if wait and self._rest is not None:
            self._rest.join()
        if self._error is not None:
            raise self._error
        if self.told or not self.whole:
            return
        self.told = True
        lines = self.broken.check(self.sources, self.surveys)
        for line in dict.fromkeys([*self.about(list(self.surveys.values())), *lines]):
            print(line, flush=True)

    def keep(self) -> None:
        """Write the surveys beside the run, once, when they are whole, if they come from files."""
        if self.whole and self.stamp and self.writes:
            stamp, self.stamp = self.stamp, None
            surveys = {split: survey.to_config() for split, survey in self.surveys.items()}
            with or_warning():
                write_json(self.file, {"stamp": stamp, "surveys": surveys})

    def close(self) -> None:
        """End a check that is not whole."""
        self._opened.close()

    def _looks(self):
        """Read every pair and count it; yield after each."""
        for split, source in self.sources.items():
            looks = self._opened.enter_context(source.looks())
            for index, seen in enumerate(looks):
                self.surveys[split].add(index, source.names[index], seen)
                yield

    def _finish(self, looks) -> None:
        try:
            for _ in looks:
                pass
            self.whole = True
        except Exception as error:  # raised by the training's next step
            self._error = error

    def _kept(self) -> dict[str, Survey] | None:
        with contextlib.suppress(
            ValueError, LookupError, TypeError, AttributeError
        ):  # no file, or another one
            kept = json.loads(read_bytes(self.file))
            if self.stamp and kept["stamp"] == self.stamp:
                return {s: Survey.from_config(values) for s, values in kept["surveys"].items()}
        return None


def _stamp(sources: dict[str, Source]) -> str | None:
    """Return what changes with the size or time of a file, or with what masks mean; None for
    pictures that come from no files."""

    @functools.cache  # one file may hold the annotations of all pictures
    def stat(file: Path) -> str:
        try:
            status = file.stat()
        except OSError:  # YOLO's pictures without objects need no text
            return f"{file.name} none"
        return f"{file.name} {status.st_size} {status.st_mtime_ns}"

    digest = hashlib.sha256(__version__.encode())
    for split, source in sources.items():
        files = [file for index in range(len(source)) for file in source.files(index)]
        if not files:
            return None
        about = (split, len(source), source.labels.to_config(), source.uncovered)
        digest.update(repr(about).encode())
        digest.update("\n".join(map(stat, files)).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
