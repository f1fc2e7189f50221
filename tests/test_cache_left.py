"""`cache=` of the pool: a call goes on after its first task has ended, while others wait for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from headrace import CapacitySource, EnvelopeType, Retry, Task
from tests.cache_support import Calls, Sleeps, cache_of, outcomes, runner_of
from tests.support import collect, quiet, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


async def after(seconds: float, act: Callable[[], object]) -> None:
    """Call a function later."""
    await asyncio.sleep(seconds)
    act()


async def test_law_8_cancelled_task_leaves_its_call() -> None:
    node = CapacitySource(2)
    calls = Calls(is_open=False)
    async with cache_of() as cache:
        runner = runner_of([Task(calls, "a")] * 3, node, cache, ordered=True)
        async with runner.run_tasks() as run:
            events = asyncio.create_task(collect(run))
            await until(lambda: runner.snapshot().queued == 2)
            assert runner.cancel(1)
            assert not runner.cancel(1)
            await quiet()
            # The call has the lease of the first task, until it ends.
            now = runner.snapshot()
            assert (node.held, node.waiting, now.running, now.queued) == (1, 0, 1, 2)
            calls.open.set()
            found = await events
        assert calls.begun == ["a"]
        assert calls.cancelled == []
        assert [event.task_id for event in found] == [1, 2, 3]
        assert [event.attempt for event in found] == [1, 0, 0]
        assert isinstance(found[0].error, asyncio.CancelledError)
        assert [event.value for event in found[1:]] == [("a", "result")] * 2
    assert node.held == node.waiting == 0


async def test_caller_of_wrap_keeps_the_call_of_a_task() -> None:
    calls = Calls(is_open=False)
    async with cache_of() as cache:
        runner = runner_of([Task(calls, "a")], 1, cache)
        events = asyncio.create_task(outcomes(runner))
        await until(lambda: calls.begun)
        caller = asyncio.create_task(cache.wrap(calls)("a"))
        await quiet()
        assert runner.cancel(1)
        calls.open.set()
        assert await caller == ("a", "result")
        assert calls.begun == ["a"]
        assert [kind for _, kind in (await events).values()] == ["CancelledError"]


async def test_law_8_last_caller_stops_the_call() -> None:
    node = CapacitySource(1)
    calls = Calls(is_open=False, iterations=5)
    async with cache_of() as cache:
        runner = runner_of([Task(calls, "a")] * 3, node, cache)
        async with runner.run_tasks() as run:
            events = asyncio.create_task(collect(run))
            await until(lambda: runner.snapshot().queued == 2)
            for number in (1, 3, 2):
                assert calls.cancelled == []
                assert runner.cancel(number)
                await asyncio.sleep(0)
            assert (calls.cancelled, calls.cleaned) == (["a"], [])
            assert (node.held, runner.snapshot().running) == (1, 1)
            assert len(await events) == 3
            assert calls.cleaned == ["a"]
    assert node.held == node.waiting == calls.running == 0


@pytest.mark.virtual
async def test_timeout_of_the_first_task_leaves_the_call() -> None:
    fn = Sleeps(5)
    async with cache_of() as cache:
        tasks = [Task(fn, "a", timeout=2), Task(fn, "a"), Task(fn, "a", timeout=4)]
        found = await outcomes(runner_of(tasks, 3, cache))
        assert found == {1: (2, "TimeoutError"), 2: (5, "value"), 3: (5, "value")}
        assert (fn.begun, fn.stopped) == ([0], [])


@pytest.mark.virtual
async def test_timeouts_of_the_others_limit_a_left_call() -> None:
    fn = Sleeps(100)
    node = CapacitySource(3)
    async with cache_of() as cache:
        tasks = [Task(fn, "a", timeout=seconds) for seconds in (2, 3, 5)]
        found = await outcomes(runner_of(tasks, node, cache))
        assert found == {n: (at, "TimeoutError") for n, at in enumerate((2, 5, 7), 1)}
        assert (fn.begun, fn.stopped) == ([0], [7])
        assert node.held == 0


@pytest.mark.virtual
async def test_timeout_of_a_wait_begins_with_the_wait() -> None:
    fn = Sleeps(100)
    async with cache_of() as cache:
        first = runner_of([Task(fn, "a", timeout=1), Task(fn, "a", timeout=9)], 3, cache)
        second = runner_of([Task(fn, "a", timeout=5)], 3, cache)

        async def later() -> Any:
            await asyncio.sleep(3)
            return await outcomes(second)

        found, late = await asyncio.gather(outcomes(first), later())
        assert found == {1: (1, "TimeoutError"), 2: (10, "TimeoutError")}
        assert late == {1: (8, "TimeoutError")}
        assert (fn.begun, fn.stopped) == ([0], [10])


@pytest.mark.virtual
async def test_queue_timeout_counts_beside_the_timeout() -> None:
    fn = Sleeps(100)
    async with cache_of() as cache:
        tasks = [
            Task(fn, "a", timeout=1),
            Task(fn, "a", timeout=5, queue_timeout=3),
            Task(fn, "a", timeout=4, queue_timeout=50),
            Task(fn, "a", timeout=5, queue_timeout=6),
        ]
        found = await outcomes(runner_of(tasks, 3, cache))
        assert found == {n: (at, "TimeoutError") for n, at in enumerate((1, 3, 5, 6), 1)}
        assert fn.stopped == [6]


@pytest.mark.virtual
async def test_call_is_left_only_by_its_last_timeout() -> None:
    fn = Sleeps(100, 100, 4)
    async with cache_of() as cache:
        tasks = [Task(fn, "a", timeout=2, retry=Retry(2, backoff=1, jitter=False)), Task(fn, "a")]
        found = await outcomes(runner_of(tasks, 3, cache))
        assert found == {1: (2 + 1 + 2 + 2 + 2, "TimeoutError"), 2: (11, "value")}
        assert (fn.begun, fn.stopped) == ([0, 3, 7], [2, 5])


@pytest.mark.virtual
@pytest.mark.parametrize("on", [ConnectionError, (ConnectionError, OSError)])
async def test_timeout_that_is_not_retried_leaves_the_call(on: Any) -> None:
    fn = Sleeps(5)
    async with cache_of() as cache:
        tasks = [Task(fn, "a", timeout=2, retry=Retry(2, on=on)), Task(fn, "a")]
        # `TimeoutError` is an `OSError`.
        retried = on is not ConnectionError
        found = await outcomes(runner_of(tasks, 3, cache))
        assert found[1][1] == "TimeoutError"
        assert len(fn.stopped) == (2 if retried else 0)


@pytest.mark.virtual
async def test_left_call_is_retried() -> None:
    fn = Sleeps(5, errors=(ConnectionError("no"), None))
    node = CapacitySource(1)
    async with cache_of() as cache:
        retry = Retry(1, backoff=1, jitter=False)
        runner = runner_of([Task(fn, "a", retry=retry), Task(fn, "a")], node, cache)
        cancelling = after(2, lambda: runner.cancel(1))
        found, _ = await asyncio.gather(outcomes(runner), cancelling)
        assert found == {1: (2, "CancelledError"), 2: (11, "value")}
        assert fn.begun == [0, 6]
        assert node.held == 0


@pytest.mark.virtual
async def test_left_call_stops_during_its_back_off() -> None:
    fn = Sleeps(5, errors=(ConnectionError("no"),))
    async with cache_of() as cache:
        runner = runner_of([Task(fn, "a", retry=Retry(1, backoff=99)), Task(fn, "a")], 1, cache)
        acts = after(2, lambda: runner.cancel(1)), after(8, lambda: runner.cancel(2))
        found, *_ = await asyncio.gather(outcomes(runner), *acts)
        assert found == {1: (2, "CancelledError"), 2: (8, "CancelledError")}
        assert asyncio.get_running_loop().time() == 8
        assert fn.begun == [0]


@pytest.mark.virtual
async def test_after_an_error_of_a_left_call_the_next_is_called() -> None:
    fn = Sleeps(5, errors=(ValueError("no"), None))
    async with cache_of() as cache:
        runner = runner_of([Task(fn, "a"), Task(fn, "a")], 1, cache)

        async def caller() -> Any:
            await asyncio.sleep(1)
            return await cache.wrap(fn)("a")

        calling = asyncio.create_task(caller())
        found, _ = await asyncio.gather(outcomes(runner), after(2, lambda: runner.cancel(1)))
        with pytest.raises(ValueError, match="no"):
            await calling
        assert found == {1: (2, "CancelledError"), 2: (10, "value")}
        assert fn.begun == [0, 5]


@pytest.mark.virtual
async def test_values_of_a_left_call_are_not_delivered() -> None:
    async def fn(item: str) -> AsyncIterator[int]:
        for number in range(4):
            await asyncio.sleep(1)
            yield number

    async with cache_of() as cache:
        runner = runner_of([Task(fn, "a"), Task(fn, "a")], 1, cache, ordered=True)
        async with runner.run_tasks() as run:
            events = asyncio.create_task(collect(run))
            await asyncio.sleep(2.5)
            runner.cancel(1)
            found = [(event.task_id, event.type, event.value) for event in await events]
    intermediate, final = EnvelopeType.INTERMEDIATE, EnvelopeType.FINAL
    assert found == [
        (1, intermediate, 0),
        (1, intermediate, 1),
        (1, EnvelopeType.ERROR, None),
        # The value of an async generator at its end.
        (2, final, None),
    ]


@pytest.mark.virtual
async def test_queue_timeout_of_a_task_is_not_that_of_its_call() -> None:
    fn = Sleeps(1)
    node = CapacitySource(1)
    async with cache_of() as cache, node.acquire():
        runner = runner_of([Task(fn, "a", queue_timeout=3)], node, cache)

        async def caller() -> Any:
            await asyncio.sleep(2)
            return await cache.wrap(fn)("a")

        found, result = await asyncio.gather(outcomes(runner), caller())
        assert (found, result) == ({1: (3, "TimeoutError")}, "a")
        assert fn.begun == [3]
