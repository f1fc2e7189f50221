"""Queues: in one loop, and from a thread into a loop."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from by_hand import pump, pump_from_thread

from peers.row import Goal, Group, Work

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

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


IN_ONE_LOOP = {
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


FROM_THREAD = {
    "headrace": from_thread_by_headrace,
    "janus": from_thread_by_janus,
    "culsans": from_thread_by_culsans,
    "aiologic": from_thread_by_aiologic,
}


def in_one_loop(bound: int, goal: float) -> Work:
    libraries = IN_ONE_LOOP | ({"aiochan": by_aiochan} if bound else {})
    return Work(
        f"in one loop, {f'bound {bound}' if bound else 'no bound'}",
        partial(by_hand, bound=bound),
        {library: partial(run, bound=bound) for library, run in libraries.items()},
        Goal(goal, goal),
    )


def from_thread(bound: int, goal: float) -> Work:
    return Work(
        f"a thread to a loop, {f'bound {bound}' if bound else 'no bound'}",
        from_thread_by_hand,
        {
            **{library: partial(run, bound=bound) for library, run in FROM_THREAD.items()},
            **(
                {"threadsafe coroutines": partial(bounded_from_thread_by_hand, bound=bound)}
                if bound
                else {}
            ),
        },
        Goal(goal, goal),
        # Two threads work at once, so what counts is the time on the wall.
        clock=time.perf_counter,
    )


GROUP = Group(
    "Queues",
    "One puts, one gets, item by item; by hand, an `asyncio.Queue` with the same bound. headrace's is `headrace.queue.Queue`. "
    "From a thread it is `call_soon_threadsafe(queue.put_nowait, x)` by hand, which knows no bound, in both rows; "
    "`threadsafe coroutines` is what keeps one, `run_coroutine_threadsafe(queue.put(x), loop).result()`. Those rows are "
    "timed by the wall's clock. A channel of aiochan has to have a bound.",
    [
        *(in_one_loop(bound, goal) for bound, goal in ((1, 0.70), (100, 0.28), (0, 0.28))),
        *(from_thread(bound, goal) for bound, goal in ((0, 0.04), (100, 0.25))),
    ],
)
