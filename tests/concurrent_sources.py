"""Sources and callables for the tests of `map` with a concurrency."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

from headrace import SourceBufferObj, SourceIterObj
from tests.support import yield_to_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


VARIANTS: list[dict[str, Any]] = [
    {"on_cancel": "keep"},
    {"concurrency": 1, "on_cancel": "keep", "ordered": False},
    {"concurrency": 2},
    {"concurrency": 5, "window": 5},
    {"concurrency": 3, "window": 20, "ordered": False},
    {"concurrency": 3, "window": 8, "partition_by": lambda n: hash(n) % 2},
    {"concurrency": 4, "ordered": False, "partition_by": lambda n: hash(n) % 3, "per_key": 2},
]


async def slow(n: int) -> int:
    await yield_to_loop(n % 4)
    return n * 10


class Gauge:
    """A callable that counts its running calls, each of a random duration on the loop's clock."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.calls: Counter[int] = Counter()
        self.running = self.most_running = 0

    async def __call__(self, n: int) -> int:
        self.calls[n] += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(self.rng.choice((0, 0.001, 0.01, self.rng.random())))
        finally:
            self.running -= 1
        return n * 10


class RecordedSource:
    """An async generator that records the tasks that drive it, and the one that closes it."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.pulled_count = 0
        self.tasks: set[asyncio.Task[Any] | None] = set()
        self.closed_by: asyncio.Task[Any] | None = None

    async def __aiter__(self) -> AsyncIterator[int]:
        try:
            for n in range(self.count):
                self.tasks.add(asyncio.current_task())
                self.pulled_count += 1
                yield n
                await asyncio.sleep(0)
        finally:
            self.closed_by = asyncio.current_task()
            await asyncio.sleep(0)


def sources(count: int) -> Iterator[Any]:
    async def generator() -> AsyncIterator[int]:
        for n in range(count):
            await yield_to_loop(n % 2)
            yield n

    yield range(count)
    yield iter(range(count))
    yield generator()
    yield SourceBufferObj(range(count))
    yield RecordedSource(count)
    yield SourceIterObj(range(count)).map(slow).map(lambda n: n // 10)


async def outcomes_of(stream: Any, between: Callable[[], Any]) -> list[int]:
    """Pull a stream to its end; return its items, and the items whose calls failed."""
    outcomes: list[int] = []
    while True:
        try:
            outcomes.append(await anext(stream))
        except ValueError as error:
            outcomes.append(error.args[0])
        except StopAsyncIteration:
            return outcomes
        await between()
