"""A record on its way through the function."""

from __future__ import annotations

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
    started: float = 0.0
    """When the function was called with it; before that 0."""
    ended: float = 0.0
    """When that call was over; before that 0."""
