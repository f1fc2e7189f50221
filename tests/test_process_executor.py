"""`ProcessExecutor`: what it adds to the behaviour of every executor. The workers are real processes."""

from __future__ import annotations

import asyncio
import contextvars
import os
import pickle
import resource
import sys
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import pytest

from headrace import (
    BrokenError,
    CapacitySource,
    ClosedError,
    HierarchicalTaskPoolRunner,
    NotSendable,
    ProcessExecutor,
    RemoteError,
    RunStopped,
    Task,
    WorkerLost,
    WrongLoopError,
)
from headrace.pool import CancelResult, CancelSupport
from headrace.pool.executor.process.messages import Kind, dump_value
from headrace.pool.executor.process.submitted_work import SubmittedWork
from tests import process_jobs as jobs
from tests.pool_support import quiet
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator
    from pathlib import Path

    from headrace.pool import Submission

pytestmark = pytest.mark.loops("asyncio", "uvloop")


async def ready(executor: ProcessExecutor, workers: int) -> None:
    """Wait until all workers can take tasks."""
    per_worker = executor.tasks_per_worker
    await eventually(lambda: (executor.capabilities.slots or 0) >= workers * per_worker)


async def outcome(submission: Submission) -> Any:
    """Return the outcome of a task, whatever it is."""
    try:
        return await submission
    except BaseException as error:
        return error


async def test_large_values_travel_both_ways() -> None:
    data = os.urandom(10_000_000)
    buffer = pickle.PickleBuffer(bytearray(data))
    async with ProcessExecutor(1) as executor:
        assert await executor.submit(Task(jobs.same, data)) == data
        # Out of band: it arrives as memory that may be written to.
        returned: Any = await executor.submit(Task(jobs.same, buffer))
        assert bytes(returned) == data
        assert not memoryview(returned).readonly


async def test_closures_travel_by_value_with_cloudpickle() -> None:
    pytest.importorskip("cloudpickle", reason="cloudpickle is not installed")
    number = 3
    async with ProcessExecutor(1) as executor:
        assert await executor.submit(Task(lambda: number + 1)) == 4
        add = await executor.submit(Task(lambda: lambda other: number + other))
        assert cast("Callable[[int], int]", add)(2) == 5
        # The message is that of pickle, which says more about the value.
        with pytest.raises(NotSendable, match=r"cannot be sent.*cannot pickle '_thread.lock'"):
            await executor.submit(Task(jobs.same, threading.Lock()))


async def test_unsendable_values_are_named_and_the_worker_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Without it, as most programs are.
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    async with ProcessExecutor(1) as executor:
        worker = await executor.submit(Task(jobs.process_id))
        with pytest.raises(NotSendable, match=r"<lambda>.*cannot be sent.*top of a module"):
            await executor.submit(Task(lambda: 1))
        with pytest.raises(NotSendable, match="lock that the task returned cannot be sent"):
            await executor.submit(Task(jobs.unpicklable))
        with pytest.raises(NotSendable, match="lock that the task yielded cannot be sent"):
            await executor.submit(Task(jobs.yield_unpicklable))
        with pytest.raises(
            NotSendable, match=r"returned cannot be read in this process.*cannot be"
        ):
            await executor.submit(Task(jobs.unreadable))
        with pytest.raises(NotSendable, match="cannot be read in a worker: ValueError: cannot be"):
            await executor.submit(Task(jobs.same, jobs.Unreadable()))
        assert await executor.submit(Task(jobs.process_id)) == worker


async def test_error_that_cannot_be_unpickled_keeps_name_and_text() -> None:
    async with ProcessExecutor(1) as executor:
        error = await outcome(executor.submit(Task(jobs.raise_awkward)))
    assert isinstance(error, RemoteError)
    assert (error.kind, error.text) == ("tests.process_jobs.AwkwardError", "7: no")
    assert str(error) == "tests.process_jobs.AwkwardError: 7: no"


async def test_error_has_the_traceback_of_its_worker() -> None:
    async with ProcessExecutor(1) as executor:
        worker = await executor.submit(Task(jobs.process_id))
        error = await outcome(executor.submit(Task(jobs.raise_value_error, "no")))
    assert isinstance(error, ValueError)
    (note,) = error.__notes__
    assert note.startswith(f"in process {worker}:\nTraceback")
    assert "in raise_value_error" in note


