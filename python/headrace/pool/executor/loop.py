"""`LoopExecutor`: runs each task on the event loop, as its own `asyncio.Task`. A runner with `executor=LoopExecutor()` uses it.

It is the reference implementation of the protocol. A run without an executor uses only functions of this module: `Policy` calls `call`
and `drive`, and `Run` calls `error_of`.

`asyncio.current_task()`, `asyncio.timeout`, cancellation and done-callbacks work as usual in a task. From CPython
3.12 on, the asyncio task is started eagerly: a task that never waits costs no event-loop iteration.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Protocol, cast, overload

from headrace._internal.copying import Uncopied
from headrace.pool.events import Final
from headrace.pool.executor._slow_callbacks import watched
from headrace.pool.executor.executor import CancelSupport, Capabilities, unchanged
from headrace.pool.executor.handle import CancelResult, Handle, Listener
from headrace.pool.executor.submission import Submission

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Self

    from headrace.task.task import Task


class Yields(Protocol):
    """The receiver of the values that a task yields; see `Listener`."""

    @property
    def name(self) -> str:
        """The name of the work."""
        ...

    def emit(self, value: object) -> Awaitable[None] | None:
        """Deliver a yielded value; see `Listener.emit`."""
        ...


class LoopExecutor(Uncopied):
    """An executor on the event loop that submits the tasks. It cancels cooperatively, streams, and has no resources."""

    capabilities: Capabilities = Capabilities(
        cancel_support=CancelSupport.COOPERATIVE, streaming=True, remote=False
    )

    _loop: asyncio.AbstractEventLoop

    async def start(self) -> None:
        """Store the running event loop. Idempotent."""
        self._loop = asyncio.get_running_loop()

    def watch(self, changed: Callable[[], object]) -> Callable[[], object]:
        """Do nothing: the capabilities do not change."""
        return unchanged(changed)

    async def __aenter__(self) -> Self:
        """Start the executor."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the executor."""
        await self.aclose()

    @overload
    def submit(self, task: Task, listener: Listener) -> Handle: ...

    @overload
    def submit(self, task: Task) -> Submission: ...

    def submit(self, task: Task, listener: Listener | None = None) -> Handle:
        """Call the task in its own asyncio task: at once from CPython 3.12 on, otherwise in the next iteration."""
        if listener is None:
            return Submission(self, task)
        return _LoopHandle(self._loop, task, listener)

    async def aclose(self, grace: float | None = None) -> None:
        """Return at once: there are no resources to release."""


class _LoopHandle:
    __slots__ = ("_listener", "_running")

    def __init__(self, loop: asyncio.AbstractEventLoop, task: Task, listener: Listener) -> None:
        self._listener: Listener | None = listener
        # The asyncio task, until it has ended. From 3.12 on, the traceback of an error of the first step refers to the
        # frames of the caller, and so to this handle. The asyncio task here would complete a reference cycle with the run.
        self._running: asyncio.Task[object] | None = _start(loop, listener.name, task, listener)
        if self._running.done():
            self._ended(self._running)
        else:
            self._running.add_done_callback(self._ended)

    def cancel(self) -> CancelResult:
        running = self._running
        return (
            CancelResult.RUNNING
            if running is not None and running.cancel()
            else CancelResult.STOPPED
        )

    def inside(self) -> bool:
        return self._running is not None and asyncio.current_task() is self._running

    def leave(self, stopped: Callable[[], object]) -> None:
        self._listener = None
        if self._running is not None:
            self._running.add_done_callback(lambda _: stopped())

    def _ended(self, done: asyncio.Task[object]) -> None:
        self._running = None
        # The asyncio task reports the end, not the work in it: work that is cancelled before its first step never runs.
        error, listener = error_of(done), self._listener
        if listener is None:
            return
        if error is not None:
            listener.raised(error)
        elif isinstance(value := done.result(), _Exit):
            listener.raised(value.error)
        else:
            listener.returned(value)


class _Exit:
    """A `KeyboardInterrupt` or `SystemExit` on its way to the pool."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _start(
    loop: asyncio.AbstractEventLoop, name: str, task: Task, listener: Listener
) -> asyncio.Task[object]:
    context = task.context.copy()
    if loop.get_debug():
        limit = getattr(loop, "slow_callback_duration", 0.1)
        work = watched(partial(_work, task, listener), listener.name, limit)
    else:
        work = _work(task, listener)
    # Not `loop.create_task`: before 3.14 it cannot start a task eagerly, and a task factory may return any object.
    if sys.version_info >= (3, 12):
        return asyncio.Task(work, loop=loop, name=name, context=context, eager_start=True)
    return asyncio.Task(work, loop=loop, name=name, context=context)


async def _work(task: Task, listener: Listener) -> object:
    """Call the task. The asyncio task ends as the user's callable does, so that done-callbacks see its outcome."""
    listener.called()
    try:
        return await call(task.fn, task.args, listener)
    except (KeyboardInterrupt, SystemExit) as error:
        # asyncio would raise it out of the running event loop at once, before the run is closed.
        return _Exit(error)
    finally:
        # Otherwise the traceback of an error would hold the listener, and so the run, which holds the error.
        del listener


async def call(fn: Callable[..., object], args: tuple[object, ...], listener: Yields) -> object:
    """Call a task function and drive its result to the end."""
    try:
        return await drive(fn(*args), listener)
    finally:
        # Otherwise the traceback of an error would hold the listener, as in `_work`.
        del listener


def drive(result: object, listener: Yields) -> Coroutine[Any, Any, object]:
    """Return a coroutine that drives the result of a task function: it iterates, awaits or returns it."""
    # The exact type first, because a check against an abstract class is slow.
    if isinstance(result, CoroutineType):
        return cast("Coroutine[Any, Any, object]", result)
    if isinstance(result, AsyncGenerator):
        return stream(cast("AsyncGenerator[object, Any]", result), listener)
    return _awaited(result)


async def _awaited(result: object) -> object:
    return await cast("Awaitable[object]", result) if isinstance(result, Awaitable) else result


async def stream(values: AsyncGenerator[object, Any], listener: Yields) -> object:
    """Iterate an async generator to its end, and return the value of its `Final`."""
    final: Final[object] | None = None
    try:
        async for value in values:
            if final is not None:
                raise RuntimeError(f"{listener.name} yielded {value!r} after its Final")
            if isinstance(value, Final):
                final = cast("Final[object]", value)
            elif (room := listener.emit(value)) is not None:
                await room
    finally:
        # Has an effect only if the loop ended early, by a cancellation while there was no space or by the error above.
        await values.aclose()
        # Otherwise the traceback of an error would hold the listener, as in `_work`.
        del listener
    return None if final is None else final.value


def error_of(done: asyncio.Task[object]) -> BaseException | None:
    """Return the exception object that a finished task raised, or None."""
    if not done.cancelled():
        return done.exception()
    try:
        done.result()
    except asyncio.CancelledError as cancelled:
        # Drop the traceback entry of this frame: it holds the task, which holds the error, and the frames of the caller.
        return cancelled.with_traceback(cancelled.__traceback__ and cancelled.__traceback__.tb_next)
    return None
