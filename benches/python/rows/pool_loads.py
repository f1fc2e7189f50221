"""Whole loads of a pool: a crawl whose tasks discover more tasks, and calls on uvloop.

By hand, the crawl is a queue and workers, the usual recipe, in which an error ends a worker. headrace runs each node as a task, from a
buffer; `a task a node` does so with a `TaskGroup` and a `Semaphore`, and `map(concurrency=)` is a pull stream of the same buffer, which
has no capacity, events or retries. On uvloop, by hand is a row of tasks in order, and otherwise a
`TaskGroup` and a `Semaphore`.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from row import Goal, Work, uvloop_loop

from rows.concurrent_map import LIMIT, as_finished_by_hand, in_order_by_hand, two_iterations
from rows.pool_options import by_runner

if TYPE_CHECKING:
    from collections.abc import Callable

LINKS = 10


def found_at(node: int, items: int) -> range:
    """The nodes that a node leads to, in a tree of so many nodes."""
    return range(min(LINKS * node + 1, items), min(LINKS * (node + 1) + 1, items))


async def crawled_by_hand(items: int) -> int:
    queue: asyncio.Queue[int] = asyncio.Queue()
    result = 0

    async def work() -> None:
        nonlocal result
        while True:
            node = await queue.get()
            visited = await two_iterations(node)
            result += visited
            for found in found_at(node, items):
                queue.put_nowait(found)
            queue.task_done()

    queue.put_nowait(0)
    workers = [asyncio.create_task(work()) for _ in range(LIMIT)]
    await queue.join()
    for worker in workers:
        worker.cancel()
    await asyncio.wait(workers)
    return result


async def crawled_by_tasks(items: int) -> int:
    queue: asyncio.Queue[int] = asyncio.Queue()
    slots = asyncio.Semaphore(LIMIT)
    result = 0

    async def visit(node: int) -> None:
        nonlocal result
        try:
            visited = await two_iterations(node)
            result += visited
            for found in found_at(node, items):
                queue.put_nowait(found)
        finally:
            slots.release()

    queue.put_nowait(0)
    async with asyncio.TaskGroup() as group:
        for _ in range(items):
            node = await queue.get()
            await slots.acquire()
            group.create_task(visit(node))
    return result


async def crawled_by_runner(items: int) -> int:
    from headrace import CapacitySource, HierarchicalTaskPoolRunner, PushPullBufferObj

    queue: PushPullBufferObj[Callable[[], Any]] = PushPullBufferObj()

    async def visit(node: int) -> int:
        visited = await two_iterations(node)
        for found in found_at(node, items):
            queue.sink.next_nowait(partial(visit, found))
        return visited

    queue.sink.next_nowait(partial(visit, 0))
    result = done = 0
    async with HierarchicalTaskPoolRunner(queue.source, CapacitySource(LIMIT)).run_tasks() as run:
        async for envelope in run:
            result += envelope.value
            done += 1
            if done == items:
                queue.end()
    return result


async def crawled_by_map(items: int) -> int:
    from headrace import PushPullBufferObj

    queue: PushPullBufferObj[int] = PushPullBufferObj()

    async def visit(node: int) -> int:
        visited = await two_iterations(node)
        for found in found_at(node, items):
            queue.sink.next_nowait(found)
        return visited

    queue.sink.next_nowait(0)
    result = done = 0
    async for visited in queue.source.map(visit, concurrency=LIMIT, ordered=False):
        result += visited
        done += 1
        if done == items:
            queue.end()
    return result


def calls(*, ordered: bool) -> Any:
    return partial(by_runner, options={"ordered": ordered}, task=partial(partial, two_iterations))


def on_uvloop(name: str, baseline: str, by_hand: Any, run: Any, goal: float) -> Work:
    return Work(
        f"calls of two iterations on uvloop, {name}",
        baseline,
        partial(by_hand, call=two_iterations),
        {"headrace": run},
        Goal(goal),
        items=20_000,
        is_whole=True,
        loop=uvloop_loop,
    )


GROUP = [
    Work(
        f"a crawl of 50,000 nodes, {LIMIT} at once",
        "queue, workers",
        crawled_by_hand,
        {
            "headrace": crawled_by_runner,
            "map(concurrency=)": crawled_by_map,
            "a task a node": crawled_by_tasks,
        },
        Goal(1.0),
        items=50_000,
        is_whole=True,
    ),
    on_uvloop("in order", "a row of tasks", in_order_by_hand, calls(ordered=True), 1.0),
    on_uvloop(
        "as they finish", "TaskGroup, semaphore", as_finished_by_hand, calls(ordered=False), 0.9
    ),
]