async def test_exit_of_a_worker_loses_its_task_alone(tmp_path: Path) -> None:
    async with ProcessExecutor(2, prefetch=1) as executor:
        await ready(executor, 4)
        gate = tmp_path / "gate"
        sibling = executor.submit(Task(jobs.wait_for, gate))
        doomed = executor.submit(Task(jobs.exit_process, 7))
        # They wait behind the other two, at either worker.
        queued = [executor.submit(Task(jobs.double, number)) for number in range(2)]
        error = await outcome(doomed)
        assert isinstance(error, WorkerLost)
        assert (error.started, error.confirmed) == (True, "exit")
        assert "has ended (exit code 7) while it ran" in str(error)
        gate.touch()
        assert await sibling in executor.workers
        assert [await one for one in queued] == [0, 2]


async def test_law_20_cancelled_task_ends_with_its_group(tmp_path: Path) -> None:
    async with ProcessExecutor(2, prefetch=0) as executor:
        await ready(executor, 2)
        gate, other = tmp_path / "gate", tmp_path / "other"
        sibling = executor.submit(Task(jobs.wait_for, other))
        work = executor.submit(Task(jobs.start_child_and_wait, gate))
        child_file = gate.with_suffix(".child")
        await eventually(child_file.exists)
        await eventually(gate.with_suffix(".waiting").exists)
        child, worker = int(child_file.read_text()), int(gate.with_suffix(".waiting").read_text())
        assert jobs.is_alive(child)
        assert work.cancel() is CancelResult.RUNNING
        assert isinstance(await outcome(work), asyncio.CancelledError)
        # Not "soon": the answer is the confirmation.
        assert not jobs.is_alive(child)
        assert not jobs.is_alive(worker)
        assert work.cancel() is CancelResult.STOPPED
        other.touch()
        assert await sibling in executor.workers


async def test_cancelled_async_task_leaves_its_worker(tmp_path: Path) -> None:
    async with ProcessExecutor(1) as executor:
        worker = await executor.submit(Task(jobs.process_id))
        gate = tmp_path / "gate"
        work = executor.submit(Task(jobs.wait_for_async, gate))
        await eventually(gate.with_suffix(".waiting").exists)
        assert work.cancel() is CancelResult.RUNNING
        assert isinstance(await outcome(work), asyncio.CancelledError)
        assert await executor.submit(Task(jobs.process_id)) == worker


async def test_law_20_task_that_ignores_cancellation_is_killed(tmp_path: Path) -> None:
    async with ProcessExecutor(1, grace=0.1) as executor:
        gate = tmp_path / "gate"
        work = executor.submit(Task(jobs.refuse_to_end, gate))
        await eventually(gate.with_suffix(".waiting").exists)
        worker = int(gate.with_suffix(".waiting").read_text())
        work.cancel()
        assert isinstance(await outcome(work), asyncio.CancelledError)
        assert not jobs.is_alive(worker)


async def test_queued_task_that_is_cancelled_never_begins(tmp_path: Path) -> None:
    async with ProcessExecutor(1, prefetch=1) as executor:
        await ready(executor, 2)
        gate = tmp_path / "gate"
        first = executor.submit(Task(jobs.wait_for, gate))
        queued = executor.submit(Task(jobs.note_process, tmp_path, 1))
        await eventually(gate.with_suffix(".waiting").exists)
        assert queued.cancel() is CancelResult.STOPPED
        assert isinstance(await outcome(queued), asyncio.CancelledError)
        gate.touch()
        await first
        # It would have begun before this one.
        await executor.submit(Task(jobs.note_process, tmp_path, 2))
        assert not (tmp_path / "begun 1").exists()


async def test_task_behind_a_long_one_begins_elsewhere(tmp_path: Path) -> None:
    async with ProcessExecutor(2, prefetch=1) as executor:
        await ready(executor, 4)
        long, short = tmp_path / "long", tmp_path / "short"
        works = [
            executor.submit(Task(jobs.wait_for, long)),
            executor.submit(Task(jobs.wait_for, short)),
            *(executor.submit(Task(jobs.process_id)) for _ in range(2)),
        ]
        short.touch()
        # One of these was sent to wait behind the long one.
        workers = {await works[2], await works[3]}
        assert workers == {await works[1]}
        long.touch()
        await works[0]


async def test_values_wait_for_their_reader_within_the_window(tmp_path: Path) -> None:
    produced = tmp_path / "produced"
    async with ProcessExecutor(1, window=4) as executor:
        stream = executor.submit(Task(jobs.count_produced, produced))
        for reads in range(1, 1_001):
            assert await anext(stream) == reads - 1
            # At each moment, at most the window is ahead of the reader.
            assert int(produced.read_text() or reads) <= reads + 4
        assert await outcome(stream) is None


class Awaited:
    """An awaitable that is no coroutine: the coroutine in it warns if nothing has awaited it."""

    def __init__(self, inner: Awaitable[None]) -> None:
        self._inner = inner

    def __await__(self) -> Generator[Any, None, None]:
        return self._inner.__await__()


