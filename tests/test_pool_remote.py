"""The protocol of executors, as a runner uses it, with an executor of a third party."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    CapacitySource,
    HierarchicalTaskPoolRunner,
    Retry,
    SourceIterObj,
    Task,
    WorkerLost,
    WrongLoopError,
    current_lease,
)
from headrace.pool import CancelSupport, LoopExecutor, ThreadExecutor
from tests.pool_executors import RemoteExecutor, double, has_ended
from tests.pool_support import FINAL, envelopes, pool, quiet, summarize
from tests.support import eventually, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from headrace.pool import Executor

where: ContextVar[str] = ContextVar("where", default="nowhere")
other: ContextVar[str] = ContextVar("other", default="nowhere")


# An executor is an argument of a runner.


@pytest.mark.parametrize(
    "options",
    [{}, {"ordered": True}, {"lookahead": 5}, {"timeout": 60, "retry": 2}, {"max_buffered": 1}],
)
async def test_executor_runs_tasks_of_every_kind(
    executor: Executor, options: dict[str, Any]
) -> None:
    tasks = [
        lambda: 1,
        Task(double, 1),
        Task(double, 2, cost={"slots": 1}, key="k"),
        Task(double, 3, thread=True),
        Task(double, 4, priority=1, timeout=60),
    ]
    runner = pool(tasks, 2, executor=executor, **options)
    assert sorted(await asyncio.wait_for(runner.run(), 20)) == [1, 2, 4, 6, 8]
    assert runner.capacity.held == 0
    await executor.aclose()


async def test_map_pool_takes_an_executor(executor: Executor) -> None:
    async with SourceIterObj(range(20)).map_pool(
        double, CapacitySource(3), ordered=True, executor=executor
    ) as doubled:
        assert await doubled.collect() == [double(number) for number in range(20)]
    await executor.aclose()


@pytest.mark.parametrize("wrong", [5, "threads", ThreadExecutor, object()])
def test_wrong_executor_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="executor must be an Executor"):
        pool([], executor=wrong)


async def test_executor_is_a_context_manager() -> None:
    for executor in (LoopExecutor(), ThreadExecutor("mill")):
        async with executor as entered:
            assert entered is executor
            assert await executor.submit(Task(double, 2)) == 4
    assert not any(thread.name.startswith("mill") for thread in threading.enumerate())


# 2. Ownership.


async def test_executor_outlives_its_runs() -> None:
    executor = RemoteExecutor()
    for _ in range(2):
        assert await pool([Task(double, 2)], executor=executor).run() == [4]
    assert (executor.starts, executor.closes, executor.watchers) == (2, 0, 0)


async def test_thread_executor_keeps_its_threads_between_runs() -> None:
    executor = ThreadExecutor("mill")
    threads = set()
    for _ in range(3):
        runner = pool([Task(threading.get_ident)], executor=executor)
        threads.update(await runner.run())
    assert len(threads) == 1
    assert any(thread.name.startswith("mill") for thread in threading.enumerate())
    await executor.aclose()
    assert not any(thread.name.startswith("mill") for thread in threading.enumerate())


def test_executor_belongs_to_one_loop_at_a_time() -> None:
    executor = RemoteExecutor()
    executor.is_prompt = False

    async def first() -> list[Any]:
        running = asyncio.ensure_future(pool([Task(double, 1)], executor=executor).run())
        await until(lambda: executor.queue)
        with pytest.raises(WrongLoopError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, second())
        executor.begin()
        found: list[Any] = await has_ended(running)
        return found

    async def second() -> list[Any]:
        return await pool([Task(double, 2)], executor=executor).run()

    assert asyncio.run(first()) == [2]
    executor.is_prompt = True
    assert asyncio.run(second()) == [4]


async def test_executor_that_cannot_start_ends_the_run() -> None:
    class Broken(RemoteExecutor):
        async def start(self) -> None:
            raise OSError("no workers")

    with pytest.raises(OSError, match="no workers"):
        await pool([Task(double, 2)], executor=Broken()).run()


# 3. Submitted and started.


@pytest.mark.virtual
async def test_timeout_counts_from_the_call() -> None:
    executor = RemoteExecutor()
    executor.is_prompt = False
    runner = pool([Task(asyncio.sleep, 0)], executor=executor, timeout=5)
    async with runner.run_tasks() as progress:
        await until(lambda: executor.queue)
        # It counts as running before it has begun.
        assert runner.snapshot().running == 1
        await asyncio.sleep(100)
        assert len(executor.queue) == 1
        handle = executor.queue.popleft()
        handle.listener.called()
        began = asyncio.get_running_loop().time()
        (event,) = [event async for event in progress]
    assert isinstance(event.error, TimeoutError)
    assert event.started == pytest.approx(began)
    assert asyncio.get_running_loop().time() == pytest.approx(began + 5)
    assert event.attempt == 1


async def test_task_cancelled_before_its_call_has_no_attempt() -> None:
    executor = RemoteExecutor()
    executor.is_prompt = False
    runner = pool([Task(double, 1)], executor=executor, retry=3)
    async with runner.run_tasks() as progress:
        await until(lambda: executor.queue)
        assert runner.cancel(1)
        (event,) = [event async for event in progress]
    assert isinstance(event.error, asyncio.CancelledError)
    assert (event.attempt, event.started) == (0, None)


# 4. The mark of code inside a run.


async def test_law_4_reader_of_a_remote_executor_is_outside() -> None:
    executor = RemoteExecutor()
    executor.is_prompt = False
    runner = pool([Task(double, 1), Task(double, 2)], 2, executor=executor)
    reading = asyncio.ensure_future(envelopes(runner))
    await until(lambda: len(executor.queue) == 2)
    draining: list[asyncio.Future[Any]] = []

    def read() -> None:
        # The reader of the executor reports a call, and other code of it ends the run.
        executor.begin()
        draining.append(asyncio.ensure_future(runner.drain()))

    read()
    await until(lambda: len(executor.live) == 1)
    await quiet()
    # It waits for all tasks.
    assert not draining[0].done()
    executor.begin()
    assert await has_ended(draining[0]) == []
    assert sorted(summarize(await has_ended(reading))) == [2, 4]


@pytest.mark.parametrize("action", ["drain", "abort"])
async def test_law_4_work_of_a_local_executor_is_inside(action: str) -> None:
    loop = asyncio.get_running_loop()
    runner = pool([])

    def work() -> Any:
        ending = getattr(runner, action)
        return asyncio.run_coroutine_threadsafe(ending(), loop).result(10)

    executor = ThreadExecutor()
    runner = pool([Task(work), Task(double, 1)], 2, executor=executor)
    found = await has_ended(asyncio.ensure_future(envelopes(runner)))
    assert len(found) == 2
    assert runner.capacity.held == 0
    await executor.aclose()


async def test_law_4_work_on_a_loop_executor_is_refused() -> None:
    runner = pool([])

    async def work() -> str:
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="a task cannot drain the run"):
            await runner.drain()
        return "refused"

    runner = pool([work, Task(work)], executor=LoopExecutor())
    found = await has_ended(asyncio.ensure_future(envelopes(runner)))
    assert summarize(found) == ["refused", "refused"]


# 5. Unknown state, lost work.


async def test_law_8_capacity_is_held_while_the_state_is_unknown() -> None:
    executor = RemoteExecutor()
    executor.responds = False
    gate = threading.Event()
    runner = pool([Task(gate.wait, 10)], 1, executor=executor)
    async with runner.run_tasks() as progress:
        await until(lambda: executor.live)
        assert runner.cancel(1)
        await quiet()
        assert runner.capacity.held == 1
        (handle,) = executor.live
        handle.end(error=WorkerLost("unreachable", confirmed="fence", where="host"))
        assert runner.capacity.held == 0
        # Later outcomes have no effect.
        handle.listener.returned(5)
        handle.listener.raised(OSError())
        gate.set()
        (event,) = [event async for event in progress]
    assert isinstance(event.error, WorkerLost)
    assert (event.error.confirmed, event.error.where) == ("fence", "host")


async def test_late_outcome_does_not_end_the_next_attempt() -> None:
    executor = RemoteExecutor()
    executor.is_prompt = False
    runner = pool([Task(double, 4)], executor=executor, retry=Retry(retries=1, backoff=0.0001))
    async with runner.run_tasks() as progress:
        await until(lambda: executor.queue)
        first = executor.queue.popleft()
        first.listener.called()
        first.end(error=WorkerLost("the worker ended"))
        await until(lambda: executor.queue)
        first.listener.called()
        assert first.listener.emit("late") is None
        first.listener.returned("late")
        executor.begin()
        (event,) = [event async for event in progress]
    assert (event.type, event.value, event.attempt) == (FINAL, 8, 2)


@pytest.mark.parametrize("after_call", [False, True])
async def test_work_that_never_began_is_placed_again(after_call: bool) -> None:
    executor = RemoteExecutor(2)
    executor.lost, executor.lost_after_call = 5, after_call
    tasks = [Task(double, number) for number in range(4)]
    runner = pool(tasks, 2, executor=executor, ordered=True)
    found = await asyncio.wait_for(envelopes(runner), 10)
    assert [(event.value, event.attempt) for event in found] == [(0, 1), (2, 1), (4, 1), (6, 1)]
    assert executor.submitted == 9
    assert runner.capacity.held == 0


async def test_begun_work_that_is_lost_counts_an_attempt() -> None:
    executor = RemoteExecutor()
    executor.is_prompt = False
    for retries, expected in ((0, ["WorkerLost"]), (1, [8])):
        runner = pool([Task(double, 4)], executor=executor, retry=retries)
        reading = asyncio.ensure_future(envelopes(runner))
        await until(lambda: executor.queue)
        handle = executor.queue.popleft()
        handle.listener.called()
        handle.end(error=WorkerLost("the worker ended", started=True))
        if retries:
            await eventually(lambda: executor.queue)
            executor.begin()
        assert summarize(await has_ended(reading)) == expected


@pytest.mark.parametrize("ending", ["abort", "cancel"])
async def test_ended_run_places_no_work_again(ending: str) -> None:
    executor = RemoteExecutor()
    executor.is_prompt = executor.responds = False
    runner = pool([Task(double, 4)], executor=executor)
    async with runner.run_tasks() as progress:
        await until(lambda: executor.queue)
        handle = executor.queue.popleft()
        if ending == "abort":
            aborting = asyncio.ensure_future(runner.abort())
            await quiet()
            handle.end(error=WorkerLost("the worker ended", started=False))
            await has_ended(aborting)
        else:
            assert runner.cancel(1)
            handle.end(error=WorkerLost("the worker ended", started=False))
        found = [event async for event in progress]
    assert executor.submitted == 1
    if ending == "cancel":
        assert [event.attempt for event in found] == [0]
    else:
        assert found == []
        # It was not called, so the next run gets it.
        executor.is_prompt = True
        assert await has_ended(asyncio.ensure_future(runner.run())) == [8]


# 6. Contexts and leases.


async def test_only_carried_context_travels() -> None:
    executor = RemoteExecutor(carry=[where])
    where.set("carried")
    other.set("left")
    tasks = [Task(lambda: (where.get(), other.get())), lambda: (where.get(), other.get())]
    found = await pool(tasks, executor=executor).run()
    assert found == [("carried", "nowhere")] * 2


async def test_remote_lease_settles_and_cannot_be_suspended() -> None:
    executor = RemoteExecutor()
    capacity = CapacitySource({"slots": 2, "tokens": 100})
    settled, gate = threading.Event(), threading.Event()

    async def work() -> str:
        current_lease().settle(tokens=30)
        settled.set()
        with pytest.raises(RuntimeError, match="cannot be suspended"):
            current_lease().suspended()
        gate.wait(10)
        return "settled"

    runner = HierarchicalTaskPoolRunner(
        [Task(work, cost={"slots": 1, "tokens": 60})], capacity, executor=executor
    )
    running = asyncio.ensure_future(runner.run())
    await eventually(settled.is_set)
    await until(lambda: capacity.snapshot().held["tokens"] == 30)
    gate.set()
    assert await has_ended(running) == ["settled"]


async def test_local_executor_has_the_lease_itself() -> None:
    capacity = CapacitySource({"slots": 2, "tokens": 100})

    def work() -> int:
        current_lease().settle(tokens=30)
        return 1

    async with ThreadExecutor() as executor:
        tasks = [Task(work, cost={"slots": 1, "tokens": 60})]
        assert await HierarchicalTaskPoolRunner(tasks, capacity, executor=executor).run() == [1]


async def test_settling_without_a_lease_is_refused() -> None:
    executor = RemoteExecutor()
    executor.is_prompt = False
    async with pool([Task(double, 1)], executor=executor).run_tasks():
        await until(lambda: executor.queue)
        with pytest.raises(RuntimeError, match="no lease to settle"):
            executor.queue[0].listener.settle({"slots": 1})


# 7. The window of streaming values.


def has_at_least(items: list[Any], least: int) -> bool:
    return len(items) >= least


@pytest.mark.parametrize("window", [1, 3, 8])
async def test_stream_is_at_most_a_window_ahead(window: int) -> None:
    executor = RemoteExecutor(window=window)
    yielded: list[int] = []

    async def values() -> AsyncIterator[int]:
        for value in range(20):
            yielded.append(value)
            yield value

    def has_yielded(count: int) -> bool:
        return len(yielded) >= count

    await executor.start()
    work = executor.submit(Task(values))
    for read in range(10):
        expected = min(read + window, 20)
        await eventually(partial(has_yielded, expected))
        await quiet()
        # The worker holds no more values than the window besides those that were read.
        assert len(yielded) <= read + window
        assert await anext(work) == read
    assert await work is None


@pytest.mark.parametrize("max_buffered", [1, 100])
async def test_streamed_values_keep_their_order(max_buffered: int) -> None:
    async def values(start: int) -> AsyncIterator[int]:
        for value in range(start, start + 20):
            yield value

    runner = pool(
        [Task(values, 0), Task(values, 100)],
        2,
        executor=RemoteExecutor(window=4),
        max_buffered=max_buffered,
        ordered=True,
    )
    found = summarize(await asyncio.wait_for(envelopes(runner), 20))
    assert found == [*range(20), None, *range(100, 120), None]


# The conditions under which work may be detached.


async def test_detached_work_keeps_its_slot() -> None:
    class Slotted(ThreadExecutor):
        capabilities = RemoteExecutor(
            1, remote=False, cancel_support=CancelSupport.NONE
        ).capabilities

    executor = Slotted("mill")
    gate = threading.Event()
    first = pool([Task(gate.wait, 10)], executor=executor)
    async with first.run_tasks() as progress:
        await until(lambda: first.snapshot().running)
        assert await first.abort(wait=False) == (1,)
        assert len([event async for event in progress]) == 1
    second = pool([Task(double, 1)], executor=executor)
    running = asyncio.ensure_future(second.run())
    await quiet()
    assert second.snapshot().running == 0
    assert (first.capacity.held, second.capacity.held) == (1, 0)
    gate.set()
    assert await has_ended(running) == [2]
    assert first.capacity.held == 0
    await executor.aclose()
