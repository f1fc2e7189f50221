"""What one push costs: through stages, and into many sinks.

    make bench

Each row is a ratio to what one would write by hand on asyncio, measured in the same process.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from by_hand import broadcast, inc, keep
from harness import Case, main

from headrace import (
    PushFilterObj,
    PushForkObj,
    PushMapObj,
    PushPullBufferObj,
    SinkCallbackObj,
    SinkCollectObj,
)

if TYPE_CHECKING:
    from collections.abc import Callable


class Collect:
    """The end of a line by hand."""

    def __init__(self) -> None:
        self.items: list[int] = []

    async def next(self, item: int) -> None:
        self.items.append(item)


class Map:
    def __init__(self, sink: Any, function: Callable[[int], int]) -> None:
        self.sink = sink
        self.function = function

    async def next(self, item: int) -> None:
        await self.sink.next(self.function(item))


class Filter:
    def __init__(self, sink: Any, function: Callable[[int], bool]) -> None:
        self.sink = sink
        self.function = function

    async def next(self, item: int) -> None:
        if self.function(item):
            await self.sink.next(item)


def stages(count: int, goal: float, *, with_filter: bool) -> Case:
    def is_filter(number: int) -> bool:
        return with_filter and number % 2 == 1

    async def by_hand(items: int) -> list[int]:
        sink = Collect()
        line: Any = sink
        for number in reversed(range(count)):
            line = Filter(line, keep) if is_filter(number) else Map(line, inc)
        for x in range(items):
            await line.next(x)
        return sink.items

    async def by_headrace(items: int) -> list[int]:
        sink: SinkCollectObj[int] = SinkCollectObj()
        line: Any = sink
        for number in reversed(range(count)):
            line = PushFilterObj(line, keep) if is_filter(number) else PushMapObj(line, inc)
        for x in range(items):
            await line.next(x)
        return sink.buffer

    kind = "map/filter" if with_filter else "map"
    return Case(
        f"a push through {count} {kind} stages", "async methods", by_hand, by_headrace, goal
    )


def broadcast_to_callbacks(sinks: int, goal: float) -> Case:
    async def by_headrace(items: int) -> int:
        total = 0

        def add(x: int) -> None:
            nonlocal total
            total += x

        fork = PushForkObj([SinkCallbackObj(add) for _ in range(sinks)])
        for x in range(items // sinks):
            await fork.next(x)
        return total

    return Case(
        f"broadcast to {sinks} callbacks",
        "a queue and a task for each",
        partial(broadcast, sinks=sinks),
        by_headrace,
        goal,
        items=100_000,
    )


def broadcast_to_lists(sinks: int, goal: float) -> Case:
    async def by_headrace(items: int) -> int:
        collected: list[SinkCollectObj[int]] = [SinkCollectObj() for _ in range(sinks)]
        fork = PushForkObj(collected)
        for x in range(items // sinks):
            await fork.next(x)
        return sum(sum(sink.buffer) for sink in collected)

    return Case(
        f"broadcast to {sinks} lists",
        "a queue and a task for each",
        partial(broadcast, sinks=sinks),
        by_headrace,
        goal,
        items=100_000,
    )


def broadcast_to_buffers(sinks: int, goal: float) -> Case:
    async def by_headrace(items: int) -> int:
        buffers: list[PushPullBufferObj[int]] = [PushPullBufferObj(100) for _ in range(sinks)]
        total = 0

        async def consume(buffer: PushPullBufferObj[int]) -> None:
            nonlocal total
            async for x in buffer.source:
                total += x

        tasks = [asyncio.create_task(consume(buffer)) for buffer in buffers]
        fork = PushForkObj([buffer.sink for buffer in buffers])
        for x in range(items // sinks):
            await fork.next(x)
        await fork.return_()
        for task in tasks:
            await task
        return total

    return Case(
        f"broadcast to {sinks} bounded buffers and their tasks",
        "a queue and a task for each",
        partial(broadcast, sinks=sinks),
        by_headrace,
        goal,
        items=100_000,
    )


def cases() -> list[Case]:
    goals = ((2, 0.12), (10, 0.10), (100, 0.10))
    return [
        stages(1, 1.0, with_filter=False),
        stages(5, 0.5, with_filter=False),
        stages(5, 0.5, with_filter=True),
        *(broadcast_to_callbacks(sinks, goal) for sinks, goal in goals),
        *(broadcast_to_lists(sinks, goal) for sinks, goal in goals),
        *(broadcast_to_buffers(sinks, 1.0) for sinks, _ in goals),
    ]


if __name__ == "__main__":
    main(__doc__, cases)
