"""A task that waits for the end of its own run, in every way that asyncio has, never hangs."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from headrace import ClosedError, Task
from tests.pool_support import ERROR, pool, quiet
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from headrace import CapacitySource, HierarchicalTaskPoolRunner
    from headrace.pool import TaskRun


class Case:
    """One run, for the endings below."""

    runner: HierarchicalTaskPoolRunner
    progress: TaskRun

    async def leave(self) -> None:
        await self.progress.__aexit__(None, None, None)

    async def cancel(self) -> bool:
        return self.runner.cancel(1)


ENDINGS: dict[str, Callable[[Case], Awaitable[Any]]] = {
    "abort": lambda case: case.runner.abort(),
    "abort without waiting": lambda case: case.runner.abort(wait=False),
    "drain": lambda case: case.runner.drain(),
    "drain with a timeout": lambda case: case.runner.drain(0.01),
    "aclose": lambda case: case.progress.aclose(),
    "leave": lambda case: case.leave(),
    "cancel": lambda case: case.cancel(),
}


async def directly(end: Callable[[], Awaitable[Any]]) -> Any:
    return await end()


async def as_task(end: Callable[[], Awaitable[Any]]) -> Any:
    return await asyncio.ensure_future(end())


async def gathered(end: Callable[[], Awaitable[Any]]) -> Any:
    return await asyncio.gather(end(), asyncio.sleep(0))


async def grouped(end: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.TaskGroup() as group:
        group.create_task(as_task(end))


async def waited_for(end: Callable[[], Awaitable[Any]]) -> Any:
    return await asyncio.wait_for(end(), 3600)


async def shielded(end: Callable[[], Awaitable[Any]]) -> Any:
    return await asyncio.shield(end())


async def with_event(end: Callable[[], Awaitable[Any]]) -> Any:
    """Wait for an asyncio task in a way that asyncio does not know."""
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await end()
        finally:
            ended.set()

    task = asyncio.ensure_future(work())
    await ended.wait()
    return await task


async def twice(end: Callable[[], Awaitable[Any]]) -> Any:
    return await asyncio.gather(end(), end())


async def later(end: Callable[[], Awaitable[Any]]) -> Any:
    task = asyncio.ensure_future(end())
    await quiet()
    return await task


WAYS = [directly, as_task, gathered, grouped, waited_for, shielded, with_event, twice, later]


def nested(outer: Callable[..., Awaitable[Any]], inner: Callable[..., Awaitable[Any]]) -> Any:
    """Return a way that uses `outer` around `inner`."""

    async def way(end: Callable[[], Awaitable[Any]]) -> Any:
        return await outer(lambda: inner(end))

    return way


ALL_WAYS = {way.__name__: way for way in WAYS} | {
    f"{outer.__name__}-{inner.__name__}": nested(outer, inner)
    for outer in (as_task, gathered, grouped, waited_for, shielded)
    for inner in (as_task, gathered, grouped, waited_for)
}


def async_function(end: Callable[[], Awaitable[Any]]) -> Any:
    async def work() -> str:
        await end()
        return "ended"

    return work


def async_generator(end: Callable[[], Awaitable[Any]]) -> Any:
    async def work() -> AsyncIterator[int]:
        yield 1
        await end()
        yield 2

    return work


def plain_function(end: Callable[[], Awaitable[Any]]) -> Any:
    return lambda: asyncio.ensure_future(end())


def with_options(end: Callable[[], Awaitable[Any]]) -> Any:
    return Task(async_function(end), cost={"slots": 1}, timeout=3600, retry=1)


def in_thread(end: Callable[[], Awaitable[Any]]) -> Any:
    loop = asyncio.get_running_loop()

    async def on_loop() -> Any:
        return await end()

    return Task(lambda: asyncio.run_coroutine_threadsafe(on_loop(), loop).result(), thread=True)


def cleaning_up(end: Callable[[], Awaitable[Any]]) -> Any:
    """Return a task that ends its run again after it was cancelled."""

    async def work() -> str:
        try:
            await end()
        finally:
            with contextlib.suppress(RuntimeError, ExceptionGroup):
                await asyncio.ensure_future(end())
        return "ended"

    return work


KINDS = {
    kind.__name__: kind
    for kind in (
        async_function,
        async_generator,
        plain_function,
        with_options,
        in_thread,
        cleaning_up,
    )
}


def is_free(capacity: CapacitySource) -> bool:
    return bool(capacity.held == 0)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", KINDS)
async def test_law_4_task_ending_its_run_never_hangs(kind: str, ending: str) -> None:
    for name, way in ALL_WAYS.items():
        case = Case()

        async def end(case: Case = case, way: Any = way) -> Any:
            return await way(lambda: ENDINGS[ending](case))

        async def other() -> str:
            await quiet()
            return "other"

        case.runner = pool([KINDS[kind](end), other], 2)
        case.progress = case.runner.run_tasks()

        async def read(progress: TaskRun = case.progress) -> list[Any]:
            async with progress:
                return [event async for event in progress]

        reading = asyncio.ensure_future(read())
        await asyncio.wait([reading], timeout=5)
        if not reading.done():
            reading.cancel()
            pytest.fail(f"the run hangs: {name}")
        # A thread that was left running holds its capacity until it ends.
        capacity = case.runner.capacity
        await eventually(partial(is_free, capacity))
        assert case.runner.snapshot().running == 0, name
        # The consumer's pull may have been waiting when the run was closed.
        error = reading.exception()
        assert error is None or (ending in ("aclose", "leave") and isinstance(error, ClosedError))
        if ending == "drain":
            # The others are not cancelled.
            errors = [event for event in reading.result() if event.type is ERROR]
            assert all(event.task_id == 1 for event in errors), name
