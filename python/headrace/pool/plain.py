"""The short way for plain tasks, and what it asks of Python.

A plain task asks for nothing but a cost and a key, under a runner whose options are plain too. The core pulls, calls and
settles it (`_core.Lane`); what goes wrong, and values that are yielded or awaited in other ways, come here.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable
from typing import TYPE_CHECKING, Any, Protocol, cast

from headrace._core import Lane, TaskProgressEnvelope
from headrace._internal.error_notes import wrap_iteration_error
from headrace.pool.events import EnvelopeType
from headrace.pool.executor.loop import stream
from headrace.pool.job import Job, JobOwner, State
from headrace.task._current_lease import leased
from headrace.task.task import Task

if TYPE_CHECKING:
    from collections.abc import Coroutine, Hashable
    from contextvars import Context

    from headrace._core import Lease
    from headrace.pool.keys import Keys


class LaneOwner(JobOwner, Protocol):
    """The run of a lane, as the lane's tasks see it."""

    jobs: dict[int, Job]
    keys: Keys

    @property
    def running_tasks(self) -> int:
        """The number of running tasks."""
        ...

    def is_disturbed(self, task_id: int) -> bool:
        """Return whether a simple task was asked to stop."""
        ...

    def idle(self) -> None:
        """Note that no task of one kind runs any more."""
        ...

    def refuse(self, item: object, error: BaseException) -> None:
        """End an item whose task cannot be called."""
        ...


def lane_of(run: LaneOwner) -> Lane:
    """What runs the plain tasks of a run."""
    plan = run.plan
    return Lane(
        _Plain(run),
        name=plan.name,
        source=plan.source,
        capacity=plan.capacity,
        asks=run.admission.asks,
        event_loop=run.loop,
        clock=run.clock,
        context=run.context,
        unread=run.outlet.unread,
        # In the core it is a size of memory, which no run reaches.
        most=min(plan.max_buffered, sys.maxsize),
        ids=plan.ids,
        keys=run.keys.taken,
        meter=plan.meter,
        task_class=Task,
    )


def take_over(run: LaneOwner, lane: Lane, job: Job, lease: Lease) -> bool:
    """Has a task that was a job while it waited for its capacity run the short way, if it is a plain one."""
    if not job.task.is_plain:
        return False
    # Before it is called: it may ask how things stand.
    del run.jobs[job.task_id]
    run.move(job, State.ENDED)
    if not run.jobs:
        run.idle()
    if lane.launch(job.item, job.task_id, job.queued, lease):
        return True
    run.jobs[job.task_id] = job
    run.move(job, State.QUEUED)
    return False


class _Plain:
    """What a lane asks of its run."""

    leased: staticmethod[[Context, Lease], Context] = staticmethod(leased)

    def __init__(self, run: LaneOwner) -> None:
        self._run = run

    def raised(
        self,
        task_id: int,
        key: Hashable,
        queued: float,
        called: float,
        error: BaseException,
        disturbed: bool,
    ) -> bool:
        """A task has stopped with an error; whether its asyncio task is to raise it."""
        run = self._run
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            # asyncio would raise it out of the running loop there and then, past everything that has to be closed first.
            run.interrupt(error)
            return False
        name = run.plan.name_of(task_id, key)
        told = wrap_iteration_error(error, name)
        if run.outlet.closed and disturbed and not isinstance(told, asyncio.CancelledError):
            run.report(f"{name} raised while its run was being closed", told)
        now = run.clock()
        run.plan.meter.note(now, failed=True)
        run.outlet.put(
            TaskProgressEnvelope(
                task_id, key, EnvelopeType.ERROR, None, told, 1, queued, called, now
            )
        )
        run.failed(told)
        # What iteration is made of cannot be raised out of a task.
        return told is error

    def refused(self, item: object, error: BaseException) -> None:
        """A task cannot be called."""
        self._run.refuse(item, error)

    def own(self) -> tuple[int, int]:
        """How many tasks of the run run, and how many wait that went the long way."""
        return self._run.running_tasks, self._run.admission.waiting

    def rest(
        self, result: object, task_id: int, key: Hashable, queued: float, called: float
    ) -> Coroutine[Any, Any, object]:
        """A coroutine that gives the final value, where what a task returned is none itself."""
        if isinstance(result, AsyncGenerator):
            listener = _Yielding(self._run, task_id, key, (queued, called))
            return stream(cast("AsyncGenerator[object, Any]", result), listener)
        if isinstance(result, Awaitable):
            return _awaited(cast("Awaitable[object]", result))
        return _given(result)

    def idle(self) -> None:
        """No task of the lane runs any more, and the run had asked."""
        self._run.idle()


class _Yielding:
    """Takes what a plain task yields."""

    __slots__ = ("_key", "_run", "_task_id", "_times")

    def __init__(
        self,
        run: LaneOwner,
        task_id: int,
        key: Hashable,
        times: tuple[float, float],
    ) -> None:
        self._run = run
        self._task_id = task_id
        self._key = key
        # When it was taken up, and called.
        self._times = times

    @property
    def name(self) -> str:
        return self._run.plan.name_of(self._task_id, self._key)

    def emit(self, value: object) -> Awaitable[None] | None:
        envelope = TaskProgressEnvelope(
            self._task_id,
            self._key,
            EnvelopeType.INTERMEDIATE,
            value,
            None,
            1,
            *self._times,
            None,
        )
        run = self._run
        return run.outlet.emit(run.loop, envelope, None, stopping=run.is_disturbed(self._task_id))


async def _awaited(result: Awaitable[object]) -> object:
    return await result


async def _given(result: object) -> object:
    return result
