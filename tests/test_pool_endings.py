from __future__ import annotations

import asyncio
import gc
import warnings
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    CapacitySource,
    ClosedError,
    HierarchicalTaskPoolRunner,
    PushPullBufferObj,
    SourceBufferObj,
    SourceIterObj,
    Task,
)
from tests.pool_support import envelopes, one, pool, quiet
from tests.support import assert_bound_to_loop, cancel_repeatedly, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from headrace.pool import TaskRun

pytestmark = pytest.mark.usefixtures("task_path")


async def test_law_4_leaving_cancels_and_awaits_tasks() -> None:
    capacity = CapacitySource(3)
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("ended")

    async def yields() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0)
            ended.append("ended")

    async with HierarchicalTaskPoolRunner([work, yields, work], capacity).run_tasks() as progress:
        async for _ in progress:
            await until(lambda: capacity.held == 3)
            break
    assert ended == ["ended"] * 3
    assert capacity.held == 0


@pytest.mark.virtual
async def test_after_break_nothing_runs_and_source_continues() -> None:
    called: list[int] = []
    steps = 0

    async def work(index: int) -> int:
        nonlocal steps
        called.append(index)
        for _ in range(10):
            await asyncio.sleep(1)
            steps += 1
        return index

    source = SourceBufferObj([Task(work, index) for index in range(20)])
    capacity = CapacitySource(3)
    runner = HierarchicalTaskPoolRunner(source, capacity)
    async with runner.run_tasks() as progress:
        async for _ in progress:
            break
    before = (steps, list(called))
    await asyncio.sleep(3600)
    assert (steps, called) == before
    assert (capacity.held, len(asyncio.all_tasks())) == (0, 1)
    # Each task that was not called before is called now, once.
    await envelopes(runner)
    assert called == list(range(20))


@pytest.mark.parametrize("ending", ["break", "drain", "abort"])
@pytest.mark.parametrize("iterations", range(4))
async def test_prefetched_source_is_complete_after_a_run(ending: str, iterations: int) -> None:
    async def tasks() -> AsyncIterator[Task]:
        for index in range(8):
            for _ in range(iterations):
                await asyncio.sleep(0)
            yield Task(work, index)

    async def work(index: int) -> int:
        called.append(index)
        return index

    called: list[int] = []
    async with SourceIterObj(tasks()).prefetch() as source:
        runner = HierarchicalTaskPoolRunner(source, CapacitySource(1))
        unstarted: list[Any] = []
        async with runner.run_tasks() as progress:
            async for _ in progress:
                if ending == "break":
                    break
                unstarted += await (runner.drain() if ending == "drain" else runner.abort())
        await runner.run()
        assert sorted([*called, *(task.args[0] for task in unstarted)]) == list(range(8))


async def test_task_waiting_for_space_is_closed_on_leaving() -> None:
    ended: list[str] = []

    async def yields() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(0)
            ended.append("ended")

    async with pool([yields], max_buffered=2).run_tasks():
        await quiet()
    assert ended == ["ended"]


async def test_task_without_waits_is_closed_on_leaving() -> None:
    ended: list[str] = []

    async def yields() -> AsyncIterator[int]:
        try:
            # Bounded: a task that never waits and is not stopped would hang the event loop.
            for _ in range(10_000):
                yield 1
            ended.append("at the end of its values")
        finally:
            ended.append("ended")

    async with pool([yields], max_buffered=2).run_tasks() as progress:
        for _ in range(5):
            # In the last round its value is accepted, and the task learns that the run was left.
            await anext(progress)
    assert ended == ["ended"]


async def test_task_that_ignores_cancellation_is_closed() -> None:
    ended: list[str] = []

    async def yields() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    ended.append("refused")
        finally:
            ended.append("ended")

    async with pool([yields]).run_tasks() as progress:
        await anext(progress)
        await quiet()
    assert ended == ["refused", "ended"]


async def test_next_run_starts_with_uncalled_tasks() -> None:
    capacity = CapacitySource(1)
    called: list[int] = []

    async def work(index: int) -> int:
        called.append(index)
        if index == 1:
            await asyncio.Event().wait()
        return index

    source = SourceBufferObj([Task(work, index) for index in range(5)])
    runner = HierarchicalTaskPoolRunner(source, capacity)
    async with runner.run_tasks() as progress:
        assert (await anext(progress)).value == 0
        await until(lambda: called == [0, 1] and len(source.buffer) == 2)
    assert called == [0, 1]
    assert [envelope.value for envelope in await envelopes(runner)] == [2, 3, 4]


async def test_exception_of_the_body_propagates() -> None:
    async def work() -> None:
        await asyncio.Event().wait()

    capacity = CapacitySource(1)

    async def fail() -> None:
        async with HierarchicalTaskPoolRunner([work], capacity).run_tasks():
            await until(lambda: capacity.held)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert capacity.held == 0


async def test_second_cancellation_waits_for_clean_up() -> None:
    capacity = CapacitySource(1)
    cleaning, cleaned = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await cleaned.wait()

    consumer = asyncio.create_task(envelopes(HierarchicalTaskPoolRunner([work], capacity)))
    await until(lambda: capacity.held)
    await quiet()
    await cancel_repeatedly(consumer, cleaning, cleaned)
    assert capacity.held == 0


