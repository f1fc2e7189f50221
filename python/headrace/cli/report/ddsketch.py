"""The distribution of durations in bounded memory: DDSketch. `Report` has one for the calls and one for the waits.

Each duration is counted in a bucket, and the bounds of the buckets grow by a constant factor (Masson, Rim and Lee,
2019). Let the factor be (1 + e) / (1 - e) and b the upper bound of a bucket. Then the value 2b / (1 + factor) has a
relative error of at most e for each duration in the bucket. The same holds for quantiles, because a quantile is one of
the counted durations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

RELATIVE_ERROR = 0.01
"""The maximum relative error of a quantile between `MIN_DURATION` and `MAX_DURATION`."""
MIN_DURATION = 1e-6
"""Shorter durations count as this long: Python's clocks cannot distinguish them."""
MAX_DURATION = 1e7
"""Longer durations count as this long, 116 days."""

_FACTOR = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG = math.log(_FACTOR)

BUCKETS = math.ceil(math.log(MAX_DURATION / MIN_DURATION) / _LOG) + 1
"""The maximum number of buckets."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a histogram: `count` durations above `low` and up to `high` seconds."""

    low: float
    high: float
    count: int


class DDSketch:
    """Counts durations and estimates their quantiles.

    Law: a quantile is within 1% of the duration with its rank, or within a microsecond if that is more.
    Bound: `BUCKETS` counters, about 1,500, for any number of durations.
    Cost: `add` takes a logarithm and a dictionary entry; a query sorts the buckets.
    """

    __slots__ = ("_buckets", "count", "maximum", "minimum", "total")

    def __init__(self) -> None:
        self.count: int = 0
        self.total: float = 0.0
        """The sum of all durations in seconds, exact except for rounding."""
        self.minimum: float = math.inf
        """The shortest duration, exact; infinite before the first."""
        self.maximum: float = 0.0
        """The longest duration, exact."""
        self._buckets: dict[int, int] = {}

    def add(self, seconds: float) -> None:
        """Count a duration.

        Raises:
            ValueError: the duration is negative, infinite or NaN.
        """
        if not 0 <= seconds < math.inf:
            raise ValueError(
                f"a duration must be a finite number of seconds of at least 0, got {seconds}"
            )
        self.count += 1
        self.total += seconds
        self.minimum = min(self.minimum, seconds)
        self.maximum = max(self.maximum, seconds)
        clamped = min(max(seconds, MIN_DURATION), MAX_DURATION)
        number = math.ceil(math.log(clamped / MIN_DURATION) / _LOG)
        self._buckets[number] = self._buckets.get(number, 0) + 1

    @property
    def mean(self) -> float:
        """The mean duration in seconds; 0 if no duration was added."""
        return self.total / self.count if self.count else 0.0

    def quantiles(self, parts: Iterable[float]) -> list[float]:
        """Return the quantile q, in seconds, for each q in `parts`.

        It is the duration with rank ceil(q * count) in ascending order, at least rank 1. The first and the last are exact.

        Raises:
            ValueError: no duration was added, or a part is not between 0 and 1.
        """
        if not self.count:
            raise ValueError("quantiles need at least one duration")
        return [self._quantile(part) for part in parts]

    def _quantile(self, part: float) -> float:
        if not 0 <= part <= 1:
            raise ValueError(f"a quantile must be between 0 and 1, got {part}")
        # Rounded first: 0.07 * 100 is slightly above 7, but the rank is 7.
        rank = max(1, math.ceil(round(part * self.count, 6)))
        if rank == 1:
            return self.minimum
        if rank == self.count:
            return self.maximum
        seen = 0
        for number in sorted(self._buckets):
            seen += self._buckets[number]
            if seen >= rank:
                break
        else:
            raise AssertionError("the buckets hold as many durations as `count`")
        # An estimate beyond the exact extremes is replaced by them.
        return min(max(_representative(number), self.minimum), self.maximum)

    def histogram(self, bars: int) -> list[Bar]:
        """Return at most `bars` bars of equal width on a logarithmic axis; an empty list without durations."""
        if not self._buckets:
            return []
        first, last = min(self._buckets), max(self._buckets)
        step = math.ceil((last - first + 1) / bars)
        counts = [0] * math.ceil((last - first + 1) / step)
        for number, count in self._buckets.items():
            counts[(number - first) // step] += count
        return [
            Bar(
                _upper_bound(first - 1 + index * step),
                _upper_bound(first - 1 + (index + 1) * step),
                count,
            )
            for index, count in enumerate(counts)
        ]


def _upper_bound(number: int) -> float:
    """Return the upper bound of a bucket."""
    return MIN_DURATION * _FACTOR**number


def _representative(number: int) -> float:
    """Return the estimate for all durations in a bucket."""
    return 2 * _upper_bound(number) / (1 + _FACTOR) if number else MIN_DURATION
