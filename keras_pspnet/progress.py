"""Show the progress of long work: a bar in a terminal, a line every ten seconds in a log."""

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator

LINE_SECONDS = 10.0
"""Minimum time between two lines of a log."""


class Meter:
    """Count finished steps and estimate the time left.

    The estimate comes from the last 1000 calls of `advance` (the length of rich's history). The
    time before the first call is left out, because the first step also builds and traces.

    Args:
        what: name of the activity, such as "training".
        total: number of steps.
        done: number of steps finished before, by a run that is resumed.
        cost: returns the cumulative cost of the first n steps, for steps of unequal cost.
    """

    def __init__(self, what: str, total: int, done: int = 0, cost: Callable[[int], float] = float):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.what, self.total, self.done, self.cost = what, total, done, cost
        self.last_line = time.monotonic()
        # Jupyter shows each line of a rich console in a box and keeps every state of a bar, so a
        # notebook gets plain lines.
        notebook = Console().is_jupyter
        self.console = Console(highlight=False, force_jupyter=False)
        # isatty: with FORCE_COLOR, as in a notebook's kernel, rich takes a pipe for a terminal.
        self.live = sys.stdout.isatty() and self.console.is_terminal and not notebook
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=self.console,
            get_time=time.monotonic,
            speed_estimate_period=math.inf,
            disable=not self.live,
        )
        note = f"{done}/{total}"
        self.task = self.bar.add_task(what, total=cost(total), completed=cost(done), note=note)
        self.bar.start()

    def advance(self, note: str = "", steps: int = 1) -> None:
        """Count `steps` more finished steps and show `note` beside the count."""
        self.done += steps
        note = f"{self.done}/{self.total}  {note}"
        self.bar.update(self.task, completed=self.cost(self.done), note=note)
        now = time.monotonic()
        if not self.live and now - self.last_line >= LINE_SECONDS and self.done < self.total:
            self.last_line, left = now, self.bar.tasks[0].time_remaining
            self.say(f"{self.what} {note}  {'' if left is None else f'{clock(left)} left'}")

    def say(self, line: str) -> None:
        """Print a line, above the bar if there is one."""
        self.console.print(line, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Stop the bar and restore the terminal."""
        self.bar.stop()


def track(items: Iterable, what: str, total: int) -> Iterator:
    """Yield `items` and show how many of `total` are done, under the name `what`."""
    meter = Meter(what, total)
    try:
        for item in items:
            yield item
            meter.advance()
    finally:
        meter.close()


def clock(seconds: float) -> str:
    """Return seconds as H:MM:SS, or M:SS below an hour."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
