"""`SubmittedWork`: the work of one submitted task, and the pool's handle on it."""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import Context
from typing import TYPE_CHECKING, Any

from headrace.errors import NotSendable
from headrace.pool.executor.handle import CancelResult
from headrace.pool.executor.process.messages import Kind, load_error, load_value, loads
from headrace.pool.executor.process.work import Work

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from headrace.pool.executor.handle import Listener
    from headrace.pool.executor.process.messages import Buffer, Parts


class SubmittedWork(Work):
    """One submitted task, from its submission to its outcome.

    Args:
        listener: The listener of the task.
        message: The pickled task.
        loop: The event loop.
        window: The maximum number of values that were sent and not read.
    """

    __slots__ = (
        "_listener",
        "_loop",
        "_outcome",
        "_read",
        "_room",
        "_settle_error",
        "_unread",
        "_window",
        "is_called",
    )

    def __init__(
        self, listener: Listener, message: Parts, loop: asyncio.AbstractEventLoop, window: int
    ) -> None:
        super().__init__(message)
        self.is_called: bool = False
        self._listener: Listener | None = listener
        self._loop = loop
        self._window = window
        # The values that wait until the listener takes the one before.
        self._unread: deque[object] = deque()
        # The wait for space of a value, until its done-callback was called.
        self._room: asyncio.Future[None] | None = None
        # The number of values that were read and not credited.
        self._read = 0
        self._settle_error: Exception | None = None
        # The outcome and the method that reports it, until it was reported.
        self._outcome: tuple[Callable[[Any], object], object] | None = None

    @property
    def name(self) -> str:
        """The name of the task."""
        return "work that has ended" if self._listener is None else self._listener.name

    @property
    def has_ended(self) -> bool:
        """Whether the outcome is known."""
        return self._listener is None or self._outcome is not None

    def cancel(self) -> CancelResult:
        """Request cancellation and return the current state, without waiting.

        A task that has not begun never begins. The worker of a plain function is killed. An async function is cancelled in its worker,
        and killed after `grace`.
        """
        if self._is_over():
            return CancelResult.STOPPED
        self.request_cancel()
        if self._is_over():
            return CancelResult.STOPPED
        is_silent = self.worker is not None and not self.worker.answers
        return CancelResult.UNKNOWN if is_silent else CancelResult.RUNNING

    def inside(self) -> bool:
        """Return False: the work runs in another process."""
        return False

    def leave(self, stopped: Callable[[], object]) -> NoReturn:
        """Refuse: work in a process can be cancelled, so it is never left running."""
        raise NotImplementedError("an executor of processes does not leave work running")

    # Notifications by the worker.

    def begin(self) -> None:
        """Note that the worker calls the task."""
        if not self.is_called and self._listener is not None:
            self.is_called = True
            self._listener.called()

    def receive(self, kind: int, parts: Sequence[Buffer], where: str) -> None:
        """Read a message of the worker."""
        if kind == Kind.RETURNED:
            self._receive_result(parts)
        elif kind == Kind.EMIT:
            self._receive_value(parts)
        elif kind == Kind.SETTLE:
            self._settle(loads(parts))
        else:
            self.end_with_error(load_error(parts, where))

    def end_with_error(self, error: BaseException) -> None:
        """Deliver the error, after all values."""
        if self._listener is not None:
            self._end(self._listener.raised, error)

    def _receive_result(self, parts: Sequence[Buffer]) -> None:
        try:
            value = load_value(parts, "returned")
        except NotSendable as error:
            self.end_with_error(error)
            return
        if (unseen := self._settle_error) is not None:
            self._settle_error = None
            unseen.add_note("the task, which runs in another process, did not see this error")
            self.end_with_error(unseen)
        elif self._listener is not None:
            self._end(self._listener.returned, value)

    def _receive_value(self, parts: Sequence[Buffer]) -> None:
        try:
            value = load_value(parts, "yielded")
        except NotSendable as error:
            worker = self.worker
            self.end_with_error(error)
            if worker is not None:
                worker.refuse(self)
            return
        self._unread.append(value)
        if self._room is None:
            self._deliver()

    def _settle(self, amounts: dict[str, float]) -> None:
        """Settle the lease of the task. If that fails, the task fails: it has gone on, so it cannot handle the error."""
        if self._listener is None:
            return
        try:
            self._listener.settle(amounts)
        except Exception as error:
            self._settle_error = self._settle_error or error

    def _end(self, report: Callable[[Any], object], outcome: object) -> None:
        if self._outcome is not None:
            return
        self._outcome = report, outcome
        self.leave_worker()
        if self._room is None:
            self._notify()
        elif self.is_cancelled:
            # The end of a cancelled task does not wait until its values are read. The cancellation comes after the first step of the
            # wait: an awaitable that nothing has awaited warns.
            self._unread.clear()
            self._loop.call_soon(self._room.cancel)

    def _notify(self) -> None:
        if self._outcome is not None:
            report, outcome = self._outcome
            self._listener = self._outcome = None
            report(outcome)

    def _is_over(self) -> bool:
        """Return whether the listener was notified of the outcome."""
        return self._listener is None

    def _deliver(self) -> None:
        """Deliver values until one has to wait for space."""
        while self._unread and self._listener is not None:
            room = self._listener.emit(self._unread.popleft())
            if room is not None:
                # In an empty context: that of the caller belongs to the run that has started the executor.
                self._room = Context().run(asyncio.ensure_future, room, loop=self._loop)
                self._room.add_done_callback(self._on_room, context=Context())
                return
            self._credit()

    def _on_room(self, room: asyncio.Future[None]) -> None:
        """Go on when there is space, or when the task must stop."""
        self._room = None
        try:
            room.result()
        except asyncio.CancelledError:
            # The values are not read any more. The worker may wait for space to send the next one.
            self._unread.clear()
            if not self.has_ended:
                self.cancel()
        else:
            self._credit()
            self._deliver()
        finally:
            if self._room is None:
                self._notify()

    def _credit(self) -> None:
        """Allow the worker to send another value. Half a window is credited at once."""
        self._read += 1
        if self.worker is not None and self._read >= max(1, self._window // 2):
            self.worker.credit(self, self._read)
            self._read = 0
