"""Whether code runs inside of a run: in the source or a task of it, or in an asyncio task that one of them has started.

A context variable tells. The context of the run has it, and with it all bare callables. A `Task` has a context of its own, in which
the engine sets it when the task is called.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING
from weakref import ref

if TYPE_CHECKING:
    from contextvars import Context


class Inside:
    """What stands for one run in the contexts of what it runs. It does not lead to the run, which would be a circle.

    To be made where the run is: it knows the run inside of which that one is, if it is in one.
    """

    __slots__ = ("__weakref__", "_outer")

    def __init__(self) -> None:
        outer = variable.get()
        # Weakly: runs that start one another, and end, would make an endless line.
        self._outer = None if outer is None else ref(outer)

    def mark(self, context: Context) -> None:
        """What runs in this context, or in a copy of it, is inside from now on."""
        context.run(variable.set, self)

    def is_here(self) -> bool:
        """Whether the caller is inside, or inside of a run that is."""
        inside = variable.get()
        while inside is not None and inside is not self:
            inside = None if inside._outer is None else inside._outer()
        return inside is self


variable: ContextVar[Inside | None] = ContextVar("headrace.inside", default=None)
