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

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future


class InnerWait:
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
        self._waits: list[InnerWait] = []

    def __len__(self) -> int:
        return len(self._waits)

    def add(self, wait: InnerWait) -> None:
        """Add a call."""
        self._waits.append(wait)

    def remove(self, wait: InnerWait) -> None:
        """Remove a call that waits no longer."""
        self._waits.remove(wait)

    def release(self, left: list[tuple[int, bool]]) -> None:
        """Release the calls that may wait only for tasks that wait for them.

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
