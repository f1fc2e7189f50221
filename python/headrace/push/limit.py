"""`SinkCapacityObj`: a sink that takes items under a capacity. `PushChain.limit()` creates it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from headrace.capacity._item_lease import ItemLease, freeze_cost
from headrace.capacity.node import checked_capacity, under
from headrace.errors import WouldBlock
from headrace.push.base import checked_result, refuse_after_end, require_next_nowait
from headrace.push.transform import PushObj1To1Link

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from headrace._core import IteratorResult
    from headrace.abc import PushProtocol
    from headrace.capacity.node import CapacitySource

T = TypeVar("T")


class SinkCapacityObj(PushObj1To1Link[T, T], stock=True):
    """Push items on, each under a lease until the next stage has accepted it.

    Law: the items, each once. No item is pushed into the sink before its lease is granted. The lease is released when
    the sink has accepted or refused the item. Rates and budgets are charged for accepted items, and for items with
    which the sink failed.
    Order: for equal costs, leases are granted in the order of arrival. Items that hold leases at the same time may
    reach the sink in any order.
    Bound: nothing is held; the item of a waiting push stays with its producer.
    Cost: O(1) per item, plus the cost of `capacity.acquire`.
    Cancel safety: a push that is cancelled while it waits for its lease has delivered nothing; for a push cancelled
    later, see the sink. Neither holds a lease or is charged.

    A push that was not accepted leaves rates and budgets unchanged: one that is cancelled, or refused with an error of
    headrace itself, `ClosedError` or `WouldBlock`. Any other error is charged like an item, since the sink received the
    item. So is a push that was cancelled when some sinks below a fan-out had accepted the item (`accepted_by`).

    Args:
        sink: A push object.
        capacity: The capacity that grants the leases.
        cost: The cost of an item: a number of slots, or a mapping of resource to number.
        priority: The priority among the waiters of that capacity.

    Raises:
        TypeError: `sink` is not a push object, `capacity` is not a `CapacitySource`, `cost` is not a cost, or
            `priority` is not an integer.
        ValueError: `cost` is not positive, or could never be granted.
        BudgetExhausted: The rest of a budget cannot cover `cost`.
        ClosedError: `capacity` is closed.
    """

    def __init__(
        self,
        sink: PushProtocol[T],
        capacity: CapacitySource,
        *,
        cost: float | Mapping[str, float] = 1,
        priority: int = 0,
    ) -> None:
        super().__init__(sink)
        self._capacity = checked_capacity(capacity, cost, priority)
        self._cost = freeze_cost(cost)
        self._priority = priority

    @property
    def capacity(self) -> CapacitySource:
        """The capacity that grants the leases, live: a new one applies from the next item."""
        return self._capacity

    @capacity.setter
    def capacity(self, capacity: CapacitySource) -> None:
        self._capacity = checked_capacity(capacity, self._cost, self._priority)

    def _repr_parts(self) -> Iterator[str]:
        yield under(self._capacity)
        yield from super()._repr_parts()

    async def next_impl(self, item: T) -> IteratorResult[Any]:
        """Push one item on once its lease is granted."""
        lease = await self._capacity.acquire(self._cost, priority=self._priority)
        with ItemLease(lease):
            return await self._sink.next(item)

    def next_nowait(self, item: T) -> IteratorResult[Any]:
        """Push one item on if its lease can be granted immediately.

        Raises:
            WouldBlock: The lease or the sink would have to wait.
            TypeError: The sink has no `next_nowait`.
        """
        refuse_after_end(self, item)
        push = require_next_nowait(self._sink)
        lease = self._capacity.acquire_nowait(self._cost)
        if lease is None:
            raise WouldBlock(
                "the item cannot be accepted without waiting for capacity; await next(item)",
                item=item,
            )
        with ItemLease(lease):
            result = push(item)
        return checked_result(self._sink, result)
