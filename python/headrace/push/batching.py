"""Operators that give another number of items than they take: each a kernel before one sink."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

from headrace._core import (
    BufferKernel,
    FlatMapKernel,
    FlattenKernel,
    TakeKernel,
    WindowKernel,
)
from headrace._internal.kernel_properties import Buffering, Mapping, Sizing
from headrace.push.transform import PushObj1To1Link

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Coroutine, Iterable

    from headrace.abc import PushProtocol

__all__ = ["PushBufferObj", "PushFlatMapObj", "PushFlattenObj", "PushTakeObj", "PushWindowObj"]

IN = TypeVar("IN")
OUT = TypeVar("OUT")
T = TypeVar("T")


class PushTakeObj(PushObj1To1Link[T, T], Sizing, stock=True):
    """The first `size` items; the push of the last of them says `done`.

    Law: the sink gets `list(itertools.islice(items, size))`. What is pushed after that is dropped, and
    its result says `done` again.
    Order: of arrival.
    Bound: nothing is held.
    Cost: O(1) an item.
    Cancel safety: a push that is cancelled below has left its item here, where it is counted; it goes on
    with the next push or the end.

    Args:
        sink: A push object.
        size: How many items, a whole number.

    Raises:
        TypeError: `sink` is no push object, or `size` no integer.
        ValueError: `size` is negative.
    """

    __slots__ = ()

    def __init__(self, sink: PushProtocol[T], size: int) -> None:
        self._kernel = TakeKernel(size)
        super().__init__(sink, self._kernel)


class PushFlattenObj(PushObj1To1Link[Any, OUT], stock=True):
    """The items of each item, which is an iterable, sync or async.

    Law: the sink gets `list(itertools.chain.from_iterable(items))`.
    Order: of arrival, and each iterable's.
    Bound: nothing is held, but for what a cancelled push left.
    Cost: O(1) an item.
    Cancel safety: a push that is cancelled before the iterable was asked for anything has delivered
    nothing; after that the rest of the iterable stays here, and the next push or the end goes on with
    it. So it is if an item of it fails below. The error names this object in `accepted_by`.

    Args:
        sink: A push object.

    Raises:
        TypeError: `sink` is no push object; at a push: the item is no iterable.
    """

    __slots__ = ()

    def __init__(self, sink: PushProtocol[OUT]) -> None:
        super().__init__(sink, FlattenKernel())


class PushFlatMapObj(PushObj1To1Link[IN, OUT], Mapping[IN], stock=True):
    """The items of `transform(item)`, an iterable, sync or async, for each item.

    Law: the sink gets `[y for x in items for y in transform(x)]`, with `await` and `async for` where
    they are needed.
    Order: of arrival, and each iterable's, for as long as nothing suspends.
    Bound: nothing is held, but for what a cancelled push left.
    Cost: O(1) an item, and one call for each that is pushed.
    Cancel safety: a push that is cancelled in `transform` has delivered nothing; after that see
    `PushFlattenObj`.

    Args:
        sink: A push object.
        transform: Called with each item: a function or an async function that gives an iterable, or
            a generator function or async generator function.

    Raises:
        TypeError: `sink` is no push object, or `transform` not callable; at a push: it gave nothing
            that can be iterated.
    """

    __slots__ = ()

    def __init__(
        self,
        sink: PushProtocol[OUT],
        transform: Callable[
            [IN],
            Iterable[OUT]
            | AsyncIterable[OUT]
            | Coroutine[Any, Any, Iterable[OUT] | AsyncIterable[OUT]],
        ],
    ) -> None:
        self._kernel = FlatMapKernel(transform)
        super().__init__(sink, self._kernel)


class PushWindowObj(PushObj1To1Link[T, list[T]], Sizing, stock=True):
    """Lists of `size` items.

    Law: the sink gets `list(itertools.batched(items, size))`, as lists; the last one may be shorter,
    and comes with `return_()`, unless `partial="drop"`.
    Order: of arrival.
    Bound: `size` items, and the lists that cancelled pushes left.
    Cost: O(1) an item.
    Cancel safety: an item that is in the window is accepted. A push that is cancelled while its list
    is being delivered leaves the list here, and the error names this object in `accepted_by`; the
    next push or the end delivers it first.

    `throw(error)` drops what is in the window.

    Args:
        sink: A push object.
        size: How many items make a window, a positive integer.
        partial: What becomes of a window that is not full at the end: `"keep"` or `"drop"`.

    Raises:
        TypeError: `sink` is no push object, or `size` no integer.
        ValueError: `size` is not positive, or `partial` neither of the two.
    """

    __slots__ = ()

    def __init__(
        self,
        sink: PushProtocol[list[T]],
        size: int,
        *,
        partial: Literal["keep", "drop"] = "keep",
    ) -> None:
        self._kernel = WindowKernel(size, _keeps(partial))
        super().__init__(sink, self._kernel)


class PushBufferObj(PushObj1To1Link[T, list[T]], Buffering[T], stock=True):
    """Lists of items, each complete once `condition(items)` is true of the items so far.

    Law: the items in their order, split after each one with which `condition` is true: that item is
    the last of its list. The incomplete list at the end is delivered by `return_()`, unless
    `partial="drop"`.
    Order: of arrival, for as long as `condition` does not suspend.
    Bound: one list, as long as `condition` lets it become, the copy that `condition` gets, and the lists
    that cancelled pushes left.
    Cost: O(1) and one call an item; where `condition` keeps a list that it got, the next one is copied.
    Cancel safety: a push that is cancelled in `condition` has delivered nothing. An item that is in
    the list is accepted. A push that is cancelled while its list is being delivered leaves the list
    here, and the error names this object in `accepted_by`; the next push or the end delivers it first.

    `throw(error)` drops what is in the list.

    Args:
        sink: A push object.
        condition: Sync or async, called for each item with the list so far, in which that item is the
            last. Changes to that list do not change what is delivered. An error that it raises costs that
            item, and the list goes on without it.
        partial: What becomes of a list that is not closed at the end: `"keep"` or `"drop"`.

    Raises:
        TypeError: `sink` is no push object, or `condition` not callable.
        ValueError: `partial` is neither of the two.
    """

    __slots__ = ()

    def __init__(
        self,
        sink: PushProtocol[list[T]],
        condition: Callable[[list[T]], Any],
        *,
        partial: Literal["keep", "drop"] = "keep",
    ) -> None:
        self._kernel = BufferKernel(condition, _keeps(partial))
        super().__init__(sink, self._kernel)


def _keeps(partial: str) -> bool:
    if partial not in ("keep", "drop"):
        raise ValueError(f'partial must be "keep" or "drop", got {partial!r}')
    return partial == "keep"
