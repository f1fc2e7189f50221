"""Helpers for the tests of caches."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from headrace import HierarchicalTaskPoolRunner
from headrace.cache import Cache, LruStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headrace import CapacitySource, Task
    from headrace.cache import CacheStore

__all__ = [
    "Calls",
    "Sleeps",
    "cache_of",
    "count_rows",
    "identity",
    "outcomes",
    "runner_of",
]


def identity(item: Any) -> Any:
    return item


def cache_of(
    store: CacheStore | None = None, *, key: Callable[..., Any] = identity, ttl: float | None = None
) -> Cache:
    """Return a cache in front of a store; by default in memory, of 100 entries."""
    return Cache(LruStore(100) if store is None else store, key=key, ttl=ttl)


def count_rows(path: Path) -> int:
    """Return the number of results that are committed."""
    with closing(sqlite3.connect(path)) as connection:
        count: int = connection.execute("SELECT count(*) FROM results").fetchone()[0]
        return count


class Calls:
    """An async function that records its calls, and waits in each until the test opens it.

    Args:
        is_open: Whether the calls need not wait for the test.
        error: The error that each call raises at its end.
        iterations: The number of event-loop iterations of a call, and of its clean-up.
    """

    def __init__(
        self, *, is_open: bool = True, error: Exception | None = None, iterations: int = 2
    ) -> None:
        self.open = asyncio.Event()
        if is_open:
            self.open.set()
        self.error = error
        self.iterations = iterations
        self.begun: list[Any] = []
        self.ended: list[Any] = []
        self.cancelled: list[Any] = []
        self.cleaned: list[Any] = []

    @property
    def running(self) -> int:
        return len(self.begun) - len(self.ended)

    async def __call__(self, item: Any) -> Any:
        self.begun.append(item)
        try:
            await self.open.wait()
            for _ in range(self.iterations):
                await asyncio.sleep(0)
            if self.error is not None:
                raise self.error
        except asyncio.CancelledError:
            self.cancelled.append(item)
            for _ in range(self.iterations):
                await asyncio.sleep(0)
            self.cleaned.append(item)
            raise
        finally:
            self.ended.append(item)
        return item, "result"


class Sleeps:
    """An async function that records its calls, and sleeps.

    Args:
        seconds: The time of each call; the last one is that of all further calls.
        errors: The errors of the first calls, in order; None for a result.
    """

    def __init__(self, *seconds: float, errors: tuple[Exception | None, ...] = ()) -> None:
        self.seconds = seconds
        self.errors = errors
        self.begun: list[float] = []
        self.stopped: list[float] = []

    async def __call__(self, item: str) -> str:
        loop = asyncio.get_running_loop()
        number = len(self.begun)
        self.begun.append(loop.time())
        try:
            await asyncio.sleep(self.seconds[min(number, len(self.seconds) - 1)])
        except asyncio.CancelledError:
            self.stopped.append(loop.time())
            raise
        if number < len(self.errors) and (error := self.errors[number]) is not None:
            raise error
        return item


async def outcomes(runner: HierarchicalTaskPoolRunner) -> dict[int, tuple[float, str]]:
    """Run a runner; return the time and the kind of the end of each task, by its id."""
    loop = asyncio.get_running_loop()
    found: dict[int, tuple[float, str]] = {}
    async with runner.run_tasks() as run:
        async for event in run:
            kind = "value" if event.error is None else type(event.error).__name__
            found[event.task_id] = loop.time(), kind
    return found


def runner_of(
    tasks: list[Task], node: CapacitySource | int, cache: Cache, **options: Any
) -> HierarchicalTaskPoolRunner:
    return HierarchicalTaskPoolRunner(tasks, node, cache=cache, **options)
