"""`Handle` and `Listener`: the protocols between an executor and a pool for one piece of submitted work.

Executors return a `Handle` and call a `Listener`; `Submission` is both. The engine (`rust/py/src/pool/submitted.rs`) calls the `Handle`
and implements the `Listener`.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class CancelResult(Enum):
    """The result of a cancellation request."""

    STOPPED = "stopped"
    """The work has stopped completely; the listener was notified."""
    RUNNING = "running"
    """The work is still running; the listener is notified when it has stopped."""
    UNKNOWN = "unknown"
    """The state is unknown, because the worker does not respond; the listener is notified when the work has stopped."""


class Listener(Protocol):
    """The receiver of the events of one task. Its methods are called on the thread of the event loop, and must not raise."""

    @property
    def name(self) -> str:
        """The name of the work in asyncio tasks and logs."""
        ...

    @property
    def has_lease(self) -> bool:
        """Whether the task has a lease to settle: its cost names its resources."""
        ...

    def called(self) -> None:
        """Note that the callable of the task is about to be called, or that a worker has called it."""
        ...

    def emit(self, value: object) -> Awaitable[None] | None:
        """Receive a value that the task yielded.

        Returns:
            None, or an awaitable that must be awaited before the next value is emitted. The awaitable waits for space, or
            raises `CancelledError` if the task must stop. Meanwhile the work may yield more values, within the
            `window` of the executor.
        """
        ...

    def settle(self, amounts: dict[str, float]) -> None:
        """Settle the lease of the task. Remote executors forward `current_lease().settle()` to it.

        Raises:
            RuntimeError: The task has no lease, because its cost is a bare number.
            BaseException: The errors of `Lease.settle`.
        """
        ...

    def returned(self, value: object) -> None:
        """Receive the final value of work that has stopped."""
        ...

    def raised(self, error: BaseException) -> None:
        """Receive the error of work that has stopped. If `called` was not called before, the work never began.

        After `WorkerLost(started=False)` the pool submits the task again, with another listener.
        """
        ...


class Handle(Protocol):
    """One piece of submitted work."""

    def cancel(self) -> CancelResult:
        """Request cancellation and return the current state, without waiting."""
        ...

    def inside(self) -> bool:
        """Return whether the caller is part of this work, which must not wait for its own end; False if it is remote."""
        ...

    def leave(self, stopped: Callable[[], object]) -> None:
        """Detach the work: the listener is not notified any more.

        Called only for an executor that cannot cancel. `stopped` is called when the work has stopped, from any thread and
        possibly after the event loop was closed. If the work has already stopped, it is called at once.
        """
        ...
