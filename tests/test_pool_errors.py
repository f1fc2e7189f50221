from __future__ import annotations

import asyncio
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    CapacitySource,
    HierarchicalTaskPoolRunner,
    SourceCancelledError,
    SourceObj,
    Task,
)
from tests.pool_support import ERROR, envelopes, error_of, one, pool, quiet
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

pytestmark = pytest.mark.usefixtures("task_path")


async def test_error_is_the_same_object() -> None:
    raised = ValueError("mine")

    async def work() -> None:
        raise raised

    assert await error_of(work) is raised


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration, GeneratorExit])
@pytest.mark.parametrize("thread", [False, True])
async def test_iteration_exceptions_become_runtime_errors(
    kind: type[BaseException], thread: bool
) -> None:
    def work() -> None:
        raise kind

    error = await error_of(Task(work, thread=thread))
    assert isinstance(error, RuntimeError)
    assert isinstance(error.__cause__, kind)


async def test_invalid_task_is_an_error_that_names_it() -> None:
    refused, after = await envelopes(pool([17, one]))
    assert isinstance(refused.error, TypeError)
    assert "17 (int)" in str(refused.error)
    assert (refused.attempt, refused.started, refused.key) == (0, None, None)
    assert after.value == 1


async def test_cancelled_error_of_a_task_is_its_error() -> None:
    async def work() -> None:
        raise asyncio.CancelledError("mine")

    error = await error_of(work)
    assert isinstance(error, asyncio.CancelledError)
    assert error.args == ("mine",)


async def test_self_cancelled_task_is_an_error() -> None:
    async def work() -> None:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        await asyncio.sleep(0)

    assert isinstance(await error_of(work), asyncio.CancelledError)


@pytest.mark.parametrize("iterations", [0, 1, 2])
@pytest.mark.parametrize("message", [(), ("enough",)])
async def test_self_cancellation_in_last_step_is_an_error(
    iterations: int, message: tuple[str, ...]
) -> None:
    """As in asyncio, such a task ends cancelled, whatever it returned."""

    async def work() -> int:
        current = asyncio.current_task()
        assert current is not None
        for _ in range(iterations):
            await asyncio.sleep(0)
        current.cancel(*message)
        return 1

    async def tasks() -> AsyncIterator[Any]:
        for task in (work, one, work, one):
            yield task
            # From the second task on, a shared asyncio task is then parked and not newly created.
            for _ in range(10):
                await asyncio.sleep(0)

    found = await envelopes(pool(tasks(), 1))
    assert [envelope.value for envelope in found] == [None, 1, None, 1]
    for envelope in found[::2]:
        assert envelope.type is ERROR
        assert isinstance(envelope.error, asyncio.CancelledError)
        assert envelope.error.args == message


async def test_function_that_cancels_its_task_is_an_error() -> None:
    def work() -> int:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        return 1

    assert isinstance(await error_of(work), asyncio.CancelledError)


@pytest.mark.parametrize("iterations", [0, 1])
async def test_task_can_catch_its_own_cancellation(iterations: int) -> None:
    async def work() -> int:
        current = asyncio.current_task()
        assert current is not None
        for _ in range(iterations):
            await asyncio.sleep(0)
        current.cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            return 2
        return 1

    found = await envelopes(pool([work, one, work], 1))
    assert [envelope.value for envelope in found] == [2, 1, 2]


async def test_task_cancelled_from_outside_is_an_error() -> None:
    gate = asyncio.Event()
    workers: list[asyncio.Task[Any]] = []

    async def work() -> int:
        current = asyncio.current_task()
        assert current is not None
        workers.append(current)
        await gate.wait()
        return 1

    async with pool([work] * 4, 2).run_tasks() as progress:
        await until(lambda: len(workers) == 2)
        assert workers[0].cancel("not mine")
        first = await anext(progress)
        gate.set()
        others = [envelope async for envelope in progress]
    assert isinstance(first.error, asyncio.CancelledError)
    assert first.error.args == ("not mine",)
    assert [envelope.value for envelope in others] == [1, 1, 1]
    assert workers[0].cancelled()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("iterations", [0, 1])
async def test_exit_exception_closes_pool_then_propagates(
    kind: type[BaseException], iterations: int
) -> None:
    capacity = CapacitySource(2)
    ended: list[str] = []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("long")

    async def work() -> None:
        for _ in range(iterations):
            await asyncio.sleep(0)
        raise kind("stop")

    async with HierarchicalTaskPoolRunner([hang, work, one], capacity).run_tasks() as progress:
        with pytest.raises(kind, match="stop"):
            [envelope async for envelope in progress]
        assert (ended, capacity.held, len(asyncio.all_tasks())) == (["long"], 0, 1)
        with pytest.raises(StopAsyncIteration):
            await anext(progress)


@pytest.mark.parametrize("is_reading", [True, False])
def test_ctrl_c_closes_pool_then_ends_program(is_reading: bool) -> None:
    """The signal arrives while a task runs: asyncio cancels the main task."""
    capacity = CapacitySource(2)
    ended: list[str] = []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("long")

    async def work() -> None:
        await asyncio.sleep(0)
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(0)

    async def main() -> None:
        async with HierarchicalTaskPoolRunner([hang, work], capacity).run_tasks() as progress:
            if is_reading:
                [envelope async for envelope in progress]
            else:
                await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert (ended, capacity.held) == (["long"], 0)


async def test_exit_exception_is_raised_by_closing() -> None:
    async def work() -> None:
        raise KeyboardInterrupt

    async def leave() -> None:
        async with pool([work]).run_tasks():
            await quiet()

    with pytest.raises(KeyboardInterrupt):
        await leave()


