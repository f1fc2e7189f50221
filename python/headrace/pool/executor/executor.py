"""`Executor`: the protocol of the executors of a pool. `LoopExecutor` and `ThreadExecutor` implement it.

A pool uses its executors only through the protocols below, so that others can be added, such as processes or other
machines. The pool alone manages the capacity. It submits a task only while the capacity of the task is held, and releases
the capacity when the executor reports that the work has stopped.

An executor reports events by calling a `Listener`, always on the thread of the event loop that submitted the task, and in
this order: `called`, then `emit` for each value of a streaming task, then exactly one of `returned` and `raised`. After
the last two, no part of the work runs any more. They may be called before `submit` returns.

Events are calls because awaiting or iterating a handle needs an asyncio task, and a pool would need a second one for each
piece of work. Code that already runs in a task submits without a listener. It then awaits the handle for the outcome, and
iterates it for the yielded values (`Submission`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol, overload

if TYPE_CHECKING:
    from headrace.pool.executor.handle import Handle, Listener
    from headrace.pool.executor.submission import Submission
    from headrace.task.task import Task


class CancelSupport(Enum):
    """The support of an executor for cancellation."""

    NONE = "none"
    """No cancellation: the work runs to its end."""
    COOPERATIVE = "cooperative"
    """By request: the work may clean up, and may ignore the request."""
    FORCE = "force"
    """By force, regardless of the state of the work."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The capabilities of an executor."""

    cancel_support: CancelSupport
    """The support for cancellation."""
    streaming: bool
    """Whether a task may yield intermediate values."""
    remote: bool
    """Whether the work runs outside this process, and must be picklable together with its results."""


class Executor(Protocol):
    """The protocol of an executor, which runs work."""

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of the executor."""
        ...

    async def start(self) -> None:
        """Start the executor. Called once, on the event loop that submits, before the first `submit`."""
        ...

    @overload
    def submit(self, task: Task, listener: Listener) -> Handle: ...

    @overload
    def submit(self, task: Task) -> Submission: ...

    def submit(self, task: Task, listener: Listener | None = None) -> Handle:
        """Run the task once, in a copy of its context, and report its events to the listener.

        Without a listener, return `Submission(self, task)`. Errors of the task are never raised here, but reported to the
        listener. The executor does not limit the number of running tasks; the capacity of the pool does.
        """
        ...

    async def aclose(self, grace: float | None = None) -> None:
        """Release the resources of the executor. Called when only detached work still runs; idempotent.

        Args:
            grace: The seconds that an executor with `CancelSupport.FORCE` waits before it ends detached work; None never
                ends it. Other executors do not wait for detached work.
        """
        ...
