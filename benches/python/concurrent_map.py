"""What a concurrent, ordered map costs an item, beside the best that one would write by hand.

    make bench

`in a row` is the shortest bounded ordered map there is: a deque of tasks of which the oldest is awaited. It pulls its
source in the consumer's task, runs nothing behind a slow head, and loses items when it is cancelled. `with a queue` is
what comes nearest to the whole: a task that pulls the source, a semaphore for the calls, a bounded window.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from by_hand import inc, total
from harness import Case, main

from headrace import SourceIterObj

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

CONCURRENCY = 100


async def same(x: int) -> int:
    return x


async def turn(x: int) -> int:
    await asyncio.sleep(0)
    return x


async def three_turns(x: int) -> int:
    for _ in range(3):
        await asyncio.sleep(0)
    return x


async def in_a_row(
    source: Iterable[int], function: Callable[[int], Any], limit: int
) -> AsyncIterator[int]:
    tasks: deque[asyncio.Task[int]] = deque()
    try:
        for item in source:
            if len(tasks) >= limit:
                yield await tasks.popleft()
            tasks.append(asyncio.create_task(function(item)))
        while tasks:
            yield await tasks.popleft()
    finally:
        for task in tasks:
            task.cancel()


async def with_a_queue(
    source: Iterable[int], function: Callable[[int], Awaitable[int]], limit: int
) -> AsyncIterator[int]:
    slots = asyncio.Semaphore(limit)
    results: asyncio.Queue[asyncio.Task[int] | None] = asyncio.Queue(2 * limit)

    async def call(item: int) -> int:
        try:
            return await function(item)
        finally:
            slots.release()

    async def drive() -> None:
        async with asyncio.TaskGroup() as group:
            for item in source:
                await slots.acquire()
                await results.put(group.create_task(call(item)))
        await results.put(None)

    driver = asyncio.create_task(drive())
    try:
        while (task := await results.get()) is not None:
            yield await task
    finally:
        driver.cancel()


async def by_hand_sync(
    source: Iterable[int], function: Callable[[int], int], limit: int
) -> AsyncIterator[int]:
    """A driver that runs ahead by a window, for callables that are not awaited."""
    results: asyncio.Queue[int | None] = asyncio.Queue(2 * limit)

    async def drive() -> None:
        for item in source:
            await results.put(function(item))
        await results.put(None)

    driver = asyncio.create_task(drive())
    try:
        while (result := await results.get()) is not None:
            yield result
    finally:
        driver.cancel()


def case(
    name: str,
    baseline: str,
    by_hand: Callable[..., Any],
    function: Callable[[int], Any],
    goal: float,
) -> Case:
    return Case(
        name,
        baseline,
        lambda n: total(by_hand(range(n), function, CONCURRENCY)),
        lambda n: total(SourceIterObj(range(n)).map(function, concurrency=CONCURRENCY)),
        goal=goal,
        items=20_000,
    )


def cases() -> list[Case]:
    rows = [
        case(f"{what}, {CONCURRENCY} at once", how, by_hand, function, goal)
        for what, function in (
            ("`return x`", same),
            ("`sleep(0)`", turn),
            ("`sleep(0)` three times", three_turns),
        )
        for how, by_hand, goal in (
            ("tasks in a row", in_a_row, 1.5),
            ("tasks, semaphore, queue", with_a_queue, 1.0),
        )
    ]
    rows.append(case("a sync callable", "driver and queue", by_hand_sync, inc, 1.5))
    return rows


if __name__ == "__main__":
    main(__doc__, cases)
