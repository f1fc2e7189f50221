"""A task that ends its own run through another asyncio task, for which it waits."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest

from headrace import SourceIterObj, Task
from tests.pool_support import envelopes, one, pool, quiet, summarize
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine


async def _wait_for(ending: Coroutine[Any, Any, Any]) -> None:
    await asyncio.wait_for(ending, 3600)


async def _gather(ending: Coroutine[Any, Any, Any]) -> None:
    await asyncio.gather(ending)


async def _group(ending: Coroutine[Any, Any, Any]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(ending)


WRAPPERS = [_wait_for, _gather, _group]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"cost": {"slots": 1}},
    {"timeout": 3600},
    {"priority": 1},
    {"on_error": print},
]


def starts_inside(wrapper: object = None) -> bool:
    """Return whether the first step of the awaitable runs inside the task itself, where it can be refused at once."""
    is_eager = asyncio.get_running_loop().get_task_factory() is not None
    return is_eager or (wrapper is _wait_for and sys.version_info >= (3, 12))


async def wait_until_ended(task: asyncio.Future[Any]) -> None:
    """Fail if a task does not end soon."""
    await asyncio.wait([task], timeout=10)
    assert task.done()


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("options", [None, *OPTIONS])
async def test_law_4_task_awaiting_its_abort_is_cancelled(
    options: dict[str, Any] | None,
    wrapper: Callable[..., Awaitable[None]],
) -> None:
    runner = pool([])

    async def work() -> None:
        await wrapper(runner.abort())

    runner = pool([work if options is None else Task(work, **options), one], 1)
    reading = asyncio.ensure_future(envelopes(runner))
    await wait_until_ended(reading)
    assert runner.capacity.held == 0
    found = summarize(reading.result())
    if starts_inside(wrapper) and found != ["CancelledError"]:
        assert found in (["RuntimeError", 1], ["ExceptionGroup", 1])
        return
    assert found == ["CancelledError"]
    # The second task was not called.
    assert await runner.run() == [1]


@pytest.mark.parametrize("action", ["abort", "drain"])
@pytest.mark.parametrize("wrapper", WRAPPERS)
async def test_law_4_cancelled_consumer_ends_self_ending_run(
    wrapper: Callable[..., Awaitable[None]], action: str
) -> None:
    runner = pool([])
    started = asyncio.Event()

    async def work() -> None:
        started.set()
        await wrapper(getattr(runner, action)())

    for task in (work, Task(work), Task(work, timeout=3600)):
        started.clear()
        runner = pool([task])
        reading = asyncio.ensure_future(envelopes(runner))
        await started.wait()
        await quiet()
        reading.cancel()
        await wait_until_ended(reading)
        assert runner.capacity.held == 0
        assert runner.snapshot().running == 0


@pytest.mark.parametrize("action", ["abort", "drain", "aclose"])
@pytest.mark.parametrize("options", [None, *OPTIONS])
@pytest.mark.parametrize("later", [False, True])
async def test_law_4_task_cannot_end_its_run_directly(
    later: bool, options: dict[str, Any] | None, action: str
) -> None:
    async def work() -> int:
        if later:
            await asyncio.sleep(0)
        ending = progress.aclose if action == "aclose" else getattr(runner, action)
        async with asyncio.timeout(3600):
            with pytest.raises(RuntimeError, match=r"a task cannot \w+ the run"):
                await ending()
        return 2

    runner = pool([work if options is None else Task(work, **options), one], 1)
    async with runner.run_tasks() as progress:
        reading = asyncio.ensure_future(progress.collect())
        await wait_until_ended(reading)
    assert summarize(reading.result()) == [2, 1]


@pytest.mark.parametrize("options", [None, *OPTIONS])
async def test_task_can_drain_its_run_from_another_task(options: dict[str, Any] | None) -> None:
    draining: list[asyncio.Future[Any]] = []

    async def work() -> int:
        asyncio.get_running_loop().call_soon(
            lambda: draining.append(asyncio.ensure_future(runner.drain()))
        )
        await quiet()
        return 2

    runner = pool([work if options is None else Task(work, **options), one], 1)
    reading = asyncio.ensure_future(envelopes(runner))
    await wait_until_ended(reading)
    assert summarize(reading.result()) == [2]
    # The feeder may not have pulled the other task by then.
    assert [await task() for task in await draining[0]] + await runner.run() == [1]


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("options", [None, *OPTIONS])
async def test_law_4_task_awaiting_its_drain_gets_the_others(
    options: dict[str, Any] | None,
    wrapper: Callable[..., Awaitable[None]],
) -> None:
    if starts_inside(wrapper):
        pytest.skip("it is refused at once")
    drained: list[Any] = []

    async def drain() -> None:
        drained.extend(await runner.drain())

    async def work() -> str:
        await wrapper(drain())
        return "drained"

    item = work if options is None else Task(work, **options)
    runner = pool([item, one], 1)
    reading = asyncio.ensure_future(envelopes(runner))
    await wait_until_ended(reading)
    assert summarize(reading.result()) == ["drained"]
    # The other task was handed out, if it was pulled.
    assert [await task() for task in drained] + await runner.run() == [1]


async def test_drain_from_another_task_waits_for_all_others() -> None:
    draining: list[asyncio.Future[Any]] = []
    gate = asyncio.Event()

    async def drains() -> None:
        # The call is made in the task of the run, so the run knows which task that is.
        draining.append(asyncio.Task(runner.drain()))

    async def lasts() -> str:
        await gate.wait()
        return "lasted"

    runner = pool([lasts, drains], 2)
    reading = asyncio.ensure_future(envelopes(runner))
    await until(lambda: draining)
    await quiet()
    assert not draining[0].done()
    gate.set()
    await wait_until_ended(reading)
    assert summarize(reading.result()) == [None, "lasted"]
    assert await draining[0] == []


async def test_law_4_task_of_inner_run_can_abort_outer_run() -> None:
    outer = pool([])

    async def inner() -> None:
        await asyncio.wait_for(outer.abort(), 3600)

    async def work() -> None:
        await pool([inner]).run()

    outer = pool([work])
    reading = asyncio.ensure_future(envelopes(outer))
    await wait_until_ended(reading)
    assert summarize(reading.result()) == ["CancelledError"]


async def test_law_4_source_can_abort_its_run() -> None:
    runner = pool([])

    async def tasks() -> AsyncIterator[Any]:
        yield one
        await runner.abort()

    runner = pool(SourceIterObj(tasks()))
    reading = asyncio.ensure_future(envelopes(runner))
    await wait_until_ended(reading)
    assert summarize(reading.result()) == [1]


async def test_abort_by_an_unawaited_task_succeeds() -> None:
    if starts_inside():
        pytest.skip("an eager task starts inside the task that creates it")
    aborting: list[asyncio.Task[Any]] = []
    runner = pool([])

    async def work() -> None:
        aborting.append(asyncio.create_task(runner.abort()))
        await asyncio.Event().wait()

    runner = pool([work])
    assert summarize(await envelopes(runner)) == ["CancelledError"]
    assert await aborting[0] == ()


async def test_law_4_cancelled_abort_waits_for_all_tasks() -> None:
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
