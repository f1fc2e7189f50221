"""What a row is: one piece of work, and how it is done by hand, by headrace and by each library that can."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from by_hand import total

Run = Callable[[int], Any]
"""Does the work on so many items, awaited if it is awaitable, and returns a result that can be compared.

An async generator has something to prepare, which is not timed: up to its first `yield`. The second one gives the result.

It imports its library itself, so that a process loads nothing but what it measures; the first run is not timed.
"""

Ask = Callable[[], Awaitable[str]]
"""Tries something out, and says in a few words what came of it."""


class Absent(Exception):
    """What this machine would need for a cell is not there."""


@dataclass(frozen=True)
class Goal:
    """The ratio that headrace is to reach; CPython 3.12 made awaiting cheaper by hand and dearer in C."""

    before_3_12: float
    since_3_12: float | None = None
    """The same, if it is not given."""

    @property
    def here(self) -> float:
        if sys.version_info < (3, 12) or self.since_3_12 is None:
            return self.before_3_12
        return self.since_3_12


@dataclass(frozen=True)
class Work:
    """A row that is timed."""

    name: str
    baseline: str
    """In a few words what `by_hand` is."""
    by_hand: Run
    libraries: Mapping[str, Run]
    goal: Goal | None = None
    items: int = 200_000
    clock: Callable[[], float] = time.process_time
    """The process's CPU time, which other programs on the machine do not move; the wall's where threads work at once."""
    is_whole: bool = False
    """Whether it has to be so many items, however long they take."""


@dataclass(frozen=True)
class Probe:
    """A row that asks how a library behaves."""

    name: str
    right: str
    """The answer that one would wish for: as it is, or `<=` or `>=` a number with its unit; `-` if any will do."""
    libraries: Mapping[str, Ask]
    is_alone: bool = False
    """Whether other probes would disturb it."""


Row = Work | Probe
Group = Sequence[Row]
"""The rows of one table."""


def misses(answer: str, right: str) -> bool:
    """Whether an answer is another than the right one."""
    bound = re.fullmatch(r"([<>]=) ([\d.]+)(.*)", right)
    if bound is None:
        return right not in ("-", answer)
    number = re.match(r"[\d.]+", answer)
    if number is None:
        return True
    return (
        float(number[0]) > float(bound[2])
        if bound[1] == "<="
        else float(number[0]) < float(bound[2])
    )


async def total_in_a_block(stream: Any) -> int:
    """What a stream comes to that has to be opened: `async with` is part of the work."""
    async with stream as opened:
        return await total(opened)


def total_of_pushed(observable: Any) -> int:
    """What comes of that which pushes its items into a callable before `subscribe()` returns."""
    result = 0

    def on_next(item: int) -> None:
        nonlocal result
        result += item

    observable.subscribe(on_next)
    return result
