"""Progress with an estimate: a bar in a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator

LINE_SECONDS = 10.0


class Meter:
    """Counts steps of a known total and says how far it is.

    Args:
        what: the activity, as "training".
        total: steps in all.
        done: steps that were done before.
        work: what so many steps from the start cost, where some cost more than others.
    """

    def __init__(self, what: str, total: int, done: int = 0, work: Callable[[int], float] = float):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self.what, self.total, self.done, self.work = what, total, done, work
        self.first = None  # (seconds, steps) after the first step, which also builds and traces
        self.last_line = time.monotonic()
        # Plain lines in a notebook too: Jupyter shows what rich makes of them one box a line, and
        # keeps every state of a bar.
        notebook = Console().is_jupyter
        self.console = Console(highlight=False, force_jupyter=False)
        self.bar = None
        # isatty: with FORCE_COLOR, as in a notebook's kernel, rich takes a pipe for a terminal.
        if sys.stdout.isatty() and self.console.is_terminal and not notebook:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total} {task.fields[note]}"),
                TextColumn("{task.fields[left]}"),
                console=self.console,
            )
            self.task = self.bar.add_task(what, total=total, completed=done, note="", left="")
            self.bar.start()

    def advance(self, note: str = "", steps: int = 1) -> None:
        """Some more steps are done."""
        self.done += steps
        now = time.monotonic()
        if self.first is None:
            self.first = now, self.done
        if self.bar:
            left = self._estimate(now)
            self.bar.update(self.task, completed=self.done, note=note, left=left)
        elif now - self.last_line >= LINE_SECONDS and self.done < self.total:
            self.last_line = now
            self.say(f"{self.what} {self.done}/{self.total}  {note}  {self._estimate(now)}")

    def _estimate(self, now) -> str:
        seconds, done = now - self.first[0], self.work(self.done) - self.work(self.first[1])
        left = self.work(self.total) - self.work(self.done)
        return f"{clock(seconds / done * left)} left" if done else ""

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
