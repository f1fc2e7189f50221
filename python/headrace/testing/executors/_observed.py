"""`Observed`: an executor that checks the events of another one, and `Recorder`: a listener that records them.

Every case runs through an `Observed`. It checks the rules that hold for all work: the order of the events, their thread, exactly one
outcome, no value before there is room, and the results of `cancel`.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from headrace._internal.reprs import short_repr
from headrace.pool.executor.handle import CancelResult
from headrace.pool.executor.submission import Submission

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from headrace.pool.executor.executor import Capabilities, Executor
    from headrace.pool.executor.handle import Handle, Listener
    from headrace.task.task import Task


class Observed:
    """An executor that checks the events of another one.

    Args:
        inner: The other executor.
    """

    def __init__(self, inner: Executor) -> None:
        self.inner = inner
        self.works: list[Work] = []
        """All work that was submitted, in this order."""
        self.live = 0
        """The number of submitted pieces of work that have not ended."""
        self.most = 0
        """The greatest number of such work at a time."""
        self._faults: list[str] = []

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of the other executor."""
        return self.inner.capabilities

    def watch(self, changed: Callable[[], object]) -> Callable[[], object]:
        """Call `changed` after each change of the capabilities."""
        return self.inner.watch(changed)

    async def start(self) -> None:
        """Start the other executor."""
        await self.inner.start()

    def submit(self, task: Task[Any], listener: Listener | None = None) -> Any:
        """Submit a task to the other executor."""
        if listener is None:
            return Submission(self, task)
        work = Work(self, task, listener)
        self.works.append(work)
        self.live += 1
        self.most = max(self.most, self.live)
        work.handle = self.inner.submit(task, work)
        return work

    async def aclose(self, grace: float | None = None) -> None:
        """Close the other executor."""
        await self.inner.aclose(grace)

    def add_fault(self, fault: str) -> None:
        """Note a broken rule."""
        self._faults.append(fault)

    def faults(self) -> list[str]:
        """Return the broken rules, after all work has ended."""
        silent = [
            f"{work.name} has no outcome"
            for work in self.works
            if not work.has_ended and not work.is_left
        ]
        return [*self._faults, *silent]


class Work:
    """One piece of work: the listener that the other executor calls, and the handle that the caller gets.

    Args:
        executor: Its executor.
        task: Its task.
        listener: The listener of the caller.
    """

    def __init__(self, executor: Observed, task: Task[Any], listener: Listener) -> None:
        self.task = task
        self.name: str = listener.name
        self.has_lease: bool = listener.has_lease
        self.handle: Handle | None = None
        # Not of the running event loop, which another thread lacks.
        self._time = asyncio.get_running_loop().time
        self.submitted: float = self._time()
        self.called_at: float | None = None
        self.ended_at: float | None = None
        self.is_left = False
        self._executor = executor
        self._listener = listener
        self._thread = threading.get_ident()
        self._is_full = False

    @property
    def has_ended(self) -> bool:
        """Whether it had an outcome."""
        return self.ended_at is not None

    def _check(self, event: str) -> None:
        reasons = {
            "on another thread": threading.get_ident() != self._thread,
            "after the outcome": self.has_ended,
            "after leave()": self.is_left,
            "twice": event == "called" and self.called_at is not None,
            "before called()": event in ("emit", "returned") and self.called_at is None,
            "before the previous value was accepted": event == "emit" and self._is_full,
        }
        for reason, holds in reasons.items():
            if holds:
                self._fault(f"{event}() was called {reason}")

    def _fault(self, fault: str) -> None:
        self._executor.add_fault(f"{self.name}: {fault}")

    def _end(self) -> None:
        if not self.has_ended and not self.is_left:
            self._executor.live -= 1
        self.ended_at = self._time()

    # The listener.

    def called(self) -> None:
        """Forward the event."""
        self._check("called")
        self.called_at = self._time()
        self._listener.called()

    def emit(self, value: object) -> Awaitable[None] | None:
        """Forward the event."""
        self._check("emit")
        room = self._listener.emit(value)
        if room is None:
            return None
        self._is_full = True
        return _Room(room, self._emptied)

    def _emptied(self) -> None:
        self._is_full = False

    def settle(self, amounts: dict[str, float]) -> None:
        """Forward the event."""
        self._check("settle")
        self._listener.settle(amounts)

    def returned(self, value: object) -> None:
        """Forward the event."""
        self._check("returned")
        self._end()
        self._listener.returned(value)

    def raised(self, error: BaseException) -> None:
        """Forward the event."""
        self._check("raised")
        self._end()
        self._listener.raised(error)

    # The handle.

    def cancel(self) -> CancelResult:
        """Cancel the work, and check the result."""
        had_ended, result = self.has_ended, self._handle().cancel()
        if result is CancelResult.STOPPED and not self.has_ended and not self.is_left:
            self._fault("cancel() returned STOPPED, and the listener was not notified")
        if had_ended and result is not CancelResult.STOPPED:
            self._fault(f"cancel() returned {result.name} after the outcome")
        return result

    def inside(self) -> bool:
        """Return whether the caller is part of the work."""
        return self._handle().inside()

    def leave(self, stopped: Callable[[], object]) -> None:
        """Detach the work."""
        if not self.has_ended:
            self._executor.live -= 1
        self.is_left = True
        self._handle().leave(stopped)

    def _handle(self) -> Handle:
        if self.handle is None:
            raise AssertionError(f"{self.name}: the handle was used before submit() returned")
        return self.handle


class _Room:
    """The awaitable of `emit`, which notes its end."""

    def __init__(self, room: Awaitable[None], emptied: Callable[[], None]) -> None:
        self._room = room
        self._emptied = emptied

    def __await__(self) -> Generator[Any, Any, None]:
        try:
            yield from self._room.__await__()
        finally:
            self._emptied()


class Recorder:
    """A listener that records all of its calls.

    Args:
        task: The task.
        room: Returns an awaitable that waits for room for a value; None if there always is.
        on_end: Called after the outcome; None for nothing.
    """

    def __init__(
        self,
        task: Task[Any],
        room: Callable[[], Awaitable[Any]] | None = None,
        on_end: Callable[[], object] | None = None,
    ) -> None:
        self.name: str = short_repr(task)
        self.calls: list[tuple[str, Any]] = []
        self.ended = False
        """Whether it had an outcome."""
        self._on_end = on_end
        self._room = room

    @property
    def events(self) -> list[str]:
        """The names of the calls."""
        return [event for event, _ in self.calls]

    @property
    def values(self) -> list[Any]:
        """The yielded values."""
        return [value for event, value in self.calls if event == "emit"]

    @property
    def last(self) -> Any:
        """The final value, or the error."""
        return self.calls[-1][1]

    @property
    def has_lease(self) -> bool:
        """Whether there is a lease to settle: the cases record the amounts."""
        return True

    def has_ended(self) -> bool:
        """Return `ended`, as a condition to wait for."""
        return self.ended

    def called(self) -> None:
        """Record the call."""
        self.calls.append(("called", None))

    def emit(self, value: object) -> Awaitable[None] | None:
        """Record the value."""
        self.calls.append(("emit", value))
        return None if self._room is None else self._room()

    def settle(self, amounts: dict[str, float]) -> None:
        """Record the amounts."""
        self.calls.append(("settle", amounts))

    def returned(self, value: object) -> None:
        """Record the value."""
        self.calls.append(("returned", value))
        self._end()

    def raised(self, error: BaseException) -> None:
        """Record the error."""
        self.calls.append(("raised", error))
        self._end()

    def _end(self) -> None:
        self.ended = True
        if self._on_end is not None:
            self._on_end()
