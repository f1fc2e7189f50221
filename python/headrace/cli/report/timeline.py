"""Levels and events over time, in a fixed number of points for a run of any length. `Report` and `Collector` fill a `TimeLine`.

Time is divided into slots of equal width. When the last slot is full, neighbouring slots are merged in pairs, the width
doubles, and half of the slots are free again. A merge loses only resolution. A slot holds the integral of each level,
its peak, and the number of events, and those of a merged slot follow from its two halves. The result therefore equals
a recording with the final width from the start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

OTHERS = None
"""The name of the level that sums all levels beyond `most`."""


@dataclass(frozen=True, slots=True)
class Point:
    """A level over a slot of time."""

    begin: float
    end: float
    mean: float
    peak: float


@dataclass(frozen=True, slots=True)
class Count:
    """The events in a slot of time."""

    begin: float
    end: float
    count: float
    """The number of events, or their total amount."""


class _Level:
    """A value that holds until the next sample."""

    __slots__ = ("areas", "peaks", "value")

    def __init__(self, slots: int) -> None:
        self.value = 0.0
        self.areas = [0.0] * slots
        self.peaks = [0.0] * slots


class TimeLine:
    """Levels and events over time.

    Law: the mean and the peak of each point are those of the sampled level, and the counts those of the events.
    Bound: `slots` numbers for the counts of each name and twice as many for each level; at most `most` levels, and one
    for the sum of all others.
    Cost: a sample takes O(levels) for each slot since the last one; an event amortised O(1).

    Args:
        slots: the maximum number of points, an even number.
        width: the initial width of a slot in seconds.
        most: the number of separate levels. The first names get one each; later ones are added to `OTHERS`.
    """

    def __init__(self, slots: int = 240, width: float = 0.005, most: int = 24) -> None:
        if slots < 2 or slots % 2:
            raise ValueError(f"slots must be an even number of at least 2, got {slots}")
        if not width > 0:
            raise ValueError(f"width must be above 0, got {width}")
        self.width: float = width
        """The current width of a slot in seconds."""
        self.end: float = 0.0
        """The time of the last sample in seconds."""
        self._slots = slots
        self._most = most
        self._levels: dict[str | None, _Level] = {}
        self._counts: dict[str, list[float]] = {}

    def sample(self, now: float, levels: Mapping[str, float]) -> None:
        """Set the levels from `now` on. A level that is not named is 0.

        Times are seconds since the start. A time before `end` counts as `end`, because threads read the clock concurrently.
        """
        self._advance(now)
        for level in self._levels.values():
            level.value = 0.0
        for name, value in levels.items():
            self._level(name).value += value

    def count(self, now: float, name: str, amount: float = 1) -> None:
        """Count an event of `amount` at `now`, which may be before `end`."""
        self._make_room(now)
        counts = self._counts.get(name)
        if counts is None:
            counts = self._counts[name] = [0.0] * self._slots
        counts[int(max(now, 0.0) / self.width)] += amount

    @property
    def names(self) -> list[str | None]:
        """The levels, in the order of their first sample."""
        return list(self._levels)

    def points(self, name: str | None) -> list[Point]:
        """Return the points of a level, from the start to `end`; an empty list for an unknown name."""
        level = self._levels.get(name)
        if level is None:
            return []
        return [
            Point(begin, end, area / (end - begin), peak)
            for (begin, end), area, peak in zip(
                self._spans(), level.areas, level.peaks, strict=False
            )
        ]

    def counts(self, name: str) -> list[Count]:
        """Return all events of a name, from the start to `end`; an empty list for an unknown name."""
        counts = self._counts.get(name)
        if counts is None:
            return []
        spans = self._spans()
        shown = counts[: len(spans)]
        if spans:
            # An event exactly at the end would be in a slot of length 0.
            shown[-1] += sum(counts[len(spans) :])
        return [Count(begin, end, count) for (begin, end), count in zip(spans, shown, strict=True)]

    def area(self, name: str | None) -> float:
        """Return the integral of a level over time, in seconds."""
        level = self._levels.get(name)
        return sum(level.areas) if level is not None else 0.0

    def _spans(self) -> list[tuple[float, float]]:
        spans: list[tuple[float, float]] = []
        for slot in range(self._slots):
            begin, end = slot * self.width, min((slot + 1) * self.width, self.end)
            if end <= begin:
                break
            spans.append((begin, end))
        return spans

    def _level(self, name: str | None) -> _Level:
        level = self._levels.get(name)
        if level is None:
            if name is not OTHERS and len(self._levels) - (OTHERS in self._levels) >= self._most:
                return self._level(OTHERS)
            level = self._levels[name] = _Level(self._slots)
        return level

    def _advance(self, now: float) -> None:
        """Extend each level to `now`."""
        self._make_room(now)
        while self.end < now:
            slot = int(self.end / self.width)
            until = min(now, (slot + 1) * self.width)
            if until <= self.end:  # the bound rounds to the current time
                slot, until = slot + 1, min(now, (slot + 2) * self.width)
            for level in self._levels.values():
                if level.value:
                    level.areas[slot] += level.value * (until - self.end)
                    level.peaks[slot] = max(level.peaks[slot], level.value)
            self.end = until

    def _make_room(self, now: float) -> None:
        """Merge slots until there is one for `now`."""
        while now >= self._slots * self.width:
            self.width *= 2
            for level in self._levels.values():
                level.areas = _merge_slots(level.areas, _sum)
                level.peaks = _merge_slots(level.peaks, max)
            for name, counts in self._counts.items():
                self._counts[name] = _merge_slots(counts, _sum)


def _sum(one: float, other: float) -> float:
    return one + other


def _merge_slots(values: list[float], merge: Callable[[float, float], float]) -> list[float]:
    """Merge neighbours in pairs, followed by the free half."""
    halves = [merge(one, other) for one, other in zip(values[::2], values[1::2], strict=True)]
    return halves + [0.0] * len(halves)
