"""Go on past broken pictures, counted and named."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import threading
from collections.abc import Iterator

import numpy as np

from keras_pspnet.data.pairs import Source
from keras_pspnet.data.survey import Survey
from keras_pspnet.errors import UserError, raise_first
from keras_pspnet.images import IMAGENET_MEAN
from keras_pspnet.labels import IGNORE

OUT_OF_RANGE = "a label is out of range"
"""How `pipeline.checked_labels` begins its message."""


class Broken:
    """Count broken pairs; up to a limit, a pair of nothing but void takes the place of each.

    Void counts in no loss and no score, and the number of steps and the order of the other pictures
    stay as they were, so that a run can be resumed.

    Args:
        limit: number of broken pairs to go on past, of all sources together.
        size: (H, W) of the pair that takes a broken one's place.
    """

    def __init__(self, limit: int, size: tuple[int, int]):
        if type(limit) is not int or limit < 0:
            raise UserError(f"skip_broken={limit!r}: expected a whole number, at least 0")
        self.limit = limit
        self.errors: dict[tuple, UserError] = {}
        self._lock = threading.Lock()
        image = np.broadcast_to(np.rint(IMAGENET_MEAN).astype(np.uint8), (*size, 3))
        self._void = image, np.full(size, IGNORE, np.uint8)

    def check(self, sources: dict[str, Source], surveys: dict[str, Survey]) -> list[str]:
        """Count what the surveys of sources found; return one line that names it, or none.

        Raises:
            UserError: more than the limit; it holds all errors.
        """
        errors = [error for survey in surveys.values() for error in survey.errors]
        if len(errors) > self.limit:
            raise_first(errors)
        for split, survey in surveys.items():
            for index in set(range(len(sources[split]))) - set(survey.good):
                self.errors[split, index] = UserError(sources[split].names[index])
            for number, error in enumerate(sources[split].unpaired):
                self.errors[split, "unpaired", number] = error
        named = "; ".join(map(str, errors))
        return [f"warning: {len(errors)} broken of at most {self.limit}: {named}"] if errors else []

    def source(self, split: str, source: Source) -> Source:
        """Return a source that goes on past its broken pairs."""

        def read(index):
            if (split, index) not in self.errors:
                try:
                    return source.read(index)
                except UserError as error:
                    self._count((split, index), error)
            return self._void

        return dataclasses.replace(source, read=read)

    def _count(self, key, error: UserError) -> None:
        """Count a pair that broke after the check."""
        with self._lock:
            new = key not in self.errors
            self.errors[key] = error
            if len(self.errors) > self.limit:
                raise error
            if new and self.limit:
                print(
                    f"warning: {len(self.errors)} broken of at most {self.limit}: {error}",
                    flush=True,
                )

    @contextlib.contextmanager
    def in_one_line(self) -> Iterator[None]:
        """Raise a UserError of a pair or its augmentation instead of what tf.data makes of it."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            if len(self.errors) > self.limit:
                raise list(self.errors.values())[-1] from error
            if found := re.search(rf"({OUT_OF_RANGE}.*?)\] \[+(-?\d+)", str(error)):
                raise UserError(f"augmentation: {found[1]} {found[2]}") from error
            raise
