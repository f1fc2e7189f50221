"""An async callable over many items, 100 at once.

By hand, in input order: a queue of tasks, of which the oldest is awaited; a slow head blocks later calls. As they finish: a `TaskGroup`
and a `Semaphore`, which discard the results. `driver and queue` is the closest equivalent: a task that pulls the source, a semaphore for
the calls, a bounded window. `workers` share an iterator without a task per item: the floor, if one error may end the run. aiometer,
aioitertools and quattro return results in input order only at the end, from a list of all items. `pool` is a
`HierarchicalTaskPoolRunner`, which adds a capacity and events.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from by_hand import inc, total
from row import Goal, Work, total_in_a_block, uvloop_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Call = Callable[[int], Awaitable[int]]

LIMIT = 100


async def same(x: int) -> int:
    return x


async def iteration(x: int) -> int:
    await asyncio.sleep(0)
    return x


async def two_iterations(x: int) -> int:
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return x


async def three_iterations(x: int) -> int:
    for _ in range(3):
        await asyncio.sleep(0)
    return x


async def in_order_by_hand(items: int, call: Call) -> int:
    """A queue of tasks, of which the oldest is awaited."""
    result = 0
    tasks: deque[asyncio.Task[int]] = deque()
    async with asyncio.TaskGroup() as group:
        for x in range(items):
            if len(tasks) >= LIMIT:
                result += await tasks.popleft()
            tasks.append(group.create_task(call(x)))
        while tasks:
            result += await tasks.popleft()
    return result


async def driven(items: int, call: Call) -> AsyncIterator[int]:
    slots = asyncio.Semaphore(LIMIT)
    results: asyncio.Queue[asyncio.Task[int] | None] = asyncio.Queue(2 * LIMIT)

    async def one(x: int) -> int:
        try:
            return await call(x)
        finally:
            slots.release()

    async def drive() -> None:
        async with asyncio.TaskGroup() as group:
            for x in range(items):
                await slots.acquire()
                await results.put(group.create_task(one(x)))
        await results.put(None)

    driver = asyncio.create_task(drive())
    try:
        while (task := await results.get()) is not None:
            yield await task
    finally:
        driver.cancel()


async def ahead(items: int) -> AsyncIterator[int]:
    """A task runs ahead by a window."""
    results: asyncio.Queue[int | None] = asyncio.Queue(2 * LIMIT)

    async def drive() -> None:
        for x in range(items):
            await results.put(inc(x))
        await results.put(None)

    driver = asyncio.create_task(drive())
    try:
        while (result := await results.get()) is not None:
            yield result
    finally:
        driver.cancel()


def ahead_by_hand(items: int) -> Any:
    return total(ahead(items))


async def as_finished_by_hand(items: int, call: Call, limit: int = LIMIT) -> int:
    """The semaphore is acquired before a task is created, so at most `limit` tasks exist."""
    result = 0
    slots = asyncio.Semaphore(limit)

    async def one(x: int) -> None:
        nonlocal result
        try:
            answer = await call(x)
            result += answer
        finally:
            slots.release()

    async with asyncio.TaskGroup() as group:
        for x in range(items):
            await slots.acquire()
            group.create_task(one(x))
    return result


async def by_workers(items: int, call: Call, limit: int = LIMIT) -> int:
    """Workers share an iterator, without a task per item; an error ends all of them."""
    result = 0
    numbers = iter(range(items))

    async def work() -> None:
        nonlocal result
        for x in numbers:
            answer = await call(x)
            result += answer

    async with asyncio.TaskGroup() as group:
        for _ in range(limit):
            group.create_task(work())
    return result


def by_headrace(items: int, call: Callable[[int], Any], *, ordered: bool) -> Any:
    from headrace import SourceIterObj

    return total(SourceIterObj(range(items)).map(call, concurrency=LIMIT, ordered=ordered))


def by_aiostream(items: int, call: Call, limit: int = LIMIT, *, ordered: bool) -> Any:
    from aiostream import stream

    line = stream.map(stream.iterate(range(items)), call, ordered=ordered, task_limit=limit)
    return total_in_a_block(line.stream())


def by_streamable(items: int, call: Call, limit: int = LIMIT, *, ordered: bool) -> Any:
    from streamable import stream

    return total(stream(range(items)).map(call, concurrency=limit, as_completed=not ordered))


async def in_order_by_aiometer(items: int, call: Call) -> int:
    import aiometer

    return sum(await aiometer.run_all([partial(call, x) for x in range(items)], max_at_once=LIMIT))


def as_finished_by_aiometer(items: int, call: Call, limit: int = LIMIT) -> Any:
    import aiometer

    return total_in_a_block(aiometer.amap(call, range(items), max_at_once=limit))


async def in_order_by_aioitertools(items: int, call: Call) -> int:
    from aioitertools.asyncio import gather

    return sum(await gather(*[call(x) for x in range(items)], limit=LIMIT))


async def in_order_by_quattro(items: int, call: Call) -> int:
    import quattro

    return sum(await quattro.gather(*[call(x) for x in range(items)], concurrency_limit=LIMIT))


def by_aiochan(items: int, call: Call, limit: int = LIMIT, *, ordered: bool) -> Any:
    import aiochan

    source = aiochan.from_range(items)
    pipe = source.async_pipe if ordered else source.async_pipe_unordered
    return total(pipe(limit, call))


def as_finished_by_pypeln(items: int, call: Call, limit: int = LIMIT) -> Any:
    from pypeln import task

    source = task.from_iterable(range(items), maxsize=limit)
    return total(task.map(call, source, workers=limit, maxsize=limit))


async def as_finished_by_reactivex(items: int, call: Call, limit: int = LIMIT) -> int:
    import reactivex
    from reactivex import operators

    result = 0
    done = asyncio.get_running_loop().create_future()

    def on_next(item: int) -> None:
        nonlocal result
        result += item

    def started(x: int) -> Any:
        return reactivex.defer(lambda _: reactivex.from_future(asyncio.ensure_future(call(x))))

    reactivex.from_iterable(range(items)).pipe(
        operators.map(started), operators.merge(max_concurrent=limit)
    ).subscribe(on_next, done.set_exception, lambda: done.set_result(None))
    await done
    return result


IN_ORDER: dict[str, Any] = {
    "headrace": partial(by_headrace, ordered=True),
    "driver and queue": lambda items, call: total(driven(items, call)),
    "aiostream": partial(by_aiostream, ordered=True),
    "streamable": partial(by_streamable, ordered=True),
    "aiometer": in_order_by_aiometer,
    "aioitertools": in_order_by_aioitertools,
    "quattro": in_order_by_quattro,
    "aiochan": partial(by_aiochan, ordered=True),
}
AS_FINISHED: dict[str, Any] = {
    "headrace": partial(by_headrace, ordered=False),
    "workers": by_workers,
    "aiostream": partial(by_aiostream, ordered=False),
    "streamable": partial(by_streamable, ordered=False),
    "aiometer": as_finished_by_aiometer,
    "aiochan": partial(by_aiochan, ordered=False),
    "pypeln": as_finished_by_pypeln,
    "reactivex": as_finished_by_reactivex,
}


ROWS = (
    ("`return x`, in input order", same, in_order_by_hand, IN_ORDER),
    ("one loop iteration, in input order", iteration, in_order_by_hand, IN_ORDER),
    ("three loop iterations, in input order", three_iterations, in_order_by_hand, IN_ORDER),
    ("`return x`, as they finish", same, as_finished_by_hand, AS_FINISHED),
    ("one loop iteration, as they finish", iteration, as_finished_by_hand, AS_FINISHED),
)
BASELINES: dict[Any, str] = {
    in_order_by_hand: "TaskGroup, a row of tasks",
    as_finished_by_hand: "TaskGroup, semaphore",
}

GROUP = [
    *(
        Work(
            name,
            BASELINES[by_hand],
            partial(by_hand, call=call),
            {library: partial(run, call=call) for library, run in libraries.items()},
            Goal(1.50),
            items=50_000,
        )
        for name, call, by_hand, libraries in ROWS
    ),
    *(
        Work(
            f"20,000 of two loop iterations on uvloop, {order}",
            BASELINES[by_hand],
            partial(by_hand, call=two_iterations),
            {"headrace": partial(by_headrace, call=two_iterations, ordered=ordered)},
            Goal(goal),
            items=20_000,
            is_whole=True,
            loop=uvloop_loop,
        )
        for order, by_hand, ordered, goal in (
            ("in input order", in_order_by_hand, True, 1.0),
            ("as they finish", as_finished_by_hand, False, 0.9),
        )
    ),
    Work(
        "a sync callable, in input order",
        "a task that runs ahead, a queue",
        ahead_by_hand,
        {"headrace": partial(by_headrace, call=inc, ordered=True)},
        Goal(1.50),
        items=50_000,
    ),
]
