"""Progress display on standard error. `map` counts in a `Tally` and shows it with `choose_display`.

On a terminal with `rich` installed it is a bar, otherwise a plain line every few seconds. Both show the records that
are done, running, waiting and failed, the throughput, and the time left. The time left is estimated from the bytes of
the input, because the number of records is usually unknown until the end.
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
    """Counts of records by state."""

    total_size: float | None = None
    """The size of the input; None if unknown."""
    read: int = 0
    running: int = 0
    waiting: int = 0
    done: int = 0
    """Records with a result."""
    failed: int = 0
    replayed: int = 0
    """Records with a result out of the journal."""
    cached: int = 0
    """Records with a result out of the cache, or of an equal record that was called at the same time."""
    failures_replayed: int = 0
    """Records that have failed in an earlier run, by its journal."""
    retried: int = 0
    """Retries of the records that are done or failed."""
    throttled: int = 0
    """Their calls that a server throttled, and that cost no attempt."""
    settled_size: float = 0
    """The size of the records that are done or failed."""

    @property
    def outcome(self) -> str:
        """The records that are done and failed, in words."""
        uncalled = [(self.replayed, "journal"), (self.cached, "cache")]
        sources = ", ".join(f"{count:,} from the {source}" for count, source in uncalled if count)
        done = f" ({sources})" if sources else ""
        failed = (
            f" ({self.failures_replayed:,} in an earlier run)" if self.failures_replayed else ""
        )
        return f"{self.done:,} done{done}, {self.failed:,} failed{failed}"

    @property
    def throttling(self) -> str:
        """The throttled calls in words, as the end of a message."""
        calls = "1 call was" if self.throttled == 1 else f"{self.throttled:,} calls were"
        return f"; {calls} throttled" if self.throttled else ""

    def count_uncalled(self, *, is_cached: bool) -> None:
        """Count a record with a result that was not called: out of the cache, or out of the journal."""
        self.cached += is_cached
        self.replayed += not is_cached

    @property
    def settled(self) -> int:
        """Records that are done or failed."""
        return self.done + self.failed


class Throughput:
    """Measures throughput over the last `span` seconds, which smooths it and still follows changes."""

    def __init__(self, span: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._span = span
        self._clock = clock
        self._history: deque[tuple[float, int, float]] = deque([(clock(), 0, 0)])

    def measure(self, tally: Tally) -> tuple[float, float | None]:
        """Return the records settled per second, and the seconds left if they can be estimated."""
        now = self._clock()
        self._history.append((now, tally.settled, tally.settled_size))
        # Keep one entry that is at least `span` old.
        while len(self._history) > 2 and self._history[1][0] <= now - self._span:
            self._history.popleft()
        then, settled, size = self._history[0]
        if now <= then:
            return 0.0, None
        rate = (tally.settled - settled) / (now - then)
        speed = (tally.settled_size - size) / (now - then)
        if tally.total_size is None or not speed:
            return rate, None
        return rate, max(0, tally.total_size - tally.settled_size) / speed


class Display(Protocol):
    """Shows a tally repeatedly."""

    every: float
    """The seconds between two calls of `show()`."""

    def show(self, tally: Tally) -> None:
        """Show the current counts."""

    def close(self, tally: Tally) -> None:
        """Show the final counts if the display stays visible, and restore the terminal."""


def choose_display(every: float) -> Display:
    """Choose a bar for a terminal if `rich` is installed, otherwise plain lines."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return TextDisplay(sys.stderr, every)
    if importlib.util.find_spec("rich") is None:
        return TextDisplay(sys.stderr, every)
    return BarDisplay()


class TextDisplay:
    """Prints a plain line every few seconds."""

    def __init__(self, file: TextIO, every: float) -> None:
        self.every = every
        self._file = file
        self._throughput = Throughput()
        self._first = True

    def show(self, tally: Tally) -> None:
        """Print a line, except at the first call, when there is nothing to show."""
        rate, left = self._throughput.measure(tally)
        if self._first:
            self._first = False
            return
        parts = [f"{tally.done:,} done", f"{tally.failed:,} failed", f"{tally.running:,} running"]
        parts += [f"{tally.waiting:,} waiting", f"{rate:,.1f}/s"]
        if tally.total_size:
            parts.append(f"{tally.settled_size / tally.total_size:.0%}")
        if left is not None:
            parts.append(f"{format_clock(left)} left")
        print("headrace map:", ", ".join(parts), file=self._file, flush=True)

    def close(self, tally: Tally) -> None:
        """Do nothing: the command prints the outcome."""


class BarDisplay:
    """Draws a bar with `rich`."""

    every: float = 0.1

    def __init__(self) -> None:
        # Late import: `rich` is optional and slower to import than the rest of the command.
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self._throughput = Throughput()
        self._progress = Progress(
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[counts]}"),
            console=Console(stderr=True),
            # `show()` draws the bar on the event loop, so `rich` needs no thread.
            auto_refresh=False,
            # Text that the function prints to a terminal appears above the bar. In a file it stays unchanged.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._task = self._progress.add_task("", total=None, counts="")
        self._progress.start()

    def show(self, tally: Tally) -> None:
        """Redraw the bar."""
        rate, left = self._throughput.measure(tally)
        counts = (
            f"[green]{tally.done:,} done[/] [dim]{rate:,.1f}/s[/]  {tally.running:,} running  "
            f"{tally.waiting:,} waiting  [{'red' if tally.failed else 'dim'}]{tally.failed:,} failed[/]  "
            f"{format_clock(left)} left"
        )
        # Without a total, `rich` shows a moving bar.
        self._progress.update(
            self._task, total=tally.total_size, completed=tally.settled_size, counts=counts
        )
        self._progress.refresh()

    def close(self, tally: Tally) -> None:
        """Leave the final state of the bar on the terminal."""
        self.show(tally)
        self._progress.stop()


def format_clock(seconds: float | None) -> str:
    """Format seconds as 0:07, 12:34 or 1:02:03, and None as `-:--`."""
    if seconds is None:
        return "-:--"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
