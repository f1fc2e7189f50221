"""`Placement`: decides which worker gets a task, and keeps the tasks that none can take. `ProcessPlacement`: that of a `ProcessExecutor`.

A task goes to the ready worker with the fewest tasks. A worker has `tasks_per_worker` tasks that run, and up to `prefetch` behind them, so
that it need not wait for the driver between two tasks. A task that waits behind others is taken back for a worker that is idle.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.pool.executor.process.work import Work
    from headrace.pool.executor.process.worker_process import WorkerProcess

_RING_SPARE = 8
"""The number of tasks that may have been taken back from a worker before it answers."""


class Placed(Protocol):
    """A worker, or a host of workers, to which tasks are given."""

    @property
    def can_run(self) -> bool:
        """Whether it can run tasks."""
        ...

    def give(self, work: Work) -> None:
        """Send a task."""
        ...


P = TypeVar("P", bound=Placed)


class Placement(ABC, Generic[P]):
    """The tasks of an executor and its workers, or hosts of workers."""

    def __init__(self) -> None:
        self.workers: list[P] = []
        """The workers that have not ended."""
        # The tasks that no worker has, in their order.
        self._waiting: deque[Work] = deque()

    def place(self, work: Work) -> None:
        """Give a task that has not begun to a worker, or keep it until one can take it."""
        best = self._choose()
        if best is None:
            self._waiting.append(work)
        else:
            best.give(work)

    def put_back(self, works: Sequence[Work]) -> None:
        """Keep tasks that a dead worker has not begun, in front of all others."""
        self._waiting.extendleft(reversed(works))

    def fill(self) -> None:
        """Give the tasks that were kept to the workers that can take them."""
        while self._waiting and (best := self._choose()) is not None:
            best.give(self._waiting.popleft())

    def cancel(self, work: Work) -> None:
        """End a task that no worker has."""
        if work in self._waiting:
            self._waiting.remove(work)
            work.end_with_error(asyncio.CancelledError())

    def refuse(self, error: BaseException) -> None:
        """End all tasks that no worker has, with an error."""
        while self._waiting:
            self._waiting.popleft().end_with_error(error)

    @property
    @abstractmethod
    def slots(self) -> int:
        """The number of tasks that the workers take together."""

    @abstractmethod
    def _choose(self) -> P | None:
        """Return the worker for the next task; None if none takes it."""


class ProcessPlacement(Placement["WorkerProcess"]):
    """The tasks and the worker processes of an executor.

    Args:
        tasks_per_worker: The number of tasks that run in a worker.
        prefetch: The number of tasks that wait behind them.
    """

    def __init__(self, tasks_per_worker: int, prefetch: int) -> None:
        super().__init__()
        self.tasks_each: int = tasks_per_worker + prefetch
        """The maximum number of tasks of a worker."""
        self.ring: int = 2 * self.tasks_each + _RING_SPARE
        """The maximum number of tasks that a worker has not answered: for more, the ring of vetoes in its cell has no slot."""
        self._tasks_per_worker = tasks_per_worker

    @property
    def ready(self) -> int:
        """The number of workers that can take tasks."""
        return sum(worker.can_run for worker in self.workers)

    @property
    def slots(self) -> int:
        """The number of tasks that the ready workers take together."""
        return self.ready * self.tasks_each

    def steal(self) -> None:
        """Take tasks back that wait behind others, and give them to idle workers."""
        if self._waiting:
            return
        for idle in self.workers:
            if idle.can_run and not idle.works and self._takes(idle):
                self._steal_for(idle)

    def _steal_for(self, idle: WorkerProcess) -> None:
        for busy in self.workers:
            if busy.is_dying or len(busy.works) <= self._tasks_per_worker:
                continue
            work = next(reversed(busy.works.values()))
            if not work.is_cancelled and busy.take_back(work):
                idle.give(work)
                return

    def _choose(self) -> WorkerProcess | None:
        """Return the worker for the next task: the one with the fewest tasks, if it takes another one."""
        best, fewest = None, self.tasks_each
        for worker in self.workers:
            held = len(worker.works)
            if held < fewest and worker.can_run and self._takes(worker):
                best, fewest = worker, held
        return best

    def _takes(self, worker: WorkerProcess) -> bool:
        held = len(worker.works)
        return held < self.tasks_each and held + len(worker.vetoed) < self.ring
