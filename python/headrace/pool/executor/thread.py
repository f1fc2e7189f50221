"""Work that blocks: each task in a thread, of which there are as many as tasks run at once.

There is no lock here, since a finaliser or a signal handler may run at any bytecode under it, and submit or leave work itself.
Threads agree by single operations that run no Python code and so are atomic: `deque.pop`, and `dict.setdefault` with a text as key.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Coroutine
from functools import partial
from itertools import count
from queue import SimpleQueue
from typing import TYPE_CHECKING, Literal, Protocol, cast, overload

from headrace._internal.copying import Uncopied
from headrace._internal.reprs import short_repr
from headrace.pool.executor.executor import CancelSupport, Capabilities
from headrace.pool.executor.handle import CancelResult, Handle, Listener
from headrace.pool.executor.submission import Submission

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.task.task import Task


class Hold(Protocol):
    """Tells a loop of work that takes real time. What it gives is called, in any thread, when the work has stopped."""

    def __call__(self, job: str, *, left: bool = False) -> Callable[[], None]:
        """Announce work of this name; return the callable that reports its end."""
        ...


class ThreadExecutor(Uncopied):
    """Runs plain functions in threads. A thread cannot be cancelled: whoever wants it stopped waits, or leaves it.

    A thread that has nothing to do takes the next task; there is a new one only if none is idle. They end when the
    executor is closed.
    """

    capabilities: Capabilities = Capabilities(
        cancel_support=CancelSupport.NONE, streaming=False, remote=False
    )

    _loop: asyncio.AbstractEventLoop
    # A loop whose clock is not the real one wants to know of work that takes real time; see `VirtualLoop.hold_clock`.
    _hold: Hold | None = None

    def __init__(self, name: str) -> None:
        self._name = name
        self._threads: _Threads | None = None

    async def start(self) -> None:
        """Threads are made as they are wanted; this notes the loop."""
        self._loop = asyncio.get_running_loop()
        self._hold = getattr(self._loop, "hold_clock", None)

    @overload
    def submit(self, task: Task, listener: Listener) -> Handle: ...

    @overload
    def submit(self, task: Task) -> Submission: ...

    def submit(self, task: Task, listener: Listener | None = None) -> Handle:
        """Calls the task in a thread, at once."""
        if listener is None:
            return Submission(self, task)
        if self._threads is None:
            self._threads = _Threads(self._name)
        return _ThreadHandle(self._loop, self._threads, task, listener, self._hold)

    async def aclose(self, grace: float | None = None) -> None:
        """Ends the threads. They are idle, so that the wait for them is no longer than a few switches of threads.

        One that was left at its work ends when that does, and is not waited for.
        """
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None


class _ThreadHandle:
    __slots__ = (
        "_end",
        "_hold",
        "_listener",
        "_loop",
        "_outcome",
        "_release",
        "_threads",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        threads: _Threads,
        task: Task,
        listener: Listener,
        hold: Hold | None,
    ) -> None:
        self._loop = loop
        self._hold = hold
        # Called when the work has stopped and the listener is about to be told.
        self._release = None if hold is None else hold(listener.name)
        self._threads = threads
        self._listener: Listener | None = listener
        self._outcome: _Outcome | None = None
        # What is called at the end, which is decided once: by the thread at the end of its work, or by `leave` before that.
        self._end: dict[Literal["call"], Callable[[], object]] = {}
        listener.called()
        try:
            threads.submit(lambda: self._work(task))
        except RuntimeError as error:
            # The system has no thread to spare.
            self._ended(_Outcome(None, error))
            self._tell()

    def cancel(self) -> CancelResult:
        return CancelResult.STOPPED if self._listener is None else CancelResult.RUNNING

    def inside(self) -> bool:
        # Nothing can be awaited in a thread that runs no loop of its own.
        return False

    def leave(self, stopped: Callable[[], object]) -> None:
        listener, self._listener = self._listener, None
        if listener and self._hold and self._release:
            self._release()
            # Nobody waits for what it gives, but perhaps for its capacity.
            stopped = partial(_both, stopped, self._hold(listener.name, left=True))
        if self._end.setdefault("call", stopped) is stopped:
            self._threads.leave()
        elif self._outcome is not None:
            stopped()

    def _work(self, task: Task) -> Callable[[], object]:
        """The part that a thread runs; gives what it has to call then."""
        return self._ended(_outcome(task))

    def _ended(self, outcome: _Outcome) -> Callable[[], object]:
        # First, so that `leave` finds it when it comes too late.
        self._outcome = outcome
        # No method of this handle is kept in it: that would be a reference cycle.
        end = self._end.setdefault("call", _not_left)
        return self._send if end is _not_left else end

    def _send(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._tell)
        except RuntimeError:
            # The loop was closed and the run never was: nobody is there to be told.
            return

    def _tell(self) -> None:
        listener, outcome = self._listener, self._outcome
        if listener is None or outcome is None:
            return
        self._listener = None
        if self._release is not None:
            self._release()
        if outcome.error is None:
            listener.returned(outcome.value)
        else:
            listener.raised(outcome.error)


def _not_left() -> None:
    """The end of work that was not left."""


def _both(first: Callable[[], object], second: Callable[[], object]) -> None:
    first()
    second()


class _Outcome:
    """How it ended."""

    __slots__ = ("error", "value")

    def __init__(self, value: object, error: BaseException | None) -> None:
        self.value = value
        self.error = error


def _outcome(task: Task) -> _Outcome:
    try:
        value = task.context.copy().run(task.fn, *task.args)
    except BaseException as error:
        return _Outcome(None, error)
    if isinstance(value, (Coroutine, AsyncGenerator)):
        returned = short_repr(cast("object", value))
        if isinstance(value, Coroutine):
            value.close()
        return _Outcome(
            None,
            TypeError(
                f"{task!r}: thread=True takes a plain function, this one returned {returned}"
            ),
        )
    return _Outcome(value, None)


class _Threads:
    """As many threads as calls ever ran at once, and never one more.

    No bound of its own, because the pool's capacity is one: a task that waited for a thread would hold its capacity and
    not run. `ThreadPoolExecutor` will not do without a bound: on CPython 3.12 a thread of it takes its next call without
    having been counted as idle, so that a thread is added whenever a call comes in that moment, and none ever ends.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._threads: list[threading.Thread] = []
        # A token for each thread that no call is on its way to: they wait at `_calls`, or are about to.
        self._idle: deque[None] = deque()
        self._numbers = count(1)
        self._left = False
        self._calls: SimpleQueue[Callable[[], Callable[[], object]] | None] = SimpleQueue()

    def submit(self, call: Callable[[], Callable[[], object]]) -> None:
        """Makes a call in a thread, and then the call that it gives; neither raises.

        Raises:
            RuntimeError: there is no thread to be had.
        """
        try:
            self._idle.pop()
        except IndexError:
            # A daemon, so that a run which nobody closed does not keep the process from ending.
            name = f"{self._name}: thread {next(self._numbers)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)
        self._calls.put(call)

    def leave(self) -> None:
        """One of the calls is not to be waited for."""
        self._left = True

    def shutdown(self) -> None:
        """Ends all threads as soon as they have nothing to do."""
        for _ in self._threads:
            self._calls.put(None)
        if not self._left:
            for thread in self._threads:
                thread.join()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            tell = call()
            # Counted before anybody hears of the result: whoever then submits finds this thread.
            self._idle.append(None)
            tell()
            # What it did is not kept while it waits.
            del call, tell
