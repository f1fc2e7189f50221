"""Code by hand on asyncio, the baseline of all ratios."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

END = object()


def inc(x: int) -> int:
    return x + 1


def keep(x: int) -> bool:
    return x % 7 != 0


async def numbers(count: int) -> AsyncIterator[int]:
    for x in range(count):
        yield x


async def mapped(function: Callable[[int], int], source: AsyncIterator[int]) -> AsyncIterator[int]:
    async for x in source:
        yield function(x)


async def filtered(
    function: Callable[[int], bool], source: AsyncIterator[int]
) -> AsyncIterator[int]:
    async for x in source:
        if function(x):
            yield x


async def one_turn_each(count: int) -> AsyncIterator[int]:
    for x in range(count):
        await asyncio.sleep(0)
        yield x


async def total(stream: Any) -> int:
    result = 0
    async for x in stream:
        result += x
    return result


async def merged_by_queue(sources: list[AsyncIterator[int]]) -> AsyncIterator[int]:
    """A task for each source, and a bounded queue."""
    queue: asyncio.Queue[Any] = asyncio.Queue(len(sources))

    async def pump(source: AsyncIterator[int]) -> None:
        async for x in source:
            await queue.put(x)
        await queue.put(END)

    tasks = [asyncio.create_task(pump(source)) for source in sources]
    left = len(tasks)
    try:
        while left:
            x = await queue.get()
            if x is END:
                left -= 1
            else:
                yield x
    finally:
        for task in tasks:
            task.cancel()


async def zipped(sources: list[AsyncIterator[int]]) -> AsyncIterator[tuple[int, ...]]:
    pulls = [source.__anext__ for source in sources]
    while True:
        try:
            yield tuple([await pull() for pull in pulls])
        except StopAsyncIteration:
            return


async def in_turn(sources: list[AsyncIterator[int]]) -> AsyncIterator[int]:
    pulls = [source.__anext__ for source in sources]
    while pulls:
        for pull in tuple(pulls):
            try:
                yield await pull()
            except StopAsyncIteration:
                pulls.remove(pull)


async def in_ring(sources: list[AsyncIterator[int]]) -> AsyncIterator[int]:
    """Round-robin over many sources: an ended one costs nothing."""
    ring = deque(source.__anext__ for source in sources)
    while ring:
        try:
            while True:
                yield await ring[0]()
                ring.rotate(-1)
        except StopAsyncIteration:
            ring.popleft()


async def pump(put: Callable[[int], Any], get: Callable[[], Any], count: int) -> int:
    """Another task puts, this one gets."""

    async def produce() -> None:
        for x in range(count):
            await put(x)

    task = asyncio.create_task(produce())
    result = 0
    for _ in range(count):
        result += await get()
    await task
    return result


async def pump_from_thread(put: Callable[[int], Any], get: Callable[[], Any], count: int) -> int:
    """A thread puts, this task gets."""

    def produce() -> None:
        for x in range(count):
            put(x)

    thread = threading.Thread(target=produce)
    thread.start()
    result = 0
    for _ in range(count):
        result += await get()
    await asyncio.to_thread(thread.join)
    return result


async def broadcast(items: int, sinks: int) -> int:
    """A queue of 100 and a task for each sink, which decouples them."""
    each = items // sinks
    queues: list[asyncio.Queue[int]] = [asyncio.Queue(100) for _ in range(sinks)]
    result = 0

    async def consume(queue: asyncio.Queue[int]) -> None:
        nonlocal result
        for _ in range(each):
            x = await queue.get()
            result += x

    tasks = [asyncio.create_task(consume(queue)) for queue in queues]
    for x in range(each):
        for queue in queues:
            await queue.put(x)
    for task in tasks:
        await task
    return result
