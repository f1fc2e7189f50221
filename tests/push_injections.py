"""Cancellations of a push at each suspension, and pipelines to inject them into."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from headrace import SinkObj
from tests.support import yield_to_loop

if TYPE_CHECKING:
    from collections.abc import Awaitable


@types.coroutine
def cancel_at(awaitable: Awaitable[Any], at: int) -> Generator[Any, Any, Any]:
    """Await, and cancel the current task at suspension number `at`."""
    inner: Any = awaitable.__await__()
    suspensions = 0
    step: Callable[[Any], Any] = inner.send
    sent: Any = None
    while True:
        try:
            yielded = step(sent)
        except StopIteration as stop:
            return stop.value
        suspensions += 1
        if suspensions == at:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        try:
            step, sent = inner.send, (yield yielded)
        except BaseException as error:
            step, sent = inner.throw, error


def accepted_by(cancelled: asyncio.CancelledError) -> tuple[Any, ...]:
    """Return the sinks that accepted the item despite the cancellation."""
    names: tuple[Any, ...] = getattr(cancelled, "accepted_by", ())
    return names


Inject = Callable[["Awaitable[Any]", int], "Awaitable[asyncio.CancelledError | None]"]


async def at_suspension(awaitable: Awaitable[Any], at: int) -> asyncio.CancelledError | None:
    """Return the cancellation, or None if the awaitable ended before that suspension."""
    return await asyncio.create_task(run(cancel_at(awaitable, at)))


async def after_turns(awaitable: Awaitable[Any], at: int) -> asyncio.CancelledError | None:
    """Cancel from outside, after `at` event-loop iterations."""
    task = asyncio.create_task(run(awaitable))
    if at > 0:
        await yield_to_loop(at)
        task.cancel()
    return await task


async def run(awaitable: Awaitable[Any]) -> asyncio.CancelledError | None:
    try:
        await awaitable
    except asyncio.CancelledError as error:
        return error
    return None


injections = pytest.mark.parametrize("inject", [at_suspension, after_turns])


class Slow(SinkObj[Any]):
    """Needs two event-loop iterations to accept an item."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[Any] = []

    async def next_impl(self, item: Any) -> None:
        await yield_to_loop(2)
        self.items.append(item)


async def delayed(n: Any) -> Any:
    await yield_to_loop(1)
    return n


@dataclass
class Pipeline:
    """A pipeline, its sinks, and for each sink the push objects between it and a fork."""

    top: Any
    ends: list[Any]
    above: list[list[Any]] = field(default_factory=list)
    items: list[Any] = field(default_factory=lambda: list(range(6)))

    def lacking(self, names: tuple[Any, ...]) -> list[Any]:
        """Return the sinks that are covered neither by their own name nor by that of an object above them."""
        covers = self.above or [[] for _ in self.ends]
        return [
            end
            for end, above in zip(self.ends, covers, strict=True)
            if not any(name is one for name in names for one in (end, *above))
        ]


async def push_uncancelled(build: Callable[[], Pipeline]) -> list[list[Any]]:
    pipeline = build()
    for item in pipeline.items:
        await pipeline.top.next(item)
    await pipeline.top.return_()
    return [end.items for end in pipeline.ends]
