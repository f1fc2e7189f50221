"""Sources and models for the tests of merging."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

from headrace import (
    PullConcatObj,
    PullObj,
    PullRaceObj,
    PullRaceRobinObj,
    PullRoundRobinObj,
    PullZipObj,
    SourceBufferObj,
    SourceIterObj,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable


MERGES: list[Callable[..., PullObj[Any]]] = [
    PullConcatObj,
    PullZipObj,
    PullRoundRobinObj,
    PullRaceObj,
    PullRaceRobinObj,
]


async def ready(items: Iterable[Any]) -> AsyncIterator[Any]:
    """Yield items without waiting."""
    for item in items:
        yield item


async def slow(items: Iterable[Any], iterations: int = 1) -> AsyncIterator[Any]:
    """Yield items, each after some event-loop iterations."""
    for item in items:
        for _ in range(iterations):
            await asyncio.sleep(0)
        yield item


async def timed(items: Iterable[Any], seconds: float) -> AsyncIterator[Any]:
    """Yield items, each after some time."""
    for item in items:
        await asyncio.sleep(seconds)
        yield item


def rounds(lists: list[list[Any]]) -> list[list[Any]]:
    """Group the items of some lists in rounds, one of each list that has not ended."""
    missing = object()
    rows = itertools.zip_longest(*lists, fillvalue=missing)
    return [[item for item in row if item is not missing] for row in rows]


def source(items: list[Any], speed: int) -> Any:
    """Return a list, a native source, or an async generator that never waits or waits."""
    if speed == 0:
        return items.copy()
    if speed == 1:
        return SourceBufferObj(items)
    return ready(items) if speed == 2 else slow(items, speed)


def flaky(bad: int) -> PullObj[int]:
    def check(item: int) -> int:
        if item == bad:
            raise ValueError(item)
        return item

    return SourceIterObj(range(5)).map(check)
