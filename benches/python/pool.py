"""What a task of a pool costs, beside the best bounded pool that one would write by hand.

    make bench

By hand it is a `TaskGroup`, and a semaphore that is taken before a task is made, so that no more than the limit exist.
It has no envelopes, no bound on what its consumer has not read, and no way to take up work that was not called.
The rows "shared" are of `isolate=False`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from harness import Case, main

from headrace import CapacitySource, HierarchicalTaskPoolRunner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

LIMIT = 100


async def same(x: int) -> int:
    return x


async def turn(x: int) -> int:
    await asyncio.sleep(0)
    return x


async def asleep(x: int) -> int:
    await asyncio.sleep(0.01)
    return x


async def at_best(items: int) -> int:
    """Such tasks, a thousand at once, if a task cost nothing."""
    for _ in range(items // 1_000):
        await asyncio.sleep(0.01)
    return sum(range(items))


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


async def tasks_alone(function: Callable[[int], Coroutine[Any, Any, int]], items: int) -> int:
    """What a task of its own for each costs, begun as early as CPython can, with nobody told of anything."""
    loop = asyncio.get_running_loop()
    options: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
    total = 0
    for first in range(0, items, LIMIT):
        numbers = range(first, first + LIMIT)
        tasks: list[asyncio.Task[int]] = [
            asyncio.Task(function(item), loop=loop, **options) for item in numbers
        ]
        for task in tasks:
            total += await task
    return total


async def by_headrace(
    function: Callable[[int], Awaitable[int]],
    items: int,
    limit: int = LIMIT,
    *,
    isolate: bool = True,
) -> int:
    tasks = (partial(function, item) for item in range(items))
    runner = HierarchicalTaskPoolRunner(tasks, CapacitySource(limit), isolate=isolate)
    total = 0
    async with runner.run_tasks() as progress:
        async for envelope in progress:
            total += envelope.value
    return total


def cases() -> list[Case]:
    # From 3.12 on CPython itself begins a task in the step that makes it.
    is_eager = sys.version_info >= (3, 12)
    rows = (
        ("`return x`", same, True, 0.35 if is_eager else 0.6),
        ("`sleep(0)`", turn, True, 0.75),
        ("`return x`, shared", same, False, 0.18),
        ("`sleep(0)`, shared", turn, False, 0.42),
    )
    costs = [
        Case(
            f"{what}, {LIMIT} at once",
            "TaskGroup, semaphore",
            partial(by_hand, function),
            partial(by_headrace, function, isolate=isolate),
            goal=goal,
            items=20_000,
        )
        for what, function, isolate, goal in rows
    ]
    costs += [
        Case(
            f"{what}, a bare task each: the floor unless shared",
            "TaskGroup, semaphore",
            partial(by_hand, function),
            partial(tasks_alone, function),
            goal=goal,
            items=20_000,
        )
        for what, function, isolate, goal in rows
        if isolate
    ]
    many = Case(
        "5,000 of 10 ms, 1,000 at once",
        "five sleeps of 10 ms",
        at_best,
        partial(by_headrace, asleep, limit=1_000),
        goal=1.5,
        items=5_000,
        clock=time.perf_counter,
    )
    return [*costs, many]


if __name__ == "__main__":
    main(__doc__, cases)
