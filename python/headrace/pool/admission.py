"""How jobs get their capacity.

A plain task waits for its capacity in the lane (see `plain`), and is a job only if it is held up there. A job whose
capacity is free has it at once. Any other waits in the tree, each in an asyncio task of its own, so that as
many wait at a time as the pool lets in, and priorities and costs decide among them. A job may be withdrawn at any
moment; what it was granted in that moment is given back.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from headrace.tasks import settled

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.capacity import CapacitySource, Lease
    from headrace.pool.job import Job

__all__ = ["Admission"]


class Admission:
    """The jobs that wait for capacity.

    Args:
        name: of the pool.
        capacity: what they wait for.
        loop: where.
        granted: called with a job and its lease.
    """

    def __init__(
        self,
        name: str,
        capacity: CapacitySource,
        loop: asyncio.AbstractEventLoop,
        granted: Callable[[Job, Lease], None],
    ) -> None:
        self._name = name
        self._capacity = capacity
        self._loop = loop
        self._granted = granted
        self._waiting: dict[Job, asyncio.Task[None]] = {}
        # The loop itself holds its tasks only weakly.
        self._tasks: set[asyncio.Task[None]] = set()
        # While paused: those that would wait.
        self._paused: dict[Job, None] | None = None

    def seek(self, job: Job) -> None:
        """Gets a job its capacity: before this returns if it is free, else when it is.

        A cost that can never be had refuses the job.
        """
        if self._paused is not None:
            self._paused[job] = None
            return
        cost: Any = job.task.cost
        try:
            # Nobody is overtaken who waits, nor who is about to: its task may not have had its first step.
            lease = None if self._waiting else self._capacity.try_acquire(cost, detached=True)
        except Exception as error:
            job.refuse(error)
            return
        if lease is not None:
            self._granted(job, lease)
            return
        # Not of the loop's factory, which might start it before it is known here.
        task = asyncio.Task(
            self._wait(job), loop=self._loop, name=f"{self._name}: capacity for task {job.task_id}"
        )
        self._waiting[job] = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def is_awaited(self) -> bool:
        """Whether a job waits for capacity here."""
        return bool(self._waiting)

    def withdraw(self, job: Job) -> None:
        """The job wants no capacity any more, if it ever did."""
        if self._paused is not None:
            self._paused.pop(job, None)
        if (task := self._waiting.pop(job, None)) is not None:
            task.cancel()

    def pause(self) -> None:
        """Grants nothing more, and withdraws whoever waits until it is resumed."""
        if self._paused is None:
            self._paused = {}
            for job in tuple(self._waiting):
                self.withdraw(job)
                self._paused[job] = None

    def resume(self) -> None:
        """Lets everybody wait again, in their order."""
        jobs, self._paused = self._paused or {}, None
        for job in jobs:
            self.seek(job)

    async def aclose(self) -> None:
        """Withdraws everybody and waits until that has happened."""
        for job in tuple(self._waiting):
            self.withdraw(job)
        self._paused = {}
        await settled(*self._tasks)

    async def _wait(self, job: Job) -> None:
        task = job.task
        cost: Any = task.cost
        # Named only where it matters, so that it is nobody's business who has no priorities.
        terms = {"priority": task.priority} if task.priority else {}
        try:
            lease = await self._capacity.acquire(cost, detached=True, **terms)
        except Exception as error:
            if self._waiting.get(job) is asyncio.current_task():
                del self._waiting[job]
                job.refuse(error)
            return
        if self._waiting.get(job) is asyncio.current_task():
            del self._waiting[job]
            self._granted(job, lease)
        else:
            lease.release()
