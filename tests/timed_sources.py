"""Sources that follow a schedule, and the times of their items."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def now() -> float:
    return asyncio.get_running_loop().time()


async def with_times(stream: Any) -> list[tuple[Any, float]]:
    """Return the items with their times from now on."""
    started = now()
    return [(item, round(now() - started, 6)) async for item in stream]


async def scripted(*script: Any) -> AsyncIterator[Any]:
    """Sleep for each float, and yield the other steps."""
    for step in script:
        if isinstance(step, float):
            await asyncio.sleep(step)
        else:
            yield step


class Script:
    """A scripted iterator that continues after an error."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.closed = 0

    def __aiter__(self) -> Script:
        return self

    async def __anext__(self) -> Any:
        while self.script:
            step = self.script.pop(0)
            if isinstance(step, float):
                await asyncio.sleep(step)
            elif isinstance(step, BaseException):
                raise step
            else:
                return step
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed += 1
