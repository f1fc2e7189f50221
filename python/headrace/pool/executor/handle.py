"""What an executor and a pool tell each other about one piece of submitted work."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class CancelResult(Enum):
    """The answer to a request to stop."""

    STOPPED = "stopped"
    """Nothing of the work runs any more; the listener has been told."""
    RUNNING = "running"
    """It still runs; the listener will be told when it has stopped."""
    UNKNOWN = "unknown"
    """Nobody can say: the place where it ran does not answer."""


class Listener(Protocol):
    """Who is told what happens to one task. Its methods are called on the loop's thread, and do not raise."""

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
        """Asks it to stop, and says how things stand now. Does not wait."""
        ...

    def inside(self) -> bool:
        """Whether the caller is this very work, which must not wait for its own end."""
        ...

    def leave(self, stopped: Callable[[], object]) -> None:
        """Leaves it to itself: the listener is told nothing more.

        Asked only of an executor that cannot cancel. `stopped` is called when the work has really stopped, from any
        thread and maybe after the loop was closed; at once if it has.
        """
        ...
