"""What a line of streams or sinks asks of its capacity, for each item that goes along it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from headrace.capacity.limits import SLOTS, Budget
from headrace.errors import CLOSING, HeadraceError

if TYPE_CHECKING:
    from types import TracebackType

    from headrace._core import Lease
    from headrace.capacity.node import CapacitySource


class Passage:
    """A lease for the way of one item: `with Passage(lease):` around what asks for it, or hands it on.

    At the end of the block the lease is released. If nothing went along it is annulled: at the end of a stream, where the pull
    or push is cancelled or dropped, and where it is refused, which is what the errors of headrace itself say. Any other error
    is that of an item, which costs what an item does.
    """

    __slots__ = ("_cancels", "_lease")

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._cancels = _cancelling()

    def __enter__(self) -> None:
        """The lease is held already."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Gives the lease back."""
        if error is None or self._has_passed(error):
            self._lease.release()
        else:
            annul(self._lease)

    def _has_passed(self, error: BaseException) -> bool:
        # Of a push that was cancelled, or failed, someone may have the item all the same.
        if getattr(error, "accepted_by", ()):
            return True
        if isinstance(error, asyncio.CancelledError):
            return error.args != (CLOSING,) and _cancelling() <= self._cancels
        return isinstance(error, Exception) and not isinstance(
            error, (StopAsyncIteration, HeadraceError)
        )


def annul(lease: Lease) -> None:
    """Gives a lease back as if it had never been granted: what it took of rates and budgets, too."""
    try:
        lease.settle(**dict.fromkeys(lease.cost, 0))
    finally:
        lease.release()


def kept_cost(cost: float | Mapping[str, float]) -> float | Mapping[str, float]:
    """A cost that whoever gave it can no longer change."""
    return dict(cost) if isinstance(cost, Mapping) else cost


def unbudgeted(capacity: CapacitySource, cost: float | Mapping[str, float]) -> dict[str, float]:
    """What a cost takes besides budgets."""
    parts = cost if isinstance(cost, Mapping) else {SLOTS: cost}
    budgets: set[str] = set()
    node: CapacitySource | None = capacity
    while node is not None:
        budgets.update(name for name, one in node.limits.items() if isinstance(one, Budget))
        node = node.parent
    return {name: part for name, part in parts.items() if part and name not in budgets}


def _cancelling() -> int:
    """How often the running task has been asked to cancel."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        # A push that does not wait needs no loop.
        return 0
    return 0 if task is None else task.cancelling()
