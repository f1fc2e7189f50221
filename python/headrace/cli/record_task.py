"""`RecordTask`: a record in progress, with the times of its steps. `map` makes one for each record."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from headrace.cli.record import Record


class FailedCall(NamedTuple):
    """A call that failed, and after which the function was called again."""

    started: float
    ended: float
    kind: str
    """The type of its error."""


@dataclass(slots=True)
class RecordTask:
    """A record, its index in the input, and the times of its steps, as of `time.monotonic`."""

    record: Record
    index: int
    """The index of the record in the input, from 0."""
    read: float
    """The time at which it was read."""
    tokens: float = 0.0
    """The tokens that each attempt is charged; 0 if tokens are not counted."""
    first: float = 0.0
    """The start of the first attempt, or 0."""
    started: float = 0.0
    """The start of the last attempt, or 0."""
    ended: float = 0.0
    """The end of the last attempt, or 0."""
    attempts: int = 0
    """The number of attempts."""
    is_cancelled: bool = False
    """Whether a call of it has ended with a `CancelledError`."""
    error: str = ""
    """The type of the error of the last call; empty if it has none that is known."""
    earlier: tuple[FailedCall, ...] = ()
    """The calls before the last one, which failed."""
    line: bytes | None = None
    """The encoded result. A thread sets it as soon as the function returns, before the event loop learns of it."""

    def begin(self) -> None:
        """Record the start of an attempt."""
        if self.attempts:
            # A call that was cancelled by its time limit has no error of its own.
            kind = self.error or "TimeoutError"
            self.earlier += (FailedCall(self.started, self.ended, kind),)
            self.error = ""
        self.started = time.monotonic()
        self.first = self.first or self.started
        self.attempts += 1

    def end(self) -> None:
        """Record the end of an attempt, also of one that was never started."""
        self.ended = time.monotonic()
        self.started = self.started or self.ended
        self.first = self.first or self.started
