"""`ItemLease`: the lease under which `limit()` pulls or pushes one item, and helpers for its cost. `pull.limit` and `push.limit` use it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from headrace._internal.tasks import cancelling
from headrace.capacity.limits import SLOTS, Budget
from headrace.errors import CLOSING, HeadraceError

if TYPE_CHECKING:
    from types import TracebackType

    from headrace._core import Lease
    from headrace.capacity.node import CapacitySource


class ItemLease:
    """A lease for one item: put `with ItemLease(lease):` around the pull or push of the item.

    The end of the block releases the lease. If no item was processed, the lease is refunded: at the end of a stream, when the
    pull or push is cancelled or dropped, and when it is refused with an error of headrace itself. Any other error counts as
    the error of an item, which is charged like an item.
    """

    __slots__ = ("_cancels", "_lease")

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._cancels = cancelling()

    def __enter__(self) -> None:
        """Do nothing: the lease is already held."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release the lease, or refund it if no item was processed."""
        if error is None or self._has_passed(error):
            self._lease.release()
        else:
            refund(self._lease)

    def _has_passed(self, error: BaseException) -> bool:
        # A sink may have accepted the item of a push that was cancelled or failed.
        if getattr(error, "accepted_by", ()):
            return True
        if isinstance(error, asyncio.CancelledError):
            return error.args != (CLOSING,) and cancelling() <= self._cancels
        return isinstance(error, Exception) and not isinstance(
            error, (StopAsyncIteration, HeadraceError)
        )


def refund(lease: Lease) -> None:
    """Refund a lease as if it had never been granted, including the amounts taken from rates and budgets."""
    try:
        lease.settle(**dict.fromkeys(lease.cost, 0))
    finally:
        lease.release()


def freeze_cost(cost: float | Mapping[str, float]) -> float | Mapping[str, float]:
    """Copy a cost, so later changes by the caller have no effect."""
    return dict(cost) if isinstance(cost, Mapping) else cost


def without_budgets(
    capacity: CapacitySource, cost: float | Mapping[str, float]
) -> dict[str, float]:
    """Return the part of a cost that does not come from budgets."""
    parts = cost if isinstance(cost, Mapping) else {SLOTS: cost}
    budgets: set[str] = set()
    node: CapacitySource | None = capacity
    while node is not None:
        budgets.update(name for name, one in node.limits.items() if isinstance(one, Budget))
        node = node.parent
    return {name: part for name, part in parts.items() if part and name not in budgets}
