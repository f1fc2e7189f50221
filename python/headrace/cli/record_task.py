"""`RecordTask`: a record in progress, with the times of its steps. `map` makes one for each record."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from headrace.cli.format import MAX_SHOWN, shorten

if TYPE_CHECKING:
    from headrace.cli.record import Record


class FailedCall(NamedTuple):
    """A call that failed, and after which the function was called again."""

    started: float
    ended: float
    kind: str
    """The type of its error."""


@dataclass(slots=True, eq=False)
class RecordTask:
    """A record, its index in the input, and the times of its steps, as of `time.monotonic`.

    It is the key of its task: two files of failed records that were joined may have two records of one number.
    """

    record: Record
    index: int
    """The index of the record in the input, from 0."""
    read: float
    """The time at which it was read."""
    tokens: float = 0.0
    """The tokens that each call is charged; 0 if tokens are not counted."""
    first: float = 0.0
    """The start of the first call, or 0."""
    started: float = 0.0
    """The start of the last call, or 0."""
    ended: float = 0.0
    """The end of the last call, or 0."""
    calls: int = 0
    """The number of calls."""
    throttled: int = 0
    """The calls whose answers cooled the limit down, and so cost no attempt."""
    earlier_attempts: int = 0
    """The attempts of an earlier run, if its journal says that they have failed."""
    is_looked_up: bool = False
    """Whether it was looked up in the cache."""
    is_cancelled: bool = False
    """Whether a call of it has ended with a `CancelledError`."""
    error: str = ""
    """The type of the error of the last call; empty if it has none that is known."""
    raised: Exception | None = None
    """That error, until the pool has judged it."""
    earlier: tuple[FailedCall, ...] = ()
    """The calls before the last one, which failed."""
    line: bytes | None = None
    """The encoded result. A thread sets it as soon as the function returns, before the event loop learns of it."""

    def __str__(self) -> str:
        return str(self.record.number)

    @property
    def attempts(self) -> int:
        """The calls that were not throttled."""
        return self.calls - self.throttled

    def begin(self) -> None:
        """Record the start of a call."""
        if self.calls:
            # A call that was cancelled by its time limit has no error of its own.
            kind = self.error or "TimeoutError"
            self.earlier += (FailedCall(self.started, self.ended, kind),)
            self.error = ""
        self.started = time.monotonic()
        self.first = self.first or self.started
        self.calls += 1

    def end(self) -> None:
        """Record the end of a call, also of one that was never started."""
        self.ended = time.monotonic()
        self.started = self.started or self.ended
        self.first = self.first or self.started


def show_record(key: object) -> str | None:
    """Return a short form of a record, for messages. Its `RecordTask` is the key of its task. Any thread may call it."""
    return shorten(key.record.text, MAX_SHOWN) if isinstance(key, RecordTask) else None
