"""Samples of records: the slowest, and the first failed ones. Both lists are bounded. `Report` has one of each."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.cli.format import shorten

if TYPE_CHECKING:
    from headrace.cli.record_error import RecordError

MAX_RECORD_CHARS = 160
"""The characters kept of a record."""
MAX_MESSAGE_CHARS = 400
"""The characters kept of an error message."""
MAX_KINDS = 50
"""The kinds of errors that are counted separately."""


@dataclass(frozen=True, slots=True)
class SlowRecord:
    """A record with a slow call."""

    number: int
    seconds: float
    text: str
    failed: bool


@dataclass(frozen=True, slots=True)
class FailedRecord:
    """A record with a failed call."""

    number: int
    seconds: float
    """The duration of the call until it failed."""
    text: str
    kind: str
    message: str
    where: str


class Slowest:
    """Keeps the slowest records. Of two with the same duration, the earlier one ranks first.

    Bound: `most` records, of `MAX_RECORD_CHARS` characters each.
    Cost: a comparison for a record that is not among the slowest so far, otherwise O(log most).
    """

    def __init__(self, most: int = 20) -> None:
        self._most = most
        # The fastest is on top. The record number is unique and breaks ties.
        self._heap: list[tuple[float, int, str, bool]] = []

    def add(self, number: int, seconds: float, text: str, *, failed: bool) -> None:
        """Keep a record if it is among the slowest."""
        key = (seconds, -number)
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, (*key, shorten(text, MAX_RECORD_CHARS), failed))
        elif key > self._heap[0][:2]:
            heapq.heapreplace(self._heap, (*key, shorten(text, MAX_RECORD_CHARS), failed))

    def records(self) -> list[SlowRecord]:
        """Return the kept records, the slowest first."""
        return [
            SlowRecord(-number, seconds, text, failed)
            for seconds, number, text, failed in sorted(self._heap, reverse=True)
        ]


class Failed:
    """Keeps the first failed records, and counts the errors of each kind.

    Bound: `most` records, of `MAX_RECORD_CHARS` and `MAX_MESSAGE_CHARS` characters; `MAX_KINDS` kinds, and one counter
    for all others.
    """

    def __init__(self, most: int = 100) -> None:
        self.count: int = 0
        self._most = most
        self._records: list[FailedRecord] = []
        self._kinds: dict[str, int] = {}
        self._other_kinds = 0

    def add(self, number: int, seconds: float, text: str, error: RecordError) -> None:
        """Count a failed record, and keep it if it is among the first."""
        self.count += 1
        if error.kind in self._kinds or len(self._kinds) < MAX_KINDS:
            self._kinds[error.kind] = self._kinds.get(error.kind, 0) + 1
        else:
            self._other_kinds += 1
        if len(self._records) < self._most:
            message = shorten(error.message, MAX_MESSAGE_CHARS)
            text_shown = shorten(text, MAX_RECORD_CHARS)
            self._records.append(
                FailedRecord(number, seconds, text_shown, error.kind, message, error.where)
            )

    def records(self) -> list[FailedRecord]:
        """Return the kept records in the order of their failure."""
        return list(self._records)

    def kinds(self) -> list[tuple[str, int]]:
        """Return kinds and counts, the most frequent first, and `others` last if there are more than `MAX_KINDS`."""
        ranked = sorted(self._kinds.items(), key=lambda kind: (-kind[1], kind[0]))
        return [*ranked, ("others", self._other_kinds)] if self._other_kinds else ranked
