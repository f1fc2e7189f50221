"""The executors of this process: the identity of objects, threads, and tasks that share memory with the test.

The rules of all executors are the cases of `headrace.testing.executors`; see `test_executor_suite.py`.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from headrace import Final, Task
from headrace.pool import CancelResult, CancelSupport, Executor, LoopExecutor, ThreadExecutor
from tests.pool_support import quiet
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

where: ContextVar[str] = ContextVar("where", default="nowhere")

EXECUTORS: dict[str, Callable[[], Executor]] = {
    "loop": LoopExecutor,
    "thread": lambda: ThreadExecutor("mill"),
}


@pytest.fixture(params=EXECUTORS)
def executor(request: pytest.FixtureRequest) -> Executor:
    return EXECUTORS[request.param]()


class Recorder:
    """A listener that records all of its calls."""

    def __init__(self, space: asyncio.Event | None = None) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.space = space
        self.ended = asyncio.Event()
        self.thread = threading.get_ident()

    name = "mill: task 1"
    has_lease = False

    def record(self, event: str, value: Any) -> None:
        assert threading.get_ident() == self.thread
        assert not self.ended.is_set()
        self.calls.append((event, value))

    def called(self) -> None:
        self.record("called", None)

    def emit(self, value: object) -> Awaitable[None] | None:
        self.record("emit", value)
        return None if self.space is None else self._wait(self.space)

    async def _wait(self, space: asyncio.Event) -> None:
        await space.wait()

    def settle(self, amounts: dict[str, float]) -> None:
        self.record("settle", amounts)

    def returned(self, value: object) -> None:
        self.record("returned", value)
        self.ended.set()

    def raised(self, error: BaseException) -> None:
        self.record("raised", error)
        self.ended.set()


def identity(value: object) -> object:
    """A plain function, which any executor can call."""
    return value


def fails(error: BaseException) -> object:
    raise error


async def outcome(executor: Executor, task: Task) -> list[tuple[str, Any]]:
    await executor.start()
    recorder = Recorder()
    executor.submit(task, recorder)
    await recorder.ended.wait()
    await executor.aclose()
    return recorder.calls


@pytest.mark.parametrize(
    "kind", [ValueError, StopIteration, KeyboardInterrupt, SystemExit, asyncio.CancelledError]
)
async def test_handle_can_be_awaited(executor: Executor, kind: type[BaseException]) -> None:
    await executor.start()
    work = executor.submit(Task(identity, 5))
    assert await work == await work == 5
    assert [value async for value in work] == []
    assert work.cancel() is CancelResult.STOPPED
    error = kind("mine")
    work = executor.submit(Task(fails, error))
    for _ in range(2):
        with pytest.raises((kind, RuntimeError)) as raised:
            await work
        assert raised.value is error or (kind is StopIteration and raised.value.__cause__ is error)
    await executor.aclose(0.1)


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_handle_can_be_iterated_then_awaited(executor: Executor, count: int) -> None:
    if not executor.capabilities.streaming:
        pytest.skip("the executor does not stream")
    yielded: list[int] = []

    async def yields() -> AsyncIterator[int | Final[str]]:
        for value in range(3):
            yielded.append(value)
            yield value
        yield Final("all")

    await executor.start()
    work = executor.submit(Task(yields))
    for value in range(count):
        assert await anext(work) == value
        await quiet()
        # Never more than one value ahead of the consumer.
        assert yielded == list(range(min(value + 2, 3)))
    assert await work == "all"
    assert yielded == [0, 1, 2]
    with pytest.raises(StopAsyncIteration):
        await anext(work)
    await executor.aclose()


async def test_cancelled_stream_returns_yielded_values(
    executor: Executor,
) -> None:
    if not executor.capabilities.streaming:
        pytest.skip("the executor does not stream")

    async def yields() -> AsyncIterator[int]:
        yield 1
        yield 2

    await executor.start()
    work = executor.submit(Task(yields))
    await quiet()
    assert work.cancel() is CancelResult.RUNNING
    assert [value async for value in work] == [1]
    with pytest.raises(asyncio.CancelledError):
        await work
    assert work.cancel() is CancelResult.STOPPED
    await executor.aclose()


@pytest.mark.parametrize(
    "kind", [ValueError, StopIteration, KeyboardInterrupt, SystemExit, asyncio.CancelledError]
)
async def test_error_is_reported_unchanged(executor: Executor, kind: type[BaseException]) -> None:
    error = kind("mine")
    called, (event, raised) = await outcome(executor, Task(fails, error))
    assert called == ("called", None)
    assert event == "raised"
    if kind is StopIteration:
        # Where it cannot be raised through a frame, it is the cause of the error.
        assert raised is error or raised.__cause__ is error
    else:
        assert raised is error


async def test_work_runs_in_a_copy_of_its_tasks_context(executor: Executor) -> None:
    def swap_context() -> str:
        before = where.get()
        where.set("inside")
        return before

    where.set("at the task")
    task = Task(swap_context)
    where.set("later")
    for _ in range(2):
        assert (await outcome(executor, task))[-1] == ("returned", "at the task")
    assert where.get() == "later"


async def test_closing_is_idempotent_and_leaves_no_thread(executor: Executor) -> None:
    await outcome(executor, Task(identity, 5))
    await executor.aclose()
    assert not any(thread.name.startswith("mill") for thread in threading.enumerate())


async def test_cancel_reports_the_actual_state(executor: Executor) -> None:
    await executor.start()
    recorder = Recorder()
    cooperative = executor.capabilities.cancel_support is not CancelSupport.NONE
    gate = threading.Event()
    cleaned = asyncio.Event()

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await cleaned.wait()

    handle = executor.submit(Task(waits) if cooperative else Task(gate.wait), recorder)
    await eventually(lambda: recorder.calls)
    await quiet()
    assert not handle.inside()
    assert handle.cancel() is CancelResult.RUNNING
    await quiet()
    # It was cancelled but is still running: nothing is reported before it has stopped.
    assert not recorder.ended.is_set()
    gate.set()
    cleaned.set()
    await recorder.ended.wait()
    assert [event for event, _ in recorder.calls] == [
        "called",
        "raised" if cooperative else "returned",
    ]
    assert handle.cancel() is CancelResult.STOPPED
    await executor.aclose()


async def test_left_work_reports_only_its_stop(executor: Executor) -> None:
    if executor.capabilities.cancel_support is not CancelSupport.NONE:
        pytest.skip("work that can be cancelled is not left")
    await executor.start()
    recorder = Recorder()
    gate, stopped = threading.Event(), threading.Event()
    handle = executor.submit(Task(gate.wait), recorder)
    handle.leave(stopped.set)
    await executor.aclose()
    assert not stopped.is_set()
    gate.set()
    await eventually(stopped.is_set)
    assert recorder.calls == [("called", None)]


async def test_leaving_stopped_work_reports_at_once(executor: Executor) -> None:
    if executor.capabilities.cancel_support is not CancelSupport.NONE:
        pytest.skip("work that can be cancelled is not left")
    await executor.start()
    recorder = Recorder()
    gate = threading.Event()

    def work() -> None:
        gate.set()

    handle = executor.submit(Task(work), recorder)
    # It ends before the loop runs another iteration.
    gate.wait()
    stopped = threading.Event()
    handle.leave(stopped.set)
    assert stopped.wait(10)
    await quiet()
    assert recorder.calls == [("called", None)]
    await executor.aclose()


THREADS = """
import asyncio, gc, signal
from headrace import Task
from headrace.pool import ThreadExecutor


async def main():
    executor = ThreadExecutor("mill")
    await executor.start()
    works = []

    class Garbage:
        def __init__(self):
            self.me = self

        def __del__(self):
            works.append(executor.submit(Task(int, "7")))

    def handle(number, frame):
        works.append(executor.submit(Task(int, "7")))

    signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    gc.set_threshold(5, 2, 2)
    for _ in range(300):
        Garbage()
        works.append(executor.submit(Task(int, "7")))
        await asyncio.sleep(0)
    gc.set_threshold(700, 10, 10)
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert set(await asyncio.gather(*works)) == {7}
    await executor.aclose()
    print(len(works) > 310)


asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="POSIX")
def test_finalizers_and_signal_handlers_can_submit() -> None:
    # In its own process, so that it fails instead of hanging.
    completed = subprocess.run(
        [sys.executable, "-c", THREADS], capture_output=True, text=True, timeout=50, check=False
    )
    assert (completed.returncode, completed.stdout, completed.stderr) == (0, "True\n", "")
