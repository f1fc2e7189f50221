"""A task that ends its own run by way of another asyncio task, which waits for the end and is waited for."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest

from headrace import SourceIterObj, Task
from tests.pool_support import envelopes, one, pool, quiet, shown
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine


async def _waits_for(ends: Coroutine[Any, Any, Any]) -> None:
    await asyncio.wait_for(ends, 3600)


async def _gathers(ends: Coroutine[Any, Any, Any]) -> None:
    await asyncio.gather(ends)


async def _groups(ends: Coroutine[Any, Any, Any]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(ends)


INTERRUPTIONS = [_waits_for, _gathers, _groups]
TERMS: list[dict[str, Any]] = [
    {},
    {"cost": {"slots": 1}},
    {"timeout": 3600},
    {"priority": 1},
    {"on_error": print},
]


def begins_inside(way: object = None) -> bool:
    """Whether what a task awaits in this way takes its first step in the task's own, where it can be refused there and then."""
    is_eager = asyncio.get_running_loop().get_task_factory() is not None
    return is_eager or (way is _waits_for and sys.version_info >= (3, 12))


async def ended(task: asyncio.Future[Any]) -> None:
    """Fails if it has not ended soon."""
    await asyncio.wait([task], timeout=10)
    assert task.done()


@pytest.mark.parametrize("way", INTERRUPTIONS)
@pytest.mark.parametrize("terms", [None, *TERMS])
async def test_law_4_task_that_waits_for_the_abort_of_its_run_is_cancelled_with_it(
    terms: dict[str, Any] | None, way: Callable[..., Awaitable[None]]
) -> None:
    runner = pool([])

    async def work() -> None:
        await way(runner.abort())

    runner = pool([work if terms is None else Task(work, **terms), one], 1)
    reading = asyncio.ensure_future(envelopes(runner))
    await ended(reading)
    assert runner.capacity.held == 0
    found = shown(reading.result())
    if begins_inside(way) and found != ["CancelledError"]:
        assert found in (["RuntimeError", 1], ["ExceptionGroup", 1])
        return
    assert found == ["CancelledError"]
    # The second was not called.
    assert await runner.run() == [1]


@pytest.mark.parametrize("action", ["abort", "drain"])
@pytest.mark.parametrize("way", INTERRUPTIONS)
async def test_law_4_consumer_that_is_cancelled_ends_a_run_whose_task_waits_for_its_end(
    way: Callable[..., Awaitable[None]], action: str
) -> None:
    runner = pool([])
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        await way(getattr(runner, action)())

    for task in (work, Task(work), Task(work, timeout=3600)):
        begun.clear()
        runner = pool([task])
        reading = asyncio.ensure_future(envelopes(runner))
        await begun.wait()
        await quiet()
        reading.cancel()
        await ended(reading)
        assert runner.capacity.held == 0
        assert runner.snapshot().running == 0


@pytest.mark.parametrize("action", ["abort", "drain", "aclose"])
@pytest.mark.parametrize("terms", [None, *TERMS])
@pytest.mark.parametrize("later", [False, True])
async def test_law_4_task_that_ends_its_run_itself_is_refused_however_it_runs(
    later: bool, terms: dict[str, Any] | None, action: str
) -> None:
    async def work() -> int:
        if later:
            await asyncio.sleep(0)
        ends = progress.aclose if action == "aclose" else getattr(runner, action)
        async with asyncio.timeout(3600):
            with pytest.raises(RuntimeError, match=r"a task cannot \w+ the run"):
                await ends()
        return 2

    runner = pool([work if terms is None else Task(work, **terms), one], 1)
    async with runner.run_tasks() as progress:
        reading = asyncio.ensure_future(progress.collect())
        await ended(reading)
    assert shown(reading.result()) == [2, 1]


@pytest.mark.parametrize("terms", [None, *TERMS])
async def test_task_may_have_its_run_drained_by_an_asyncio_task_that_it_does_not_wait_for(
    terms: dict[str, Any] | None,
) -> None:
    draining: list[asyncio.Future[Any]] = []

    async def work() -> int:
        asyncio.get_running_loop().call_soon(
            lambda: draining.append(asyncio.ensure_future(runner.drain()))
        )
        await quiet()
        return 2

    runner = pool([work if terms is None else Task(work, **terms), one], 1)
    reading = asyncio.ensure_future(envelopes(runner))
    await ended(reading)
    assert shown(reading.result()) == [2]
    # Its feeder may not have pulled the other by then.
    assert [await task() for task in await draining[0]] + await runner.run() == [1]


@pytest.mark.parametrize("way", INTERRUPTIONS)
@pytest.mark.parametrize("terms", [None, *TERMS])
async def test_task_that_waits_for_the_drain_of_its_run_holds_it_up_until_it_is_cancelled(
    terms: dict[str, Any] | None, way: Callable[..., Awaitable[None]]
) -> None:
    if begins_inside(way):
        pytest.skip("it is refused there and then")

    async def work() -> None:
        await way(runner.drain())

    item = work if terms is None else Task(work, **terms)
    runner = pool([item, one], 1)
    reading = asyncio.ensure_future(envelopes(runner))
    await until(lambda: runner.snapshot().running)
    await quiet()
    assert runner.snapshot().running == 1
    assert runner.cancel(1)
    await ended(reading)
    assert shown(reading.result()) == ["CancelledError"]
    # Nobody was handed the other.
    assert await runner.run() == [1]


async def test_law_4_task_of_a_run_within_a_run_may_wait_for_the_abort_of_the_outer_one() -> None:
    outer = pool([])

    async def inner() -> None:
        await asyncio.wait_for(outer.abort(), 3600)

    async def work() -> None:
        await pool([inner]).run()

    outer = pool([work])
    reading = asyncio.ensure_future(envelopes(outer))
    await ended(reading)
    assert shown(reading.result()) == ["CancelledError"]


async def test_law_4_source_may_abort_its_run() -> None:
    runner = pool([])

    async def tasks() -> AsyncIterator[Any]:
        yield one
        await runner.abort()

    runner = pool(SourceIterObj(tasks()))
    reading = asyncio.ensure_future(envelopes(runner))
    await ended(reading)
    assert shown(reading.result()) == [1]


async def test_abort_by_an_asyncio_task_that_nobody_in_the_run_waits_for_goes_through() -> None:
    if begins_inside():
        pytest.skip("a task that is started eagerly begins inside of the one that starts it")
    aborting: list[asyncio.Task[Any]] = []
    runner = pool([])

    async def work() -> None:
        aborting.append(asyncio.create_task(runner.abort()))
        await asyncio.Event().wait()

    runner = pool([work])
    assert shown(await envelopes(runner)) == ["CancelledError"]
    assert await aborting[0] == ()


async def test_law_4_abort_from_outside_that_is_cancelled_waits_until_all_has_stopped() -> None:
    cleaning, cleaned = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await cleaned.wait()

    runner = pool([work])
    reading = asyncio.ensure_future(envelopes(runner))
    await until(lambda: runner.snapshot().running)
    aborting = asyncio.ensure_future(runner.abort())
    await cleaning.wait()
    aborting.cancel()
    await quiet()
    assert not aborting.done()
    cleaned.set()
    with pytest.raises(asyncio.CancelledError):
        await aborting
    assert runner.capacity.held == 0
    await reading
