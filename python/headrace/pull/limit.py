"""`SourceCapacityObj`: a stream whose items come under a capacity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from headrace._core import ForeignFeed
from headrace._internal.sentinels import NOTHING
from headrace.capacity._item_lease import Passage, annul, kept_cost, unbudgeted
from headrace.capacity.node import checked_capacity, under
from headrace.errors import BudgetExhausted
from headrace.pull.base import PullObj
from headrace.pull.source import as_pull

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Self

    from headrace._core import Lease
    from headrace.capacity.node import CapacitySource
    from headrace.pull.source import Source

T = TypeVar("T")


class SourceCapacityObj(PullObj[T], stock=True):
    """The items of the source, each under a lease from before it is asked for until the next stage has it.

    Law: the items of the source, each once. The source is asked for nothing before the lease is there. The lease is released
    in the step that hands the item on; so is it when the pull fails, is cancelled, or finds the end. Rates and budgets are
    spent on items alone, and on errors, which are items that failed.
    Order: the source's. Pulls of several streams under one capacity get their leases as the capacity has it.
    Bound: one item, which a budget does not cover.
    Cost: O(1) per item, and what `capacity.acquire` costs.
    Cancel safety: as the source's; a pull that was cancelled holds no lease, and has spent nothing.

    So the capacity limits how many of the streams that share it ask their sources at once, and a `Rate` how often. While
    a source has nothing its lease is held: what is to be limited is the work in front of this stage. What comes behind it
    is limited by a pool, or by a lease of its own.

    A pull that gives no item leaves rates and budgets as if it had never been: one that finds the end, is cancelled, or is
    refused by an error of headrace's own, such as a `ClosedError`. It has to be let through all the same: under a rate the end
    comes when one more item could have. An error of a callable of the source is paid for like an item: the source has
    done its work, and a source that only fails is not to be asked faster than the rate.

    Where a budget covers no further item, the source is still asked once, under what the cost takes besides budgets, whether
    it has ended: items that use a budget up exactly are all of the stream. If there is one more, it is held back, and this
    pull and those that follow raise `BudgetExhausted`; the item is the next one once the budget covers it. So a source may do the work
    of one item that is not paid for. Where that must not be, the limit stands in front of the work:
    `source.limit(budget).map(work)`.

    Args:
        source: A pull object or an iterable, sync or async.
        capacity: The capacity that grants the leases.
        cost: The cost of an item: a number of slots, or a mapping of resource to number.
        priority: The priority among the waiters of that capacity.

    Raises:
        TypeError: `source` is not iterable, `capacity` no `CapacitySource`, `cost` no cost, or `priority` is not an
            integer.
        ValueError: `cost` is not positive, or could never be had.
        BudgetExhausted: Nothing of a budget is left that could cover `cost`.
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
            kept_cost(cost),
            priority,
        )
        super().__init__(ForeignFeed(_Handle(self._leased)))

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

    def restart(self) -> None:
        """Begins a new cycle, of this stream and its sources.

        Raises:
            RuntimeError: A pull is pending, or a source cannot start again (an iterator runs once).
        """
        super().restart()
        self._leased.source.restart()
        self._leased.held_back = NOTHING


class _Handle(Generic[T]):
    """The restartable iterable over the items."""

    def __init__(self, leased: _Leased[T]) -> None:
        self._leased = leased

    def __aiter__(self) -> _Leased[T]:
        return self._leased

    async def aclose(self) -> None:
        await self._leased.aclose()


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
        lease = await self._acquired()
        if self.held_back is not NOTHING:
            with lease:
                item: T = self.held_back
                self.held_back = NOTHING
                return item
        with Passage(lease):
            return await anext(self.source)

    async def _acquired(self) -> Lease:
        while True:
            try:
                return await self.capacity.acquire(self.cost, priority=self.priority)
            except BudgetExhausted:
                if self.held_back is not NOTHING:
                    raise
            await self._look_ahead()

    async def _look_ahead(self) -> None:
        """Asks for an item that no budget covers, to know whether there is one.

        Raises:
            StopAsyncIteration: There is none: the source has ended.
        """
        cost = unbudgeted(self.capacity, self.cost)
        if not cost:
            self.held_back = await anext(self.source)
            return
        lease = await self.capacity.acquire(cost, priority=self.priority)
        with Passage(lease):
            self.held_back = await anext(self.source)
            # The lease that the item is handed on under pays for it.
            annul(lease)

    async def aclose(self) -> None:
        self.held_back = NOTHING
        await self.source.aclose()
