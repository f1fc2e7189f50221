"""What an executor and a pool tell each other about one piece of submitted work."""

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
    """The state is unknown: the place where the work runs does not respond."""


class Listener(Protocol):
    """The receiver of the events of one task. Its methods are called on the thread of the event loop, and must not raise."""

    @property
    def name(self) -> str:
        """What to call the work where names are shown: in the name of an asyncio task, in a log."""
        ...

    def called(self) -> None:
        """The task's callable is being called."""
        ...

    def emit(self, value: object) -> Awaitable[None] | None:
        """The task yielded a value.

        Returns:
            None, or an awaitable that must have been awaited before the next value is fetched: there is no room now,
            or the task is to stop, and it raises `CancelledError`.
        """
        ...

    def returned(self, value: object) -> None:
        """The work has stopped: this is its final value."""
        ...

    def raised(self, error: BaseException) -> None:
        """The work has stopped: this is what it raised. Without a `called` before: it never began."""
        ...


class Handle(Protocol):
    """One piece of work that was submitted."""

    def cancel(self) -> CancelResult:
        """Request cancellation and return the current state, without waiting."""
        ...

    def inside(self) -> bool:
        """Whether the caller is this very work, which must not wait for its own end."""
        ...

    def leave(self, stopped: Callable[[], object]) -> None:
        """Detach the work: the listener is not notified any more.

        Called only for an executor that cannot cancel. `stopped` is called when the work has really stopped, from any
        thread and maybe after the loop was closed; at once if it has.
        """
        ...
