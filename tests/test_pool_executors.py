"""What every executor must do, whatever it runs work on.

An executor is added by a row in `EXECUTORS`. What it cannot do by its own word (`capabilities`) is not asked of it; all
else is.
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


class Heard:
    """A listener that writes everything down."""

    def __init__(self, room: asyncio.Event | None = None) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.room = room
        self.ended = asyncio.Event()
        self.thread = threading.get_ident()

    name = "mill: task 1"

    def note(self, what: str, value: Any) -> None:
        assert threading.get_ident() == self.thread
        assert not self.ended.is_set()
        self.calls.append((what, value))

    def called(self) -> None:
        self.note("called", None)

    def emit(self, value: object) -> Awaitable[None] | None:
        self.note("emit", value)
        return None if self.room is None else self._wait(self.room)

    async def _wait(self, room: asyncio.Event) -> None:
        await room.wait()

    def returned(self, value: object) -> None:
        self.note("returned", value)
        self.ended.set()

    def raised(self, error: BaseException) -> None:
        self.note("raised", error)
        self.ended.set()


def give(value: object) -> object:
    """A plain function, which any executor can call."""
    return value


def fails(error: BaseException) -> object:
    raise error


async def outcome(executor: Executor, task: Task) -> list[tuple[str, Any]]:
    await executor.start()
    heard = Heard()
    executor.submit(task, heard)
    await heard.ended.wait()
    await executor.aclose()
    return heard.calls


async def test_value_is_told_after_the_call(executor: Executor) -> None:
    assert await outcome(executor, Task(give, 5)) == [("called", None), ("returned", 5)]


@pytest.mark.parametrize(
    "kind", [ValueError, StopIteration, KeyboardInterrupt, SystemExit, asyncio.CancelledError]
)
async def test_handle_is_awaited_for_the_outcome(
    executor: Executor, kind: type[BaseException]
) -> None:
    await executor.start()
    work = executor.submit(Task(give, 5))
    assert await work == await work == 5
    assert [value async for value in work] == []
    assert work.cancel() is CancelResult.STOPPED
    error = kind("mine")
    work = executor.submit(Task(fails, error))
    for _ in range(2):
        with pytest.raises((kind, RuntimeError)) as told:
            await work
        assert told.value is error or (kind is StopIteration and told.value.__cause__ is error)
    await executor.aclose(0.1)


async def test_awaiting_a_handle_can_be_cancelled_and_leaves_the_work(executor: Executor) -> None:
    await executor.start()
    gate, opened = threading.Event(), asyncio.Event()
    cooperative = executor.capabilities.cancel_support is not CancelSupport.NONE
    work = executor.submit(Task(opened.wait) if cooperative else Task(gate.wait))

    async def outcome() -> object:
        return await work

    waiting = asyncio.ensure_future(outcome())
    await quiet()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()
    opened.set()
    assert await work is True
    await executor.aclose()


@pytest.mark.parametrize("taken", [0, 1, 3])
async def test_handle_is_iterated_and_then_awaited(executor: Executor, taken: int) -> None:
    if not executor.capabilities.streaming:
        pytest.skip("it does not stream")
    yielded: list[int] = []

    async def yields() -> AsyncIterator[int | Final[str]]:
        for value in range(3):
            yielded.append(value)
            yield value
        yield Final("all")

    await executor.start()
    work = executor.submit(Task(yields))
    for value in range(taken):
        assert await anext(work) == value
        await quiet()
        # Never more than one ahead of whoever iterates.
        assert yielded == list(range(min(value + 2, 3)))
    assert await work == "all"
    assert yielded == [0, 1, 2]
    with pytest.raises(StopAsyncIteration):
        await anext(work)
    await executor.aclose()


async def test_handle_of_streaming_work_that_is_cancelled_gives_what_was_yielded(
    executor: Executor,
) -> None:
    if not executor.capabilities.streaming:
        pytest.skip("it does not stream")

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
async def test_error_is_told_as_it_is(executor: Executor, kind: type[BaseException]) -> None:
    error = kind("mine")
    called, (what, told) = await outcome(executor, Task(fails, error))
    assert called == ("called", None)
    assert what == "raised"
    if kind is StopIteration:
        # Where it cannot be raised through, it is the cause of what is.
        assert told is error or told.__cause__ is error
    else:
        assert told is error


async def test_work_runs_in_a_copy_of_the_context_of_its_task(executor: Executor) -> None:
    def tell() -> str:
        before = where.get()
        where.set("inside")
        return before

    where.set("at the task")
    task = Task(tell)
    where.set("later")
    for _ in range(2):
        assert (await outcome(executor, task))[-1] == ("returned", "at the task")
    assert where.get() == "later"


async def test_any_number_runs_at_once_and_one_object_any_number_of_times(
    executor: Executor,
) -> None:
    await executor.start()
    task = Task(give, 5)
    heard = [Heard() for _ in range(100)]
    for listener in heard:
        executor.submit(task, listener)
    for listener in heard:
        await listener.ended.wait()
        assert [what for what, _ in listener.calls] == ["called", "returned"]
    await executor.aclose()


async def test_closing_is_idempotent_and_leaves_no_thread(executor: Executor) -> None:
    await outcome(executor, Task(give, 5))
    await executor.aclose()
    assert not any(thread.name.startswith("mill") for thread in threading.enumerate())


async def test_closing_without_a_task_is_fine(executor: Executor) -> None:
    await executor.start()
    await executor.aclose()


async def test_answer_to_cancel_is_true(executor: Executor) -> None:
    await executor.start()
    heard = Heard()
    cooperative = executor.capabilities.cancel_support is not CancelSupport.NONE
    gate = threading.Event()
    cleaned = asyncio.Event()

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await cleaned.wait()

    handle = executor.submit(Task(waits) if cooperative else Task(gate.wait), heard)
    await eventually(lambda: heard.calls)
    await quiet()
    assert not handle.inside()
    assert handle.cancel() is CancelResult.RUNNING
    await quiet()
    # It was asked to stop, and has not: nothing is told before it really has.
    assert not heard.ended.is_set()
    gate.set()
    cleaned.set()
    await heard.ended.wait()
    assert [what for what, _ in heard.calls] == ["called", "raised" if cooperative else "returned"]
    assert handle.cancel() is CancelResult.STOPPED
    await executor.aclose()


async def test_what_was_left_tells_when_it_has_stopped_and_nothing_else(executor: Executor) -> None:
    if executor.capabilities.cancel_support is not CancelSupport.NONE:
        pytest.skip("work that can be cancelled is not left")
    await executor.start()
    heard = Heard()
    gate, stopped = threading.Event(), threading.Event()
    handle = executor.submit(Task(gate.wait), heard)
    handle.leave(stopped.set)
    await executor.aclose()
    assert not stopped.is_set()
    gate.set()
    await eventually(stopped.is_set)
    assert heard.calls == [("called", None)]


async def test_what_is_left_when_it_has_stopped_already_says_so(executor: Executor) -> None:
    if executor.capabilities.cancel_support is not CancelSupport.NONE:
        pytest.skip("work that can be cancelled is not left")
    await executor.start()
    heard = Heard()
    gate = threading.Event()

    def work() -> None:
        gate.set()

    handle = executor.submit(Task(work), heard)
    # It ends, while the loop has no turn to hear of it.
    gate.wait()
    stopped = threading.Event()
    handle.leave(stopped.set)
    assert stopped.wait(10)
    await quiet()
    assert heard.calls == [("called", None)]
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
def test_work_may_be_submitted_by_finalisers_and_signal_handlers() -> None:
    # In a process of its own, so that it fails instead of hanging.
    ran = subprocess.run(
        [sys.executable, "-c", THREADS], capture_output=True, text=True, timeout=50, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "True\n", "")


async def test_streaming_work_waits_for_room(executor: Executor) -> None:
    if not executor.capabilities.streaming:
        pytest.skip("it does not stream")
    ended: list[str] = []

    async def yields() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            ended.append("ended")

    await executor.start()
    room = asyncio.Event()
    heard = Heard(room)
    executor.submit(Task(yields), heard)
    await quiet()
    assert heard.calls == [("called", None), ("emit", 1)]
    room.set()
    await heard.ended.wait()
    assert heard.calls[2:] == [("emit", 2), ("returned", None)]
    assert ended == ["ended"]
    await executor.aclose()


async def test_streaming_work_that_is_cancelled_is_closed(executor: Executor) -> None:
    if not executor.capabilities.streaming:
        pytest.skip("it does not stream")
    ended: list[str] = []

    async def yields() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            ended.append("ended")

    await executor.start()
    heard = Heard(asyncio.Event())
    handle = executor.submit(Task(yields), heard)
    await quiet()
    assert handle.cancel() is CancelResult.RUNNING
    await heard.ended.wait()
    assert isinstance(heard.calls[-1][1], asyncio.CancelledError)
    assert ended == ["ended"]
    await executor.aclose()
