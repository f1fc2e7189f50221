"""What a queue costs: in one loop, and from a thread into a loop.

    make bench

Each row is a ratio to `asyncio.Queue` used by hand for the same work, measured in the same process. From a thread that
is `call_soon_threadsafe(queue.put_nowait, item)`, which has no bound at all.
"""

from __future__ import annotations

import asyncio
import time

from by_hand import pump, pump_from_thread
from harness import Case, main

from headrace import PushPullBufferObj
from headrace.queue import Queue


def bound(maxsize: int) -> str:
    return f"bound {maxsize}" if maxsize else "unbounded"


def in_one_loop(maxsize: int, goal: float) -> Case:
    async def by_hand(count: int) -> int:
        queue: asyncio.Queue[int] = asyncio.Queue(maxsize)
        return await pump(queue.put, queue.get, count)

    async def by_headrace(count: int) -> int:
        queue: Queue[int] = Queue(maxsize)
        return await pump(queue.put, queue.get, count)

    name = f"a queue in one loop, {bound(maxsize)}"
    items = 50_000 if maxsize == 1 else 200_000
    return Case(name, "`asyncio.Queue`", by_hand, by_headrace, goal=goal, items=items)


def stream_in_one_loop(maxsize: int, goal: float) -> Case:
    async def by_hand(count: int) -> int:
        queue: asyncio.Queue[int] = asyncio.Queue(maxsize)
        return await pump(queue.put, queue.get, count)

    async def by_headrace(count: int) -> int:
        buffer: PushPullBufferObj[int] = PushPullBufferObj(maxsize or None)
        return await pump(buffer.sink.next, buffer.source.__anext__, count)

    name = f"a buffer in one loop, {bound(maxsize)}"
    items = 50_000 if maxsize == 1 else 200_000
    return Case(name, "`asyncio.Queue`", by_hand, by_headrace, goal=goal, items=items)


def thread_to_loop(maxsize: int, goal: float) -> Case:
    async def by_hand(count: int) -> int:
        queue: asyncio.Queue[int] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        return await pump_from_thread(
            lambda x: loop.call_soon_threadsafe(queue.put_nowait, x), queue.get, count
        )

    async def by_headrace(count: int) -> int:
        queue: Queue[int] = Queue(maxsize)
        return await pump_from_thread(queue.put_sync, queue.get, count)

    return Case(
        f"a thread to a loop, {bound(maxsize)}",
        "`call_soon_threadsafe` + `asyncio.Queue`",
        by_hand,
        by_headrace,
        goal=goal,
        items=50_000,
        # Two threads work at once, so what counts is the time on the wall.
        clock=time.perf_counter,
    )


def cases() -> list[Case]:
    return [
        *(in_one_loop(maxsize, goal) for maxsize, goal in ((1, 0.70), (100, 0.28), (0, 0.28))),
        *(
            stream_in_one_loop(maxsize, goal)
            for maxsize, goal in ((1, 0.70), (100, 0.28), (0, 0.28))
        ),
        thread_to_loop(0, 0.04),
        thread_to_loop(100, 0.25),
    ]


if __name__ == "__main__":
    main(__doc__, cases)
