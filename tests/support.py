"""Helpers for the tests of streams."""

from __future__ import annotations

import asyncio
import inspect
import time
from contextvars import ContextVar
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

import pytest

import headrace
from headrace import Budget, CapacitySource, PullObj, PushObj, SourceObj, WrongLoopError

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

__all__ = [
    "EXPORTED",
    "OPERATORS",
    "Failing",
    "Gate",
    "Heart",
    "Sources",
    "assert_bound_to_loop",
    "budget_capacity",
    "cancel_repeatedly",
    "collect",
    "collect_with_cancellations",
    "eventually",
    "generate",
    "quiet",
    "step_into",
    "until",
    "wrong",
    "yield_to_loop",
]

# Imported by name: checkers do not see `__all__`, which is derived at the first use.
EXPORTED: list[str] = import_module("headrace").__all__

# Every class of an operator, source or sink, except base classes.
OPERATORS = [
    thing
    for name in EXPORTED
    if inspect.isclass(thing := getattr(headrace, name))
    and issubclass(thing, (PullObj, PushObj))
    and not name.endswith(("1To1Link", "SourceObj", "SinkObj", "PullObj", "PushObj"))
]

where: ContextVar[str] = ContextVar("where", default="nowhere")


async def collect(stream: Any) -> list[Any]:
    """Collect the remaining items of a stream."""
    return [item async for item in stream]


async def collect_with_cancellations(
    stream: Any, rng: random.Random, most: int = 8, spare: int = 4
) -> tuple[list[Any], int]:
    """Collect a stream while cancelling pulls at random; return the items and the number of cancellations.

    Args:
        stream: The stream, which is pulled to its end.
        rng: Determines when a pull is cancelled.
        most: A pull gets fewer event-loop iterations than this.
        spare: After this many cancellations, one pull is not cancelled; 0: never.
    """
    received: list[Any] = []
    cancelled = 0
    while True:
        pull = asyncio.ensure_future(anext(stream))
        await yield_to_loop(rng.randrange(most))
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


async def cancel_repeatedly(
    task: asyncio.Task[Any], cleaning: asyncio.Event, cleaned: asyncio.Event
) -> None:
    """Cancel a task, also during its clean-up: it must end cancelled, and only after its clean-up.

    Args:
        task: A task that waits.
        cleaning: Set by the clean-up when it starts.
        cleaned: The event that the clean-up waits for.
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


def assert_bound_to_loop(stream: Any, start: Callable[[], Awaitable[object]]) -> None:
    """Assert that a stream started in one loop is refused in another, and can be closed in its own.

    Args:
        stream: A stream that can be pulled and closed.
        start: Starts it.
    """

    async def begin() -> None:
        await start()

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


async def yield_to_loop(count: int) -> None:
    """Yield to the event loop `count` times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object], most: int = 10_000) -> None:
    """Wait until a condition is true, for at most so many event-loop iterations."""
    for _ in range(most):
        if condition():
            return
        await asyncio.sleep(0)
    pytest.fail("the condition never came true")


async def eventually(condition: Callable[[], object], most: float = 30.0) -> None:
    """Wait until a condition is true that another thread fulfils, for at most so many seconds.

    Iterations are no measure here: on a busy machine, this loop may run ten thousand before the thread runs at all.
    """
    end = time.monotonic() + most
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"the condition did not come true within {most:g} seconds")
        await asyncio.sleep(0.001)


def step_into(source: Any, awaitable: Any) -> None:
    """Step an awaitable until the async generator below it waits.

    On a busy machine it may first yield to the event loop, because its yield budget is used up.
    """
    while source.ag_await is None:
        awaitable.send(None)


def wrong(value: Any) -> Any:
    """Return a value of a wrong type, hidden from type checkers."""
    return value


class Gate:
    """A callable that waits until the test sets `open`, and records its calls."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.calls: list[Any] = []

    async def __call__(self, item: Any) -> Any:
        self.calls.append(item)
        await self.open.wait()
        return item * 10


class Heart:
    """Counts event-loop iterations within `async with`: a blocked loop adds none."""

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
    """Yield until everything that can run has run."""
    for _ in range(20):
        await asyncio.sleep(0)


class Sources:
    """Endless sources that record their end and set a context variable until then."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    async def source(self, name: str, iterations: int = 1) -> AsyncIterator[str]:
        token = where.set(name)
        task = asyncio.current_task()
        try:
            while True:
                for _ in range(iterations):
                    await asyncio.sleep(0)
                yield name
        finally:
            assert asyncio.current_task() is task
            await asyncio.sleep(0)
            where.reset(token)
            self.ended.append(name)


class Failing(SourceObj[int]):
    """A source whose `aclose` raises an error."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    async def __anext__(self) -> int:
        return 1

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        raise ValueError(self.name)


def budget_capacity(dollars: float, **limits: Any) -> CapacitySource:
    return CapacitySource({"dollars": Budget(dollars), **limits})


async def generate(items: Iterable[Any]) -> AsyncIterator[Any]:
    for item in items:
        await asyncio.sleep(0)
        yield item
