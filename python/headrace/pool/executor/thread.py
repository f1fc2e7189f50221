"""`ThreadExecutor`: runs blocking tasks in threads, one for each task that runs at the same time. `Run` creates one.

The module uses no lock: a finaliser or a signal handler could run at any bytecode under it, and submit or detach work itself. Threads
synchronise by single operations that run no Python code and are therefore atomic: `deque.pop`, and `dict.setdefault` with a string key.
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
from headrace.pool.executor.executor import CancelSupport, Capabilities, unchanged
from headrace.pool.executor.handle import CancelResult, Handle, Listener
from headrace.pool.executor.submission import Submission

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from headrace.task.task import Task


class Hold(Protocol):
    """The method of an event loop that registers work in real time, such as `VirtualLoop.hold_clock`."""

    def __call__(self, job: str, *, left: bool = False) -> Callable[[], None]:
        """Register work of this name; return the callable that reports its end, in any thread."""
        ...


class ThreadExecutor(Uncopied):
    """An executor that runs plain functions in threads, which cannot be cancelled but only awaited or detached.

    An idle thread runs the next task; a new thread is started only if none is idle. The threads end when the executor is
    closed. It may then be started again.

    Args:
        name: The beginning of the names of the threads.
    """

    capabilities: Capabilities = Capabilities(
        cancel_support=CancelSupport.NONE, streaming=False, remote=False
    )

    _loop: asyncio.AbstractEventLoop
    # An event loop with a virtual clock must not advance it while work takes real time; see `VirtualLoop.hold_clock`.
    _hold: Hold | None = None

    def __init__(self, name: str = "threads") -> None:
        self._name = name
        self._threads: _Threads | None = None

    async def start(self) -> None:
        """Store the running event loop; threads are started when tasks need them. Idempotent."""
        self._loop = asyncio.get_running_loop()
        self._hold = getattr(self._loop, "hold_clock", None)

    def watch(self, changed: Callable[[], object]) -> Callable[[], object]:
        """Do nothing: the capabilities do not change."""
        return unchanged(changed)

    async def __aenter__(self) -> Self:
        """Start the executor."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the executor; see `aclose`."""
        await self.aclose()

    @overload
    def submit(self, task: Task, listener: Listener) -> Handle: ...

    @overload
    def submit(self, task: Task) -> Submission: ...

    def submit(self, task: Task, listener: Listener | None = None) -> Handle:
        """Call the task in a thread, at once."""
        if listener is None:
            return Submission(self, task)
        if self._threads is None:
            self._threads = _Threads(self._name)
        return _ThreadHandle(self._loop, self._threads, task, listener, self._hold)

    async def aclose(self, grace: float | None = None) -> None:
        """End the threads. They are idle, so waiting for them takes only a few thread switches.

        If work was detached, no thread is awaited; the thread of detached work ends with its work.
        """
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None

    def busy(self) -> list[tuple[int, str]]:
        """Return the identifier of each thread that runs work, and the name of the work. Any thread may call it."""
        threads = self._threads
        return (
            []
            if threads is None
            else [(one, work.name) for one, work in tuple(threads.busy.items())]
        )


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
        # Called when the work has stopped, just before the listener is notified.
        self._release = None if hold is None else hold(listener.name)
        self._threads = threads
        self._listener: Listener | None = listener
        self._outcome: _Outcome | None = None
        # The callable for the end of the work. It is set once: by the thread at the end of its work, or by an earlier `leave`.
        self._end: dict[Literal["call"], Callable[[], object]] = {}
        listener.called()
        try:
            threads.submit(lambda: self._work(task))
        except RuntimeError as error:
            # The operating system cannot start another thread.
            self._ended(_Outcome(None, error))
            self._notify()

    @property
    def name(self) -> str:
        """The name of the work, for messages."""
        listener = self._listener
        return "detached work" if listener is None else listener.name

    def cancel(self) -> CancelResult:
        return CancelResult.STOPPED if self._listener is None else CancelResult.RUNNING

    def inside(self) -> bool:
        # A plain function in a thread cannot await the end of the run.
        return False

    def leave(self, stopped: Callable[[], object]) -> None:
        listener, self._listener = self._listener, None
        if listener and self._hold and self._release:
            self._release()
            # The result is discarded, but other tasks may wait for the capacity of the work.
            stopped = partial(_call_both, stopped, self._hold(listener.name, left=True))
        if self._end.setdefault("call", stopped) is stopped:
            self._threads.leave()
        elif self._outcome is not None:
            stopped()

    def _work(self, task: Task) -> Callable[[], object]:
        """Run the task in a thread; return the callable that the thread calls next."""
        busy, thread = self._threads.busy, threading.get_ident()
        busy[thread] = self
        try:
            return self._ended(_outcome(task))
        finally:
            del busy[thread]

    def _ended(self, outcome: _Outcome) -> Callable[[], object]:
        # Set first, so that a `leave` that is too late finds it.
        self._outcome = outcome
        # A function, not a method of this handle: a method in `_end` would be a reference cycle.
        end = self._end.setdefault("call", _not_detached)
        return self._send if end is _not_detached else end

    def _send(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._notify)
        except RuntimeError:
            # The event loop was closed and the run was not: there is no listener to notify.
            return

    def _notify(self) -> None:
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


def _not_detached() -> None:
    """Mark the end of work that was not detached."""


def _call_both(first: Callable[[], object], second: Callable[[], object]) -> None:
    first()
    second()


class _Outcome:
    """The outcome of a task in a thread."""

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
            TypeError(f"{task!r}: a thread takes a plain function, this one returned {returned}"),
        )
    return _Outcome(value, None)


class _Threads:
    """The threads of an executor: as many as the maximum number of calls that ran at the same time.

    The number has no bound, because the capacity of the pool is the bound: a task that waited for a thread would hold its
    capacity without running. `ThreadPoolExecutor` does not work without a bound. On CPython 3.12 one of its threads may
    take its next call before it is counted as idle. Each call submitted at that moment adds a thread, and none ends.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._threads: list[threading.Thread] = []
        # A token for each idle thread: it waits at `_calls`, or is about to, and no call is queued for it.
        self._idle: deque[None] = deque()
        self._numbers = count(1)
        self._left = False
        # The work that each thread runs, by the identifier of the thread.
        self.busy: dict[int, _ThreadHandle] = {}
        self._calls: SimpleQueue[Callable[[], Callable[[], object]] | None] = SimpleQueue()

    def submit(self, call: Callable[[], Callable[[], object]]) -> None:
        """Call a function in a thread, and then the callable that it returns; neither may raise.

        Raises:
            RuntimeError: The operating system cannot start another thread.
        """
        try:
            self._idle.pop()
        except IndexError:
            # A daemon, so that a run that was never closed does not keep the process alive.
            name = f"{self._name}: thread {next(self._numbers)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)
        self._calls.put(call)

    def leave(self) -> None:
        """Note that a call was detached, so that `shutdown` does not wait."""
        self._left = True

    def shutdown(self) -> None:
        """End each thread when it is idle, and wait for all of them unless a call was detached."""
        for _ in self._threads:
            self._calls.put(None)
        if not self._left:
            for thread in self._threads:
                thread.join()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            notify = call()
            # Counted as idle before the result is reported, so that a call submitted as a reaction finds this thread.
            self._idle.append(None)
            notify()
            # Release the finished work before the thread waits.
            del call, notify
