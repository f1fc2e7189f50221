"""What one item costs: awaiting it, moving it through stages, and across threads.

    make bench

Each row is a ratio to what one would write by hand on asyncio, measured in the same process.
"""

from __future__ import annotations

import asyncio
import operator
import time
from typing import TYPE_CHECKING, Any

from by_hand import filtered, inc, keep, mapped, numbers, pump_from_thread, total
from harness import Case, main

from headrace import PullObj, PushPullBufferObj, SourceIterObj

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


async def same(x: int) -> int:
    return x


async def exhaust(stream: Any) -> None:
    async for _ in stream:
        pass


def empty() -> Case:
    return Case(
        "an empty `async for`",
        "async generator",
        lambda n: exhaust(numbers(n)),
        lambda n: exhaust(SourceIterObj(range(n))),
        goal=0.60,
    )


def full_buffer(*, by_async_for: bool) -> Case:
    async def by_hand(count: int) -> int:
        queue: asyncio.Queue[int] = asyncio.Queue()
        for x in range(count):
            queue.put_nowait(x)
        get, result = queue.get, 0
        begun = time.process_time()
        for _ in range(count):
            result += await get()
        spent[0] = time.process_time() - begun
        return result

    async def by_headrace(count: int) -> int:
        buffer: PushPullBufferObj[int] = PushPullBufferObj()
        for x in range(count):
            buffer.sink.next_nowait(x)
        await buffer.sink.return_()
        source, result = buffer.source, 0
        begun = time.process_time()
        if by_async_for:
            async for x in source:
                result += x
        else:
            for _ in range(count):
                result += await anext(source)
        spent[0] = time.process_time() - begun
        return result

    spent = [0.0]

    class Clock:
        """Counts the time of getting alone: every second call ends a run."""

        def __init__(self) -> None:
            self.began = True

        def __call__(self) -> float:
            self.began = not self.began
            return spent[0] if self.began else 0.0

    name = "an item out of a full buffer, by " + (
        "`async for`" if by_async_for else "`await anext`"
    )
    return Case(name, "`asyncio.Queue.get`", by_hand, by_headrace, goal=0.30, clock=Clock())


def thread_push() -> Case:
    async def by_hand(count: int) -> int:
        queue: asyncio.Queue[int] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        return await pump_from_thread(
            lambda x: loop.call_soon_threadsafe(queue.put_nowait, x), queue.get, count
        )

    async def by_headrace(count: int) -> int:
        buffer: PushPullBufferObj[int] = PushPullBufferObj()
        return await pump_from_thread(buffer.sink.next_nowait, buffer.source.__anext__, count)

    return Case(
        "a thread's push, received by a loop",
        "`call_soon_threadsafe` + `asyncio.Queue`",
        by_hand,
        by_headrace,
        goal=0.05,
        items=100_000,
        clock=time.perf_counter,
    )


def stages(count: int, goal: float) -> Case:
    def by_hand(items: int) -> Any:
        stream = numbers(items)
        for number in range(count):
            stream = filtered(keep, stream) if number % 2 else mapped(inc, stream)
        return total(stream)

    def by_headrace(items: int) -> Any:
        stream: PullObj[int] = SourceIterObj(range(items))
        for number in range(count):
            stream = stream.filter(keep) if number % 2 else stream.map(inc)
        return total(stream)

    return Case(
        f"{count} map/filter stage{'s' * (count > 1)}",
        "async generators",
        by_hand,
        by_headrace,
        goal,
    )


def collected(count: int) -> Case:
    async def by_builtins(items: int) -> list[int]:
        stream: Iterator[int] = iter(range(items))
        for number in range(count):
            stream = filter(keep, stream) if number % 2 else map(inc, stream)
        return list(stream)

    async def by_headrace(items: int) -> list[int]:
        stream: PullObj[int] = SourceIterObj(range(items))
        for number in range(count):
            stream = stream.filter(keep) if number % 2 else stream.map(inc)
        return await stream.collect()

    return Case(
        f"`collect()` of {count} map/filter stages",
        "`list(map(filter(...)))`, synchronous",
        by_builtins,
        by_headrace,
        goal=1.15,
    )


def foreign() -> Case:
    return Case(
        "a foreign async generator as source",
        "iterating it",
        lambda n: total(numbers(n)),
        lambda n: total(SourceIterObj(numbers(n))),
        goal=1.10,
    )


def async_callable() -> Case:
    async def awaited(count: int) -> AsyncIterator[int]:
        for x in range(count):
            yield await same(x)

    return Case(
        "an async callable that does not suspend",
        "`yield await f(x)`",
        lambda n: total(awaited(n)),
        lambda n: total(SourceIterObj(range(n)).map(same)),
        goal=0.85,
    )


def running_sum() -> Case:
    async def summed(count: int) -> AsyncIterator[int]:
        result = 0
        async for x in numbers(count):
            result += x
            yield result

    return Case(
        "a running sum",
        "async generators",
        lambda n: total(summed(n)),
        lambda n: total(SourceIterObj(range(n)).reduce(operator.add)),
        goal=0.45,
    )


def window_and_flatten() -> Case:
    async def batched(count: int) -> AsyncIterator[list[int]]:
        batch: list[int] = []
        async for x in numbers(count):
            batch.append(x)
            if len(batch) == 100:
                yield batch
                batch = []
        if batch:
            yield batch

    async def flattened(count: int) -> AsyncIterator[int]:
        async for batch in batched(count):
            for x in batch:
                yield x

    return Case(
        "windows of 100, flattened again",
        "async generators",
        lambda n: total(flattened(n)),
        lambda n: total(SourceIterObj(range(n)).window(100).flatten()),
        goal=0.35,
    )


def cases() -> list[Case]:
    pipeline = [
        stages(count, goal) for count, goal in ((1, 0.50), (3, 0.42), (5, 0.42), (10, 0.40))
    ]
    return [
        empty(),
        full_buffer(by_async_for=False),
        full_buffer(by_async_for=True),
        thread_push(),
        *pipeline,
        *(collected(count) for count in (3, 5, 10)),
        foreign(),
        async_callable(),
        running_sum(),
        window_and_flatten(),
    ]


if __name__ == "__main__":
    main(__doc__, cases)
