"""Leaks after a consumer leaves early: sources still open, and calls that still finish.

Of 100 calls, 8 are in flight. The consumer first leaves as its library recommends, by `async with` or `aclose()`; open sources are counted
immediately. Then it leaves by a bare `break`; they are counted 50 ms later. Calls take 200 ms and are observed for 500. A stream of
headrace that is kept can be iterated further, so its source stays open on purpose.
"""

from __future__ import annotations

import asyncio
import gc
from functools import partial
from typing import TYPE_CHECKING, Any

import leaving
from row import Probe
from shapes import ONE_STAGE, SIDE_BY_SIDE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

ITEMS = 100
LIMIT = 8


class Source:
    """Counts its open generators."""

    def __init__(self) -> None:
        self.open = 0

    async def numbers(self) -> AsyncIterator[int]:
        self.open += 1
        try:
            x = 0
            while True:
                await asyncio.sleep(0.001)
                yield x
                x += 1
        finally:
            self.open -= 1


class Calls:
    """Counts the calls that finish after the consumer has left."""

    def __init__(self) -> None:
        self.left = False
        self.ended = 0

    async def slow(self, x: int) -> int:
        # The first is fast, so the others are in flight when its result arrives.
        await asyncio.sleep(0.2 if x else 0.001)
        self.ended += self.left
        return x


async def take(count: int, iterator: Any) -> None:
    for _ in range(count):
        await anext(iterator)


async def open_after_block(line: Callable[[Any], Any]) -> str:
    source = Source()
    async with leaving.left_properly(line(source.numbers())) as iterator:
        await take(5, iterator)
    return str(source.open)


async def open_after_break(line: Callable[[Any], Any], *, is_kept: bool) -> str:
    source = Source()
    stream: Any = line(source.numbers())
    await take(5, aiter(stream))
    if not is_kept:
        del stream
        gc.collect()
    await asyncio.sleep(0.05)
    return str(source.open)


async def calls_after_block(line: Callable[[Any], Any]) -> str:
    calls = Calls()
    async with leaving.left_properly(line(ITEMS, calls.slow, LIMIT)) as iterator:
        await take(1, iterator)
        calls.left = True
    await asyncio.sleep(0.5)
    return str(calls.ended)


async def calls_after_break(line: Callable[[Any], Any]) -> str:
    calls = Calls()
    await take(1, aiter(line(ITEMS, calls.slow, LIMIT)))
    calls.left = True
    gc.collect()
    await asyncio.sleep(0.5)
    return str(calls.ended)


GROUP = [
    Probe(
        "sources open, left properly",
        "0",
        {name: partial(open_after_block, line) for name, line in ONE_STAGE.items()},
    ),
    Probe(
        "sources open, bare `break`, stream dropped",
        "0",
        {name: partial(open_after_break, line, is_kept=False) for name, line in ONE_STAGE.items()},
    ),
    Probe(
        "sources open, bare `break`, stream kept",
        "-",
        {name: partial(open_after_break, line, is_kept=True) for name, line in ONE_STAGE.items()},
    ),
    Probe(
        "calls that end, left properly",
        "0",
        {name: partial(calls_after_block, calls) for name, calls in SIDE_BY_SIDE.items()},
    ),
    Probe(
        "calls that end, bare `break`, stream dropped",
        "0",
        {
            name: partial(calls_after_break, calls)
            for name, calls in SIDE_BY_SIDE.items()
            if name != "aiometer"  # usable only in an `async with` block
        },
    ),
]
