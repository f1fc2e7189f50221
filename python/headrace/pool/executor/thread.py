"""Work that blocks: each task in a thread, of which there are as many as tasks run at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine
from concurrent.futures import Executor as FutureExecutor
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar, cast

from headrace.pool.executor import Abilities, Cancelling, Handle, Listener, Stop

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from headrace.pool.task import Task

__all__ = ["ThreadExecutor"]

T = TypeVar("T")


class ThreadExecutor:
    """Runs plain functions in threads. A thread cannot be cancelled: whoever wants it stopped waits.

    A thread that has nothing to do takes the next task; there is a new one only if none is idle. They end when the
    executor is closed.
    """

    abilities = Abilities(cancelling=Cancelling.NONE, streaming=False, remote=False)

    _loop: asyncio.AbstractEventLoop

    def __init__(self, name: str) -> None:
        self._name = name
        self._threads: _Threads | None = None

    async def start(self) -> None:
        """Threads are made as they are wanted; this notes the loop."""
        self._loop = asyncio.get_running_loop()

    def submit(self, task: Task, listener: Listener) -> Handle:
        """Calls the task in a thread, at once."""
        if self._threads is None:
            self._threads = _Threads(self._name)
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
        threads: _Threads,
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


class _Threads(FutureExecutor):
    """As many threads as calls ever ran at once, and never one more.

    No bound of its own, because the pool's capacity is one: a task that waited for a thread would hold its capacity and
    not run. `ThreadPoolExecutor` will not do without a bound: on CPython 3.12 a thread of it takes its next call without
    having been counted as idle, so that a thread is added whenever a call comes in that moment, and none ever ends.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        # Threads that no call is on its way to: they wait at `_calls`, or are about to.
        self._idle = 0
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                self._free()
                return
            result, error = None, None
            try:
                result = fn(*args, **kwargs)
            except BaseException as raised:
                error = raised
            # Counted before anybody hears of the result: whoever then submits finds this thread.
            self._free()
            if error is None:
                future.set_result(cast("T", result))
            else:
                future.set_exception(error)

        with self._lock:
            if self._idle:
                self._idle -= 1
            else:
                # A daemon, so that a run which nobody closed does not keep the process from ending.
                name = f"{self._name}: thread {len(self._threads) + 1}"
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                thread.start()
                self._threads.append(thread)
        self._calls.put(call)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        for _ in self._threads:
            self._calls.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def _free(self) -> None:
        with self._lock:
            self._idle += 1

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            del call
