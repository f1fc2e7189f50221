"""Many threads and two loops at once: every item is delivered once, in order for each producer.

`make test` moves a hundred thousand items; `make soak` sets HEADRACE_SOAK to a factor by which that grows, and repeats
the run.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from headrace import PushPullBufferObj
from headrace.queue import Queue, QueueShutDown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PRODUCERS = 8
CONSUMERS = 8
LOOPS = 2
BOUNDS = [1, 16, None]
FACTOR = float(os.environ.get("HEADRACE_SOAK", "1"))
EACH = math.ceil(100_000 * FACTOR / len(BOUNDS) / PRODUCERS)

Item = tuple[int, int]


async def consume(get: Callable[[], Awaitable[Item]], received: list[list[Item]]) -> None:
    """Run the consumers of one loop."""

    async def take(into: list[Item]) -> None:
        while True:
            try:
                into.append(await get())
            except (QueueShutDown, StopAsyncIteration):
                return

    async with asyncio.TaskGroup() as group:
        for into in received:
            group.create_task(take(into))


def run(produce: Callable[[int], Any], get: Callable[[], Awaitable[Item]], end: Any) -> None:
    received: list[list[Item]] = [[] for _ in range(CONSUMERS)]
    consumers = [
        threading.Thread(target=asyncio.run, args=(consume(get, received[n::LOOPS]),))
        for n in range(LOOPS)
    ]
    producers = [threading.Thread(target=produce, args=(number,)) for number in range(PRODUCERS)]
    for thread in consumers + producers:
        thread.start()
    for thread in producers:
        thread.join()
    end()
    for thread in consumers:
        thread.join()
    for into in received:
        for number in range(PRODUCERS):
            numbers = [n for producer, n in into if producer == number]
            assert numbers == sorted(numbers), "in order per producer"
    items = [item for into in received for item in into]
    assert len(items) == PRODUCERS * EACH
    assert set(items) == {(number, n) for number in range(PRODUCERS) for n in range(EACH)}


@pytest.mark.timeout(60 + 200 * FACTOR)
@pytest.mark.parametrize("maxsize", BOUNDS)
def test_law_9_threads_share_a_queue_with_loops(maxsize: int | None) -> None:
    queue: Queue[Item] = Queue(maxsize or 0)

    def produce(number: int) -> None:
        for n in range(EACH):
            queue.put_sync((number, n))

    run(produce, queue.get, queue.shutdown)


@pytest.mark.timeout(60 + 200 * FACTOR)
@pytest.mark.parametrize("maxsize", BOUNDS)
def test_law_9_loops_in_threads_share_a_buffer(maxsize: int | None) -> None:
    buffer: PushPullBufferObj[Item] = PushPullBufferObj(maxsize)

    async def push(number: int) -> None:
        for n in range(EACH):
            await buffer.sink.next((number, n))

    def end() -> None:
        asyncio.run(buffer.sink.aclose())

    run(lambda number: asyncio.run(push(number)), buffer.source.__anext__, end)
