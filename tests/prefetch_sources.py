"""Sources that count their pulls, for the tests of `prefetch`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from headrace import (
        PullObj,
    )


class CountedSource:
    """A source that counts its pulls, and records the tasks that drive and close it."""

    def __init__(self, count: int, *, delay: float | None = None) -> None:
        self.count = count
        self.delay = delay
        self.pulls = 0
        self.tasks: set[Any] = set()
        self.closed: list[Any] = []

    def __aiter__(self) -> AsyncIterator[int]:
        return self._items()

    async def _items(self) -> AsyncIterator[int]:
        try:
            for n in range(self.count):
                self.pulls += 1
                self.tasks.add(asyncio.current_task())
                if self.delay is not None:
                    await asyncio.sleep(self.delay)
                yield n
            self.pulls += 1
        finally:
            await asyncio.sleep(0)
            self.closed.append(asyncio.current_task())


class Failing:
    """An async iterator over a script. It raises the exceptions in it, and continues."""

    def __init__(self, *script: int | BaseException) -> None:
        self.script = list(script)

    def __aiter__(self) -> Failing:
        return self

    async def __anext__(self) -> int:
        await asyncio.sleep(0)
        if not self.script:
            raise StopAsyncIteration
        outcome = self.script.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


async def pull_one(stream: PullObj[Any]) -> Any:
    return await anext(stream)
