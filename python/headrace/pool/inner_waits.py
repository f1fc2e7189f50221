"""`InnerWaits`: the calls inside a run that wait for its end. `Run` has one.

A task that ends its own run directly is refused. It may also start an asyncio task, or schedule a coroutine from its thread, that ends
the run, and wait for that. The run would then wait for the task, the task for the call, and the call for the run.

A call inside the run therefore does not wait for the task that may wait for it. If neither the marker of the context nor the current
asyncio task at the call names that task, it can be any task that is left. The call then returns when no more tasks are left than such
calls wait. If each task that is left waits for a call of its own, this is so, and no call waits for ever.

A task that is being cancelled stops waiting by itself. A call that cancels the tasks is therefore cancelled with its task, and only work
that cannot be cancelled is left out.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future, Task

    from headrace._core import Engine
    from headrace.pool.shutdown import End


class AwaitedRun(Protocol):
    """The parts of a `Run` that are used here."""

    loop: AbstractEventLoop
    end: End
    is_feeding: bool

    @property
    def engine(self) -> Engine:
        """The engine."""
        ...


class _Wait:
    """One call that waits.

    Args:
        loop: The event loop of the run.
        task_id: The task that the call was made in; None if that is not known.
        cancels: Whether the tasks that are left are about to be cancelled.
    """

    __slots__ = ("cancels", "released", "task_id")

    def __init__(self, loop: AbstractEventLoop, task_id: int | None, *, cancels: bool) -> None:
        self.task_id: int | None = task_id
        self.cancels: bool = cancels
        self.released: Future[None] = loop.create_future()


class InnerWaits:
    """The calls that wait."""

    __slots__ = ("_waits",)

    def __init__(self) -> None:
        self._waits: list[_Wait] = []

    def __len__(self) -> int:
        return len(self._waits)

    async def wait(
        self,
        run: AwaitedRun,
        feeder: Task[None],
        caller: int | None = None,
        *,
        cancels: bool = False,
        timeout: float | None = None,
    ) -> bool:
        """Wait inside a run until its feeder has ended or only tasks are left that may wait for this call.

        Args:
            run: The run.
            feeder: Its feeder.
            caller: The task that made the call, if that is known already.
            cancels: Whether the tasks that are left are about to be cancelled.
            timeout: The maximum time in seconds; None for no limit.

        Returns:
            False after the timeout.
        """
        wait = _Wait(run.loop, caller or run.end.inside.task_here(), cancels=cancels)
        self._waits.append(wait)
        try:
            self.release(run)
            await asyncio.wait(
                [feeder, wait.released], timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            self._waits.remove(wait)
        return feeder.done() or wait.released.done()

    def release(self, run: AwaitedRun) -> None:
        """Release the calls that may wait only for tasks that wait for them."""
        if not self._waits:
            return
        run.engine.watch(len(self._waits))
        # The source may still return an item.
        if not run.is_feeding:
            self._release(run.engine.tasks_left())

    def _release(self, left: list[tuple[int, bool]]) -> None:
        """Release the calls that may be all that is left.

        Args:
            left: The ids of all tasks that have not ended, each with whether it can be cancelled.
        """
        known = {wait.task_id for wait in self._waits}
        unknown = sum(wait.task_id is None for wait in self._waits)
        if sum(task_id not in known for task_id, _ in left) > unknown:
            return
        can_cancel = any(can_cancel for _, can_cancel in left)
        for wait in self._waits:
            if not (wait.cancels and can_cancel) and not wait.released.done():
                wait.released.set_result(None)
