"""`Work`: one task at a pool of worker processes, and `Holder`: the worker that has it.

The work of a driver is a `SubmittedWork`. That of a host in a cluster is relayed: its values and outcome go to the driver as they came.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

from headrace._internal.copying import Uncopied

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from headrace.pool.executor.process.messages import Buffer, Parts


class Holder(Protocol):
    """The worker that has a task."""

    @property
    def answers(self) -> bool:
        """Whether the worker responds, as far as is known."""
        ...

    def cancel(self, work: Work) -> None:
        """Cancel the task."""
        ...

    def refuse(self, work: Work) -> None:
        """Cancel a task that has its outcome already, since one of its values cannot be read."""
        ...

    def credit(self, work: Work, values: int) -> None:
        """Allow the task to send more values."""
        ...


class Work(Uncopied, ABC):
    """One task, from its arrival at the pool of workers to its outcome.

    Args:
        message: The pickled task; kept until its end, since it is sent again if its worker dies before it begins.
    """

    __slots__ = ("force_timer", "is_cancelled", "message", "on_cancel", "position", "worker")

    def __init__(self, message: Parts) -> None:
        self.message: Parts = message
        self.worker: Holder | None = None
        """The worker that has the task; None while it waits for one."""
        self.position: int = 0
        """The position of the task at its worker."""
        self.is_cancelled: bool = False
        self.on_cancel: Callable[[Work], object] | None = None
        """Called for a cancellation while no worker has the task."""
        self.force_timer: asyncio.TimerHandle | None = None

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of the task."""

    @abstractmethod
    def begin(self) -> None:
        """Note that the worker calls the task."""

    @abstractmethod
    def receive(self, kind: int, parts: Sequence[Buffer], where: str) -> None:
        """Receive a value, a settlement or the outcome, as its worker has sent it.

        Args:
            kind: `Kind.EMIT`, `SETTLE`, `RETURNED` or `RAISED`.
            parts: The parts of the message.
            where: The name of the worker.
        """

    @abstractmethod
    def end_with_error(self, error: BaseException) -> None:
        """Deliver an error that is not the task's own, after all values."""

    def request_cancel(self) -> None:
        """Cancel the task, wherever it is."""
        self.is_cancelled = True
        if self.worker is not None:
            self.worker.cancel(self)
        elif self.on_cancel is not None:
            self.on_cancel(self)

    def leave_worker(self) -> None:
        """Note that no worker has the task any more, since it has ended."""
        self.worker = None
        self.message = ()
        if self.force_timer is not None:
            self.force_timer.cancel()
            self.force_timer = None
