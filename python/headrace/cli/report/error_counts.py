"""`ErrorCounts`: failed calls by type of error over time. `Report` has one."""

from __future__ import annotations

from headrace.cli.report.timeline import TimeLine

OTHERS = "others"
"""The name of all types beyond the first `MAX_TYPES`."""

MAX_TYPES = 12
"""The types that are counted separately."""


class ErrorCounts:
    """Counts failed calls by type of error in a time line.

    Bound: `MAX_TYPES` types, and one for all others, of 120 numbers each.
    """

    def __init__(self) -> None:
        self.time_line: TimeLine = TimeLine(slots=120)
        self._totals: dict[str, int] = {}

    def count(self, now: float, kind: str) -> None:
        """Count a failed call that ended at `now`."""
        if kind not in self._totals and len(self._totals) >= MAX_TYPES:
            kind = OTHERS
        self._totals[kind] = self._totals.get(kind, 0) + 1
        self.time_line.count(now, kind)

    def totals(self) -> list[tuple[str, int]]:
        """Return the types and their counts, the most frequent first."""
        return sorted(self._totals.items(), key=lambda item: (-item[1], item[0]))
