"""What the tests of streams have in common."""

from __future__ import annotations

import asyncio
import inspect
import time
from contextvars import ContextVar
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

import pytest

import headrace
from headrace import PullObj, PushObj, SourceObj, WrongLoopError

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Awaitable, Callable

__all__ = [
    "EXPORTED",
    "OPERATORS",
    "Failing",
    "Gate",
    "Heart",
    "Sources",
    "belongs_to_its_loop",
    "cancelled_often",
    "collect",
    "eventually",
    "insisted",
    "quiet",
    "step_into",
    "turns",
    "until",
    "wrong",
]

# By its name: checkers do not see `__all__`, which is derived at the first use.
EXPORTED: list[str] = import_module("headrace").__all__

# Every class that an item goes through, but for those that are there to be derived from.
OPERATORS = [
    thing
    for name in EXPORTED
    if inspect.isclass(thing := getattr(headrace, name))
    and issubclass(thing, (PullObj, PushObj))
    and not name.endswith(("1To1Link", "SourceObj", "SinkObj", "PullObj", "PushObj"))
]

where: ContextVar[str] = ContextVar("where", default="nowhere")


async def collect(stream: Any) -> list[Any]:
    """All that is left of a stream."""
    return [item async for item in stream]


async def cancelled_often(
    stream: Any, rng: random.Random, most: int = 8, spare: int = 4
) -> tuple[list[Any], int]:
    """All items of a stream whose pulls are cancelled at random, and how often one was.

    Args:
        stream: What is pulled to its end.
        rng: Says when.
        most: A pull is given fewer turns of the loop than that.
        spare: After so many cancellations a pull is let through; 0: never.
    """
    received: list[Any] = []
    cancelled = 0
    while True:
        pull = asyncio.ensure_future(anext(stream))
        await turns(rng.randrange(most))
        pull.cancel()
        try:
            received.append(await pull)
        except asyncio.CancelledError:
            cancelled += 1
            if not spare or cancelled % spare:
                continue
            try:
                received.append(await anext(stream))
            except StopAsyncIteration:
                return received, cancelled
        except StopAsyncIteration:
            return received, cancelled


async def insisted(
    task: asyncio.Task[Any], cleaning: asyncio.Event, cleaned: asyncio.Event
) -> None:
    """Cancels a task, and again while it cleans up: it ends cancelled, and no sooner than that is done.

    Args:
        task: It waits.
        cleaning: Set by the clean-up when it begins.
        cleaned: What the clean-up waits for.
    """
    task.cancel()
    await cleaning.wait()
    for _ in range(3):
        task.cancel()
        await quiet()
        assert not task.done()
    cleaned.set()
    with pytest.raises(asyncio.CancelledError):
        await task


def belongs_to_its_loop(stream: Any, begun: Callable[[], Awaitable[object]]) -> None:
    """Holds what was begun in one loop to its being refused in another, and closed in its own.

    Args:
        stream: It can be pulled and closed.
        begun: What begins it.
    """

    async def begin() -> None:
        await begun()

    async def elsewhere() -> None:
        with pytest.raises(WrongLoopError):
            await anext(stream)
        with pytest.raises(WrongLoopError):
            await stream.aclose()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    asyncio.run(elsewhere())
    loop.run_until_complete(stream.aclose())
    loop.close()


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


async def eventually(condition: Callable[[], object], most: float = 30.0) -> None:
    """Waits for what another thread must bring about within so many seconds.

    Turns of this loop say nothing about it: a busy machine may give the loop ten thousand before the thread has one.
    """
    end = time.monotonic() + most
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"the condition did not come true within {most:g} seconds")
        await asyncio.sleep(0.001)


def step_into(source: Any, awaitable: Any) -> None:
    """Steps what is awaited to where an async generator waits, in there.

    Before that, who finds items ready lets the loop turn when half a millisecond is over, as it is on a busy machine.
    """
    while source.ag_await is None:
        awaitable.send(None)


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


class Heart:
    """Beats once a turn of the loop, within `async with`: what holds the loop up, holds it up."""

    def __init__(self) -> None:
        self.beats = 0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _beat(self) -> None:
        while True:
            self.beats += 1
            await asyncio.sleep(0)


async def quiet() -> None:
    """Gives everything that can go on the turns to do so."""
    for _ in range(20):
        await asyncio.sleep(0)


class Sources:
    """Endless sources that note how they ended, and hold a context variable meanwhile."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    async def source(self, name: str, turns: int = 1) -> AsyncIterator[str]:
        token = where.set(name)
        task = asyncio.current_task()
        try:
            while True:
                for _ in range(turns):
                    await asyncio.sleep(0)
                yield name
        finally:
            assert asyncio.current_task() is task
            await asyncio.sleep(0)
            where.reset(token)
            self.ended.append(name)


class Failing(SourceObj[int]):
    """A source that cannot be closed."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    async def __anext__(self) -> int:
        return 1

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        raise ValueError(self.name)
