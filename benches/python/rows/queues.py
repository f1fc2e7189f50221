"""Queues: in one loop, and from a thread into a loop. One puts, one gets, item by item.

By hand, an `asyncio.Queue` with the same bound. headrace's queue is `headrace.queue.Queue`, its buffer a `PushPullBufferObj`. From a
thread, by hand is `call_soon_threadsafe(queue.put_nowait, x)` in all rows, which has no bound; `threadsafe coroutines` keep one with
`run_coroutine_threadsafe(queue.put(x), loop).result()`. A channel of aiochan must have a bound.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from by_hand import pump, pump_from_thread
from row import Goal, Work

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Put = Callable[[int], Any]
    Get = Callable[[], Awaitable[int]]


# In one loop.


async def by_hand(items: int, bound: int) -> int:
    queue: asyncio.Queue[int] = asyncio.Queue(bound)
    return await pump(queue.put, queue.get, items)


async def by_headrace(items: int, bound: int) -> int:
    from headrace.queue import Queue

    queue: Queue[int] = Queue(bound)
    return await pump(queue.put, queue.get, items)


async def buffer_by_headrace(items: int, bound: int) -> int:
    from headrace import PushPullBufferObj

    buffer: PushPullBufferObj[int] = PushPullBufferObj(bound or None)
    return await pump(buffer.sink.next, buffer.source.__anext__, items)


async def by_janus(items: int, bound: int) -> int:
    import janus

    queue: janus.Queue[int] = janus.Queue(bound)
    result = await pump(queue.async_q.put, queue.async_q.get, items)
    await queue.aclose()
    return result


async def by_culsans(items: int, bound: int) -> int:
    import culsans

    queue: culsans.Queue[int] = culsans.Queue(bound)
    return await pump(queue.async_q.put, queue.async_q.get, items)


async def by_aiologic(items: int, bound: int) -> int:
    import aiologic

    queue: aiologic.Queue[int] = aiologic.Queue(bound or None)
    return await pump(queue.async_put, queue.async_get, items)


async def by_aiochan(items: int, bound: int) -> int:
    import aiochan

    channel = aiochan.Chan(bound)
    return await pump(channel.put, channel.get, items)


IN_ONE_LOOP: dict[str, Any] = {
    "headrace": by_headrace,
    "janus": by_janus,
    "culsans": by_culsans,
    "aiologic": by_aiologic,
}


# From a thread.


async def from_thread_by_hand(items: int) -> int:
    queue: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    return await pump_from_thread(
        lambda x: loop.call_soon_threadsafe(queue.put_nowait, x), queue.get, items
    )


async def bounded_from_thread_by_hand(items: int, bound: int) -> int:
    queue: asyncio.Queue[int] = asyncio.Queue(bound)
    loop = asyncio.get_running_loop()
    return await pump_from_thread(
        lambda x: asyncio.run_coroutine_threadsafe(queue.put(x), loop).result(), queue.get, items
    )


async def from_thread_by_headrace(items: int, bound: int) -> int:
    from headrace.queue import Queue

    queue: Queue[int] = Queue(bound)
    return await pump_from_thread(queue.put_sync, queue.get, items)


async def buffer_from_thread_by_headrace(items: int) -> int:
    from headrace import PushPullBufferObj

    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    return await pump_from_thread(buffer.sink.next_nowait, buffer.source.__anext__, items)


async def from_thread_by_janus(items: int, bound: int) -> int:
    import janus

    queue: janus.Queue[int] = janus.Queue(bound)
    result = await pump_from_thread(queue.sync_q.put, queue.async_q.get, items)
    await queue.aclose()
    return result


async def from_thread_by_culsans(items: int, bound: int) -> int:
    import culsans

    queue: culsans.Queue[int] = culsans.Queue(bound)
    return await pump_from_thread(queue.sync_q.put, queue.async_q.get, items)


async def from_thread_by_aiologic(items: int, bound: int) -> int:
    import aiologic

    queue: aiologic.Queue[int] = aiologic.Queue(bound or None)
    return await pump_from_thread(queue.green_put, queue.async_get, items)


FROM_THREAD: dict[str, Any] = {
    "headrace": from_thread_by_headrace,
    "janus": from_thread_by_janus,
    "culsans": from_thread_by_culsans,
    "aiologic": from_thread_by_aiologic,
}


# From a full queue: only the gets are timed.


async def full_by_hand(items: int) -> AsyncIterator[int]:
    queue: asyncio.Queue[int] = asyncio.Queue()
    for x in range(items):
        queue.put_nowait(x)
    get, result = queue.get, 0
    yield 0
    for _ in range(items):
        result += await get()
    yield result


async def full_by_headrace(items: int, *, by_async_for: bool) -> AsyncIterator[int]:
    from headrace import PushPullBufferObj

    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    for x in range(items):
        buffer.sink.next_nowait(x)
    await buffer.sink.return_()
    source, result = buffer.source, 0
    yield 0
    if by_async_for:
        async for x in source:
            result += x
    else:
        for _ in range(items):
            result += await anext(source)
    yield result


def told(bound: int) -> str:
    return f"bound {bound}" if bound else "unbounded"


def in_one_loop(bound: int, goal: float) -> Work:
    libraries = IN_ONE_LOOP | ({"aiochan": by_aiochan} if bound else {})
    return Work(
        f"a queue in one loop, {told(bound)}",
        "`asyncio.Queue`",
        partial(by_hand, bound=bound),
        {library: partial(run, bound=bound) for library, run in libraries.items()},
        Goal(goal),
    )


def buffer_in_one_loop(bound: int, goal: float) -> Work:
    return Work(
        f"a buffer in one loop, {told(bound)}",
        "`asyncio.Queue`",
        partial(by_hand, bound=bound),
        {"headrace": partial(buffer_by_headrace, bound=bound)},
        Goal(goal),
    )


def from_thread(bound: int, goal: float) -> Work:
    bounded = {"threadsafe coroutines": bounded_from_thread_by_hand}
    return Work(
        f"a thread to a loop, {told(bound)}",
        "`call_soon_threadsafe`, `asyncio.Queue`",
        from_thread_by_hand,
        {
            library: partial(run, bound=bound)
            for library, run in (FROM_THREAD | (bounded if bound else {})).items()
        },
        Goal(goal),
        # Two threads run in parallel, so wall time counts.
        clock=time.perf_counter,
    )


GROUP = [
    *(in_one_loop(bound, goal) for bound, goal in ((1, 0.70), (100, 0.28), (0, 0.28))),
    *(buffer_in_one_loop(bound, goal) for bound, goal in ((1, 0.70), (100, 0.28), (0, 0.28))),
    *(from_thread(bound, goal) for bound, goal in ((0, 0.04), (100, 0.25))),
    Work(
        "a thread to a loop, `PushPullBufferObj`",
        "`call_soon_threadsafe`, `asyncio.Queue`",
        from_thread_by_hand,
        {"headrace": buffer_from_thread_by_headrace},
        Goal(0.05),
        clock=time.perf_counter,
    ),
    Work(
        "an item out of a full buffer, by `await anext`",
        "`asyncio.Queue.get`",
        full_by_hand,
        {"headrace": partial(full_by_headrace, by_async_for=False)},
        Goal(0.30),
    ),
    Work(
        "an item out of a full buffer, by `async for`",
        "`asyncio.Queue.get`",
        full_by_hand,
        {"headrace": partial(full_by_headrace, by_async_for=True)},
        Goal(0.30),
    ),
]
