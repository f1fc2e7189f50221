"""Tasks under a limit: the cost of a task. The results are summed.

By hand, a `TaskGroup`, and a `Semaphore` acquired before a task is created, so that at most `limit` tasks exist; it has no events, and no
bound on unread results. headrace uses a `HierarchicalTaskPoolRunner`, which reports each task in an envelope; `map_pool` is the same as a
stream of results. anyio uses a task group and a `CapacityLimiter` in the same way. `gather` and quattro create all tasks at once.
`bare tasks` are the floor with one asyncio task per item, started as early as CPython can, without reports. `workers` share an iterator
without a task per item. The last row measures wall time.
"""

from __future__ import annotations

import asyncio
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from by_hand import total
from row import Goal, Work

from rows.concurrent_map import AS_FINISHED, as_finished_by_hand, iteration, same

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from row import Run

    from rows.concurrent_map import Call

LIMIT = 100


async def asleep(x: int) -> int:
    await asyncio.sleep(0.01)
    return x


async def at_best(items: int) -> int:
    """The time of these tasks, a thousand at once, without overhead."""
    for _ in range(items // 1_000):
        await asyncio.sleep(0.01)
    return sum(range(items))


async def by_bare_tasks(
    items: int, call: Callable[[int], Coroutine[Any, Any, int]], limit: int
) -> int:
    loop = asyncio.get_running_loop()
    options: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
    result = 0
    for first in range(0, items, limit):
        numbers = range(first, min(first + limit, items))
        tasks: list[asyncio.Task[int]] = [
            asyncio.Task(call(x), loop=loop, **options) for x in numbers
        ]
        for task in tasks:
            result += await task
    return result


async def by_runner(items: int, call: Call, limit: int, *, cooldown: bool = True) -> int:
    from headrace import CapacitySource, HierarchicalTaskPoolRunner

    tasks = (partial(call, x) for x in range(items))
    runner = HierarchicalTaskPoolRunner(tasks, CapacitySource(limit), cooldown=cooldown)
    result = 0
    async with runner.run_tasks() as progress:
        async for envelope in progress:
            result += envelope.value
    return result


def by_map_pool(items: int, call: Call, limit: int) -> Any:
    from headrace import CapacitySource, SourceIterObj

    return total(SourceIterObj(range(items)).map_pool(call, CapacitySource(limit)))


async def by_gather(items: int, call: Call, limit: int) -> int:
    """The usual recipe: all tasks are created at once, and most wait for the semaphore."""
    slots = asyncio.Semaphore(limit)

    async def one(x: int) -> int:
        async with slots:
            return await call(x)

    return sum(await asyncio.gather(*[one(x) for x in range(items)]))


async def by_anyio(items: int, call: Call, limit: int) -> int:
    import anyio

    slots = anyio.CapacityLimiter(limit)
    result = 0

    async def one(x: int) -> None:
        nonlocal result
        try:
            answer = await call(x)
            result += answer
        finally:
            slots.release_on_behalf_of(x)

    async with anyio.create_task_group() as group:
        for x in range(items):
            await slots.acquire_on_behalf_of(x)
            group.start_soon(one, x)
    return result


async def by_aiojobs(items: int, call: Call, limit: int) -> int:
    from aiojobs import Scheduler

    result = 0

    async def one(x: int) -> None:
        nonlocal result
        answer = await call(x)
        result += answer

    scheduler = Scheduler(limit=limit, pending_limit=1_000)
    for x in range(items):
        await scheduler.spawn(one(x))
    await scheduler.wait_and_close()
    return result


async def by_quattro(items: int, call: Call, limit: int) -> int:
    import quattro

    return sum(await quattro.gather(*[call(x) for x in range(items)], concurrency_limit=limit))


POOLS: dict[str, Any] = {
    "headrace": by_runner,
    "`map_pool`": by_map_pool,
    "anyio": by_anyio,
    "aiojobs": by_aiojobs,
    **{name: AS_FINISHED[name] for name in ("streamable", "aiostream", "aiometer", "aiochan")},
    "quattro": by_quattro,
    "gather": by_gather,
    "workers": AS_FINISHED["workers"],
}
"""Run at most `limit` calls at once, with results as they finish."""


def bound(libraries: dict[str, Any], call: Call, limit: int = LIMIT) -> dict[str, Run]:
    return {name: partial(run, call=call, limit=limit) for name, run in libraries.items()}


def row(what: str, call: Call, libraries: dict[str, Any], goal: Goal) -> Work:
    return Work(
        f"{what}, {LIMIT} at once",
        "TaskGroup, semaphore",
        partial(as_finished_by_hand, call=call, limit=LIMIT),
        bound(libraries, call),
        goal,
        items=50_000,
    )


# Without `workers`, which have no task per item.
TASKS = {name: run for name, run in POOLS.items() if name != "workers"} | {
    "`cooldown=False`": partial(by_runner, cooldown=False),
    "bare tasks": by_bare_tasks,
}

GROUP = [
    row("`return x`", same, TASKS, Goal(0.70, 0.35)),
    row("one loop iteration", iteration, TASKS, Goal(0.75)),
    Work(
        "5,000 of 10 ms, 1,000 at once",
        "five sleeps of 10 ms",
        at_best,
        bound(POOLS | {"TaskGroup, semaphore": as_finished_by_hand}, asleep, 1_000),
        Goal(1.50),
        items=5_000,
        clock=time.perf_counter,
        is_whole=True,
    ),
]
