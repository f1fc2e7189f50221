"""Where the work of a pool runs.

A pool knows the places where work can run only through the protocols below, so that others can be added: processes,
other machines. What stays with the pool is everything about capacity: an executor is asked to run a task only while
that task's capacity is held, and the capacity is given back when the executor says that the work has really stopped.

An executor tells what happens by calling a `Listener`, always on the thread of the loop that submitted the task, and
in this order: `called`, then `emit` for each value of a streaming task, then exactly one of `returned` and `raised`.
The last two mean that nothing of the work runs any more. They may come before `submit` has returned.

Calls, since whoever awaits or iterates a handle needs an asyncio task to do it in, and a pool would need a second one for
each piece of work. Who has a task anyway submits without a listener: then the handle is awaited for the outcome and iterated
for what the work yields (`Submission`).
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
    """How an executor can cancel work."""

    NONE = "none"
    """Not at all: the work runs to its end."""
    COOPERATIVE = "cooperative"
    """By request: the work may clean up, and may ignore the request."""
    FORCE = "force"
    """By force, regardless of the state of the work."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The capabilities of an executor."""

    cancel_support: CancelSupport
    """How it can cancel work."""
    streaming: bool
    """Whether a task may yield intermediate values."""
    remote: bool
    """Whether the work runs outside this process, and must be picklable together with its results."""


class Executor(Protocol):
    """The protocol of a place where work runs."""

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
        """Frees what it holds. Called when nothing that was submitted runs any more, but what was left; idempotent.

        Args:
            grace: for how many seconds an executor that can use force waits before it ends what was left at its work;
                None: it is never ended. One that cannot use force does not wait for it.
        """
        ...
