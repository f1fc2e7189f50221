"""The records that are shown one by one: the slowest, and the first that failed. Both lists are bounded."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.cli.format import shortened

if TYPE_CHECKING:
    from headrace.cli.record_error import Failure

SHOWN = 160
"""How many characters of a record are shown."""
SHOWN_OF_MESSAGE = 400
"""How many characters of what an error says."""
KINDS = 50
"""How many kinds of errors are counted apart."""


@dataclass(frozen=True, slots=True)
class SlowRecord:
    """A record whose call took long."""

    number: int
    seconds: float
    text: str
    failed: bool


@dataclass(frozen=True, slots=True)
class FailedRecord:
    """A record whose call failed."""

    number: int
    seconds: float
    """How long the call took until it failed."""
    text: str
    kind: str
    message: str
    where: str


class Slowest:
    """The slowest records of all; of two that took the same time, the earlier one.

    Bound: `most` records, of `SHOWN` characters each.
    Cost: a comparison for a record that is not among the slowest so far, else O(log most).
    """

    def __init__(self, most: int = 20) -> None:
        self._most = most
        # The one to go first is on top. The number breaks ties, and no two records share one.
        self._heap: list[tuple[float, int, str, bool]] = []

    def add(self, number: int, seconds: float, text: str, *, failed: bool) -> None:
        """Takes a record in, if it is slow enough."""
        key = (seconds, -number)
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, (*key, shortened(text, SHOWN), failed))
        elif key > self._heap[0][:2]:
            heapq.heapreplace(self._heap, (*key, shortened(text, SHOWN), failed))

    def listed(self) -> list[SlowRecord]:
        """The slowest first."""
        return [
            SlowRecord(-number, seconds, text, failed)
            for seconds, number, text, failed in sorted(self._heap, reverse=True)
        ]


class Failed:
    """The first records that failed, and how many of each kind.

    Bound: `most` records, of `SHOWN` and `SHOWN_OF_MESSAGE` characters; `KINDS` kinds, and all others as one.
    """

    def __init__(self, most: int = 100) -> None:
        self.count: int = 0
        self._most = most
        self._listed: list[FailedRecord] = []
        self._kinds: dict[str, int] = {}
        self._other_kinds = 0

    def add(self, number: int, seconds: float, text: str, failure: Failure) -> None:
        """Takes a record in that failed."""
        self.count += 1
        if failure.kind in self._kinds or len(self._kinds) < KINDS:
            self._kinds[failure.kind] = self._kinds.get(failure.kind, 0) + 1
        else:
            self._other_kinds += 1
        if len(self._listed) < self._most:
            message = shortened(failure.message, SHOWN_OF_MESSAGE)
            shown = shortened(text, SHOWN)
            self._listed.append(
                FailedRecord(number, seconds, shown, failure.kind, message, failure.where)
            )

    def listed(self) -> list[FailedRecord]:
        """The first ones, in the order in which they failed."""
        return list(self._listed)

    def kinds(self) -> list[tuple[str, int]]:
        """The kinds of errors, the most frequent first, and last `others`, if there were more than `KINDS`."""
        ranked = sorted(self._kinds.items(), key=lambda kind: (-kind[1], kind[0]))
        return [*ranked, ("others", self._other_kinds)] if self._other_kinds else ranked
