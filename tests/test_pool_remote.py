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
from tests.pool_executors import RemoteExecutor
from tests.pool_support import FINAL, envelopes, pool, quiet, summarize
from tests.support import eventually, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from headrace.pool import Executor

where: ContextVar[str] = ContextVar("where", default="nowhere")
other: ContextVar[str] = ContextVar("other", default="nowhere")


def double(number: int) -> int:
    return 2 * number


async def has_ended(task: asyncio.Future[Any]) -> Any:
    """Return the result of a task that must end soon."""
    await asyncio.wait([task], timeout=10)
    assert task.done()
    return task.result()


# An executor is an argument of a runner.


EXECUTORS: dict[str, Callable[[], Executor]] = {
    "loop": LoopExecutor,
    "thread": ThreadExecutor,
    "remote": RemoteExecutor,
    "local": lambda: RemoteExecutor(remote=False),
}


@pytest.fixture(params=EXECUTORS)
def executor(request: pytest.FixtureRequest) -> Executor:
    return EXECUTORS[request.param]()


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


# 1. Slots.


async def test_slots_are_taken_before_capacity() -> None:
    executor = RemoteExecutor(2)
    executor.is_prompt = False
    runner = pool([Task(double, number) for number in range(6)], 5, executor=executor)
    running = asyncio.ensure_future(runner.run())
    await until(lambda: len(executor.queue) == 2)
    await quiet()
    # No task holds capacity, or waits for it, without a slot.
    assert (len(executor.queue), runner.capacity.held, runner.capacity.waiting) == (2, 2, 0)
    while not running.done():
        await until(lambda: executor.queue or running.done())
        if executor.queue:
            executor.begin()
    assert sorted(running.result()) == [0, 2, 4, 6, 8, 10]
    assert executor.most == 2
    assert runner.capacity.held == 0


async def test_slots_may_change() -> None:
    executor = RemoteExecutor(0)
    executor.is_prompt = False
    runner = pool([Task(double, number) for number in range(6)], 6, executor=executor)
    running = asyncio.ensure_future(runner.run())
    await quiet()
    assert (len(executor.queue), runner.capacity.held) == (0, 0)
    executor.change(slots=3)
    await until(lambda: len(executor.queue) == 3)
    await quiet()
    assert len(executor.queue) == 3
    # Fewer slots end no work.
    executor.change(slots=1)
    await quiet()
    for _ in range(3):
        executor.begin()
    await until(lambda: len(executor.queue) == 1 and len(executor.live) == 1)
    executor.change(slots=None)
    await until(lambda: len(executor.queue) == 3)
    for _ in range(3):
        executor.begin()
    assert sorted(await has_ended(running)) == [0, 2, 4, 6, 8, 10]


async def test_runs_share_slots() -> None:
    executor = RemoteExecutor(3)
    runners = [
        pool([Task(double, number) for number in range(30)], 5, executor=executor) for _ in range(3)
    ]
    results = await asyncio.wait_for(asyncio.gather(*(runner.run() for runner in runners)), 30)
    assert [sorted(result) for result in results] == [[double(n) for n in range(30)]] * 3
    assert executor.most == 3
    assert executor.watchers == 0


async def test_slot_passes_by_a_run_that_does_not_need_it() -> None:
    executor = RemoteExecutor(1)
    executor.is_prompt = False
    runners = [pool([Task(double, number)], executor=executor) for number in (1, 2, 3)]
    runs = []
    for runner in runners:
        runs.append(asyncio.ensure_future(runner.run()))
        await quiet()
    runners[1].pause()
    executor.begin()
    assert await has_ended(runs[0]) == [2]
    await until(lambda: executor.queue)
    executor.begin()
    assert await has_ended(runs[2]) == [6]
    runners[1].resume()
    await until(lambda: executor.queue)
    executor.begin()
    assert await has_ended(runs[1]) == [4]


@pytest.mark.parametrize("ending", ["abort", "drain", "cancel", "pause"])
async def test_task_without_slot_can_be_withdrawn(ending: str) -> None:
    executor = RemoteExecutor(1)
    executor.is_prompt = False
    first, second = Task(double, 1, key=1), Task(double, 2, key=2)
    runner = pool([first, second], 2, executor=executor)
    async with runner.run_tasks() as progress:
        await until(lambda: executor.queue)
        await quiet()
        assert runner.snapshot().queued == 1
        if ending == "abort":
            await runner.abort()
        elif ending == "drain":
            draining = asyncio.ensure_future(runner.drain())
            await quiet()
            executor.begin()
            assert await draining == [second]
        elif ending == "cancel":
            assert runner.cancel(2)
            executor.begin()
        else:
            runner.pause()
            executor.begin()
            await until(lambda: not executor.live)
            await quiet()
            assert not executor.queue
            runner.resume()
            await until(lambda: executor.queue)
            executor.begin()
        found = summarize([event async for event in progress])
    assert (
        found
        == {
            "abort": [],  # The next run gets both.
            "drain": [2],
            "cancel": ["CancelledError", 2],
            "pause": [2, 4],
        }[ending]
    )
    executor.is_prompt = True
    if ending == "abort":
        assert await asyncio.wait_for(runner.run(), 10) == [2, 4]
    # The slot is free for another run.
    assert await asyncio.wait_for(pool([Task(double, 4)], executor=executor).run(), 10) == [8]


async def test_retries_wait_for_slots() -> None:
    executor = RemoteExecutor(1)
    calls: list[int] = []

    def fails_first(number: int) -> int:
        calls.append(number)
        if calls.count(number) < 3:
            raise OSError(number)
        return number

    tasks = [Task(fails_first, number) for number in range(8)]
    runner = pool(tasks, 4, executor=executor, retry=Retry(retries=5, backoff=0.0001))
    assert sorted(await asyncio.wait_for(runner.run(), 20)) == list(range(8))
    assert executor.most == 1
    assert len(calls) == 24


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
