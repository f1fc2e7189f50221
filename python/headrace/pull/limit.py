"""`SourceCapacityObj`: a stream whose items are pulled under a capacity. `PullObj.limit()` creates it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from headrace._core import AsyncIterSource
from headrace._internal.depth import check_depth
from headrace._internal.sentinels import NOTHING
from headrace.capacity._item_lease import ItemLease, freeze_cost, refund, without_budgets
from headrace.capacity.node import checked_capacity, under
from headrace.errors import BudgetExhausted
from headrace.pull.base import PullObj
from headrace.pull.source import Restartable, as_pull

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping
    from typing import Self

    from headrace._core import Lease
    from headrace.capacity.node import CapacitySource
    from headrace.pull.source import Source

T = TypeVar("T")


class SourceCapacityObj(PullObj[T], stock=True):
    """The items of the source, each pulled under a lease that is held until the next stage has the item.

    Law: the items of the source, each once. The source is not pulled before the lease is granted. The lease is released
    in the step that passes the item on, and when the pull fails, is cancelled or reaches the end. Rates and budgets are
    charged only for items and for errors, which are failed items.
    Order: the source's. Pulls of several streams under one capacity get their leases in the order of the capacity.
    Bound: one item that no budget covers yet.
    Cost: O(1) per item, plus the cost of `capacity.acquire`.
    Cancel safety: as for the source; a cancelled pull holds no lease and is not charged.

    The capacity limits how many of the streams that share it pull their sources at once, and a `Rate` how often. The
    lease is held while the source is idle: this stage limits the work in front of it. To limit the work behind it, use
    a pool or a separate lease.

    A pull without an item leaves rates and budgets unchanged: one that reaches the end, is cancelled, or is refused
    with an error of headrace itself, such as a `ClosedError`. It still needs a lease: under a rate, the end is reached
    when one more item would be allowed. An error of a callable of the source is charged like an item: the source has
    done its work, and a source that always fails must not be pulled faster than the rate.

    If a budget covers no further item, the source is still pulled once, under the cost without budgets, to find out
    whether it has ended. So items that use up a budget exactly are followed by the end. One more item is held back, and
    this pull and later ones raise `BudgetExhausted`; the item is yielded once the budget covers it. So a source may do
    the work of one uncharged item. To prevent that, put the limit in front of the work:
    `source.limit(budget).map(work)`.

    Depth: as of a `PullGateObj`, which counts with it.

    Args:
        source: A pull object or an iterable, sync or async.
        capacity: The capacity that grants the leases.
        cost: The cost of an item: a number of slots, or a mapping of resource to number.
        priority: The priority among the waiters of that capacity.

    Raises:
        TypeError: `source` is not iterable, `capacity` is not a `CapacitySource`, `cost` is not a cost, or `priority`
            is not an integer.
        ValueError: `cost` is not positive, or could never be granted; or `source` is nested too deeply.
        BudgetExhausted: The rest of a budget cannot cover `cost`.
        ClosedError: `capacity` is closed.
    """

    def __init__(
        self,
        source: Source[T],
        capacity: CapacitySource,
        *,
        cost: float | Mapping[str, float] = 1,
        priority: int = 0,
    ) -> None:
        self._leased: _Leased[T] = _Leased(
            as_pull(source),
            checked_capacity(capacity, cost, priority),
            freeze_cost(cost),
            priority,
        )
        self._depth = check_depth(self._leased.source, type(self).__name__)
        super().__init__(AsyncIterSource(Restartable(self._leased)))

    @property
    def source(self) -> PullObj[T]:
        """The source."""
        return self._leased.source

    @property
    def capacity(self) -> CapacitySource:
        """The capacity that grants the leases, live: a new one applies from the next item."""
        return self._leased.capacity

    @capacity.setter
    def capacity(self, capacity: CapacitySource) -> None:
        leased = self._leased
        leased.capacity = checked_capacity(capacity, leased.cost, leased.priority)

    def _repr_parts(self) -> Iterator[str]:
        yield under(self.capacity)
        if self._leased.held_back is not NOTHING:
            yield "an item held back"
        yield from super()._repr_parts()

    def _restarting(self) -> Generator[PullObj[Any], None, None]:
        yield from super()._restarting()
        yield self._leased.source
        self._leased.held_back = NOTHING


class _Leased(Generic[T]):
    """The iterator over the items. The link of the stream allows one pull at a time."""

    def __init__(
        self,
        source: PullObj[T],
        capacity: CapacitySource,
        cost: float | Mapping[str, float],
        priority: int,
    ) -> None:
        self.source = source
        self.capacity = capacity
        self.cost = cost
        self.priority = priority
        # An item that no budget covers yet.
        self.held_back: Any = NOTHING

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        lease = await self._acquire()
        if self.held_back is not NOTHING:
            with lease:
                item: T = self.held_back
                self.held_back = NOTHING
                return item
        with ItemLease(lease):
            return await anext(self.source)

    async def _acquire(self) -> Lease:
        while True:
            try:
                return await self.capacity.acquire(self.cost, priority=self.priority)
            except BudgetExhausted:
                if self.held_back is not NOTHING:
                    raise
            await self._look_ahead()

    async def _look_ahead(self) -> None:
        """Pull an item that no budget covers, to find out whether there is one.

        Raises:
            StopAsyncIteration: The source has ended.
        """
        cost = without_budgets(self.capacity, self.cost)
        if not cost:
            self.held_back = await anext(self.source)
            return
        lease = await self.capacity.acquire(cost, priority=self.priority)
        with ItemLease(lease):
            self.held_back = await anext(self.source)
            # The lease under which the item is passed on is charged for it.
            refund(lease)

    async def aclose(self) -> None:
        self.held_back = NOTHING
        await self.source.aclose()
