"""`Inside`: detects code that runs inside a run: in its source, in a task of it, or in an asyncio task that one of these has started.

`End` has an `Inside`, and `Run` passes the variable to the engine.

The marker is a context variable. It is set in the context of the run, of which plain callables get a copy. A `Task` has its own
context, in which the engine sets the variable when it calls the task. Work of a local executor has a marker of its own, which
names its task.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING
from weakref import ref

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context


def _no_engine() -> None:
    """Return the engine of a run that has not started."""


class Inside:
    """The marker of one run in the contexts of its tasks. It does not refer to the run, which would be a reference cycle.

    It is created where the run is created, and refers to the marker of the run around that code, if there is one.
    """

    __slots__ = ("__weakref__", "_outer", "engine")

    def __init__(self) -> None:
        # Returns the engine of the run, while it exists.
        self.engine: Callable[[], object] = _no_engine
        outer = variable.get()
        # A weak reference: runs that start one another, and end, would make an endless chain.
        self._outer = None if outer is None else ref(outer)

    def mark(self, context: Context, task_id: int | None = None) -> None:
        """Mark a context, and all later copies of it, as inside the run, or as inside one task of it."""
        context.run(variable.set, self if task_id is None else _InsideTask(self, task_id))

    def is_here(self) -> bool:
        """Return whether the caller is inside this run, or inside another run that is."""
        return self._find() is not None

    def task_here(self) -> int | None:
        """Return the id of the task of this run that the caller is inside of, if its marker names it."""
        found = self._find()
        return found.task_id if isinstance(found, _InsideTask) else None

    def _find(self) -> Inside | None:
        inside = variable.get()
        while inside is not None and inside.run is not self:
            inside = None if inside._outer is None else inside._outer()
        return inside

    @property
    def run(self) -> Inside:
        """The marker of the run."""
        return self


class _InsideTask(Inside):
    """The marker of one task in its context."""

    __slots__ = ("_run", "task_id")

    def __init__(self, run: Inside, task_id: int) -> None:
        self._run = run
        self._outer = run._outer
        self.engine = run.engine
        self.task_id = task_id

    @property
    def run(self) -> Inside:
        return self._run


variable: ContextVar[Inside | None] = ContextVar("headrace.inside", default=None)
