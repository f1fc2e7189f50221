"""The cost of a push through stages. By hand, objects with an async method `next`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from by_hand import inc, keep
from row import Goal, Work

if TYPE_CHECKING:
    from collections.abc import Callable


class Collect:
    """The sink of a pipeline by hand."""

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


def stages(count: int, goal: float, *, with_filter: bool) -> Work:
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
        from headrace import PushFilterObj, PushMapObj, SinkCollectObj

        sink: SinkCollectObj[int] = SinkCollectObj()
        line: Any = sink
        for number in reversed(range(count)):
            line = PushFilterObj(line, keep) if is_filter(number) else PushMapObj(line, inc)
        for x in range(items):
            await line.next(x)
        return sink.buffer

    kind = "map/filter" if with_filter else "map"
    return Work(
        f"a push through {count} {kind} stage{'s' * (count > 1)}",
        "async methods",
        by_hand,
        {"headrace": by_headrace},
        Goal(goal),
    )


GROUP = [
    stages(1, 1.0, with_filter=False),
    stages(5, 0.5, with_filter=False),
    stages(5, 0.5, with_filter=True),
]
