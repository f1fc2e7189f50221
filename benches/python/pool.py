"""What a task of a pool costs, beside the best bounded pool that one would write by hand.

    make bench

By hand it is a `TaskGroup`, and a semaphore that is taken before a task is made, so that no more than the limit exist.
It has no envelopes, no bound on what its consumer has not read, and no way to take up work that was not called.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from harness import Case, main

from headrace import CapacitySource, HierarchicalTaskPoolRunner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LIMIT = 100


async def same(x: int) -> int:
    return x


async def turn(x: int) -> int:
    await asyncio.sleep(0)
    return x


async def by_hand(function: Callable[[int], Awaitable[int]], items: int) -> int:
    slots = asyncio.Semaphore(LIMIT)
    total = 0

    async def work(item: int) -> None:
        nonlocal total
        try:
            result = await function(item)
            total += result
        finally:
            slots.release()

    async with asyncio.TaskGroup() as group:
        for item in range(items):
            await slots.acquire()
            group.create_task(work(item))
    return total


async def by_headrace(function: Callable[[int], Awaitable[int]], items: int) -> int:
    tasks = (partial(function, item) for item in range(items))
    runner = HierarchicalTaskPoolRunner(tasks, CapacitySource(LIMIT))
    total = 0
    async with runner.run_tasks() as progress:
        async for envelope in progress:
            total += envelope.value
    return total


def cases() -> list[Case]:
    return [
        Case(
            f"{what}, {LIMIT} at once",
            "TaskGroup, semaphore",
            partial(by_hand, function),
            partial(by_headrace, function),
            goal=goal,
            items=20_000,
        )
        for what, function, goal in (("`return x`", same, 0.6), ("`sleep(0)`", turn, 0.75))
    ]


if __name__ == "__main__":
    main(__doc__, cases)
