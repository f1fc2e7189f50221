from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    CapacitySource,
    HeadraceError,
    HierarchicalTaskPoolRunner,
    PushPullBufferObj,
    Retry,
    SourceBufferObj,
    SourceCancelledError,
    Task,
    WrongLoopError,
)
from tests.pool_support import ERROR, envelopes, fail, hang, one, pool, quiet, summarize
from tests.support import collect, eventually, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.usefixtures("task_path")


def waits(runner: HierarchicalTaskPoolRunner) -> bool:
    return runner.capacity.waiting > 0


# Running to the end


async def test_run_returns_the_final_values() -> None:
    async def yields() -> AsyncIterator[int]:
        yield 5

    async def slow() -> int:
        await quiet()
        return 3

    assert await pool([slow, yields, one]).run() == [None, 1, 3]
    assert await pool([slow, yields, one], ordered=True).run() == [3, None, 1]
    assert await pool([]).run() == []


async def test_run_raises_the_first_error_at_the_end() -> None:
    ended: list[int] = []

    async def slow() -> None:
        await quiet()
        ended.append(1)

    error = ValueError("mine")

    def bad() -> None:
        raise error

    with pytest.raises(ValueError, match="mine") as raised:
        await pool([bad, slow, fail, slow], name="mill").run()
    assert raised.value is error
    assert error.__notes__ == ["the first of 2 errors of mill"]
    assert ended == [1, 1]


async def test_run_with_on_error_stop_raises_that_error() -> None:
    for ordered in (False, True):
        runner = pool([hang, fail, hang, one], 3, on_error="stop", ordered=ordered)
        with pytest.raises(ValueError, match="no"):
            await runner.run()
        assert runner.capacity.held == 0


async def test_run_wraps_cancellation_of_a_task() -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError("mine")

    with pytest.raises(SourceCancelledError) as raised:
        await pool([cancelled]).run()
    assert isinstance(raised.value.__cause__, asyncio.CancelledError)


async def test_cancelled_run_stops_running_tasks() -> None:
    runner = pool([hang] * 3)
    running = asyncio.create_task(runner.run())
    await until(lambda: runner.capacity.held == 3)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert runner.capacity.held == 0


# Draining


async def test_drain_finishes_running_and_returns_the_rest() -> None:
    gate = asyncio.Event()
    source = SourceBufferObj([Task(gate.wait, key=index) for index in range(10)])
    runner = HierarchicalTaskPoolRunner(source, CapacitySource(2), lookahead=3)
    async with runner.run_tasks() as progress:
        await until(lambda: runner.capacity.waiting == 3)
        draining = asyncio.create_task(runner.drain())
        await quiet()
        assert not draining.done()
        gate.set()
        unstarted = await draining
        assert [task.key for task in unstarted] == [2, 3, 4]
        assert [task.key for task in source.buffer] == [5, 6, 7, 8, 9]
        assert [envelope.key async for envelope in progress] == [0, 1]
    assert await runner.drain() == []
    assert {envelope.key for envelope in await envelopes(runner)} == {5, 6, 7, 8, 9}


async def test_drain_ends_a_run_with_an_idle_source() -> None:
    queue: PushPullBufferObj[Any] = PushPullBufferObj()
    runner = pool(queue.source)
    async with runner.run_tasks() as progress:
        await quiet()
        assert await runner.drain() == []
        assert [envelope async for envelope in progress] == []
        # An item that is pushed now belongs to the next run.
        await queue.sink.next(one)
    await queue.sink.return_()
    assert await runner.run() == [1]


@pytest.mark.virtual
async def test_drain_finishes_retries_that_back_off() -> None:
    calls = 0

    async def work() -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError
        return calls

    queue: PushPullBufferObj[Any] = PushPullBufferObj()
    await queue.sink.next(work)
    runner = pool(queue.source, retry=Retry(backoff=5))
    async with runner.run_tasks() as progress:
        await until(lambda: runner.snapshot().backing_off)
        # It was called before, so it is finished even while paused.
        runner.pause()
        assert await runner.drain() == []
        assert summarize([envelope async for envelope in progress]) == [2]


@pytest.mark.virtual
async def test_drain_cancels_after_its_timeout() -> None:
    runner = pool([hang, one, hang], 2)
    async with runner.run_tasks() as progress:
        await until(lambda: runner.snapshot().running == 2 and len(unread_of(runner)) == 1)
        loop = asyncio.get_running_loop()
        before = loop.time()
        assert await runner.drain(timeout=3) == []
        assert loop.time() - before == pytest.approx(3)
        found = summarize([envelope async for envelope in progress])
    assert sorted(map(str, found)) == ["1", "CancelledError", "CancelledError"]


