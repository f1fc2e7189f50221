"""The parts that an executor needs whose work runs outside this process: `RemoteLease` and `carried`.

The context of a task does not travel, and neither does its lease. A worker calls the task in a context of its own, made by `carried`, in
which `current_lease()` returns a `RemoteLease`.
"""

from __future__ import annotations

from contextvars import Context
from typing import TYPE_CHECKING, Any, NoReturn, cast

from headrace._internal.copying import Uncopied
from headrace.task import _current_lease

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextvars import ContextVar

    from headrace._core import Lease


class RemoteLease(Uncopied):
    """The lease of a task in the worker that runs it: it settles across, and cannot be suspended.

    Args:
        send: Called with the amounts by resource; it sends them to the executor, which calls `Listener.settle`.
    """

    __slots__ = ("_send",)

    def __init__(self, send: Callable[[dict[str, float]], object]) -> None:
        self._send = send

    def settle(self, **amounts: float) -> None:
        """Set the amounts that the task actually uses, as `Lease.settle` does. It does not wait for the driver."""
        self._send(amounts)

    def suspended(self) -> NoReturn:
        """Refuse: the task would hold its worker while others take its capacity.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError(
            "a lease cannot be suspended in a remote executor, where the task keeps its worker while it waits; "
            "split the task, or run it on the event loop of the pool"
        )


def carried(
    context: Context, carry: Iterable[ContextVar[Any]], lease: RemoteLease | None = None
) -> Context:
    """Return a new context with the values of these variables only, and a lease for `current_lease()`.

    Args:
        context: The context of a task. A variable without a value in it is left out.
        carry: The variables that travel.
        lease: The lease, if the cost of the task names its resources.
    """
    new = Context()
    for variable in carry:
        if variable in context:
            new.run(variable.set, context[variable])
    if lease is not None:
        # `current_lease()` returns it in place of a `Lease`.
        new.run(_current_lease.variable.set, cast("Lease", lease))
    return new
