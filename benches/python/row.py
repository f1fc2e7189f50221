"""Rows: one piece of work, done by hand, by headrace and by other libraries."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from by_hand import total

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

Run = Callable[[int], Any]
"""Does the work on `n` items, awaited if it is awaitable, and returns a comparable result.

In an async generator, the part up to the first `yield` is untimed preparation, and the second `yield` gives the result.

It imports its library itself, so that a process loads only the measured library. The first run is not timed.
"""

Ask = Callable[[], Awaitable[str]]
"""Tests a behaviour and describes the result in a few words."""


class Absent(Exception):
    """This machine lacks a requirement of a cell."""


@dataclass(frozen=True)
class Goal:
    """The goal of headrace as a ratio. CPython 3.12 made awaiting cheaper in Python and more expensive in C."""

    before_3_12: float
    since_3_12: float | None = None
    """The default goal."""

    @property
    def here(self) -> float:
        if sys.version_info < (3, 12) or self.since_3_12 is None:
            return self.before_3_12
        return self.since_3_12


@dataclass(frozen=True)
class Work:
    """A timed row."""

    name: str
    baseline: str
    """A short description of `by_hand`."""
    by_hand: Run
    libraries: Mapping[str, Run]
    goal: Goal | None = None
    items: int = 200_000
    clock: Callable[[], float] = time.process_time
    """CPU time, which other programs do not affect; wall time for rows with parallel threads."""
    is_whole: bool = False
    """Whether the number of items is fixed, however long they take."""
    loop: Callable[[], AbstractEventLoop] | None = None
    """Makes the event loop; `None` for one of asyncio."""


@dataclass(frozen=True)
class Probe:
    """A row about the behaviour of libraries."""

    name: str
    right: str
    """The desired answer: exact text, `<=` or `>=` a number with its unit, or `-` for any."""
    libraries: Mapping[str, Ask]
    is_alone: bool = False
    """Whether it must run without other probes."""


Row = Work | Probe
Group = Sequence[Row]
"""The rows of one table."""


def misses(answer: str, right: str) -> bool:
    """Whether an answer differs from the desired one."""
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


def uvloop_loop() -> AbstractEventLoop:
    """Return a new event loop of uvloop."""
    try:
        import uvloop
    except ModuleNotFoundError as error:
        raise Absent("uvloop") from error
    return uvloop.new_event_loop()


async def total_in_a_block(stream: Any) -> int:
    """Return the result of a stream that has to be opened; `async with` is part of the work."""
    async with stream as opened:
        return await total(opened)


def total_of_pushed(observable: Any) -> int:
    """Return the result of a stream that pushes all items into a callable before `subscribe()` returns."""
    result = 0

    def on_next(item: int) -> None:
        nonlocal result
        result += item

    observable.subscribe(on_next)
    return result
