"""Tasks with options: the cost of each option, as a ratio to code by hand that has the same.

`return x`, 100 at once. By hand, a `TaskGroup` and a `Semaphore`, with `asyncio.timeout` for a timeout and a loop with `try` for a retry;
in order, a row of tasks. The last row measures wall time: tasks of 20 ms on an event loop that does 1 ms of other work in each iteration.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from row import Goal, Work

from rows.concurrent_map import LIMIT, as_finished_by_hand, in_order_by_hand, same

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

VALUES = 100


async def timed(x: int) -> int:
    async with asyncio.timeout(30):
        return await same(x)


async def retried(x: int) -> int:
    for attempt in range(3):
        try:
            return await same(x)
        except Exception:
            if attempt == 2:
                raise
            await asyncio.sleep(0.5 * 2**attempt)
    raise AssertionError


async def timed_and_retried(x: int) -> int:
    for attempt in range(3):
        try:
            return await timed(x)
        except Exception:
            if attempt == 2:
                raise
            await asyncio.sleep(0.5 * 2**attempt)
    raise AssertionError


def nothing(_: object) -> None:
    """The least that a hook can do."""


async def by_runner(
    items: int,
    options: dict[str, Any],
    task: Callable[[int], Any] | None = None,
    limits: Any = LIMIT,
) -> int:
    from headrace import CapacitySource, HierarchicalTaskPoolRunner

    tasks = (partial(same, x) if task is None else task(x) for x in range(items))
    runner = HierarchicalTaskPoolRunner(tasks, CapacitySource(limits), **options)
    result = 0
    async with runner.run_tasks() as progress:
        async for envelope in progress:
            result += envelope.value
    return result


def task_with(**options: Any) -> Callable[[int], Any]:
    from headrace import Task

    return lambda x: Task(same, x, **options)


def keyed() -> Callable[[int], Any]:
    from headrace import Task

    return lambda x: Task(same, x, key=x)


def with_tasks(**options: Any) -> Callable[[int], Any]:
    async def run(items: int) -> int:
        return await by_runner(items, {}, task_with(**options))

    return run


async def by_keyed(items: int) -> int:
    return await by_runner(items, {}, keyed())


async def by_slots_and_rate(items: int) -> int:
    from headrace import Rate

    limits = {"slots": LIMIT, "calls": Rate(1e9, 1)}
    return await by_runner(items, {}, task_with(cost={"slots": 1, "calls": 1}), limits)


async def values(x: int) -> AsyncIterator[int]:
    for value in range(VALUES):
        yield x + value


async def values_by_hand(items: int) -> int:
    queue: asyncio.Queue[int | None] = asyncio.Queue(1024)
    slots = asyncio.Semaphore(LIMIT)

    async def one(x: int) -> None:
        try:
            async for value in values(x):
                await queue.put(value)
        finally:
            slots.release()

    async def start() -> None:
        async with asyncio.TaskGroup() as group:
            for x in range(items // VALUES):
                await slots.acquire()
                group.create_task(one(x))
        await queue.put(None)

    starting = asyncio.create_task(start())
    result = 0
    while (value := await queue.get()) is not None:
        result += value
    await starting
    return result


async def values_by_runner(items: int) -> int:
    from headrace import CapacitySource, HierarchicalTaskPoolRunner

    tasks = (partial(values, x) for x in range(items // VALUES))
    result = 0
    async with HierarchicalTaskPoolRunner(tasks, CapacitySource(LIMIT)).run_tasks() as progress:
        async for envelope in progress:
            result += envelope.value or 0
    return result


async def busily(run: Callable[[], Any]) -> int:
    """Run something on an event loop that does 1 ms of other work in each iteration."""
    loop = asyncio.get_running_loop()
    is_over = False

    def work() -> None:
        until = time.perf_counter() + 0.001
        while time.perf_counter() < until:
            pass
        if not is_over:
            loop.call_soon(work)

    work()
    try:
        return int(await run())
    finally:
        is_over = True


async def short_sleep(x: int) -> int:
    await asyncio.sleep(0.02)
    return x


async def timed_sleep(x: int) -> int:
    async with asyncio.timeout(30):
        return await short_sleep(x)


def busy_by_hand(items: int) -> Any:
    return busily(partial(as_finished_by_hand, items, timed_sleep))


def busy_by_runner(items: int) -> Any:
    task = partial(partial, short_sleep)
    return busily(partial(by_runner, items, {"timeout": 30}, task))


def row(name: str, by_hand: Any, baseline: str, run: Any, goal: float) -> Work:
    return Work(
        f"{name}, {LIMIT} at once", baseline, by_hand, {"headrace": run}, Goal(goal), items=50_000
    )


def runner_with(**options: Any) -> Any:
    return partial(by_runner, options=options)


GROUP_OF_TASKS = "TaskGroup, semaphore"
PLAIN = partial(as_finished_by_hand, call=same)

GROUP = [
    row(
        "`timeout=30`",
        partial(as_finished_by_hand, call=timed),
        "+ `asyncio.timeout`",
        runner_with(timeout=30),
        0.40,
    ),
    row(
        "`retry=2`",
        partial(as_finished_by_hand, call=retried),
        "+ a loop with `try`",
        runner_with(retry=2),
        0.65,
    ),
    row(
        "a timeout and a retry",
        partial(as_finished_by_hand, call=timed_and_retried),
        "both",
        runner_with(timeout=30, retry=2),
        0.40,
    ),
    row(
        "`ordered=True`",
        partial(in_order_by_hand, call=same),
        "a row of tasks",
        runner_with(ordered=True),
        1.0,
    ),
    row("`lookahead=10`", PLAIN, GROUP_OF_TASKS, runner_with(lookahead=10), 1.0),
    row("a priority", PLAIN, GROUP_OF_TASKS, with_tasks(priority=1), 1.0),
    row("a queue timeout", PLAIN, GROUP_OF_TASKS, with_tasks(queue_timeout=60), 1.0),
    row("`on_complete`", PLAIN, GROUP_OF_TASKS, with_tasks(on_complete=nothing), 1.0),
    row("`Task(fn)`", PLAIN, GROUP_OF_TASKS, with_tasks(), 0.75),
    row("a key", PLAIN, GROUP_OF_TASKS, by_keyed, 0.85),
    row('cost `{"slots": 1}`', PLAIN, GROUP_OF_TASKS, with_tasks(cost={"slots": 1}), 0.85),
    row("slots and a rate", PLAIN, GROUP_OF_TASKS, by_slots_and_rate, 1.2),
    row(f"{VALUES} values a task", values_by_hand, "TaskGroup, queue", values_by_runner, 1.0),
    Work(
        "500 of 20 ms with a timeout, beside 1 ms of work an iteration",
        "TaskGroup, semaphore, `asyncio.timeout`",
        busy_by_hand,
        {"headrace": busy_by_runner},
        Goal(1.1),
        items=500,
        clock=time.perf_counter,
        is_whole=True,
    ),
]
