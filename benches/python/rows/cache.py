"""A cache: hits of 1,000 keys in memory and in a file, and fifty equal calls of one moment.

By hand, a dictionary, and a dictionary of tasks that callers await under `asyncio.shield`: without a bound, a key of the function, or a
cancellation that ends the call.
"""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from row import Goal, Work

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KEYS = 1_000
CALLERS = 50


async def answer(number: int) -> int:
    return number


async def hits_by_hand(items: int) -> AsyncIterator[int | None]:
    results: dict[int, int] = {}

    async def ask(number: int) -> int:
        if number not in results:
            results[number] = await answer(number)
        return results[number]

    for number in range(KEYS):
        await ask(number)
    yield None
    total = 0
    for number in range(items):
        total += await ask(number % KEYS)
    yield total


async def hits(items: int, kind: str) -> AsyncIterator[int | None]:
    from headrace.cache import Cache, LruStore, SqliteStore

    with TemporaryDirectory() as directory:
        store: Any = (
            LruStore(KEYS) if kind == "memory" else SqliteStore(Path(directory) / "results.db")
        )
        async with Cache(store, key=lambda number: number) as cache:
            ask = cache.wrap(answer)
            for number in range(KEYS):
                await ask(number)
            yield None
            total = 0
            for number in range(items):
                total += await ask(number % KEYS)
            yield total


async def slow_answer(number: int) -> int:
    await asyncio.sleep(0)
    return number


async def fifty_by_hand(items: int) -> int:
    calls: dict[int, asyncio.Task[int]] = {}

    async def ask(number: int) -> int:
        if number not in calls:
            calls[number] = asyncio.create_task(slow_answer(number))
        return await asyncio.shield(calls[number])

    total = 0
    for number in range(items // CALLERS):
        total += sum(await asyncio.gather(*(ask(number) for _ in range(CALLERS))))
    return total


async def fifty(items: int) -> int:
    from headrace.cache import Cache, LruStore

    total = 0
    async with Cache(LruStore(items), key=lambda number: number) as cache:
        ask = cache.wrap(slow_answer)
        for number in range(items // CALLERS):
            total += sum(await asyncio.gather(*(ask(number) for _ in range(CALLERS))))
    return total


GROUP = [
    *(
        Work(
            f"a hit in {kind}",
            "a dictionary",
            hits_by_hand,
            {"headrace": partial(hits, kind=kind)},
            items=20_000,
        )
        for kind in ("memory", "a file")
    ),
    Work(
        "fifty equal calls at once",
        "a dictionary of tasks",
        fifty_by_hand,
        {"headrace": fifty},
        Goal(1.5),
        items=20_000,
    ),
]
