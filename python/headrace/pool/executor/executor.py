"""`Executor`: the protocol of the executors of a pool. `LoopExecutor` and `ThreadExecutor` implement it.

A pool uses its executors only through the protocols below, so that others can be added, such as processes or other
machines. The pool alone manages the capacity. It submits a task only while the capacity of the task is held, and releases
the capacity when the executor reports that the work has stopped.

**Events.** An executor reports events by calling a `Listener`, always on the thread of the event loop that submitted the
task, and in this order: `called`, then `emit` for each value of a streaming task, then exactly one of `returned` and
`raised`. After the last two, no part of the work runs any more. They may be called before `submit` returns. A task counts
as running from its submission; its `timeout` starts with `called`, which may be later.

**Slots.** A pool submits at most `capabilities.slots` tasks at a time, over all runs that use the executor. A task takes its
slot before it requests its capacity, so that no task holds capacity in the queue of an executor.

**Lost work.** `cancel` may return `CancelResult.UNKNOWN`. Exactly one outcome follows, when the executor knows that the
work has stopped; until then the task holds its capacity. Work that was lost without having begun ends with
`WorkerLost(started=False)`: the pool submits it again, and counts no attempt. Any other `WorkerLost` is an error of the task.

**Contexts.** A local executor runs the work in a copy of `task.context`, which is marked as inside the run and has the lease
of the task. `called` marks nothing: the caller of a remote executor's listener is not part of the task. A remote executor
runs the work in a new context with the variables that its user names (`carry=`); see `carried` and `RemoteLease`.

**Ownership.** An executor that the user has created outlives the runs that use it. A run closes only what it has created.

Events are calls because awaiting or iterating a handle needs an asyncio task, and a pool would need a second one for each
piece of work. Code that already runs in a task submits without a listener. It then awaits the handle for the outcome, and
iterates it for the yielded values (`Submission`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol, overload

if TYPE_CHECKING:
    from collections.abc import Callable

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
    """Whether a task may be an async function, or yield intermediate values; otherwise it must be a plain function."""
    remote: bool
    """Whether the work runs outside this process, and must be picklable together with its results."""
    slots: int | None = None
    """The maximum number of submitted tasks whose work has not stopped; None for no limit. At 0 none is submitted.

    Tasks that had a slot before the number fell, or before runs that share the executor used it, are submitted in addition: at most as
    many as wait for their capacity.
    """
    window: int = 1
    """The maximum number of values that a task has yielded and that were not read."""


def unchanged(changed: Callable[[], object]) -> Callable[[], object]:
    """Return a function without effect, as the `watch` of an executor whose capabilities do not change."""
    del changed
    return _do_nothing


def _do_nothing() -> None:
    """Do nothing."""


class Executor(Protocol):
    """The protocol of an executor, which runs work."""

    @property
    def capabilities(self) -> Capabilities:
        """The current capabilities of the executor. `slots` and `window` may change; `watch` reports that."""
        ...

    def watch(self, changed: Callable[[], object]) -> Callable[[], object]:
        """Call `changed` after each change of the capabilities, on the event loop; return a function that ends this."""
        ...

    async def start(self) -> None:
        """Start the executor. Called by each run, on the event loop that submits, before its first `submit`; idempotent."""
        ...

    @overload
    def submit(self, task: Task, listener: Listener) -> Handle: ...

    @overload
    def submit(self, task: Task) -> Submission: ...

    def submit(self, task: Task, listener: Listener | None = None) -> Handle:
        """Run the task once, in a copy of its context, and report its events to the listener.

        Without a listener, return `Submission(self, task)`. Errors of the task are never raised here, but reported to the
        listener. The pool submits no more tasks than there are slots; the executor does not check that.
        """
        ...

    async def aclose(self, grace: float | None = None) -> None:
        """Release the resources of the executor. Called by its owner, when only detached work still runs; idempotent.

        Args:
            grace: The seconds that an executor with `CancelSupport.FORCE` waits before it ends detached work; None never
                ends it. Other executors do not wait for detached work.
        """
        ...
