"""Operators that give another number of items than they take: batches, parts, and items of items."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

from headrace._core import (
    BufferKernel,
    FlatMapKernel,
    FlattenKernel,
    SkipKernel,
    TakeKernel,
    WhileKernel,
    WindowKernel,
)
from headrace._internal.kernel_properties import Buffering, Filtering, Mapping, Sizing
from headrace.pull.transform import PullObj1To1Link

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterable

    from headrace.pull.source import Source

__all__ = [
    "PullBufferObj",
    "PullFlatMapObj",
    "PullFlattenObj",
    "PullSkipObj",
    "PullSkipWhileObj",
    "PullTakeObj",
    "PullTakeWhileObj",
    "PullWindowObj",
]

IN = TypeVar("IN")
OUT = TypeVar("OUT")
T = TypeVar("T")


class PullTakeObj(PullObj1To1Link[T, T], Sizing, stock=True):
    """The first `size` items.

    Law: `list(itertools.islice(source, size))`. The end comes with the last item: no more is taken
    from the source, which stays open until the stream is closed.
    Order: the source's.
    Bound: nothing is held.
    Cost: O(1) an item.
    Cancel safety: as the source's; it waits for nothing itself.

    Args:
        source: A pull object, or any iterable, sync or async.
        size: How many items, a whole number from 0.

    Raises:
        TypeError: `source` is not iterable, or `size` no integer.
        ValueError: `size` is negative.
    """

    def __init__(self, source: Source[T], size: int) -> None:
        self._kernel = TakeKernel(size)
        super().__init__(source, self._kernel)


class PullSkipObj(PullObj1To1Link[T, T], Sizing, stock=True):
    """All but the first `size` items.

    Law: `list(itertools.islice(source, size, None))`.
    Order: the source's.
    Bound: nothing is held.
    Cost: O(1) an item.
    Cancel safety: as the source's; it waits for nothing itself.

    Args:
        source: A pull object, or any iterable, sync or async.
        size: How many items, a whole number from 0.

    Raises:
        TypeError: `source` is not iterable, or `size` no integer.
        ValueError: `size` is negative.
    """

    def __init__(self, source: Source[T], size: int) -> None:
        self._kernel = SkipKernel(size)
        super().__init__(source, self._kernel)


class PullTakeWhileObj(PullObj1To1Link[T, T], Filtering[T], stock=True):
    """The items up to the first for which `predicate(item)` is false.

    Law: `list(itertools.takewhile(predicate, source))`. The item that ends it is dropped.
    Order: the source's.
    Bound: one item, while its `predicate` runs.
    Cost: O(1) and one call an item.
    Cancel safety: an item whose `predicate` was cancelled with the pull goes to `predicate` again at
    the next pull: at least once.

    Args:
        source: A pull object, or any iterable, sync or async.
        predicate: Sync or async, called with each item.

    Raises:
        TypeError: `source` is not iterable, or `predicate` not callable.
    """

    def __init__(self, source: Source[T], predicate: Callable[[T], Any]) -> None:
        self._kernel = WhileKernel(predicate, takes=True)
        super().__init__(source, self._kernel)


class PullSkipWhileObj(PullObj1To1Link[T, T], Filtering[T], stock=True):
    """The items from the first for which `predicate(item)` is false.

    Law: `list(itertools.dropwhile(predicate, source))`.
    Order: the source's.
    Bound: one item, while its `predicate` runs.
    Cost: O(1) an item, and one call up to the first that is kept.
    Cancel safety: an item whose `predicate` was cancelled with the pull goes to `predicate` again at
    the next pull: at least once.

    Args:
        source: A pull object, or any iterable, sync or async.
        predicate: Sync or async, called with each item.

    Raises:
        TypeError: `source` is not iterable, or `predicate` not callable.
    """

    def __init__(self, source: Source[T], predicate: Callable[[T], Any]) -> None:
        self._kernel = WhileKernel(predicate, takes=False)
        super().__init__(source, self._kernel)


class PullFlattenObj(PullObj1To1Link[Any, OUT], stock=True):
    """The items of each item, which is an iterable, sync or async.

    Law: `list(itertools.chain.from_iterable(source))`. An iterable is drawn from as items are pulled,
    and the next one is not asked for before it has ended.
    Order: the source's, and each iterable's.
    Bound: one iterable.
    Cost: O(1) an item.
    Cancel safety: as that of the iterables; of an async generator see `SourceIterObj`.

    Args:
        source: A pull object, or any iterable, sync or async, of iterables.

    Raises:
        TypeError: `source` is not iterable; at a pull: an item is not. It costs that item.
    """

    def __init__(self, source: Source[Iterable[OUT] | AsyncIterable[OUT]]) -> None:
        super().__init__(source, FlattenKernel())


class PullFlatMapObj(PullObj1To1Link[IN, OUT], Mapping[IN], stock=True):
    """The items of `transform(item)`, an iterable, sync or async, for each item.

    Law: `[y for x in source for y in transform(x)]`, with `await` and `async for` where they are
    needed.
    Order: the source's, and each iterable's.
    Bound: one iterable.
    Cost: O(1) an item, and one call an item of the source.
    Cancel safety: an item whose `transform` was cancelled with the pull goes to `transform` again at
    the next pull; of an async generator see `SourceIterObj`.

    Args:
        source: A pull object, or any iterable, sync or async.
        transform: Called with each item: a function or an async function that gives an iterable, or
            a generator function or async generator function.

    Raises:
        TypeError: `source` is not iterable, or `transform` not callable; at a pull: it gave nothing
            that can be iterated. It costs that item.
    """

    def __init__(
        self,
        source: Source[IN],
        transform: Callable[
            [IN],
            Iterable[OUT] | AsyncIterable[OUT] | Awaitable[Iterable[OUT] | AsyncIterable[OUT]],
        ],
    ) -> None:
        self._kernel = FlatMapKernel(transform)
        super().__init__(source, self._kernel)


class PullWindowObj(PullObj1To1Link[T, list[T]], Sizing, stock=True):
    """Lists of `size` items.

    Law: `list(itertools.batched(source, size))`, as lists; the last one may be shorter, or is dropped
    with `partial="drop"`.
    Order: the source's.
    Bound: `size` items.
    Cost: O(1) an item.
    Cancel safety: what a cancelled pull had gathered waits for the next.

    Args:
        source: A pull object, or any iterable, sync or async.
        size: How many items make a window, a positive integer.
        partial: What becomes of a window that is not full at the end: `"keep"` or `"drop"`.

    Raises:
        TypeError: `source` is not iterable, or `size` no integer.
        ValueError: `size` is not positive, or `partial` neither of the two.
    """

    def __init__(
        self, source: Source[T], size: int, *, partial: Literal["keep", "drop"] = "keep"
    ) -> None:
        self._kernel = WindowKernel(size, _keeps(partial))
        super().__init__(source, self._kernel)


class PullBufferObj(PullObj1To1Link[T, list[T]], Buffering[T], stock=True):
    """Lists of items, each complete once `condition(items)` is true of the items so far.

    Law: the items in their order, split after each one with which `condition` is true: that item is
    the last of its list. The incomplete list at the end is yielded too, or dropped with
    `partial="drop"`.
    Order: the source's.
    Bound: one list, as long as `condition` lets it become, and the copy that `condition` gets; and one
    item, while its `condition` runs.
    Cost: O(1) and one call an item; where `condition` keeps a list that it got, the next one is copied.
    Cancel safety: what a cancelled pull had gathered waits for the next. An item whose `condition` was
    cancelled with the pull goes to `condition` again at the next pull, with the same list: at least once.

    Args:
        source: A pull object, or any iterable, sync or async.
        condition: Sync or async, called for each item with the list so far, in which that item is the
            last. Changes to that list do not change what is yielded. An error that it raises costs that
            item, and the list goes on without it.
        partial: What becomes of a list that is not closed at the end: `"keep"` or `"drop"`.

    Raises:
        TypeError: `source` is not iterable, or `condition` not callable.
        ValueError: `partial` is neither of the two.
    """

    def __init__(
        self,
        source: Source[T],
        condition: Callable[[list[T]], Any],
        *,
        partial: Literal["keep", "drop"] = "keep",
    ) -> None:
        self._kernel = BufferKernel(condition, _keeps(partial))
        super().__init__(source, self._kernel)


def _keeps(partial: str) -> bool:
    if partial not in ("keep", "drop"):
        raise ValueError(f'partial must be "keep" or "drop", got {partial!r}')
    return partial == "keep"
