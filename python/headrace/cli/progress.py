"""What is shown while records are mapped, on standard error.

On a terminal, with `rich` at hand, a bar; otherwise a plain line every few seconds. Both show the same:
how many records are done and at what rate, how many run, wait and have failed, and the time left. That
is reckoned from the bytes of the input that are done with, since the number of its records is not known
before its end.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO


@dataclass(slots=True)
class Tally:
    """What became of the records so far."""

    total_bytes: int | None = None
    """The size of the input, where it is known."""
    read: int = 0
    running: int = 0
    waiting: int = 0
    done: int = 0
    """Records that have a result."""
    failed: int = 0
    retried: int = 0
    """Calls that were made again, of the records that are done or have failed."""
    settled_bytes: int = 0
    """The size of the records that are done or have failed."""

    @property
    def settled(self) -> int:
        """Records that are done or have failed."""
        return self.done + self.failed


class Pace:
    """How fast it goes, over the last `span` seconds, so that it follows a change and is not nervous."""

    def __init__(self, span: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._span = span
        self._clock = clock
        self._seen: deque[tuple[float, int, int]] = deque([(clock(), 0, 0)])

    def measure(self, tally: Tally) -> tuple[float, float | None]:
        """Records settled in a second, and the seconds that are left, where that can be told."""
        now = self._clock()
        self._seen.append((now, tally.settled, tally.settled_bytes))
        # The oldest one kept is at least `span` old, once there is one as old.
        while len(self._seen) > 2 and self._seen[1][0] <= now - self._span:
            self._seen.popleft()
        then, settled, size = self._seen[0]
        if now <= then:
            return 0.0, None
        rate = (tally.settled - settled) / (now - then)
        speed = (tally.settled_bytes - size) / (now - then)
        if tally.total_bytes is None or not speed:
            return rate, None
        return rate, max(0, tally.total_bytes - tally.settled_bytes) / speed


class Display(Protocol):
    """Shows a tally, now and again."""

    every: float
    """The seconds between two calls of `show` that it is made for."""

    def show(self, tally: Tally) -> None:
        """Shows where it stands."""

    def close(self, tally: Tally) -> None:
        """Shows how it ended, if anything is shown after the end, and leaves the terminal as it was."""


def choose(every: float) -> Display:
    """The bar, where there is a terminal and `rich` to draw it with; else plain lines."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return Lines(sys.stderr, every)
    if importlib.util.find_spec("rich") is None:
        return Lines(sys.stderr, every)
    return Bar()


class Lines:
    """A plain line every few seconds."""

    def __init__(self, file: TextIO, every: float) -> None:
        self.every = every
        self._file = file
        self._pace = Pace()
        self._first = True

    def show(self, tally: Tally) -> None:
        """Prints a line, but none before anything has happened."""
        rate, left = self._pace.measure(tally)
        if self._first:
            self._first = False
            return
        parts = [f"{tally.done:,} done", f"{tally.failed:,} failed", f"{tally.running:,} running"]
        parts += [f"{tally.waiting:,} waiting", f"{rate:,.1f}/s"]
        if tally.total_bytes:
            parts.append(f"{tally.settled_bytes / tally.total_bytes:.0%}")
        if left is not None:
            parts.append(f"{as_clock(left)} left")
        print("headrace map:", ", ".join(parts), file=self._file, flush=True)

    def close(self, tally: Tally) -> None:
        """Nothing: how it ended is said anyway."""


class Bar:
    """A bar that `rich` draws."""

    every: float = 0.1

    def __init__(self) -> None:
        # Imported here, since `rich` is optional, and since it takes longer to import than all the rest.
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self._pace = Pace()
        self._progress = Progress(
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[counts]}"),
            console=Console(stderr=True),
            # Drawn from the loop, when the tally is shown: no thread of its own.
            auto_refresh=False,
            # What the function prints to a terminal goes above the bar. Into a file it goes as it is.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._task = self._progress.add_task("", total=None, counts="")
        self._progress.start()

    def show(self, tally: Tally) -> None:
        """Draws the bar anew."""
        rate, left = self._pace.measure(tally)
        counts = (
            f"[green]{tally.done:,} done[/] [dim]{rate:,.1f}/s[/]  {tally.running:,} running  "
            f"{tally.waiting:,} waiting  [{'red' if tally.failed else 'dim'}]{tally.failed:,} failed[/]  "
            f"{as_clock(left)} left"
        )
        # Without a known total, rich shows that something moves.
        self._progress.update(
            self._task, total=tally.total_bytes, completed=tally.settled_bytes, counts=counts
        )
        self._progress.refresh()

    def close(self, tally: Tally) -> None:
        """Leaves the last state of the bar on the terminal."""
        self.show(tally)
        self._progress.stop()


def as_clock(seconds: float | None) -> str:
    """0:07, 12:34 or 1:02:03; `-:--` for what is not known."""
    if seconds is None:
        return "-:--"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
