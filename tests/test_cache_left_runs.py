"""`cache=` of the pool: calls that go on after their first tasks, at the end of a run, in executors and in a journal."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    Budget,
    CapacitySource,
    ClosedError,
    Journal,
    PullMapPoolObj,
    Task,
    WorkerLost,
    amap,
)
from headrace.journal import read_records
from headrace.pool import ThreadExecutor
from tests.cache_support import Calls, Sleeps, cache_of, outcomes, runner_of
from tests.pool_executors import RemoteExecutor
from tests.support import collect, quiet, until

if TYPE_CHECKING:
    from pathlib import Path


async def test_drain_waits_for_a_left_call() -> None:
    calls = Calls(is_open=False)
    node = CapacitySource(1)
    async with cache_of() as cache:
        runner = runner_of([Task(calls, "a")], node, cache)
        events = asyncio.create_task(outcomes(runner))
        await until(lambda: calls.begun)
        other = asyncio.create_task(amap(calls, "a", limit=1, cache=cache).collect())
        await quiet()
        runner.cancel(1)
        draining = asyncio.create_task(runner.drain())
        await quiet()
        assert not draining.done()
        assert not events.done()
        calls.open.set()
        assert await draining == []
        assert node.held == 0
        assert await other == [("a", "result")]
        assert calls.begun == ["a"]
        await events


@pytest.mark.parametrize("leaves", [True, False])
@pytest.mark.parametrize("ends", ["abort", "close"])
async def test_law_8_end_of_a_run_stops_its_calls(leaves: bool, ends: str) -> None:
    calls = Calls(is_open=False)
    node, other_node = CapacitySource(1), CapacitySource(1)
    async with cache_of() as cache:
        runner = runner_of([Task(calls, "a")], node, cache)
        async with runner.run_tasks() as run:
            first = asyncio.create_task(anext(run))
            await until(lambda: calls.begun)
            stream = amap(calls, "a", limit=other_node, cache=cache)
            other = asyncio.create_task(stream.collect())
            await quiet()
            if leaves:
                runner.cancel(1)
                await first
            if ends == "abort":
                await runner.abort()
        assert calls.cleaned == ["a"]
        assert node.held == 0
        if not leaves:
            first.cancel()
            await asyncio.wait([first])
        # The other runner makes a call of its own, under its own capacity.
        await until(lambda: len(calls.begun) == 2)
        assert other_node.held == 1
        calls.open.set()
        assert await other == [("a", "result")]
        assert other_node.held == 0


async def test_closing_the_cache_stops_a_left_call() -> None:
    calls = Calls(is_open=False)
    node = CapacitySource(1)
    cache = cache_of()
    runner = runner_of([Task(calls, "a")] * 2, node, cache)
    events = asyncio.create_task(outcomes(runner))
    await until(lambda: runner.snapshot().queued == 1)
    runner.cancel(1)
    await cache.aclose()
    assert calls.cleaned == ["a"]
    kinds = {number: kind for number, (_, kind) in (await events).items()}
    assert kinds == {1: "CancelledError", 2: ClosedError.__name__}
    assert node.held == 0


async def test_task_that_cancels_itself_stops_its_call() -> None:
    made: list[str] = []

    async def fn(item: str) -> str:
        made.append(item)
        await asyncio.sleep(0)
        if len(made) == 1:
            runner.cancel(1)
        await asyncio.sleep(0)
        return item

    async with cache_of() as cache:
        runner = runner_of([Task(fn, "a")] * 2, 1, cache)
        found = await outcomes(runner)
        assert [found[number][1] for number in (1, 2)] == ["CancelledError", "value"]
        assert made == ["a"] * 2


async def test_error_after_the_last_caller_is_reported() -> None:
    calls = Calls(is_open=False)

    async def fn(item: str) -> None:
        try:
            await calls(item)
        except asyncio.CancelledError:
            raise ValueError("no") from None

    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    async with cache_of() as cache:
        runner = runner_of([Task(fn, "a")] * 2, 1, cache)
        events = asyncio.create_task(outcomes(runner))
        await until(lambda: runner.snapshot().queued == 1)
        runner.cancel(1)
        runner.cancel(2)
        await events
    assert [str(one["exception"]) for one in reported] == ["no"]


# Executors and the journal.


@pytest.mark.parametrize("leaves_by_timeout", [True, False])
async def test_law_8_call_in_a_thread_is_left(leaves_by_timeout: bool) -> None:
    opened = threading.Event()
    made: list[str] = []

    def fn(item: str) -> str:
        made.append(item)
        opened.wait()
        return item

    node = CapacitySource(1)
    executor = ThreadExecutor()
    async with cache_of() as cache:
        timeout = 0.05 if leaves_by_timeout else None
        tasks = [Task(fn, "a", timeout=timeout), Task(fn, "a")]
        runner = runner_of(tasks, node, cache, executor=executor)
        async with runner.run_tasks() as run:
            first = asyncio.create_task(anext(run))
            await until(lambda: made)
            if not leaves_by_timeout:
                runner.cancel(1)
            assert (await first).task_id == 1
            assert (node.held, runner.snapshot().running) == (1, 1)
            opened.set()
            assert [event.value for event in await collect(run)] == ["a"]
    await executor.aclose()
    assert (made, node.held) == (["a"], 0)


async def test_left_call_that_never_began_is_not_given_back() -> None:
    node, executor = CapacitySource(1), RemoteExecutor()
    executor.is_prompt = False
    async with cache_of() as cache:
        runner = runner_of([Task(Calls(), "a")] * 2, node, cache, executor=executor)
        events = asyncio.create_task(outcomes(runner))
        await until(lambda: runner.snapshot().queued == 1)
        handle = executor.queue.popleft()
        handle.listener.called()
        runner.cancel(1)
        handle.end(error=WorkerLost("the worker ended", started=False, confirmed="exit"))
        # It is submitted again, and has no attempt.
        await until(lambda: executor.queue)
        assert len(await runner.drain()) == 1
        assert [kind for _, kind in (await events).values()] == ["CancelledError"]
    assert node.held == 0


@pytest.mark.virtual
async def test_law_18_left_call_in_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "run.journal"
    node = CapacitySource({"slots": 3, "tokens": Budget(100)})
    fn = Sleeps(5)
    async with cache_of() as cache:
        cost = {"slots": 1, "tokens": 10}
        options: Any = {"cost": cost, "cache": cache, "journal": Journal(path)}
        async with PullMapPoolObj("aaa", fn, node, timeout=3, **options) as stream:
            with pytest.raises(TimeoutError):
                await anext(stream)
            assert await collect(stream) == ["a"] * 2
    found = {one.occurrence: (one.status, one.attempts, one.spend) for one in read_records(path)}
    returned: Any = "returned", 0, {}
    assert found == {0: ("failed", 1, {"tokens": 10}), 1: returned, 2: returned}
    assert fn.begun == [0]
