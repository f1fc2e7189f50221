"""How jobs get their capacity.

A plain task waits for its capacity in the lane (see `plain`), and is a job only if it is held up there. A job whose
capacity is free has it at once. Any other waits in the tree, each in an asyncio task of its own, so that as
many wait at a time as the pool lets in, and priorities and costs decide among them. A job may be withdrawn at any
moment; what it was granted in that moment is given back.

Where one job is pulled ahead, and it needs one slot as nearly all do, others of its kind are asked for as well, so that of many
slots that are freed in one turn of the loop each pool has its share. Those asks are the run's, and the lane goes on with them.
They stand only while the feeder waits for a job that is in front of them, or is about to pull the next.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import headrace._core as _core
from headrace._internal.tasks import wait_until_done

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from headrace._core import Lease
    from headrace.capacity.node import CapacitySource
    from headrace.task.task import Task


class Candidate(Protocol):
    """A task that waits for its capacity."""

    task: Task
    task_id: int

    def refuse(self, error: BaseException) -> None:
        """End the task with an error, before it is called."""
        ...


J = TypeVar("J", bound=Candidate)


class Admission(Generic[J]):
    """The jobs that wait for capacity.

    Args:
        name: of the pool.
        capacity: what they wait for.
        loop: where.
        granted: called with a job and its lease.
        running: how many tasks of the pool run.
        looks_ahead: whether more than one job is pulled ahead, each of which asks for itself.
    """

    def __init__(
        self,
        name: str,
        capacity: CapacitySource,
        loop: asyncio.AbstractEventLoop,
        granted: Callable[[J, Lease], None],
        running: Callable[[], int],
        *,
        looks_ahead: bool,
    ) -> None:
        self._name = name
        self._capacity = capacity
        self._loop = loop
        self._granted = granted
        self._running = running
        self._waiting: dict[J, asyncio.Task[None]] = {}
        # The loop itself holds its tasks only weakly.
        self._tasks: set[asyncio.Task[None]] = set()
        self.asks: _core.PermitPrefetch = _core.PermitPrefetch(capacity)
        """What is asked for ahead, here or in the lane."""
        self._asks_ahead = not looks_ahead and _is_native(capacity)
        # While the source is pulled: what will clear them.
        self._soon: asyncio.Handle
        # While paused: those that would wait.
        self._paused: dict[J, None] | None = None

    def seek(self, job: J, *, more: bool = False) -> None:
        """Gets a job its capacity: before this returns if it is free, else when it is.

        If `more` are about to be pulled, others like it are asked for as well. Else it is one that was called before, or that a pause
        held up: then it asks for itself alone, and what was asked for ahead stays.

        A cost that can never be had refuses the job, and so does one that raises anything when it is read.
        """
        if self._paused is not None:
            self._paused[job] = None
            return
        task = job.task
        cost: Any = task.cost
        asked = None
        try:
            if self._asks_ahead and type(cost) is int and cost == 1 and not task.priority:
                # Nobody is overtaken who waits, nor who is about to: its task may not have had its first step.
                lease = None if self._waiting and not more else self.asks.take(more=more)
                if lease is None and more:
                    asked = self.asks.wait(self._running(), self.waiting)
                elif lease is None:
                    asked = self.asks.stand()
            else:
                if more:
                    # They would stand in front of it, and nobody would look at them.
                    self.clear()
                lease = None if self._waiting else self._capacity.acquire_nowait(cost, owner=None)
        # A `CancelledError` of a cost cancels nobody.
        except BaseException as error:
            job.refuse(error)
            return
        if lease is not None:
            self._granted(job, lease)
            return
        # Not of the loop's factory, which might start it before it is known here.
        waiting = asyncio.Task(
            self._wait(job, asked),
            loop=self._loop,
            name=f"{self._name}: capacity for task {job.task_id}",
        )
        self._waiting[job] = waiting
        self._tasks.add(waiting)
        waiting.add_done_callback(self._tasks.discard)

    @property
    def waiting(self) -> int:
        """How many jobs wait for capacity here."""
        return len(self._waiting)

    async def pull(self, source: AsyncIterator[object]) -> object:
        """The next item of a source. While that is waited for, or if there is none, nothing is asked for ahead."""
        if not len(self.asks):
            return await anext(source)
        # A source that has an item may let the loop turn once all the same.
        self._soon = self._loop.call_soon(self._turned)
        try:
            return await anext(source)
        except BaseException:
            self.clear()
            raise
        finally:
            self._soon.cancel()

    def _turned(self) -> None:
        self._soon = self._loop.call_soon(self.clear)

    def clear(self) -> None:
        """Asks for nothing ahead any more."""
        self.asks.clear()

    def withdraw(self, job: J) -> None:
        """The job wants no capacity any more, if it ever did."""
        if self._paused is not None:
            self._paused.pop(job, None)
        if (task := self._waiting.pop(job, None)) is not None:
            task.cancel()

    def pause(self) -> None:
        """Grants nothing more, and withdraws whoever waits until it is resumed."""
        self.clear()
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
        self.clear()
        for job in tuple(self._waiting):
            self.withdraw(job)
        self._paused = {}
        await wait_until_done(*self._tasks)

    async def _wait(self, job: J, asked: Awaitable[Lease] | None) -> None:
        cost: Any = job.task.cost
        # Named only where it matters, so that it is nobody's business who has no priorities.
        terms = {"priority": job.task.priority} if job.task.priority else {}
        try:
            # What stands in line already; or what takes its place there only now.
            lease = await (asked or self._capacity.acquire(cost, owner=None, **terms))
        except GeneratorExit:
            raise
        except BaseException as error:
            if self._waiting.get(job) is asyncio.current_task():
                del self._waiting[job]
                job.refuse(error)
            elif not isinstance(error, Exception):
                raise
            return
        if self._waiting.get(job) is asyncio.current_task():
            del self._waiting[job]
            self._granted(job, lease)
        else:
            lease.release()


def _is_native(capacity: CapacitySource) -> bool:
    """Whether no subclass has put another way of asking in its place."""
    known, native = type(capacity), _core.Capacity
    return known.acquire is native.acquire and known.acquire_nowait is native.acquire_nowait
