"""What a row is: one piece of work, and how each library does it."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from by_hand import total

Run = Callable[[int], Any]
"""Does the work on so many items, awaited if it is awaitable, and returns a result that can be compared.

It imports its library itself, so that a process loads nothing but what it measures; the first run is not timed.
"""

Ask = Callable[[], Awaitable[str]]
"""Tries something out, and says in a few words what came of it."""


@dataclass(frozen=True)
class Goal:
    """The ratio that headrace is to reach; CPython 3.12 made awaiting cheaper by hand and dearer in C."""

    before_3_12: float
    since_3_12: float

    @property
    def here(self) -> float:
        return self.since_3_12 if sys.version_info >= (3, 12) else self.before_3_12


@dataclass(frozen=True)
class Work:
    """A row that is timed."""

    name: str
    by_hand: Run
    libraries: Mapping[str, Run]
    goal: Goal | None = None
    items: int = 200_000
    clock: Callable[[], float] = time.process_time
    """The process's CPU time, which other programs on the machine do not move."""
    is_whole: bool = False
    """Whether it has to be so many items, however long they take."""


@dataclass(frozen=True)
class Probe:
    """A row that asks how a library behaves."""

    name: str
    right: str
    """The answer that one would wish for."""
    libraries: Mapping[str, Ask]


@dataclass(frozen=True)
class Group:
    """The rows of one table."""

    title: str
    text: str
    """What is compared: a sentence or two in Markdown, above the table."""
    rows: Sequence[Work] | Sequence[Probe]


async def total_in_a_block(stream: Any) -> int:
    """The same for a stream that has to be opened: `async with` is part of the work."""
    async with stream as opened:
        return await total(opened)


def total_of_pushed(observable: Any) -> int:
    """The same for what pushes its items into a callable before `subscribe()` returns."""
    result = 0

    def on_next(item: int) -> None:
        nonlocal result
        result += item

    observable.subscribe(on_next)
    return result
