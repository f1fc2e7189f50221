"""What was when, in a fixed number of points, however long it goes on.

Time is cut into slots of one width. When the last slot is used up, each two neighbours become one, the width
doubles, and half of the slots are free again. Nothing is lost by that but detail: a slot knows the integral of a
level over its time, the highest level in it, and how many events fell into it, and all three of a joined slot
follow from those of its halves. So what is shown in the end is what recording in slots of the last width would have given,
as if the length of the run had been known before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

OTHERS = None
"""The name of the level that is the sum of those beyond `most`."""


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
    """How many, or how much in all."""


class _Level:
    """A value that holds until the next look."""

    __slots__ = ("areas", "peaks", "value")

    def __init__(self, slots: int) -> None:
        self.value = 0.0
        self.areas = [0.0] * slots
        self.peaks = [0.0] * slots


class TimeLine:
    """Levels and events over time.

    Law: the mean and the peak of each point are those of the level that was told, and the counts those of the events.
    Bound: `slots` numbers for the counts of each name, twice as many for each level; at most `most` levels, and the
    sum of all others as one more.
    Cost: a look costs O(levels), plus the slots that went by since the last; an event O(1), amortised.

    Args:
        slots: how many points there are at most, an even number.
        width: the time that the first slots take, in seconds.
        most: how many levels are kept apart. First come, first served: who comes later is a part of `OTHERS`.
    """

    def __init__(self, slots: int = 240, width: float = 0.005, most: int = 24) -> None:
        if slots < 2 or slots % 2:
            msg = f"slots must be an even number of at least 2, got {slots}"
            raise ValueError(msg)
        if not width > 0:
            msg = f"width must be above 0, got {width}"
            raise ValueError(msg)
        self.width: float = width
        """The time that a slot takes now, in seconds."""
        self.end: float = 0.0
        """Until when it is known, in seconds."""
        self._slots = slots
        self._most = most
        self._levels: dict[str | None, _Level] = {}
        self._counts: dict[str, list[float]] = {}

    def look(self, now: float, levels: Mapping[str, float]) -> None:
        """Tells what the levels are from `now` on. One that is not named is at 0.

        Times are seconds since the beginning. One before `end` counts as `end`: a clock is read by many threads.
        """
        self._advance(now)
        for level in self._levels.values():
            level.value = 0.0
        for name, value in levels.items():
            self._level(name).value += value

    def count(self, now: float, name: str, amount: float = 1) -> None:
        """Tells that something happened at `now`, so much of it, in the course of time or before."""
        self._make_room(now)
        counts = self._counts.get(name)
        if counts is None:
            counts = self._counts[name] = [0.0] * self._slots
        counts[int(max(now, 0.0) / self.width)] += amount

    @property
    def names(self) -> list[str | None]:
        """The levels, in the order in which they came."""
        return list(self._levels)

    def points(self, name: str | None) -> list[Point]:
        """A level, from the beginning to `end`; empty if there was none of that name."""
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
        """The events of a name, from the beginning to `end`, all of them; empty if there was none."""
        counts = self._counts.get(name)
        if counts is None:
            return []
        spans = self._spans()
        shown = counts[: len(spans)]
        if spans:
            # What happened in the very moment of the end would begin a slot of no length.
            shown[-1] += sum(counts[len(spans) :])
        return [Count(begin, end, count) for (begin, end), count in zip(spans, shown, strict=True)]

    def area(self, name: str | None) -> float:
        """The integral of a level: what was held times how long, in seconds."""
        level = self._levels.get(name)
        return sum(level.areas) if level is not None else 0.0

    def _spans(self) -> list[tuple[float, float]]:
        spans: list[tuple[float, float]] = []
        for place in range(self._slots):
            begin, end = place * self.width, min((place + 1) * self.width, self.end)
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
        """Lets every level hold up to now."""
        self._make_room(now)
        while self.end < now:
            place = int(self.end / self.width)
            until = min(now, (place + 1) * self.width)
            if until <= self.end:  # the border is so near that it rounds to where we are
                place, until = place + 1, min(now, (place + 2) * self.width)
            for level in self._levels.values():
                if level.value:
                    level.areas[place] += level.value * (until - self.end)
                    level.peaks[place] = max(level.peaks[place], level.value)
            self.end = until

    def _make_room(self, now: float) -> None:
        """MergeMethods slots until there is one for `now`."""
        while now >= self._slots * self.width:
            self.width *= 2
            for level in self._levels.values():
                level.areas = _joined(level.areas, _sum)
                level.peaks = _joined(level.peaks, max)
            for name, counts in self._counts.items():
                self._counts[name] = _joined(counts, _sum)


def _sum(one: float, other: float) -> float:
    return one + other


def _joined(values: list[float], join: Callable[[float, float], float]) -> list[float]:
    """Each two neighbours as one, and the free half behind them."""
    halves = [join(one, other) for one, other in zip(values[::2], values[1::2], strict=True)]
    return halves + [0.0] * len(halves)
