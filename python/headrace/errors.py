"""The exceptions that headrace raises. The native code in `rust/py/src/errors.rs` imports this module to raise them.

One word for each situation: *would block* (retry, or wait), *closed* (the object was ended), *broken* (an internal
failure left it in an inconsistent state), *cancelled* at the source (items may be lost), *wrong place* (another loop, a
forked child), *deadlock* (a task would wait for itself for ever), *exhausted* (spent permanently), *throttled* (a server
requires too long a delay), *stopped* (by failures, before its end), *store* (a file with results
cannot be used). The end of a stream is not an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from headrace._internal.sentinels import NOTHING

if TYPE_CHECKING:
    from collections.abc import Hashable


CLOSING: Final = "the stream is being closed"
"""The message of the `CancelledError` with which a closing stream cancels its pull."""


class HeadraceError(Exception):
    """The base of all errors that headrace itself raises."""


class _RefusedError(HeadraceError):
    """The error of an operation that may return a refused item to its owner."""

    def __init__(self, message: str, *, item: Any = NOTHING) -> None:
        super().__init__(message)
        self._item = item

    @property
    def has_item(self) -> bool:
        """Whether this error carries a refused item."""
        return self._item is not NOTHING

    @property
    def item(self) -> Any:
        """The refused item, which belongs to the caller again.

        Raises:
            AttributeError: The error carries no item; see `has_item`.
        """
        if self._item is NOTHING:
            raise AttributeError("this error carries no item")
        return self._item


class ClosedError(_RefusedError):
    """The object was ended or closed: it accepts no items any more, or a pending pull gets none."""


class WouldBlock(_RefusedError):
    """The operation would have to wait, and the caller requested not to wait."""


class OrderError(_RefusedError, ValueError):
    """An item does not fit into its order: its index was passed already or is too early. The error carries it.

    If the index is not an integer, the error is also a `TypeError`.
    """


class OrderTypeError(OrderError, TypeError):
    """The index of an item is not an integer."""


class CycleError(HeadraceError, ValueError):
    """The nodes of a graph depend on each other in a cycle, so that none of them could start."""

    def __init__(self, message: str, *, cycle: tuple[Hashable, ...] = ()) -> None:
        super().__init__(message)
        self._cycle = cycle

    @property
    def cycle(self) -> tuple[Hashable, ...]:
        """The keys of the cycle, each of which depends on the next; the first key is repeated at the end."""
        return self._cycle


class BrokenError(HeadraceError):
    """An internal failure left this structure in an inconsistent state; it refuses further use."""


class SourceCancelledError(HeadraceError):
    """A cancelled pull ended the async generator at the source, so that items may be lost.

    Raised once, by the pull after the cancelled one, since a normal end would hide the loss.
    """


class ForkError(HeadraceError):
    """The object was created in the parent process, before this process was forked."""


class WorkerLost(HeadraceError):
    """The worker of an executor ended, or could not be reached any more, while it had a task.

    Args:
        message: The message.
        started: Whether the task may have begun. Otherwise the pool submits it again, and counts no attempt.
        confirmed: How the end of the work is known: `"exit"` of its process, or `"fence"`, a time after which the worker
            has ended its work by itself; None if it is not known.
        where: The name of the worker.
    """

    def __init__(
        self,
        message: str,
        *,
        started: bool = True,
        confirmed: Literal["exit", "fence"] | None = None,
        where: str = "",
    ) -> None:
        super().__init__(message)
        self.started: bool = started
        self.confirmed: Literal["exit", "fence"] | None = confirmed
        self.where: str = where


class NotSendable(HeadraceError, TypeError):
    """A task, a value or an error cannot be sent between a driver and its workers, since it cannot be pickled or unpickled."""


class RemoteError(HeadraceError):
    """Stands for an error of a worker that cannot be unpickled. A note has its traceback.

    Args:
        kind: The full name of the class of the error.
        text: Its text.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(kind, text)
        self.kind: str = kind
        self.text: str = text

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}" if self.text else self.kind


class WrongLoopError(HeadraceError, RuntimeError):
    """A stream that runs on one event loop was used on another."""


class BudgetExhausted(HeadraceError):
    """The rest of a budget cannot cover a cost, and no held lease could return enough to cover it."""


class StoreError(HeadraceError):
    """A store in a file cannot be opened, read or written: the message names the file, the reason and the remedy."""


class ThrottledError(HeadraceError):
    """A server delays a task for longer than `max_cooldown`. Its answer is the `__cause__`."""


class RunStopped(HeadraceError):
    """A run was stopped by a fatal error or by too many failures. The failure that stopped it is the `__cause__`.

    Tasks that were running have run to their end. Those that were not called stay with the runner.
    """


class JournalError(HeadraceError):
    """A journal cannot be opened, or does not fit the run. The message says what to do."""


class JournalStopped(RunStopped, JournalError):
    """A run was stopped because its journal cannot be written or read. The error of the file is the `__cause__`.

    No further tasks were called. Running tasks have run to their end, and their events were delivered.

    Attributes:
        unrecorded: The keys, as in the journal, of the tasks whose ends were delivered and are not in the journal, so that a later run
            would call them again.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.unrecorded: list[Hashable] = []


class RecordedError(HeadraceError):
    """The error of a call in an earlier run, as its journal describes it. The call was not made again.

    Attributes:
        kind: The name of the type of the error.
        text: The message of the error.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(kind, text)
        self.kind = kind
        self.text = text

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}" if self.text else self.kind


class JournalWarning(RuntimeWarning):
    """A journal names calls that may be paid twice, results of other code, a result that cannot be stored, or damage."""


class WouldDeadlock(HeadraceError, RuntimeError):
    """A task or thread requests a lease that can never be granted while it holds its current leases.

    Release one first, or return it temporarily (`async with lease.suspended()`). If another task is to release it,
    acquire it with `acquire(..., owner=None)`. Of a budget, only the amount by which a held lease is settled to less is
    returned.

    Detected only for the awaiting task itself: `asyncio.gather`, and `asyncio.wait_for` up to CPython 3.11, await in a
    new task that holds no lease, and so wait. Use `acquire(..., timeout=)` or `asyncio.timeout` instead.
    """


class DeadlockWarning(RuntimeWarning):
    """All slots of a capacity are held by tasks that wait for that capacity, so none of them can ever continue."""


class StallWarning(RuntimeWarning):
    """A call of a pool has made no progress for its `stall_after`. It still runs."""
