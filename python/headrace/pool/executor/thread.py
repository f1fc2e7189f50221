"""Work that blocks: each task in a thread, of which there are as many as tasks run at once."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from headrace.pool.executor import Abilities, Cancelling, Handle, Listener, Stop

if TYPE_CHECKING:
    from headrace.pool.task import Task

__all__ = ["ThreadExecutor"]


class ThreadExecutor:
    """Runs plain functions in threads. A thread cannot be cancelled: whoever wants it stopped waits.

    A thread that has nothing to do takes the next task; there is a new one only if none is idle. They end when the
    executor is closed.
    """

    abilities = Abilities(cancelling=Cancelling.NONE, streaming=False, remote=False)

    _loop: asyncio.AbstractEventLoop

    def __init__(self, name: str) -> None:
        self._name = name
        self._threads: ThreadPoolExecutor | None = None

    async def start(self) -> None:
        """Threads are made as they are wanted; this notes the loop."""
        self._loop = asyncio.get_running_loop()

    def submit(self, task: Task, listener: Listener) -> Handle:
        """Calls the task in a thread, at once."""
        if self._threads is None:
            # Unbounded here, because the pool's capacity bounds it: a task that waited for a thread would hold its
            # capacity and not run.
            self._threads = ThreadPoolExecutor(sys.maxsize, thread_name_prefix=self._name)
        return _ThreadHandle(self._loop, self._threads, task, listener)

    async def aclose(self) -> None:
        """Ends the threads. They are idle, so that the wait for them is no longer than a few switches of threads."""
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None


class _ThreadHandle:
    __slots__ = ("_listener", "_work")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        threads: ThreadPoolExecutor,
        task: Task,
        listener: Listener,
    ) -> None:
        self._listener = listener
        self._work: asyncio.Future[_Outcome] | None = None
        listener.called()
        try:
            self._work = loop.run_in_executor(threads, _work, task)
        except RuntimeError as error:
            # The system has no thread to spare.
            listener.raised(error)
        else:
            self._work.add_done_callback(self._ended)

    def cancel(self) -> Stop:
        # The future is left alone: cancelled, it would be done while the thread still runs.
        return Stop.STOPPED if self._work is None or self._work.done() else Stop.RUNNING

    def inside(self) -> bool:
        # Nothing can be awaited in a thread that runs no loop of its own.
        return False

    def _ended(self, done: asyncio.Future[_Outcome]) -> None:
        outcome = done.result()
        if outcome.error is None:
            self._listener.returned(outcome.value)
        else:
            self._listener.raised(outcome.error)


class _Outcome:
    """How it ended. Not left to the future, which cannot hold a `StopIteration` and logs an error that nobody read."""

    __slots__ = ("error", "value")

    def __init__(self, value: object, error: BaseException | None) -> None:
        self.value = value
        self.error = error


def _work(task: Task) -> _Outcome:
    try:
        value = task.context.copy().run(task.fn, *task.args)
    except BaseException as error:
        return _Outcome(None, error)
    if isinstance(value, (Coroutine, AsyncGenerator)):
        if isinstance(value, Coroutine):
            value.close()
        return _Outcome(
            None,
            TypeError(f"{task!r}: thread=True takes a plain function, this one returned {value!r}"),
        )
    return _Outcome(value, None)