async def test_exit_exception_of_source_propagates() -> None:
    class Bad(SourceObj[Any]):
        async def pull_impl(self) -> AsyncIterator[Any]:
            yield one
            raise SystemExit(3)

    async with pool(Bad()).run_tasks() as progress:
        assert (await anext(progress)).value == 1
        with pytest.raises(SystemExit):
            await anext(progress)


async def test_source_error_is_raised_and_run_continues() -> None:
    class Flaky(SourceObj[Any]):
        def __init__(self) -> None:
            super().__init__()
            self.items: list[Any] = [one, ValueError("bad"), one]

        async def __anext__(self) -> Any:
            if not self.items:
                raise StopAsyncIteration
            item = self.items.pop(0)
            if isinstance(item, Exception):
                raise item
            return item

    values: list[object] = []
    notes: list[str] = []
    async with pool(Flaky(), name="mill").run_tasks() as progress:
        while True:
            try:
                values.append((await anext(progress)).value)
            except ValueError as error:
                notes += error.__notes__
            except StopAsyncIteration:
                break
    assert values == [1, 1]
    assert notes == ["raised by the source of mill"]


async def test_source_is_not_pulled_until_error_is_read() -> None:
    pulls = 0

    class Broken(SourceObj[Any]):
        async def __anext__(self) -> Any:
            nonlocal pulls
            pulls += 1
            raise ValueError

    async with pool(Broken()).run_tasks() as progress:
        for expected in (1, 2, 3):
            await quiet()
            assert pulls == expected
            with pytest.raises(ValueError):
                await anext(progress)


async def test_cancelled_error_of_source_is_wrapped() -> None:
    class Cancelled(SourceObj[Any]):
        async def __anext__(self) -> Any:
            raise asyncio.CancelledError

    async with pool(Cancelled()).run_tasks() as progress:
        with pytest.raises(SourceCancelledError):
            await anext(progress)


async def test_cancelled_feeder_does_not_look_like_an_end() -> None:
    capacity = CapacitySource(1)

    async def work() -> None:
        await asyncio.Event().wait()

    runner = HierarchicalTaskPoolRunner([work, one], capacity, name="mill")
    async with runner.run_tasks() as progress:
        await until(lambda: capacity.held)
        await quiet()
        for task in asyncio.all_tasks():
            if task.get_name() == "mill: feeder":
                task.cancel()
        assert isinstance((await anext(progress)).error, asyncio.CancelledError)
        with pytest.raises(SourceCancelledError, match="mill: feeder was cancelled"):
            await anext(progress)
    assert [envelope.value for envelope in await envelopes(runner)] == [1]


async def test_error_while_closing_goes_to_loop_handler() -> None:
    capacity = CapacitySource(1)
    contexts: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: contexts.append(context))

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("while cleaning up")

    async with HierarchicalTaskPoolRunner([work], capacity, name="mill").run_tasks():
        await until(lambda: capacity.held)
        await quiet()
    loop.set_exception_handler(handler)
    [context] = contexts
    assert context["message"] == "mill: task 1 raised while its run was being closed"
    assert isinstance(context["exception"], ValueError)


async def test_blocking_tasks_run_concurrently_in_threads() -> None:
    barrier = threading.Barrier(3)

    def work(index: int) -> tuple[int, bool]:
        barrier.wait(30)
        return index, threading.current_thread() is threading.main_thread()

    runner = pool([Task(work, index, thread=True) for index in range(3)], 3)
    received = [envelope.value for envelope in await envelopes(runner)]
    assert sorted(received) == [(0, False), (1, False), (2, False)]


async def test_error_of_a_thread_is_the_same_object() -> None:
    raised = ValueError("mine")

    def work() -> None:
        raise raised

    assert await error_of(Task(work, thread=True)) is raised


async def test_closing_waits_for_threads() -> None:
    capacity = CapacitySource(1)
    started, release, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        assert release.wait(30)
        ended.set()

    async def leave() -> None:
        async with HierarchicalTaskPoolRunner([Task(work, thread=True)], capacity).run_tasks():
            await asyncio.to_thread(started.wait, 30)

    leaving = asyncio.create_task(leave())
    await asyncio.to_thread(started.wait, 30)
    for _ in range(3):
        leaving.cancel()
        await quiet()
        assert (leaving.done(), capacity.held) == (False, 1)
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert ended.is_set()
    assert capacity.held == 0


async def test_no_thread_is_left_running() -> None:
    before = threading.active_count()
    await envelopes(pool([Task(int, thread=True)] * 5))
    assert threading.active_count() == before


async def test_coroutine_from_a_thread_is_an_error() -> None:
    def work() -> Coroutine[Any, Any, int]:
        return one()

    error = await error_of(Task(work, thread=True))
    assert isinstance(error, TypeError)
    assert "returned <coroutine" in str(error)


async def test_keyboard_interrupt_of_a_thread_propagates() -> None:
    def work() -> None:
        raise KeyboardInterrupt

    async with pool([Task(work, thread=True)]).run_tasks() as progress:
        with pytest.raises(KeyboardInterrupt):
            await anext(progress)


async def test_law_6_threads_are_bounded_by_running_tasks() -> None:
    before, most = threading.active_count(), 0
    async with pool([Task(int, thread=True) for _ in range(3000)], 2).run_tasks() as progress:
        async for _ in progress:
            most = max(most, threading.active_count() - before)
    assert 1 <= most <= 2
