"""Operators with one sink: each puts a kernel before it.

The kernel, in `headrace._core`, is the operator, the same as in `headrace.pull.transform`; the
class here gives it a sink, a type and a docstring.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeGuard, TypeVar, overload

from headrace import _core
from headrace._core import DedupeKernel, FilterKernel, IteratorResult, MapKernel, ReduceKernel
from headrace.configuration import Filtering, Mapping, Reducing
from headrace.errors import NOTHING
from headrace.push.base import PushObj, checked_sink

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from headrace.abc import PushProtocol

__all__ = [
    "PushDedupeObj",
    "PushFilterObj",
    "PushMapObj",
    "PushObj1To1Link",
    "PushReduceObj",
    "PushSerialObj",
]

IN = TypeVar("IN")
IN_contra = TypeVar("IN_contra", contravariant=True)
OUT = TypeVar("OUT")
T = TypeVar("T")


class PushObj1To1Link(PushObj[IN_contra], Generic[IN_contra, OUT], stock=True):
    """A push object with one sink; the base of operators of your own.

    Override `next_impl(item)`, and push what you make of it into `self.sink`. Ending it ends its
    sink.

    Args:
        sink: A push object.
        kernel: The kernel of a stock operator; leave it out in your own.

    Raises:
        TypeError: `sink` is no push object.
    """

    def __init__(
        self,
        sink: PushProtocol[OUT],
        kernel: MapKernel | FilterKernel | ReduceKernel | DedupeKernel | None = None,
    ) -> None:
        self._sink: PushProtocol[OUT] = checked_sink(sink)
        if kernel is None:
            kernel = MapKernel(_unchanged)
        super().__init__(sink, kernel)

    @property
    def sink(self) -> PushProtocol[OUT]:
        """What it pushes into."""
        return self._sink

    async def return_impl(self, value: Any) -> None:
        """Ends its sink."""
        await self._last_of_line().return_(value)

    async def throw_impl(self, error: BaseException) -> None:
        """Ends its sink with the error."""
        await self._last_of_line().throw(error)

    def _last_of_line(self) -> PushProtocol[Any]:
        # Step by step rather than by recursion: a line may have 10,000 links.
        link: PushObj1To1Link[Any, Any] = self
        while True:
            sink: PushProtocol[Any] = link.sink
            if not self._is_run_in_place(sink) or not _core.end_push(sink):
                return sink
            link = sink

    @staticmethod
    def _is_run_in_place(sink: object) -> TypeGuard[PushObj1To1Link[Any, Any]]:
        kind: type = type(sink)
        return issubclass(kind, PushObj1To1Link) and not kind._is_opaque


def _unchanged(item: T) -> T:
    return item


class PushMapObj(PushObj1To1Link[IN, OUT], Mapping[IN], stock=True):
    """Pushes `transform(item)` for each item.

    Law: the sink gets `[await t(x) for x in items]`, with `await` where `transform` returns an
    awaitable.
    Order: of arrival, for as long as `transform` does not suspend; put a `PushSerialObj` before it
    to keep it then.
    Bound: nothing is held.
    Cost: O(1) and one call an item.
    Cancel safety: a push that is cancelled in `transform` has delivered nothing.

    An exception of `transform` reaches whoever pushed.

    Args:
        sink: A push object.
        transform: Sync or async, called with each item.

    Raises:
        TypeError: `sink` is no push object, or `transform` not callable.
    """

    @overload
    def __init__(
        self, sink: PushProtocol[OUT], transform: Callable[[IN], Awaitable[OUT]]
    ) -> None: ...
    @overload
    def __init__(self, sink: PushProtocol[OUT], transform: Callable[[IN], OUT]) -> None: ...
    def __init__(self, sink: PushProtocol[OUT], transform: Callable[[IN], Any]) -> None:
        self._kernel = MapKernel(transform)
        super().__init__(sink, self._kernel)


class PushFilterObj(PushObj1To1Link[T, T], Filtering[T], stock=True):
    """Pushes the items for which `predicate(item)` is true; the others are accepted and dropped.

    Law: the sink gets `[x for x in items if await p(x)]`, with `await` where `predicate` returns an
    awaitable.
    Order: of arrival, for as long as `predicate` does not suspend.
    Bound: nothing is held.
    Cost: O(1) and one call an item.
    Cancel safety: a push that is cancelled in `predicate` has delivered nothing.

    Args:
        sink: A push object.
        predicate: Sync or async, called with each item.

    Raises:
        TypeError: `sink` is no push object, or `predicate` not callable.
    """

    def __init__(self, sink: PushProtocol[T], predicate: Callable[[T], Any]) -> None:
        self._kernel = FilterKernel(predicate)
        super().__init__(sink, self._kernel)


class PushDedupeObj(PushObj1To1Link[T, T], stock=True):
    """Each item once. **Unbounded** unless `maxsize` is given: it remembers every key.

    Law: the sink gets the items of `dict.fromkeys(items)`; by `key(item)` if it is given. With
    `consecutive`, an item is dropped only if it equals the one before.
    Order: of arrival.
    Bound: `maxsize` keys, of which the one that was met longest ago is forgotten first; none by
    default. One key with `consecutive`.
    Cost: O(1) an item, and one call if there is a `key`.
    Cancel safety: a push that is cancelled in `key` has delivered nothing, and its item
    counts as not seen.

    Args:
        sink: A push object.
        key: Sync or async, called with each item; gives what is compared, which must be hashable.
            `None`: the item itself.
        maxsize: How many keys are remembered, a positive integer; `None` for any number.
        consecutive: Whether only the item before counts.

    Raises:
        TypeError: `sink` is no push object, `key` not callable, or `maxsize` no integer; at a push: a key is
            not hashable.
        ValueError: `maxsize` is not positive, or given together with `consecutive`.
    """

    def __init__(
        self,
        sink: PushProtocol[T],
        *,
        key: Callable[[T], Any] | None = None,
        maxsize: int | None = None,
        consecutive: bool = False,
    ) -> None:
        if consecutive and maxsize is not None:
            raise ValueError(
                f"maxsize has no meaning with consecutive=True, got {maxsize!r}; leave one of them out"
            )
        super().__init__(sink, DedupeKernel(key, maxsize, consecutive))


class PushReduceObj(PushObj1To1Link[IN, OUT], Reducing[IN], stock=True):
    """Pushes the running result of `reducer(accumulator, item)`: one for each item.

    Law: the sink gets `list(itertools.accumulate(items, reducer))`; with `initial`, the same without
    `initial` itself.
    Order: of arrival. With an async `reducer`, pushes that overlap would build on the same
    accumulator: put a `PushSerialObj` before it.
    Bound: the accumulator.
    Cost: O(1) and one call an item.
    Cancel safety: a push that is cancelled in `reducer` has delivered nothing and changed nothing.

    Args:
        sink: A push object.
        reducer: Sync or async, called with the accumulator and each item.
        initial: What it begins with; without it, it begins with the first item, which is pushed on
            as it is.

    Raises:
        TypeError: `sink` is no push object, or `reducer` not callable.
    """

    @overload
    def __init__(
        self,
        sink: PushProtocol[OUT],
        reducer: Callable[[OUT, IN], Awaitable[OUT]],
        initial: OUT = ...,
    ) -> None: ...
    @overload
    def __init__(
        self, sink: PushProtocol[OUT], reducer: Callable[[OUT, IN], OUT], initial: OUT = ...
    ) -> None: ...
    def __init__(
        self, sink: PushProtocol[OUT], reducer: Callable[[Any, IN], Any], initial: Any = NOTHING
    ) -> None:
        self._kernel = ReduceKernel(reducer, *(() if initial is NOTHING else (initial,)))
        super().__init__(sink, self._kernel)


class PushSerialObj(PushObj1To1Link[T, T], stock=True):
    """Lets concurrent pushes through one at a time, in the order in which they came.

    Law: the sink is never asked for a second item before it has taken the first.
    Order: of arrival, also when a push before is cancelled or fails.
    Bound: nothing is held; each push that waits is its producer's.
    Cost: O(1) an item, whatever the number that wait.
    Cancel safety: a push that is cancelled while it waits gives up its place and has delivered
    nothing.

    Args:
        sink: A push object.

    Raises:
        TypeError: `sink` is no push object.
    """

    def __init__(self, sink: PushProtocol[T]) -> None:
        super().__init__(sink)
        # Fair by its contract: it wakes those who wait in their order, and nobody overtakes them.
        self._turn = asyncio.Lock()

    async def next_impl(self, item: T) -> IteratorResult[Any]:
        """Passes one item on when its turn has come."""
        async with self._turn:
            return await self._sink.next(item)
