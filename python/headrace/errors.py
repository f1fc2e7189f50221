"""What headrace raises.

A word for each situation: it *would block* (try again, or wait), it is *closed* (somebody ended it),
it is *broken* (a failure inside left it in doubt), it was *cancelled* at its source (items may be
lost, and headrace says so), it is used in the *wrong place* (another loop, a forked child), it would
wait for ever (a *deadlock* of one task with itself), it is *exhausted* (spent for good). The end of a
stream is not an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from headrace._internal.sentinels import NOTHING

if TYPE_CHECKING:
    from collections.abc import Hashable


CLOSING: Final = "the stream is being closed"
"""What a `CancelledError` says by which a stream that closes cancels its pull."""


class HeadraceError(Exception):
    """The base of all errors that headrace raises by itself."""


class _RefusedError(HeadraceError):
    """An operation that may hand an item back to its owner."""

    def __init__(self, message: str, *, item: Any = NOTHING) -> None:
        super().__init__(message)
        self._item = item

    @property
    def has_item(self) -> bool:
        """Whether an item was refused, and is in this error."""
        return self._item is not NOTHING

    @property
    def item(self) -> Any:
        """The item that was refused; it is the caller's again.

        Raises:
            AttributeError: No item was involved; see `has_item`.
        """
        if self._item is NOTHING:
            raise AttributeError("this error carries no item")
        return self._item


class ClosedError(_RefusedError):
    """It was ended or closed: nothing goes in any more, or a pull that was pending will get nothing."""


class WouldBlock(_RefusedError):
    """It cannot be done without waiting, and the caller asked not to wait."""


class OrderError(_RefusedError, ValueError):
    """An item has no place in its order: by its index it came before, or comes too early; it is in this error.

    Where the index is no integer, the error is a `TypeError` too.
    """


class OrderTypeError(OrderError, TypeError):
    """An item's index is no integer."""


class CycleError(HeadraceError, ValueError):
    """Nodes of a graph would depend on each other in a circle, so that none of them could ever begin."""

    def __init__(self, message: str, *, cycle: tuple[Hashable, ...] = ()) -> None:
        super().__init__(message)
        self._cycle = cycle

    @property
    def cycle(self) -> tuple[Hashable, ...]:
        """The keys of the circle, each of which depends on the next; the first one stands at the end again."""
        return self._cycle


class BrokenError(HeadraceError):
    """A failure inside headrace left this structure in doubt; it refuses to go on."""


class SourceCancelledError(HeadraceError):
    """A cancelled pull ended the async generator at the source, so that items may be lost.

    It is raised once, by the pull after the cancelled one, where a clean end would hide the loss.
    """


class ForkError(HeadraceError):
    """It was made in another process, of which this one is a fork."""


class WrongLoopError(HeadraceError, RuntimeError):
    """A stream that is under way on one event loop was used on another."""


class BudgetExhausted(HeadraceError):
    """What is left of a budget cannot cover a cost, and nothing that is held can come back to cover it."""


class WouldDeadlock(HeadraceError, RuntimeError):
    """A task, or a thread, asks for what it can never have while it holds the leases that it has.

    Release one first, or give it back for a while (`async with lease.suspended()`). If somebody else is to release it, ask for
    it with `acquire(..., owner=None)`. Of a budget what the task holds comes back only as far as it is settled to less.

    It is known of the task that awaits: `asyncio.gather`, and `asyncio.wait_for` up to CPython 3.11, await in another task, which
    holds nothing and waits. Use `acquire(..., timeout=)` or `asyncio.timeout` instead.
    """
