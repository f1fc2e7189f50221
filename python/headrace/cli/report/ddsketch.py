"""How durations are spread, in bounded memory: a sketch in the manner of DDSketch.

A duration is counted in a bucket, and the borders of the buckets grow by the same factor from one to the
next (Masson, Rim and Lee, 2019). With the factor (1 + e) / (1 - e), the value 2b / (1 + factor), b being
the upper border, is within the fraction e of everything in the bucket, wherever in it that is. So is every
quantile, since a quantile is one of the values that were counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

ERROR = 0.01
"""No quantile between `LEAST` and `MOST` is further from the true one than this part of it."""
LEAST = 1e-6
"""What is shorter counts as this long: no clock of Python's tells such durations apart."""
MOST = 1e7
"""What is longer than these 116 days counts as this long."""

_FACTOR = (1 + ERROR) / (1 - ERROR)
_LOG = math.log(_FACTOR)

BUCKETS = math.ceil(math.log(MOST / LEAST) / _LOG) + 1
"""How many there are at most."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A part of a histogram: `count` durations above `low`, up to `high` seconds."""

    low: float
    high: float
    count: int


class Sketch:
    """Counts durations and tells their quantiles.

    Law: a quantile is within 1% of the duration that has its rank, or within a microsecond if that is more.
    Bound: `BUCKETS` counters, about 1,500, however many durations were added.
    Cost: a logarithm and a dictionary entry to add one; sorting the buckets to ask.
    """

    __slots__ = ("_buckets", "count", "least", "most", "total")

    def __init__(self) -> None:
        self.count: int = 0
        self.total: float = 0.0
        """The sum of all durations, in seconds, exact but for rounding."""
        self.least: float = math.inf
        """The shortest duration, exact; infinite before the first."""
        self.most: float = 0.0
        """The longest duration, exact."""
        self._buckets: dict[int, int] = {}

    def add(self, seconds: float) -> None:
        """Counts a duration.

        Raises:
            ValueError: it is negative, infinite or no number.
        """
        if not 0 <= seconds < math.inf:
            msg = f"a duration must be a finite number of seconds of at least 0, got {seconds}"
            raise ValueError(msg)
        self.count += 1
        self.total += seconds
        self.least = min(self.least, seconds)
        self.most = max(self.most, seconds)
        held = min(max(seconds, LEAST), MOST)
        number = math.ceil(math.log(held / LEAST) / _LOG)
        self._buckets[number] = self._buckets.get(number, 0) + 1

    @property
    def mean(self) -> float:
        """The mean duration in seconds; 0 if there is none."""
        return self.total / self.count if self.count else 0.0

    def quantiles(self, parts: Iterable[float]) -> list[float]:
        """For each part q of 1, the duration that q of all durations do not exceed, in seconds.

        That is the duration of rank ceil(q * count) in ascending order, from rank 1 on. The first and the last are exact.

        Raises:
            ValueError: nothing was counted, or a part is not between 0 and 1.
        """
        if not self.count:
            msg = "quantiles of no durations"
            raise ValueError(msg)
        return [self._quantile(part) for part in parts]

    def _quantile(self, part: float) -> float:
        if not 0 <= part <= 1:
            msg = f"a quantile must be between 0 and 1, got {part}"
            raise ValueError(msg)
        # Rounded first: 0.07 * 100 is a little more than 7, and yet it is the seventh that is meant.
        rank = max(1, math.ceil(round(part * self.count, 6)))
        if rank == 1:
            return self.least
        if rank == self.count:
            return self.most
        seen = 0
        for number in sorted(self._buckets):
            seen += self._buckets[number]
            if seen >= rank:
                break
        else:
            raise AssertionError("the buckets hold as many durations as were counted")
        # No better guess than the extremes lies beyond them.
        return min(max(_value(number), self.least), self.most)

    def histogram(self, bars: int) -> list[Bar]:
        """The durations in at most `bars` bars of the same width on a logarithmic axis; empty if there are none."""
        if not self._buckets:
            return []
        first, last = min(self._buckets), max(self._buckets)
        step = math.ceil((last - first + 1) / bars)
        counts = [0] * math.ceil((last - first + 1) / step)
        for number, count in self._buckets.items():
            counts[(number - first) // step] += count
        return [
            Bar(_border(first - 1 + place * step), _border(first - 1 + (place + 1) * step), count)
            for place, count in enumerate(counts)
        ]


def _border(number: int) -> float:
    """The upper border of a bucket."""
    return LEAST * _FACTOR**number


def _value(number: int) -> float:
    """What stands for every duration in a bucket."""
    return 2 * _border(number) / (1 + _FACTOR) if number else LEAST
