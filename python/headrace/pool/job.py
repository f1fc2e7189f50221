"""One task of a run, from the moment it was pulled to its last envelope."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from headrace.pool.envelope import EnvelopeType, TaskProgressEnvelope
from headrace.pool.task import Task

if TYPE_CHECKING:
    from collections.abc import Awaitable, Hashable

    from headrace.capacity import Lease
    from headrace.pool.executor import Handle
    from headrace.pool.run import Run

__all__ = ["Job"]


class Job:
    """What a run knows of one task; the listener of the executor that runs it."""

    __slots__ = (
        "_run",
        "asked_to_stop",
        "handle",
        "key",
        "lease",
        "queued",
        "started",
        "task",
        "task_id",
    )

    def __init__(self, run: Run, item: object) -> None:
        self._run = run
        self.task = _as_task(item, run)
        self.task_id = next(run.plan.ids)
        self.key: Hashable = None if self.task is None else self.task.key
        self.queued = run.loop.time()
        self.started: float | None = None
        self.lease: Lease | None = None
        self.handle: Handle | None = None
        self.asked_to_stop = False

    @property
    def name(self) -> str:
        """What it is called in the name of its asyncio task, and in messages."""
        return f"{self._run.plan.name}: task {self.task_id if self.key is None else self.key}"

    def called(self) -> None:
        """See `Listener`."""
        self.started = self._run.loop.time()
        self._run.begun()

    def emit(self, value: object) -> Awaitable[None] | None:
        """See `Listener`."""
        if self.asked_to_stop:
            # It yields all the same.
            return _stopped()
        if self._run.closed:
            # There always is room now: one that waits for nothing else has to wait here until it is asked to stop.
            return self._run.loop.create_future()
        envelope = self._envelope(EnvelopeType.INTERMEDIATE, value, None, None)
        if self._run.has_room():
            self._run.put(envelope)
            return None
        return self._run.put_when_room(envelope)

    def returned(self, value: object) -> None:
        """See `Listener`."""
        self._run.over(self)
        self._end(EnvelopeType.FINAL, value, None)

    def raised(self, error: BaseException) -> None:
        """See `Listener`."""
        self._run.over(self)
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            self._run.interrupt(error)
        elif self.started is not None or not self._run.ending:
            self.fail(error)
        # Else it was stopped before it was called: it is the first that the next run will take up.

    def fail(self, error: BaseException) -> None:
        """Sends the error of a task that has stopped, or was refused."""
        if isinstance(error, (StopIteration, StopAsyncIteration, GeneratorExit)):
            # What iteration is made of would end somebody's loop if it were raised again: see PEP 479.
            wrapped = RuntimeError(f"{self.name} raised {type(error).__name__}")
            wrapped.__cause__ = error
            error = wrapped
        if self.started is None:
            self._run.begun()
        if not self._run.closed:
            self._end(EnvelopeType.ERROR, None, error)
        elif self.asked_to_stop and not isinstance(error, asyncio.CancelledError):
            # It is the closing that went wrong, and nobody reads envelopes any more.
            self._run.loop.call_exception_handler(
                {
                    "message": f"{self.name} raised while its run was being closed",
                    "exception": error,
                }
            )

    def _end(self, kind: EnvelopeType, value: object, error: BaseException | None) -> None:
        self._run.put(self._envelope(kind, value, error, self._run.loop.time()))

    def _envelope(
        self, kind: EnvelopeType, value: object, error: BaseException | None, finished: float | None
    ) -> TaskProgressEnvelope[object]:
        attempt = 0 if self.started is None else 1
        return TaskProgressEnvelope(
            self.task_id, self.key, kind, value, error, attempt, self.queued, self.started, finished
        )


async def _stopped() -> None:
    raise asyncio.CancelledError


def _as_task(item: object, run: Run) -> Task | None:
    """The task that a source's item is, or makes; None if it is neither."""
    if isinstance(item, Task):
        return item
    if not callable(item):
        return None
    task = Task(item)
    # Not the feeder's, which is a copy of it.
    task.context = run.context
    return task
