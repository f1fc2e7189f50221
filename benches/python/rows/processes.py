"""Calls in two worker processes, beside `loop.run_in_executor` with a `ProcessPoolExecutor`.

A ratio below 1 is faster. All workers are ready before a run begins, and both sides run in turn in one process. 64 callers make the calls
of the first rows, each one after another; headrace gets a `map_pool` with a limit of 64, which adds a capacity and events. The time of the
third row is the CPU time of the driver with all of its threads, without that of its workers. One caller makes the round trips; headrace
gets `await executor.submit(task)` for them. anyio keeps its own idle workers, and sends a call only to one of them.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from row import Goal, Probe, Work

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from concurrent.futures import Executor

    Call = Callable[[Any], Awaitable[Any]]
    Started = tuple[Call, Callable[[], Any]]
    """A call of the function in a worker, and the function that closes the pool."""
    Pool = Callable[[Callable[[Any], Any]], Awaitable[Started]]

WORKERS = 2
CALLERS = 64
ROUND_TRIPS = 1_500
STREAMED = 30_000


def same(value: Any) -> Any:
    return value


def compute(number: int) -> int:
    """Use a millisecond of CPU."""
    end = time.process_time() + 0.001
    while time.process_time() < end:
        pass
    return number


def wait_briefly(number: int) -> int:
    time.sleep(0.05)
    return number


async def count(number: int) -> AsyncIterator[int]:
    for value in range(number):
        yield value


async def warm(call: Call) -> None:
    """Make calls until all workers of a pool have run one."""
    await asyncio.gather(*(call(number) for number in range(4 * WORKERS)))


async def of_futures(make: Callable[[int], Executor], fn: Callable[[Any], Any]) -> Started:
    loop = asyncio.get_running_loop()
    executor = make(WORKERS)
    await warm(lambda number: loop.run_in_executor(executor, wait_briefly, number))
    return lambda value: loop.run_in_executor(executor, fn, value), executor.shutdown


def by_hand(fn: Callable[[Any], Any]) -> Awaitable[Started]:
    return of_futures(ProcessPoolExecutor, fn)


def by_loky(fn: Callable[[Any], Any]) -> Awaitable[Started]:
    from loky import ProcessPoolExecutor as Loky

    return of_futures(Loky, fn)


async def by_pebble(fn: Callable[[Any], Any]) -> Started:
    from pebble import ProcessPool

    pool = ProcessPool(max_workers=WORKERS)

    def close() -> None:
        pool.close()
        pool.join()

    await warm(lambda value: asyncio.wrap_future(pool.submit(wait_briefly, None, value)))
    return lambda value: asyncio.wrap_future(pool.submit(fn, None, value)), close


async def by_anyio(fn: Callable[[Any], Any]) -> Started:
    from anyio import CapacityLimiter, to_process

    limiter = CapacityLimiter(WORKERS)
    await warm(lambda value: to_process.run_sync(wait_briefly, value, limiter=limiter))
    # Its workers end with the event loop.
    return lambda value: to_process.run_sync(fn, value, limiter=limiter), lambda: None


async def ready_executor() -> Any:
    from headrace import ProcessExecutor

    executor = ProcessExecutor(WORKERS)
    await executor.start()
    while (executor.capabilities.slots or 0) < 2 * WORKERS:  # noqa: ASYNC110 (it has no event)
        await asyncio.sleep(0.001)
    return executor


async def by_submit(fn: Callable[[Any], Any]) -> Started:
    from headrace import Task

    executor = await ready_executor()

    async def call(value: Any) -> Any:
        return await executor.submit(Task(fn, value))

    return call, executor.aclose


async def ended(close: Callable[[], Any]) -> None:
    """Close a pool."""
    closing = close()
    if inspect.isawaitable(closing):
        await closing


async def many(items: int, pool: Pool, fn: Callable[[int], int]) -> AsyncIterator[int]:
    """Make the calls, 64 at once."""
    numbers = iter(range(items))
    call, close = await pool(fn)

    async def work() -> int:
        return sum([await call(number) for number in numbers])

    try:
        yield 0
        yield sum(await asyncio.gather(*(work() for _ in range(CALLERS))))
    finally:
        await ended(close)


async def many_by_map_pool(items: int, fn: Callable[[int], int]) -> AsyncIterator[int]:
    from headrace import SourceIterObj

    executor = await ready_executor()
    try:
        yield 0
        stream = SourceIterObj(range(items)).map_pool(fn, CALLERS, executor=executor)
        async with stream as results:
            yield sum([result async for result in results])
    finally:
        await executor.aclose()


async def one_by_one(items: int, pool: Pool, value: bytes) -> AsyncIterator[int]:
    """Send a value there and back, again and again."""
    call, close = await pool(same)
    try:
        yield 0
        yield sum([len(await call(value)) for _ in range(items)])
    finally:
        await ended(close)


async def median_ratio(pool: Pool) -> str:
    """The median time of a round trip of 1 KB, beside that of the code by hand in the same process."""
    value = os.urandom(1_000)
    medians = {by_hand: float("inf"), pool: float("inf")}
    for _ in range(3):
        for each, best in medians.items():
            call, close = await each(same)
            times: list[float] = []
            for _ in range(ROUND_TRIPS):
                before = time.perf_counter()
                await call(value)
                times.append(time.perf_counter() - before)
            await ended(close)
            medians[each] = min(best, statistics.median(times))
    return f"{medians[pool] / medians[by_hand]:.2f}, {medians[pool] * 1e6:.0f} us"


async def streamed_in_a_second() -> str:
    from headrace import Task

    rates: list[float] = []
    executor = await ready_executor()
    for _ in range(5):
        before = time.perf_counter()
        read = sum([1 async for _ in executor.submit(Task(count, STREAMED))])
        rates.append(read / (time.perf_counter() - before))
    await executor.aclose()
    return f"{max(rates):.0f}"


def rows_of(fn: Callable[[int], int]) -> dict[str, Any]:
    pools: dict[str, Pool] = {"loky": by_loky, "pebble": by_pebble, "anyio": by_anyio}
    return {
        "headrace": partial(many_by_map_pool, fn=fn),
        **{name: partial(many, pool=pool, fn=fn) for name, pool in pools.items()},
    }


POOLS: dict[str, Pool] = {
    "headrace": by_submit,
    "loky": by_loky,
    "pebble": by_pebble,
    "anyio": by_anyio,
}
BASELINE = "`run_in_executor`"
TEN_MEGABYTES = bytes(10_000_000)

GROUP = [
    Work(
        "`return x`, 64 at once",
        BASELINE,
        partial(many, pool=by_hand, fn=same),
        rows_of(same),
        Goal(0.40),
        items=2_000,
        clock=time.perf_counter,
        is_whole=True,
    ),
    Work(
        "1 ms of CPU, 64 at once",
        BASELINE,
        partial(many, pool=by_hand, fn=compute),
        rows_of(compute),
        Goal(0.83),
        items=1_000,
        clock=time.perf_counter,
        is_whole=True,
    ),
    Work(
        "the driver's CPU for 1 ms of CPU, 64 at once",
        BASELINE,
        partial(many, pool=by_hand, fn=compute),
        rows_of(compute),
        Goal(0.60),
        items=1_000,
        is_whole=True,
    ),
    Work(
        "10 MB there and back",
        BASELINE,
        partial(one_by_one, pool=by_hand, value=TEN_MEGABYTES),
        {name: partial(one_by_one, pool=pool, value=TEN_MEGABYTES) for name, pool in POOLS.items()},
        Goal(1.0),
        items=10,
        clock=time.perf_counter,
        is_whole=True,
    ),
    Probe(
        "1 KB there and back, median beside `run_in_executor`",
        "<= 0.5",
        {name: partial(median_ratio, pool) for name, pool in POOLS.items()},
        is_alone=True,
    ),
    Probe(
        "values yielded by a call, in a second",
        ">= 30000",
        {"headrace": streamed_in_a_second},
        is_alone=True,
    ),
]
