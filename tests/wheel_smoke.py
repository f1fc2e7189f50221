"""Smoke test of an installed wheel without other packages: `python tests/wheel_smoke.py`."""

from __future__ import annotations

import asyncio
import threading
from importlib import import_module

import headrace
from headrace import CapacitySource, PushPullBufferObj
from headrace.queue import Queue


async def main() -> None:
    """Push from a thread through a buffer that is often full, and process the items under a limit."""
    loop = asyncio.get_running_loop()
    numbers: PushPullBufferObj[int] = PushPullBufferObj(8)
    limit, queue = CapacitySource(3), Queue[int]()

    def push() -> None:
        for number in range(1_000):
            asyncio.run_coroutine_threadsafe(numbers.sink.next(number), loop).result()
        asyncio.run_coroutine_threadsafe(numbers.sink.return_(), loop).result()

    async def keep(number: int) -> int:
        await queue.put(number)
        return number

    thread = threading.Thread(target=push)
    thread.start()
    async with numbers.source.filter(lambda number: number % 2).map_pool(keep, limit) as odd:
        assert sorted(await odd.collect()) == list(range(1, 1_000, 2))
    thread.join()
    assert (limit.held, queue.qsize()) == (0, 500)


for name in import_module("headrace").__all__:
    assert getattr(headrace, name) is not None
asyncio.run(main())
print(headrace.__version__, "works")
