"""One task of a run, from the moment it was taken up to its last envelope."""

from __future__ import annotations

import asyncio
import math
from copy import copy
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from headrace._core import TaskProgressEnvelope
from headrace._internal.error_notes import wrap_iteration_error
from headrace.errors import HeadraceError
from headrace.pool.events import EnvelopeType
from headrace.pool.executor.executor import CancelSupport
from headrace.pool.executor.handle import CancelResult
from headrace.task._current_lease import leased
from headrace.task.task import Task

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable
    from contextvars import Context

    from headrace._core import Lease
    from headrace.pool.admission import Admission
    from headrace.pool.end import End
    from headrace.pool.executor.executor import Executor
    from headrace.pool.executor.handle import Handle
    from headrace.pool.executors import Executors
    from headrace.pool.outlet import Outlet
    from headrace.pool.plan import Plan
    from headrace.task.retry import Retry


class State(Enum):
    """Where a job is."""

    QUEUED = "queued"
    """It was taken up, and not called yet."""
    RUNNING = "running"
    """It is with an executor."""
    BACKING_OFF = "backing off"
    """It failed and waits to be called again, or for the capacity to be."""
    ENDED = "ended"
    """Its last envelope was put, or it was given back without having been called."""


class JobOwner(Protocol):
    """The run of a job, as its jobs see it."""

    plan: Plan[Any]
    loop: asyncio.AbstractEventLoop
    context: Context
    admission: Admission[Job]
    executors: Executors
    outlet: Outlet
    end: End
    ending: bool
    """Whether the run starts nothing more and stops its tasks."""
    unstarted: dict[int, object]
    """The items whose tasks were not called, by task id."""
    launching: Job | None
    """The job whose first step runs in the current step of the loop."""

    @property
    def clock(self) -> Callable[[], float]:
        """The clock of the loop."""
        ...

    def move(self, job: Job, state: State) -> None:
        """Change the state of a job."""
        ...

    def over(self, job: Job) -> None:
        """Forget a job that has ended."""
        ...

    def failed(self, error: BaseException) -> None:
        """Record that a job ended with an error."""
        ...

    def report(self, message: str, error: BaseException) -> None:
        """Report an error that no consumer can receive."""
        ...

    def interrupt(self, error: BaseException) -> None:
        """End the run with an error that ends the program."""
        ...


