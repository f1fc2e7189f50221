"""The executors of a run: where its tasks run that do not take the short way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.pool.executor.loop import LoopExecutor
from headrace.pool.executor.thread import ThreadExecutor

if TYPE_CHECKING:
    from headrace.pool.executor.executor import Executor
    from headrace.task.task import Task


class Executors:
    """One for the loop and one for threads; each is made when the first task needs it.

    Args:
        name: of the pool.
    """

    __slots__ = ("_name", "_started")

    def __init__(self, name: str) -> None:
        self._name = name
        # By `Task.thread`.
        self._started: dict[bool, Executor] = {}

    def of(self, task: Task) -> Executor:
        """Where a task runs that `prepare` was called for."""
        return self._started[task.thread]

    def has(self, task: Task) -> bool:
        """Whether the executor of a task is there already."""
        return task.thread in self._started

    async def prepare(self, task: Task) -> None:
        """Makes and starts the executor of a task."""
        executor: Executor = ThreadExecutor(self._name) if task.thread else LoopExecutor()
        await executor.start()
        self._started[task.thread] = executor

    async def aclose(self) -> None:
        """Closes all of them, and waits for what they still run."""
        for executor in self._started.values():
            await executor.aclose()
