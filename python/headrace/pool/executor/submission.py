"""`Submission`: a handle that is awaited and iterated, for work submitted without a listener.

`LoopExecutor.submit()` and `ThreadExecutor.submit()` return it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol

from headrace._internal.copying import Uncopied
from headrace._internal.reprs import short_repr

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from typing import Self

    from headrace.pool.executor.handle import CancelResult, Handle, Listener
    from headrace.task.task import Task


class _Submitter(Protocol):
    def submit(self, task: Task, listener: Listener, /) -> Handle: ...


class Submission(Uncopied):
    """One piece of submitted work: `await` it for the outcome, iterate it for the yielded values.

    Iterate first, then await: awaiting discards the values that were not read. Until it is awaited, work that yields waits
    until its last value was read.

    Bound: one value; the executor may hold those of its `window`.

    Cancel safety: a cancelled `await` or iteration loses nothing and does not cancel the work; `cancel` does. A value
    that was yielded before the work was cancelled can still be iterated.

    Args:
        executor: The executor that runs the task.
        task: The task.

    Raises:
        BaseException: The exception object that the work raised, from every `await`.
    """

    __slots__ = (
        "_changed",
        "_error",
        "_handle",
        "_has_ended",
        "_is_read_over",
        "_unread",
        "_value",
        "name",
    )

    def __init__(self, executor: _Submitter, task: Task) -> None:
        self.name: str = short_repr(task)
        self._unread: deque[object] = deque()
        self._is_read_over = False
        self._has_ended = False
        self._value: object = None
        self._error: BaseException | None = None
        # Set at each change that a method below may wait for, and then replaced.
        self._changed = asyncio.Event()
        self._handle: Handle = executor.submit(task, self)

    def __await__(self) -> Generator[object, None, object]:
        return self._outcome().__await__()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> object:
        while not self._unread:
            if self._has_ended:
                raise StopAsyncIteration
            await self._changed.wait()
        value = self._unread.popleft()
        self._notify()
        return value

    def cancel(self) -> CancelResult:
        """Request cancellation and return the current state, without waiting."""
        return self._handle.cancel()

    def inside(self) -> bool:
        """Return whether the caller is part of this work, which must not wait for its own end."""
        return self._handle.inside()

    def leave(self, stopped: Callable[[], object]) -> None:
        """Detach the work; see `Handle.leave`. A later or pending `await` waits until it is cancelled."""
        self._handle.leave(stopped)

    @property
    def has_lease(self) -> bool:
        """False: only a task of a pool has a lease."""
        return False

    def called(self) -> None:
        """Do nothing: no method waits for this event."""

    def emit(self, value: object) -> Awaitable[None] | None:
        """Store the value for the iteration."""
        if self._is_read_over:
            return None
        self._unread.append(value)
        self._notify()
        return self._room()

    def settle(self, amounts: dict[str, float]) -> None:
        """Refuse: only a task of a pool has a lease.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError(
            f"{self.name} has no lease to settle {amounts}: it was not submitted by a pool"
        )

    def returned(self, value: object) -> None:
        """Store the final value."""
        self._value = value
        self._end()

    def raised(self, error: BaseException) -> None:
        """Store the error."""
        self._error = error
        self._end()

    def _end(self) -> None:
        self._has_ended = True
        self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _room(self) -> None:
        while self._unread:
            await self._changed.wait()

    async def _outcome(self) -> object:
        self._is_read_over = True
        self._unread.clear()
        self._notify()
        while not self._has_ended:
            await self._changed.wait()
        if self._error is None:
            return self._value
        try:
            raise self._error
        finally:
            # Otherwise the traceback of the error would hold `self`, which holds the error.
            del self