def unread_of(runner: HierarchicalTaskPoolRunner) -> range:
    return range(runner.snapshot().unread)


async def test_cancelled_drain_continues() -> None:
    gate = asyncio.Event()
    runner = pool([gate.wait, one], 1)
    async with runner.run_tasks() as progress:
        await until(lambda: runner.capacity.waiting)
        draining = asyncio.create_task(runner.drain())
        await quiet()
        draining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await draining
        gate.set()
        assert summarize([envelope async for envelope in progress]) == [True]
    assert await runner.drain() == [one]


# Aborting


async def test_abort_yields_an_envelope_per_called_task() -> None:
    ended: list[int] = []

    async def work() -> None:
        try:
            await hang()
        finally:
            await asyncio.sleep(0)
            ended.append(1)

    runner = pool([work, one, work, work, one], 3)
    async with runner.run_tasks() as progress:
        await until(lambda: runner.capacity.held == 3 and runner.snapshot().done)
        assert await runner.abort() == ()
        assert runner.capacity.held == 0
        assert len(ended) == 3
        found = summarize([envelope async for envelope in progress])
    assert found == [1] + ["CancelledError"] * 3
    assert await runner.run() == [1]
    assert await runner.abort() == ()


@pytest.mark.loops("asyncio", "eager")
async def test_abort_can_leave_threads_that_hold_capacity() -> None:
    capacity = CapacitySource(3)
    gates = [threading.Event(), threading.Event()]
    tasks: list[Any] = [
        Task(gates[0].wait, thread=True, key="left"),
        Task(gates[1].wait, thread=True, key="too"),
        hang,
    ]
    runner = HierarchicalTaskPoolRunner(tasks, capacity, name="mill")
    async with runner.run_tasks() as progress:
        await until(lambda: capacity.held == 3)
        await quiet()
        assert await runner.abort(wait=False) == (1, 2)
        assert capacity.held == 2
        found = {envelope.key: envelope async for envelope in progress}
    assert isinstance(found[None].error, asyncio.CancelledError)
    for key in ("left", "too"):
        assert found[key].type is ERROR
        assert isinstance(found[key].error, HeadraceError)
        assert "was left running" in str(found[key].error)

    def holds(amount: int) -> bool:
        return bool(capacity.held == amount)

    for held, gate in zip((1, 0), gates, strict=True):
        gate.set()
        await eventually(partial(holds, held))
    await eventually(
        lambda: not any(thread.name.startswith("mill") for thread in threading.enumerate())
    )


def test_left_thread_frees_capacity_after_loop_end() -> None:
    capacity = CapacitySource(1)
    gate, done = threading.Event(), threading.Event()

    def work() -> None:
        gate.wait()

    async def main() -> None:
        runner = HierarchicalTaskPoolRunner([Task(work, thread=True)], capacity)
        async with runner.run_tasks():
            await until(lambda: capacity.held)
            assert await runner.abort(wait=False) == (1,)

    asyncio.run(main())
    assert capacity.held == 1
    gate.set()

    async def acquire_once() -> None:
        # Woken by the thread that was left running.
        (await capacity.acquire()).release()
        done.set()

    asyncio.run(acquire_once())
    assert done.is_set()
    assert capacity.held == 0


async def test_task_cannot_end_its_own_run() -> None:
    runner = pool(PushPullBufferObj[Any]().source)

    async def ends(method: str) -> None:
        await getattr(runner, method)()

    for method in ("abort", "drain"):
        for iterations in (0, 1):

            async def work(method: str = method, iterations: int = iterations) -> None:
                for _ in range(iterations):
                    await asyncio.sleep(0)
                await ends(method)

            runner = pool([work])
            [found] = await envelopes(runner)
            assert isinstance(found.error, RuntimeError)
            assert f"cannot {method} the run that it is part of" in str(found.error)


def test_run_can_be_ended_only_on_its_loop() -> None:
    runner = pool(PushPullBufferObj[Any]().source)
    run = runner.run_tasks()

    async def start() -> None:
        await run.__aenter__()

    async def other() -> None:
        for method in (runner.abort, runner.drain):
            with pytest.raises(WrongLoopError):
                await method()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(start())
    asyncio.run(other())
    loop.run_until_complete(run.aclose())
    loop.close()


# Pausing and resuming