class Refusing:
    """A listener that stops its task at each value."""

    name = "task"
    has_lease = False

    def __init__(self) -> None:
        self.outcomes: list[object] = []

    def called(self) -> None: ...

    def settle(self, amounts: dict[str, float]) -> None: ...

    def emit(self, value: object) -> Awaitable[None]:
        return Awaited(self._refuse())

    async def _refuse(self) -> None:
        raise asyncio.CancelledError

    def returned(self, value: object) -> None:
        self.outcomes.append(value)

    def raised(self, error: BaseException) -> None:
        self.outcomes.append(error)


async def test_refused_value_does_not_hide_the_outcome() -> None:
    listener = Refusing()
    work = SubmittedWork(listener, (), asyncio.get_running_loop(), 4)
    work.receive(Kind.EMIT, dump_value(1, "yielded"), "a worker")
    await quiet()
    assert work.is_cancelled
    # Both in one message: the end comes before the first step of the wait for space.
    error = asyncio.CancelledError()
    work.receive(Kind.EMIT, dump_value(2, "yielded"), "a worker")
    work.end_with_error(error)
    await quiet()
    assert listener.outcomes == [error]


async def test_context_variables_travel_by_name() -> None:
    context = contextvars.copy_context()
    context.run(jobs.tenant.set, "acme")
    task = Task(jobs.read_tenant).in_context(context)
    async with ProcessExecutor(1, carry=[jobs.tenant]) as executor:
        assert await executor.submit(task) == "acme"
    async with ProcessExecutor(1) as executor:
        assert await executor.submit(task) == "none"


async def test_lease_is_settled_by_its_worker() -> None:
    capacity = CapacitySource({"slots": 4, "tokens": 100})
    async with ProcessExecutor(1) as executor:
        used: list[float] = []
        task = Task(
            jobs.settle,
            30.0,
            cost={"slots": 1, "tokens": 50},
            on_complete=lambda _: used.append(0.0),
        )
        runner = HierarchicalTaskPoolRunner([task], capacity, executor=executor)
        await runner.run()
        with pytest.raises(RuntimeError, match="cannot be suspended in a remote executor"):
            await HierarchicalTaskPoolRunner(
                [Task(jobs.suspend, cost={"slots": 1})], capacity, executor=executor
            ).run()
        with pytest.raises(RuntimeError, match="there is no lease here"):
            await executor.submit(Task(jobs.settle, 30.0))
    assert capacity.snapshot().held == {"slots": 0, "tokens": 0}


async def test_tasks_of_one_worker_run_side_by_side(tmp_path: Path) -> None:
    async with ProcessExecutor(1, tasks_per_worker=3, prefetch=0) as executor:
        await ready(executor, 1)
        assert executor.capabilities.cancel_support is CancelSupport.COOPERATIVE
        gates = [tmp_path / f"gate {number}" for number in range(3)]
        works = [
            executor.submit(Task(jobs.wait_for_async, gates[0])),
            executor.submit(Task(jobs.wait_for, gates[1])),
            executor.submit(Task(jobs.count_slowly, gates[2], 3)),
        ]
        for gate in gates:
            await eventually(gate.with_suffix(".waiting").exists)
        for gate in reversed(gates):
            gate.touch()
        assert [value async for value in works[2]] == [0, 1, 2]
        assert await works[0] == await works[1] == executor.workers[0]


async def test_cancelled_sibling_is_not_forced_by_default(tmp_path: Path) -> None:
    async with ProcessExecutor(1, tasks_per_worker=2, grace=0.01) as executor:
        gate, other = tmp_path / "gate", tmp_path / "other"
        stubborn = executor.submit(Task(jobs.refuse_to_end, gate))
        sibling = executor.submit(Task(jobs.wait_for_async, other))
        await eventually(gate.with_suffix(".waiting").exists)
        assert stubborn.cancel() is CancelResult.RUNNING
        await eventually(gate.with_suffix(".cancelled").exists)
        other.touch()
        assert await sibling in executor.workers
        gate.touch()
        assert await stubborn is None


async def test_kill_loses_the_siblings_of_a_stubborn_task(tmp_path: Path) -> None:
    async with ProcessExecutor(1, tasks_per_worker=2, grace=0.01, kill=True) as executor:
        gate, other = tmp_path / "gate", tmp_path / "other"
        stubborn = executor.submit(Task(jobs.refuse_to_end, gate))
        sibling = executor.submit(Task(jobs.wait_for_async, other))
        await eventually(gate.with_suffix(".waiting").exists)
        await eventually(other.with_suffix(".waiting").exists)
        stubborn.cancel()
        assert isinstance(await outcome(stubborn), asyncio.CancelledError)
        lost = await outcome(sibling)
        assert isinstance(lost, WorkerLost)
        assert lost.started