class Job:
    """What a run knows of one task; the listener of the executor that runs it."""

    __slots__ = (
        "_called",
        "_cancelled",
        "_disturbed",
        "_handle",
        "_lease",
        "_overdue",
        "_place",
        "_run",
        "_timer",
        "attempt",
        "item",
        "key",
        "queued",
        "started",
        "state",
        "task",
        "task_id",
    )

    task: Task
    """The task that the item is, or makes; not there if it is neither."""

    def __init__(
        self, run: JobOwner, item: object, task_id: int | None = None, queued: float | None = None
    ) -> None:
        self._run = run
        self.item: object = item
        self.key: Hashable = None
        if isinstance(item, Task):
            self.task = item
            self.key = item.key
        elif callable(item):
            self.task = Task(item)
            # Not the feeder's, which is a copy of it.
            self.task.context = run.context
        # Those of one that waited elsewhere are known.
        self.task_id: int = next(run.plan.ids) if task_id is None else task_id
        self.queued: float = run.clock() if queued is None else queued
        self.state: State = State.QUEUED
        self.attempt: int = 0
        self.started: float | None = None
        # Whether the attempt of now has been called.
        self._called = False
        # Whether it is to stop for good, whether that reached work that had not stopped by itself, and the error of an
        # attempt that took too long.
        self._cancelled = False
        self._disturbed = False
        self._overdue: TimeoutError | None = None
        self._lease: Lease | None = None
        self._handle: Handle | None = None
        # At most one at a time: for the time in the queue, of the attempt, or of the back-off.
        self._timer: asyncio.TimerHandle | None = None
        self._place = run.outlet.place()
        if hasattr(self, "task") and (limit := _finite(self.task.queue_timeout)) is not None:
            self._timer = run.loop.call_later(limit, self._queued_too_long, limit)

    @property
    def name(self) -> str:
        """What it is called in the name of its asyncio task, and in messages."""
        return self._run.plan.name_of(self.task_id, self.key)

    # Before it is called.

    def launch(self, lease: Lease, executor: Executor) -> None:
        """Has it called, now that its capacity is held."""
        # Not in `called`, which may come a turn later: its time in the queue is over.
        self._disarm()
        self._lease = lease
        self._called = False
        self._overdue = None
        if self.attempt:
            self._run.move(self, State.RUNNING)
        task = self.task
        if not isinstance(task.cost, (int, float)):
            task = copy(task)
            task.context = leased(task.context, lease)
        outer, self._run.launching = self._run.launching, self
        try:
            handle = executor.submit(task, self)
        except BaseException as error:
            # A key that cannot be printed, say. It is this task that fails then, not the run.
            self.raised(error)
        else:
            # One that is over already would make a circle with its handle.
            if self._lease is lease:
                self._handle = handle
                if self._cancelled:
                    # In its very first step.
                    self._disturbed = handle.cancel() is not CancelResult.STOPPED
        finally:
            self._run.launching = outer

    def refuse(self, error: BaseException) -> None:
        """It can never be called, or not again."""
        self._disarm()
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            self._exit(error)
        else:
            self._fail(error)

    def give_back(self) -> None:
        """It was not called, and its item stays with the runner."""
        self._disarm()
        self._run.admission.withdraw(self)
        self._run.unstarted[self.task_id] = self.item
        self._run.outlet.leave(self._place)
        self._run.over(self)

    def _queued_too_long(self, limit: float) -> None:
        self._timer = None
        self._run.admission.withdraw(self)
        self._fail(TimeoutError(f"{self.name} waited longer than its queue_timeout of {limit} s"))

    # What the executor tells: see `Listener`.

    def called(self) -> None:
        """See `Listener`."""
        self._disarm()
        run, self._called = self._run, True
        if not self.task.thread:
            # This is its asyncio task.
            run.end.inside.enter()
        self.started = run.clock()
        self.attempt += 1
        if self.attempt == 1:
            run.move(self, State.RUNNING)
        limit = run.plan.timeout if self.task.timeout is None else self.task.timeout
        if (limit := _finite(limit)) is not None:
            self._timer = run.loop.call_at(self.started + limit, self._ran_too_long, limit)

    def emit(self, value: object) -> Awaitable[None] | None:
        """See `Listener`."""
        return self._run.outlet.emit(
            self._run.loop,
            self._envelope(EnvelopeType.INTERMEDIATE, value, None, None),
            self._place,
            stopping=self._cancelled or self._overdue is not None,
        )

    def returned(self, value: object) -> None:
        """See `Listener`."""
        if self._overdue is not None and not self._can_be_cancelled():
            # Nobody could stop it in time; that it came to an end all the same does not make it timely.
            self.raised(self._overdue)
            return
        self._stopped()
        self._end(EnvelopeType.FINAL, value, None)

    def raised(self, error: BaseException) -> None:
        """See `Listener`."""
        self._stopped()
        run = self._run
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            self._exit(error)
            return
        if not self._called and not self.attempt and run.ending and self._cancelled:
            # It was stopped before it was called.
            self.give_back()
            return
        if self._overdue is not None and isinstance(error, asyncio.CancelledError):
            self._overdue.__cause__ = error
            error = self._overdue
        if self._cancelled or run.ending or not self._called:
            self._fail(error)
        else:
            self._again(error)

    def _exit(self, error: BaseException) -> None:
        """It ends, without an envelope, with what ends the program."""
        run = self._run
        self._settle(None, error)
        run.outlet.leave(self._place)
        run.over(self)
        run.interrupt(error)

    def _stopped(self) -> None:
        """The work has really stopped."""
        self._disarm()
        if self._lease is not None:
            self._lease.release()
            self._lease = None
        self._handle = None

    def _can_be_cancelled(self) -> bool:
        executor = self._run.executors.of(self.task)
        return executor.capabilities.cancel_support is not CancelSupport.NONE

    def _ran_too_long(self, limit: float) -> None:
        self._timer = None
        self._overdue = TimeoutError(f"{self.name} ran longer than its timeout of {limit} s")
        if self._handle is not None:
            self._handle.cancel()

    # After an error.

    def _again(self, error: BaseException) -> None:
        """Has it called again, if its retries say so."""
        retry: Retry | None = self.task.retry or self._run.plan.retry
        if retry is None:
            self._fail(error)
            return
        try:
            if not retry.applies(error, self.attempt):
                self._fail(error)
                return
            delay = retry.delay(error, self.attempt)
        except (KeyboardInterrupt, SystemExit) as failure:
            self._exit(failure)
            return
        # A `CancelledError` too, which would be lost in whoever happens to call this: it cancels nobody.
        except BaseException as failure:
            failure.__cause__ = error
            self._fail(failure)
            return
        self._run.move(self, State.BACKING_OFF)
        # What it raised is what it ends with, if it is not called again.
        self._overdue = None
        self._timer = self._run.loop.call_later(delay, self._due)

    def _due(self) -> None:
        self._timer = None
        self._run.admission.seek(self)

    # When it is to stop.

    @property
    def is_launched(self) -> bool:
        """Whether an executor has it."""
        return self._lease is not None

    def inside(self) -> bool:
        """Whether the caller is this very work."""
        return self is self._run.launching or (self._handle is not None and self._handle.inside())

    def cancel(self) -> None:
        """Stops it for good: at once if it does not run, else as soon as it has stopped."""
        if self._cancelled:
            return
        self._cancelled = True
        if self.is_launched:
            if self._handle is not None:
                self._disturbed = self._handle.cancel() is not CancelResult.STOPPED
        else:
            self._disarm()
            self._run.admission.withdraw(self)
            self._fail(asyncio.CancelledError(f"{self.name} was cancelled"))

    def leave(self) -> bool:
        """Leaves it to itself, if it runs and cannot be cancelled; its capacity is held until it ends."""
        if self._handle is None or self._lease is None or self._can_be_cancelled():
            return False
        self._handle.leave(self._lease.release)
        self._lease = None
        self._stopped()
        self._fail(
            HeadraceError(
                f"{self.name} cannot be cancelled and was left running; it holds its capacity until it ends"
            )
        )
        return True

    # Its last envelope.

    def _fail(self, error: BaseException) -> None:
        error = wrap_iteration_error(error, self.name)
        if (
            self._run.outlet.closed
            and self._disturbed
            and not isinstance(error, asyncio.CancelledError)
        ):
            # It is the closing that went wrong, and nobody reads envelopes any more.
            self._run.report(f"{self.name} raised while its run was being closed", error)
        self._end(EnvelopeType.ERROR, None, error)

    def _end(self, kind: EnvelopeType, value: object, error: BaseException | None) -> None:
        run = self._run
        now = run.clock()
        run.plan.meter.note(now, failed=error is not None)
        self._settle(value, error)
        run.outlet.put_at(self._place, self._envelope(kind, value, error, now))
        run.outlet.leave(self._place)
        run.over(self)
        if error is not None:
            run.failed(error)

    def _settle(self, value: object, error: BaseException | None) -> None:
        """Tells those who asked how it ended."""
        run, task, settling = (
            self._run,
            getattr(self, "task", None),
            self._run.plan.outcome_listener,
        )
        try:
            if task is not None and error is None and task.on_complete is not None:
                task.on_complete(value)
            elif task is not None and error is not None and task.on_error is not None:
                task.on_error(error)
        except BaseException as failure:
            run.report(f"a callback of {self.name} raised", failure)
        if settling is None:
            return
        try:
            if error is None:
                settling.completed(self.item, value)
            else:
                settling.failed(self.item, error)
        except BaseException as failure:
            run.report(f"the source of {run.plan.name} raised when told of {self.name}", failure)

    def _envelope(
        self, kind: EnvelopeType, value: object, error: BaseException | None, finished: float | None
    ) -> TaskProgressEnvelope[object]:
        return TaskProgressEnvelope(
            self.task_id,
            self.key,
            kind,
            value,
            error,
            self.attempt,
            self.queued,
            self.started,
            finished,
        )

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _finite(seconds: float | None) -> float | None:
    """A time limit, if it is one."""
    return None if seconds is None or seconds == math.inf else seconds
