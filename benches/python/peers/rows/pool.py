"""Tasks under a limit: what each costs beside those of other pools."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from peers.row import Goal, Group, Work, total
from peers.rows.concurrent_map import AS_FINISHED, as_finished_by_hand, same, turn

if TYPE_CHECKING:
    from peers.row import Run
    from peers.rows.concurrent_map import Call

LIMIT = 100


async def asleep(x: int) -> int:
    await asyncio.sleep(0.01)
    return x


async def by_runner(items: int, call: Call, limit: int, *, isolate: bool = True) -> int:
    from headrace import CapacitySource, HierarchicalTaskPoolRunner

    tasks = (partial(call, x) for x in range(items))
    runner = HierarchicalTaskPoolRunner(tasks, CapacitySource(limit), isolate=isolate)
    result = 0
    async with runner.run_tasks() as progress:
        async for envelope in progress:
            result += envelope.value
    return result


def by_map_pool(items: int, call: Call, limit: int) -> Any:
    from headrace import CapacitySource, SourceIterObj

    return total(SourceIterObj(range(items)).map_pool(call, CapacitySource(limit)))


async def by_gather(items: int, call: Call, limit: int) -> int:
    """The usual recipe: all tasks are made at once, and most of them wait at the semaphore."""
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
    "`isolate=False`": partial(by_runner, isolate=False),
    "`map_pool`": by_map_pool,
    "anyio": by_anyio,
    "aiojobs": by_aiojobs,
    **{name: AS_FINISHED[name] for name in ("streamable", "aiostream", "aiometer", "aiochan")},
    "quattro": by_quattro,
    "gather": by_gather,
    "workers": AS_FINISHED["workers"],
}
"""What runs so many calls at once and gives their results as they end."""


def bound(call: Call, limit: int) -> dict[str, Run]:
    return {name: partial(run, call=call, limit=limit) for name, run in POOLS.items()}


GROUP = Group(
    "A pool of tasks",
    f"An async callable over a range, {LIMIT} at once but in the last row; what comes of each is added up. By hand it is a `TaskGroup`, "
    "and a `Semaphore` that is taken before a task is made. headrace's is a `HierarchicalTaskPoolRunner`, which tells of each task in an "
    "envelope; with `isolate=False` tasks share asyncio tasks; `map_pool` is the same as a stream of results. anyio is a task group and a "
    "`CapacityLimiter` taken likewise. `gather` makes all tasks at once, and so does quattro. `workers` share an iterator and make no task "
    "an item. "
    "The last row is timed by the wall's clock; no pool can do it in less than 50 ms.",
    [
        Work(
            "`return x`",
            partial(as_finished_by_hand, call=same, limit=LIMIT),
            bound(same, LIMIT),
            Goal(0.60, 0.35),
            items=50_000,
        ),
        Work(
            "one turn of the loop",
            partial(as_finished_by_hand, call=turn, limit=LIMIT),
            bound(turn, LIMIT),
            Goal(0.75, 0.75),
            items=50_000,
        ),
        Work(
            "5,000 of 10 ms, 1,000 at once",
            partial(as_finished_by_hand, call=asleep, limit=1_000),
            bound(asleep, 1_000),
            items=5_000,
            clock=time.perf_counter,
            is_whole=True,
        ),
    ],
)
