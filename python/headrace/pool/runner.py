"""The runner: a source of tasks, a capacity to run them under."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from headrace.capacity import CapacitySource
from headrace.pool.progress import TaskRun
from headrace.pool.run import Plan
from headrace.pull.source import Source, as_pull

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.pool.task import Task

__all__ = ["HierarchicalTaskPoolRunner"]

_numbers = count(1)


class HierarchicalTaskPoolRunner:
    """Pulls tasks from a source and runs them under a capacity; tells about them in envelopes.

    A task is an async function, an async generator function, a plain function that is called on the loop (a coroutine,
    an async generator or another awaitable that it returns is run, anything else is the final value), or a `Task`. Each
    runs as an `asyncio.Task` of its own, in a copy of the context of `run_tasks()`, or of the context in which its
    `Task` was built.

    Nothing is called before its capacity is held. The runner pulls one task ahead, acquires that task's cost, has it
    called, and then pulls the next; so it holds nothing while its source is silent. A task that ends makes room for the
    next one without waiting for the consumer. Something in the source that is no task, and a cost above what the
    capacity can ever hold, give an `ERROR` envelope at once, and the run goes on.

    Order: tasks are called in the order of the source; envelopes come as things happen.
    Bound: at most the capacity runs at once; at most `max_buffered` envelopes are unread before nothing more is called
    and tasks that yield wait; what runs by then may add one envelope each when it ends.
    Cost: one asyncio task and O(1) bookkeeping a task.
    Cancel safety: a cancelled pull of an envelope loses nothing; leaving the run gives no task up that was not called.

    Args:
        source: where tasks come from: a pull object, most often `PushPullBufferObj.source`, or any iterable or async
            iterable. It is never closed here: after a run was left, the next goes on where that one stopped. Only an
            async generator of yours is ended by the pull that leaving cancels, as `SourceIterObj` says.
        capacity: what the tasks run under, with all its ancestors. Others may use it at the same time.
        name: for messages, and the names of asyncio tasks and threads; None for `"pool-1"` and so on.
        max_buffered: how many envelopes may be unread, a positive integer.

    Raises:
        TypeError: if `source` cannot be iterated, `capacity` is no `CapacitySource`, or another parameter is of the
            wrong type.
        ValueError: if `max_buffered` is not positive.
    """

    def __init__(
        self,
        source: Source[Callable[[], Any] | Task],
        capacity: CapacitySource,
        *,
        name: str | None = None,
        max_buffered: int = 1024,
    ) -> None:
        _check(capacity, name, max_buffered)
        self._plan = Plan(
            name=f"pool-{next(_numbers)}" if name is None else name,
            source=as_pull(source),
            capacity=capacity,
            max_buffered=max_buffered,
        )

    @property
    def name(self) -> str:
        """The name in messages, asyncio tasks and threads."""
        return self._plan.name

    @property
    def capacity(self) -> CapacitySource:
        """What the tasks run under."""
        return self._plan.capacity

    def run_tasks(self) -> TaskRun:
        """Begins a run: an async context manager, and the stream of its envelopes.

            async with runner.run_tasks() as progress:
                async for envelope in progress:
                    ...

        It ends when the source has ended and every task has. Leaving it earlier, by `break`, an error or a
        cancellation, cancels what runs and waits until it has stopped; a thread cannot be cancelled, and is waited
        for.

        Raises:
            RuntimeError: if a run of this runner is under way.
        """
        self._plan.check_idle()
        return TaskRun(self._plan)

    def __repr__(self) -> str:
        state = "idle" if self._plan.run is None else self._plan.run.how()
        return f"<HierarchicalTaskPoolRunner {self.name!r}: {state}>"


def _check(capacity: object, name: object, max_buffered: object) -> None:
    """Refuses what a type checker would have, for those who run none."""
    me = "HierarchicalTaskPoolRunner"
    if not isinstance(capacity, CapacitySource):
        raise TypeError(
            f"{me}: capacity must be a CapacitySource, not {capacity!r} ({type(capacity).__name__})"
        )
    if name is not None and not isinstance(name, str):
        raise TypeError(
            f"{me}: name must be a string or None, not {name!r} ({type(name).__name__})"
        )
    if not isinstance(max_buffered, int) or isinstance(max_buffered, bool):
        kind = type(max_buffered).__name__
        raise TypeError(
            f"{me}: max_buffered must be a positive integer, not {max_buffered!r} ({kind})"
        )
    if max_buffered < 1:
        raise ValueError(f"{me}: max_buffered must be a positive integer, got {max_buffered}")
