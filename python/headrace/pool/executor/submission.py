"""Work that was submitted without a listener: its handle is awaited and iterated instead."""

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
    """One piece of work, as whoever submitted it sees it: `await` it for the outcome, iterate it for what it yields.

    Iterate first, then await: awaiting reads over what was not iterated by then. Until it is awaited, work that
    yields waits for as long as a value of it was not taken.

    Bound: one value.

    Cancel safety: a cancelled `await` or iteration loses nothing and does not cancel the work; `cancel` does. A value
    that was yielded before the work was cancelled can still be iterated.

    Args:
        executor: where it runs.
        task: what runs.

    Raises:
        BaseException: out of `await`, what the work raised, the very object, however often.
    """

    __slots__ = (
        "_error",
        "_handle",
        "_has_ended",
        "_is_read_over",
        "_moved",
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
        # Set whenever something changed that one of the methods below may wait for.
        self._moved = asyncio.Event()
        self._handle: Handle = executor.submit(task, self)

    def __await__(self) -> Generator[object, None, object]:
        return self._outcome().__await__()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> object:
        while not self._unread:
            if self._has_ended:
                raise StopAsyncIteration
            await self._moved.wait()
        value = self._unread.popleft()
        self._tell()
        return value

    def cancel(self) -> CancelResult:
        """Asks the work to stop, and says how things stand now. Does not wait."""
        return self._handle.cancel()

    def inside(self) -> bool:
        """Whether the caller is this very work, which must not wait for its own end."""
        return self._handle.inside()

    def leave(self, stopped: Callable[[], object]) -> None:
        """Leaves it to itself; see `Handle.leave`. Whoever awaits it waits until cancelled."""
        self._handle.leave(stopped)

    def called(self) -> None:
        """Nobody waits for this."""

    def emit(self, value: object) -> Awaitable[None] | None:
        """Keeps the value for whoever iterates."""
        if self._is_read_over:
            return None
        self._unread.append(value)
        self._tell()
        return self._room()

    def returned(self, value: object) -> None:
        """The outcome."""
        self._value = value
        self._end()

    def raised(self, error: BaseException) -> None:
        """The outcome."""
        self._error = error
        self._end()

    def _end(self) -> None:
        self._has_ended = True
        self._tell()

    def _tell(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def _room(self) -> None:
        while self._unread:
            await self._moved.wait()

    async def _outcome(self) -> object:
        self._is_read_over = True
        self._unread.clear()
        self._tell()
        while not self._has_ended:
            await self._moved.wait()
        if self._error is None:
            return self._value
        try:
            raise self._error
        finally:
            # Else the error would hold its own frame, which holds the error.
            del self
