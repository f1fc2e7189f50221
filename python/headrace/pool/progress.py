"""`TaskRun`: the stream of envelopes of one run of a pool. `HierarchicalTaskPoolRunner.run_tasks()` returns it.

The stream refers to the run, but no part of the run refers to the stream. The finaliser of a stream therefore runs when
user code drops the stream without closing it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic

from headrace._core import TaskProgressEnvelope, install_native_anext
from headrace._internal.reprs import short_repr
from headrace._internal.tasks import warn_unclosed
from headrace._internal.typevars import R_co
from headrace.pool.first_error import FirstError
from headrace.pool.run import Run
from headrace.pull.source import SourceObj

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from typing import Self

    from headrace._core import EventQueue
    from headrace.pool.config import Config
    from headrace.pull.base import PullObj


class TaskRun(SourceObj[TaskProgressEnvelope[R_co]], Generic[R_co]):
    """The envelopes of one run, as a stream; closing the stream ends the run.

    Created by `HierarchicalTaskPoolRunner.run_tasks()`. `async with` starts the run, and closes it at the end of the block:
    running tasks are cancelled and awaited, and tasks that were pulled but not called are kept for the next run of the
    runner. Without `async with` the first pull starts the run, and the stream must be closed unless it is read to its end.

    Order: in the order of the events: envelopes of one task in its order, those of different tasks as the tasks end.
    Bound: `max_buffered` unread envelopes, and one more for each running task. At `max_buffered` no more tasks are called
    and tasks that yield wait, but running tasks can still end.
    Cost: O(1) per envelope.
    Cancel safety: a cancelled pull loses nothing.
    """

    # In a slot, which the core reads without a dictionary lookup.
    __slots__ = ("_events",)

    def __init__(self, config: Config[Run], *, close_source: bool = False) -> None:
        super().__init__()
        self._first = FirstError()
        self._run = Run(config, self._first, close_source=close_source)
        # The queue behind `__anext__` once the run has started; see `install_native_anext`.
        self._events: EventQueue | None = None

    async def __aenter__(self) -> Self:
        """Start the run.

        Raises:
            RuntimeError: Another run of the same runner is active, or this one was closed.
        """
        self._start()
        return self

    def __anext__(self) -> Coroutine[Any, Any, TaskProgressEnvelope[R_co]]:
        """Return the next envelope.

        Raises:
            StopAsyncIteration: All tasks have ended and all envelopes were read, or the run was closed.
            ClosedError: The run is closed during the wait.
            RunStopped: A fatal error or `max_failures` stopped the run, and all other envelopes were read. Raised once.
            RuntimeError: Another run of the same runner is active.
            WrongLoopError: The run was started on another event loop.
            BaseException: The exception object that the source raised; the next pull continues. Or the
                `KeyboardInterrupt` or `SystemExit` of a task, after everything is closed.
        """
        events = self._events
        return self._first_pull() if events is None else events.take()

    async def _first_pull(self) -> TaskProgressEnvelope[R_co]:
        return await self._begin().take()

    def _begin(self) -> EventQueue:
        """Start the run, and return its queue; raise `StopAsyncIteration` if the stream was closed."""
        if self._run.events.closed:
            raise StopAsyncIteration
        return self._start()

    def _start(self) -> EventQueue:
        self._run.start()
        self._events = self._run.events.unread
        return self._events

    @property
    def source(self) -> PullObj[Any]:
        """The source of the tasks."""
        return self._run.config.source

    @property
    def running(self) -> bool:
        """Whether the run has started and not ended yet."""
        return self._run.running

    @property
    def first_error(self) -> BaseException | None:
        """The error of the first task that failed, even if its envelope is not readable yet; None without a failure."""
        return self._first.error

    async def aclose(self) -> None:
        """End the run: cancel running tasks, wait until they have stopped, release all capacity. Idempotent.

        An error that a task raises while it is being stopped is passed to the loop's exception handler, because envelopes
        are not read any more.

        Raises:
            BaseException: The `KeyboardInterrupt` or `SystemExit` of a task, if no pull has raised it.
            RuntimeError: The caller is a task of this run, which would wait for itself.
            WrongLoopError: The run was started on another event loop.

        Cancel safety: a cancellation is raised only after everything has stopped.
        """
        await self._run.close()

    def __del__(self) -> None:
        # `_run` is missing if `__init__` raised.
        run: Run | None = getattr(self, "_run", None)
        if run is not None and run.running:
            run.abandon()
            warn_unclosed(self)

    def _repr_parts(self) -> Iterator[str]:
        yield f"of {short_repr(self._run.config.name)}"
        yield self._run.status()


install_native_anext(TaskRun)