async def test_paused_runner_calls_and_requests_nothing() -> None:
    capacity = CapacitySource(1)
    gate = asyncio.Event()
    runner = HierarchicalTaskPoolRunner([gate.wait, one, one, one], capacity, lookahead=2)
    async with runner.run_tasks() as progress:
        await until(lambda: capacity.waiting == 2)
        runner.pause()
        runner.pause()
        await quiet()
        assert (capacity.waiting, capacity.held, runner.snapshot().paused) == (0, 1, True)
        gate.set()
        assert (await anext(progress)).value is True
        await quiet()
        assert (capacity.held, runner.snapshot().running) == (0, 0)
        runner.resume()
        assert summarize([envelope async for envelope in progress]) == [1, 1, 1]


async def test_runner_can_be_paused_before_its_run() -> None:
    runner = pool([one, one])
    runner.pause()
    async with runner.run_tasks() as progress:
        await quiet()
        assert runner.snapshot().done == 0
        runner.resume()
        assert summarize([envelope async for envelope in progress]) == [1, 1]


@pytest.mark.virtual
async def test_paused_runner_retries_nothing() -> None:
    calls: list[float] = []

    async def work() -> None:
        calls.append(asyncio.get_running_loop().time())
        raise ValueError

    runner = pool([work], retry=Retry(retries=1, backoff=1, jitter=False))
    async with runner.run_tasks() as progress:
        await until(lambda: runner.snapshot().backing_off)
        runner.pause()
        await asyncio.sleep(10)
        assert len(calls) == 1
        runner.resume()
        assert summarize([envelope async for envelope in progress]) == ["ValueError"]
    assert calls[1] - calls[0] == pytest.approx(10)


async def test_paused_run_can_be_left_and_aborted() -> None:
    for method in ("leave", "abort"):
        runner = pool([hang, one, one], 1)
        async with runner.run_tasks():
            await until(partial(waits, runner))
            runner.pause()
            if method == "abort":
                await runner.abort()
        assert runner.capacity.held == 0
        runner.resume()
        assert await runner.run() == [1, 1]


# Snapshots


@pytest.mark.virtual
async def test_snapshot_counts_tasks_and_capacity() -> None:
    root = CapacitySource(9, name="machine")
    capacity = CapacitySource(2, root, name="pages")
    calls = 0

    async def flaky() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError
        await asyncio.sleep(100)

    queue: PushPullBufferObj[Any] = PushPullBufferObj()
    for task in (one, fail, Task(flaky, retry=Retry(backoff=10, jitter=False)), hang, hang, one):
        await queue.sink.next(task)
    runner = HierarchicalTaskPoolRunner(queue.source, capacity)
    before = runner.snapshot()
    assert (before.done, before.running, before.rate, before.unread) == (0, 0, 0.0, 0)
    async with runner.run_tasks():
        await asyncio.sleep(5)
        taken = runner.snapshot()
        assert (taken.queued, taken.running, taken.backing_off) == (1, 2, 1)
        assert (taken.done, taken.failed, taken.unread, taken.paused) == (1, 1, 2, False)
        assert taken.rate == pytest.approx(2 / 5)
        uses = [(use.name, use.limit, use.held, use.waiting) for use in taken.capacity]
        assert uses == [("pages", 2, 2, 1), ("machine", 9, 2, 1)]
        await asyncio.sleep(15)
        assert runner.snapshot().rate == 0
    after = runner.snapshot()
    assert (after.queued, after.done, after.failed) == (1, 1, 4)


@pytest.mark.virtual
async def test_rate_covers_the_last_ten_seconds() -> None:
    async def ticks() -> None:
        await asyncio.sleep(0.1)

    runner = pool([ticks] * 600, 1)
    async with runner.run_tasks() as progress:
        taken = [runner.snapshot().rate async for _ in progress]
    assert all(rate == pytest.approx(10, rel=0.1) for rate in taken[20:])


async def test_resumed_at_once_while_it_waits() -> None:
    """The request of the feeder is replaced before the feeder is resumed, which must not wait for the new one."""
    node = CapacitySource(1)

    async def fn() -> None:
        pass

    runner = HierarchicalTaskPoolRunner([Task(fn)], node)
    async with node.acquire(owner=None), runner.run_tasks() as run:
        events = asyncio.create_task(collect(run))
        await until(lambda: node.waiting == 1)
        runner.pause()
        runner.resume()
        await quiet()
        assert node.waiting == 1
        assert runner.cancel(1)
        assert len(await asyncio.wait_for(events, 5)) == 1
    assert node.held == node.waiting == 0
