"""The cost of a task while many tasks are live: 100, and 100,000.

Each task waits for a future of its own, and all live tasks continue when the last of them waits. By hand, a `TaskGroup` and a
`Semaphore`, or a row of tasks in order, with as many tasks live at once; with `asyncio.timeout` for timeouts. `growth` is the cost of a
task among 100,000 as a multiple of its cost among 100. Code by hand grows too: most of it is the garbage collector of CPython, which
traverses the objects of each live task.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from row import Goal, Probe, Run, Work

from rows.concurrent_map import as_finished_by_hand
from rows.pool_options import by_runner

if TYPE_CHECKING:
    from collections.abc import Callable

    from rows.concurrent_map import Call

FEW, MANY = 100, 100_000


class Gate:
    """A call that waits until all tasks that can be live wait."""

    def __init__(self, items: int, live: int) -> None:
        self._left = items
        self._live = live
        self._waiting: list[asyncio.Future[None]] = []
        self._loop = asyncio.get_running_loop()

    async def __call__(self, x: int) -> int:
        future = self._loop.create_future()
        self._waiting.append(future)
        self._left -= 1
        if len(self._waiting) == self._live or not self._left:
            ready, self._waiting = self._waiting, []
            for one in ready:
                one.set_result(None)
        await future
        return x


async def timed(x: int, call: Call) -> int:
    async with asyncio.timeout(3600):
        return await call(x)


async def by_hand(items: int, live: int) -> int:
    return await as_finished_by_hand(items, Gate(items, live), live)


async def timed_by_hand(items: int, live: int) -> int:
    return await as_finished_by_hand(items, partial(timed, call=Gate(items, live)), live)


async def in_order_by_hand(items: int, live: int) -> int:
    call = Gate(items, live)
    tasks: deque[asyncio.Task[int]] = deque()
    result = 0
    async with asyncio.TaskGroup() as group:
        for x in range(items):
            if len(tasks) >= live:
                result += await tasks.popleft()
            tasks.append(group.create_task(call(x)))
        while tasks:
            result += await tasks.popleft()
    return result


async def by_pool(
    items: int, live: int, options: dict[str, Any], task: Callable[[Call, int], Any]
) -> int:
    options = {"max_buffered": max(live, 1024), **options}
    return await by_runner(items, options, partial(task, Gate(items, live)), live)


def with_key(call: Call, x: int) -> Any:
    from headrace import Task

    return Task(call, x, key=x)


def pool_with(task: Callable[[Call, int], Any] = partial, **options: Any) -> Any:
    return partial(by_pool, options=options, task=task)


KINDS: dict[str, tuple[str, Any, Any]] = {
    "plain": ("TaskGroup, semaphore", by_hand, pool_with()),
    "in order": ("a row of tasks", in_order_by_hand, pool_with(ordered=True)),
    "with a timeout": ("+ `asyncio.timeout`", timed_by_hand, pool_with(timeout=3600)),
    "with a key": ("TaskGroup, semaphore", by_hand, pool_with(with_key)),
}


def row(kind: str, live: int) -> Work:
    baseline, hand, run = KINDS[kind]
    return Work(
        f"{kind}, {live:,} live",
        baseline,
        partial(hand, live=live),
        {"headrace": partial(run, live=live)},
        Goal(1.0),
        items=MANY,
        is_whole=live == MANY,
    )


async def seconds(run: Run, items: int) -> float:
    """Return the processor time of an item, the best of three after a warm-up."""
    best = float("inf")
    for attempt in range(4):
        begun = time.process_time()
        await run(items)
        if attempt:
            best = min(best, (time.process_time() - begun) / items)
    return best


async def growth(run: Callable[..., Any]) -> str:
    few = await seconds(partial(run, live=FEW), MANY // 5)
    return f"{await seconds(partial(run, live=MANY), MANY) / few:.1f} times"


def growth_of(kind: str) -> Probe:
    _, hand, run = KINDS[kind]
    libraries = {"headrace": partial(growth, run), "by hand": partial(growth, hand)}
    return Probe(f"growth, {kind}", "<= 2 times", libraries, is_alone=True)


GROUP = [
    *(row(kind, live) for kind in KINDS for live in (FEW, MANY)),
    *(growth_of(kind) for kind in KINDS),
]