async def test_no_capacity_is_held_while_workers_start() -> None:
    capacity = CapacitySource(10)
    executor = ProcessExecutor(1)
    assert executor.capabilities.slots == 0
    async with executor:
        # A worker needs many iterations of the event loop until it is ready.
        runner = HierarchicalTaskPoolRunner(
            [Task(jobs.double, number) for number in range(3)], capacity, executor=executor
        )
        running = asyncio.create_task(runner.run())
        while not executor.capabilities.slots:
            assert capacity.snapshot().held == {"slots": 0}
            await asyncio.sleep(0)
        assert sorted(await running) == [0, 2, 4]


async def test_use_before_start_and_after_close_is_refused() -> None:
    executor = ProcessExecutor(1)
    with pytest.raises(RuntimeError, match="was not started: use async with"):
        await executor.submit(Task(jobs.double, 1))
    await executor.aclose()
    with pytest.raises(ClosedError, match="was closed"):
        await executor.start()
    async with ProcessExecutor(1) as other:
        await other.start()
    with pytest.raises((ClosedError, RuntimeError)):
        await other.submit(Task(jobs.double, 1))
    await other.aclose()


async def test_start_that_failed_can_be_repeated() -> None:
    executor = ProcessExecutor(1)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            await executor.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    async with executor:
        assert await executor.submit(Task(jobs.double, 2)) == 4


async def test_close_ends_running_tasks(tmp_path: Path) -> None:
    async with ProcessExecutor(1) as executor:
        await ready(executor, 2)
        works = [executor.submit(Task(jobs.wait_for, tmp_path / "gate")) for _ in range(2)]
        await eventually((tmp_path / "gate.waiting").exists)
        workers = executor.workers
    for work in works:
        assert isinstance(await outcome(work), asyncio.CancelledError)
    assert not any(map(jobs.is_alive, workers))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"workers": 1.5}, "workers must be an integer, got 1.5"),
        ({"prefetch": -1}, "prefetch must be at least 0, got -1"),
        ({"window": 0}, "window must be at least 1, got 0"),
        ({"tasks_per_worker": True}, "tasks_per_worker must be an integer, got True"),
        ({"grace": -1}, "grace must not be negative, got -1"),
        ({"grace": "5"}, "grace must be a number, got '5'"),
        ({"kill": 1}, "kill must be True or False, got 1"),
        ({"carry": ["tenant"]}, "carry must hold context variables"),
        ({"carry": [contextvars.ContextVar("local")]}, "not a global of a module"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        ProcessExecutor(**options)


def test_second_event_loop_is_refused_while_the_first_is_open() -> None:
    executor = ProcessExecutor(1)
    with asyncio.Runner() as first:
        first.run(executor.start())

        async def start_elsewhere() -> None:
            with pytest.raises(WrongLoopError, match="runs on another event loop"):
                await executor.start()

        with asyncio.Runner() as second:
            second.run(start_elsewhere())
    workers = executor.workers

    async def use() -> object:
        async with executor:
            return await executor.submit(Task(jobs.double, 4))

    # The workers of a closed event loop are replaced.
    assert asyncio.run(use()) == 8
    assert not any(map(jobs.is_alive, workers))


async def broken_by(executor: ProcessExecutor) -> AsyncIterator[BaseException]:
    async with executor:
        for _ in range(2):
            yield await outcome(executor.submit(Task(jobs.double, 1)))


async def test_workers_that_cannot_start_break_the_executor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "headrace_missing_for_workers.py"
    module.write_text("from contextvars import ContextVar\nvariable = ContextVar('variable')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    missing = import_module("headrace_missing_for_workers")

    executor = ProcessExecutor(1, carry=[missing.variable])
    module.unlink()
    errors = [error async for error in broken_by(executor)]
    assert all(isinstance(error, BrokenError) for error in errors)
    assert "its workers cannot start: No module named 'headrace_missing" in str(errors[0])
    capacity = CapacitySource(1)
    async with ProcessExecutor(1, carry=[missing.variable]) as executor:
        # A run ends at the first task, since all others would fail for the same reason.
        with pytest.raises(RunStopped, match="workers cannot start"):
            await HierarchicalTaskPoolRunner(
                [Task(jobs.double, 1)] * 100, capacity, executor=executor
            ).run()
    assert capacity.snapshot().held == {"slots": 0}
