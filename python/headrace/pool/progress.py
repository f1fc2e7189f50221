"""The stream of envelopes that a consumer holds while a pool runs.

It refers to the run, and nothing of the run refers to it. So a stream that was dropped without being closed is noticed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace._core import TaskProgressEnvelope, quicken
from headrace._internal.reprs import short_repr
from headrace._internal.tasks import warn_unclosed
from headrace.pool.first import First
from headrace.pool.run import Run
from headrace.pull.source import SourceObj

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from typing import Self

    from headrace._core import Unread
    from headrace.pool.plan import Plan
    from headrace.pull.base import PullObj


class TaskRun(SourceObj[TaskProgressEnvelope[Any]]):
    """The envelopes of one run, as a stream; closing it ends the run.

    Made by `HierarchicalTaskPoolRunner.run_tasks()`. `async with` starts the run, and on leaving closes it: what runs
    is cancelled and awaited, what was pulled and not called stays with the runner for its next run. Without it the
    run starts with the first pull, and must be closed unless it was read to its end.

    Order: as things happened; the envelopes of one task in their order, those of different tasks as they ended.
    Bound: `max_buffered` unread envelopes, and one more for each task that runs: with `max_buffered` of them nothing more
    is called and tasks that yield wait, but what runs by then ends.
    Cost: O(1) an envelope.
    Cancel safety: a cancelled pull loses nothing.
    """

    # In a slot, where the core finds it at once.
    __slots__ = ("_unread",)

    def __init__(self, plan: Plan[Run], *, close_source: bool = False) -> None:
        super().__init__()
        self._first = First()
        self._run = Run(plan, self._first, close_source=close_source)
        # What `anext()` takes from, once it is there: see `quicken`.
        self._unread: Unread | None = None

    async def __aenter__(self) -> Self:
        """Starts the run.

        Raises:
            RuntimeError: if another run of the same runner is under way, or if this one was closed.
        """
        self._start()
        return self

    def __anext__(self) -> Coroutine[Any, Any, TaskProgressEnvelope[Any]]:
        """The next envelope.

        Raises:
            StopAsyncIteration: when every task has ended and every envelope was taken, or the run was closed.
            ClosedError: if the run is closed during the wait.
            RuntimeError: if another run of the same runner is under way.
            WrongLoopError: on another loop than the one where the run started.
            BaseException: what the source raised, the same object; the next pull goes on. Or, when all is closed, the
                `KeyboardInterrupt` or `SystemExit` of a task.
        """
        unread = self._unread
        return self._first_pull() if unread is None else unread.take()

    async def _first_pull(self) -> TaskProgressEnvelope[Any]:
        if self._run.outlet.closed:
            raise StopAsyncIteration
        return await self._start().take()

    def _start(self) -> Unread:
        self._run.start()
        self._unread = self._run.outlet.unread
        return self._unread

    @property
    def source(self) -> PullObj[Any]:
        """Where the tasks come from."""
        return self._run.plan.source

    @property
    def running(self) -> bool:
        """Whether the run was started and has not ended yet."""
        return self._run.running

    @property
    def first_error(self) -> BaseException | None:
        """The error of the first task that failed, though its envelope may come later; None if none did."""
        return self._first.error

    async def aclose(self) -> None:
        """Ends the run: cancels what runs, waits until it has stopped, gives back all capacity. Idempotent.

        An error that a task raises while it is being stopped goes to the loop's exception handler, since nobody reads
        envelopes any more.

        Raises:
            BaseException: the `KeyboardInterrupt` or `SystemExit` of a task, if no pull has raised it.
            RuntimeError: in a task of this run, which would wait for itself.
            WrongLoopError: on another loop than the one where the run started.

        Cancel safety: a cancellation is raised when all has stopped, not before.
        """
        await self._run.close()

    def __del__(self) -> None:
        # There is no `_run` after an `__init__` that raised.
        run: Run | None = getattr(self, "_run", None)
        if run is not None and run.running:
            run.abandon()
            warn_unclosed(self)

    def _repr_parts(self) -> Iterator[str]:
        yield f"of {short_repr(self._run.plan.name)}"
        yield self._run.how()


quicken(TaskRun)
