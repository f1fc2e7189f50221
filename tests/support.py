"""What the tests of streams have in common."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Gate", "collect", "turns", "until", "wrong"]


async def collect(stream: Any) -> list[Any]:
    """All that is left of a stream."""
    return [item async for item in stream]


async def turns(count: int) -> None:
    """Lets the loop have its turn, `count` times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object], most: int = 10_000) -> None:
    """Waits for what must come true within so many turns of the loop."""
    for _ in range(most):
        if condition():
            return
        await asyncio.sleep(0)
    pytest.fail("the condition never came true")


def wrong(value: Any) -> Any:
    """A value of the wrong type, past the type checkers."""
    return value


class Gate:
    """Lets a callable wait until the test says so, and counts its calls."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.calls: list[Any] = []

    async def __call__(self, item: Any) -> Any:
        self.calls.append(item)
        await self.open.wait()
        return item * 10