async def test_cancelled_pull_loses_nothing() -> None:
    gate = asyncio.Event()

    async def work(index: int) -> int:
        await gate.wait()
        return index

    async with pool([Task(work, index) for index in range(20)]).run_tasks() as progress:
        for _ in range(5):
            pulling = asyncio.ensure_future(anext(progress))
            await quiet()
            pulling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pulling
        gate.set()
        received = [envelope.value async for envelope in progress]
    assert sorted(received) == list(range(20))


async def test_closing_ends_a_pending_pull() -> None:
    queue: PushPullBufferObj[Any] = PushPullBufferObj()
    progress = pool(queue.source).run_tasks()
    pulling = asyncio.ensure_future(anext(progress))
    await quiet()
    await progress.aclose()
    with pytest.raises(ClosedError):
        await pulling
    await progress.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(progress)


async def test_pulls_after_the_end_raise() -> None:
    progress = pool([one]).run_tasks()
    assert [envelope.value async for envelope in progress] == [1]
    for _ in range(2):
        with pytest.raises(StopAsyncIteration):
            await anext(progress)


async def test_source_stays_open_between_runs() -> None:
    queue: PushPullBufferObj[Callable[[], Any]] = PushPullBufferObj()
    runner = pool(queue.source)
    for _ in range(2):
        async with runner.run_tasks() as progress:
            await queue.sink.next(one)
            assert (await anext(progress)).value == 1


async def test_runner_has_one_run_at_a_time() -> None:
    runner = pool(PushPullBufferObj[Any]().source, name="mill")
    waiting = runner.run_tasks()
    async with runner.run_tasks():
        with pytest.raises(RuntimeError, match="mill: this runner is running already"):
            runner.run_tasks()
        with pytest.raises(RuntimeError, match="running already"):
            await anext(waiting)
    async with waiting:
        pass
    with pytest.raises(RuntimeError, match="was closed"):
        await waiting.__aenter__()


async def test_run_read_to_its_end_is_over() -> None:
    source = SourceBufferObj([one])
    runner = pool(source)
    for _ in range(2):
        assert [envelope.value async for envelope in runner.run_tasks()] == [1]
        source.buffer.append(one)
        source.restart()


async def test_task_cannot_close_its_own_run() -> None:
    runs: list[TaskRun] = []

    async def work() -> None:
        await asyncio.sleep(0)
        await runs[0].aclose()

    runs.append(pool([work]).run_tasks())
    async with runs[0] as progress:
        [envelope] = [envelope async for envelope in progress]
    assert isinstance(envelope.error, RuntimeError)
    assert "cannot close the run that it is part of" in str(envelope.error)


def test_run_belongs_to_its_loop() -> None:
    queue: PushPullBufferObj[Any] = PushPullBufferObj()
    progress = pool(queue.source).run_tasks()
    assert_bound_to_loop(progress, progress.__aenter__)


async def test_law_5_dropped_run_warns_and_ends() -> None:
    capacity = CapacitySource(1)

    async def work() -> None:
        await asyncio.Event().wait()

    runs = [HierarchicalTaskPoolRunner([work], capacity).run_tasks()]
    await runs[0].__aenter__()
    await until(lambda: capacity.held)
    await quiet()
    with pytest.warns(ResourceWarning, match="unclosed <TaskRun"):
        runs.clear()
    await until(lambda: not capacity.held and len(asyncio.all_tasks()) == 1)


async def test_run_read_to_its_end_can_be_dropped() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        progress = pool([one]).run_tasks()
        assert len([envelope async for envelope in progress]) == 1
        del progress
        gc.collect()


@pytest.mark.parametrize("how", ["read", "left", "stopped", "interrupted"])
@pytest.mark.parametrize("debug", [False, True], ids=["as usual", "debugged"])
@pytest.mark.usefixtures("gc_disabled")
async def test_ended_run_is_freed_without_gc(how: str, debug: bool) -> None:
    if debug:
        asyncio.get_running_loop().set_debug(True)

    async def yields() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(0)

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError

    async def waits() -> None:
        await asyncio.sleep(0)

    # If it is started eagerly, its traceback refers to the frames that started it.
    async def fails_at_once() -> None:
        raise ValueError

    def interrupts() -> None:
        raise KeyboardInterrupt

    async def run() -> weakref.ref[CapacitySource]:
        capacity = CapacitySource(2)
        tasks: list[Any] = [one, yields, fails_at_once, fails, waits, Task(waits, timeout=60)]
        if how == "interrupted":
            tasks.append(interrupts)
        on_error: Any = "stop" if how == "stopped" else "continue"
        runner = HierarchicalTaskPoolRunner(tasks * 3, capacity, on_error=on_error)
        with suppress(KeyboardInterrupt):
            async with runner.run_tasks() as progress:
                async for _ in progress:
                    if how == "left":
                        break
        return weakref.ref(capacity)

    capacity = await run()
    await quiet()
    assert capacity() is None


@pytest.mark.usefixtures("gc_disabled")
async def test_error_of_first_step_is_freed_with_envelope() -> None:
    class Failed(Exception):
        pass

    def fails() -> None:
        raise Failed

    errors: list[weakref.ref[BaseException]] = []
    async with pool([fails] * 4).run_tasks() as progress:
        async for envelope in progress:
            assert isinstance(envelope.error, Failed)
            errors.append(weakref.ref(envelope.error))
            del envelope
        await quiet()
        assert progress.first_error is errors[0]()
        assert [error() for error in errors[1:]] == [None] * 3
