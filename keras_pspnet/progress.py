"""Progress with an estimate: a bar in a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

LINE_SECONDS = 10.0


class Meter:
    """Counts steps of a known total and says how far it is.

    Args:
        what: the activity, as "training".
        total: steps in all.
        done: steps that were done before.
    """

    def __init__(self, what: str, total: int, done: int = 0):
        self.what, self.total, self.done = what, total, done
        self.first = None  # (seconds, steps) after the first step, which also builds and traces
        self.last_line = time.monotonic()
        self.console = Console(stderr=False, highlight=False)
        self.bar = None
        if self.console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total} {task.fields[note]}"),
                TimeRemainingColumn(compact=True),
                console=self.console,
            )
            self.task = self.bar.add_task(what, total=total, completed=done, note="")
            self.bar.start()

    def advance(self, note: str = "", steps: int = 1) -> None:
        """Some more steps are done."""
        self.done += steps
        now = time.monotonic()
        if self.first is None:
            self.first = now, self.done
        if self.bar:
            self.bar.update(self.task, completed=self.done, note=note)
        elif now - self.last_line >= LINE_SECONDS and self.done < self.total:
            self.last_line = now
            self.say(f"{self.what} {self.done}/{self.total}  {note}  {self._estimate(now)}")

    def _estimate(self, now) -> str:
        seconds, steps = now - self.first[0], self.done - self.first[1]
        return f"{clock(seconds / steps * (self.total - self.done))} left" if steps else ""

    def say(self, line: str) -> None:
        """A line of its own."""
        self.console.print(line, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self.bar:
            self.bar.stop()


def track(items: Iterable, what: str, total: int) -> Iterator:
    """Passes items on and shows how many are done."""
    meter = Meter(what, total)
    try:
        for item in items:
            yield item
            meter.advance()
    finally:
        meter.close()


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
