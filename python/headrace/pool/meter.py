"""How many tasks end, and how fast."""

from __future__ import annotations

__all__ = ["Meter"]

_SECONDS = 10


class Meter:
    """Counts ends, and keeps those of the last seconds apart: O(1) an end, and a bound on what it holds."""

    __slots__ = ("_buckets", "_first", "_second", "done", "failed")

    def __init__(self) -> None:
        self.done = 0
        self.failed = 0
        # What ended in each second of the loop's clock, by the second modulo their number. One more than are read, for
        # the one that has only begun.
        self._buckets = [0] * (_SECONDS + 1)
        self._second: int | None = None
        self._first = 0.0

    def note(self, now: float, *, failed: bool) -> None:
        """One more ended."""
        if failed:
            self.failed += 1
        else:
            self.done += 1
        if int(now) != self._second:
            self._turn(now)
        self._buckets[int(now) % len(self._buckets)] += 1

    def rate(self, now: float) -> float:
        """Ends a second of the last 10 seconds, or since the first."""
        if self._second is None:
            return 0.0
        if int(now) != self._second:
            self._turn(now)
        # The oldest second is counted by the part of it that is still among the last ten.
        oldest = self._buckets[(int(now) + 1) % len(self._buckets)] * (1 - now % 1)
        others = sum(self._buckets) - self._buckets[(int(now) + 1) % len(self._buckets)]
        return (oldest + others) / min(max(now - self._first, 1.0), _SECONDS)

    def _turn(self, now: float) -> None:
        """Empties the buckets of the seconds that have gone by."""
        second, last = int(now), self._second
        if last is None or second < last:
            # Its first, or another loop with a clock of its own.
            last = second - len(self._buckets)
            self._first = now
        for passed in range(max(last + 1, second - len(self._buckets) + 1), second + 1):
            self._buckets[passed % len(self._buckets)] = 0
        self._second = second
