"""Work on the event loop: each task in an `asyncio.Task` of its own.

So `asyncio.current_task()`, `asyncio.timeout`, cancellation and done-callbacks work in it as if it ran alone. From
CPython 3.12 on the task is started eagerly: one that never has to wait costs no turn of the loop.
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
from headrace.pool.executor.executor import CancelSupport, Capabilities
from headrace.pool.executor.handle import CancelResult, Handle, Listener
from headrace.pool.executor.submission import Submission

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.task.task import Task


class Yields(Protocol):
    """Who is told what a task yields; see `Listener`."""

    @property
    def name(self) -> str:
        """The name of the work."""
        ...

    def emit(self, value: object) -> Awaitable[None] | None:
        """Deliver a yielded value; see `Listener.emit`."""
        ...


class LoopExecutor(Uncopied):
    """Runs tasks on the event loop that submits them. Cancels cooperatively, streams, holds nothing of its own."""

    capabilities: Capabilities = Capabilities(
        cancel_support=CancelSupport.COOPERATIVE, streaming=True, remote=False
    )

    _loop: asyncio.AbstractEventLoop

    async def start(self) -> None:
        """Notes the loop."""
        self._loop = asyncio.get_running_loop()

    @overload
    def submit(self, task: Task, listener: Listener) -> Handle: ...

    @overload
    def submit(self, task: Task) -> Submission: ...

    def submit(self, task: Task, listener: Listener | None = None) -> Handle:
        """Calls the task in an asyncio task of its own: at once where CPython can, else in the next turn."""
        if listener is None:
            return Submission(self, task)
        return _LoopHandle(self._loop, task, listener)

    async def aclose(self, grace: float | None = None) -> None:
        """Nothing is held."""


class _LoopHandle:
    __slots__ = ("_listener", "_running")

    def __init__(self, loop: asyncio.AbstractEventLoop, task: Task, listener: Listener) -> None:
        self._listener: Listener | None = listener
        # Until it has ended. The traceback of what a first step raises leads to the frames that this is called from, since
        # 3.12, and so to here: with the asyncio task it would be a circle, and the whole run in it.
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
        # Told by the asyncio task, not by the work in it: one that is cancelled before its first step never runs.
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
    # Not `loop.create_task`: before 3.14 it cannot start a task eagerly, and a task factory may make what it likes.
    if sys.version_info >= (3, 12):
        return asyncio.Task(work, loop=loop, name=name, context=context, eager_start=True)
    return asyncio.Task(work, loop=loop, name=name, context=context)


async def _work(task: Task, listener: Listener) -> object:
    """The body of the asyncio task: it ends as the user's callable ends, so that done-callbacks see what happened."""
    listener.called()
    try:
        result = task.fn(*task.args)
        # The exact type first: asking an abstract class costs as much as the rest of this function.
        if isinstance(result, CoroutineType):
            return await cast("Awaitable[object]", result)
        if isinstance(result, AsyncGenerator):
            return await stream(cast("AsyncGenerator[object, Any]", result), listener)
        if isinstance(result, Awaitable):
            return await cast("Awaitable[object]", result)
    except (KeyboardInterrupt, SystemExit) as error:
        # asyncio would raise it out of the running loop there and then, past everything that has to be closed first.
        return _Exit(error)
    finally:
        # Else an error would hold it, and so the run that holds the error.
        del listener
    return result


async def stream(values: AsyncGenerator[object, Any], listener: Yields) -> object:
    """Iterates work that yields to its end, and gives the value of its `Final`."""
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
        # Does something only if the loop was left early: by a cancellation while there was no room, or our own error.
        await values.aclose()
        # As above.
        del listener
    return None if final is None else final.value


def error_of(done: asyncio.Task[object]) -> BaseException | None:
    """What a task that is done raised, the very object."""
    if not done.cancelled():
        return done.exception()
    try:
        done.result()
    except asyncio.CancelledError as cancelled:
        # Without the entry of this frame, by which the error would hold the task, which holds the error, and whoever calls.
        return cancelled.with_traceback(cancelled.__traceback__ and cancelled.__traceback__.tb_next)
    return None


def mark_retrieved(done: asyncio.Task[object]) -> None:
    """Takes note of the error of a task, which is told otherwise, so that asyncio does not say that nobody did."""
    if not done.cancelled():
        done.exception()
