"""A record on its way through the function."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.cli.records import Record


@dataclass(slots=True)
class Call:
    """A record, its place among the others, and when what happened to it. Times are those of `time.monotonic`."""

    record: Record
    place: int
    """Its place in the input, from 0."""
    read: float
    """When it was read."""
    tokens: float = 0.0
    """How many it is going to take, each time; 0 if that is not counted."""
    first: float = 0.0
    """When the function was called with it for the first time; before that 0."""
    started: float = 0.0
    """When it was called for the last time; before that 0."""
    ended: float = 0.0
    """When its last call was over; before that 0."""
    attempts: int = 0
    """How often it was called."""
    line: bytes | None = None
    """Its result, from the moment that the function returned it; it may be in a thread, and the loop not know of it yet."""

    def begin(self) -> None:
        """It is called."""
        self.started = time.monotonic()
        self.first = self.first or self.started
        self.attempts += 1

    def end(self) -> None:
        """Its call is over, or never was and never will be."""
        self.ended = time.monotonic()
        self.started = self.started or self.ended
        self.first = self.first or self.started
