"""Operators with one source: each puts a kernel over it.

The kernel, in `headrace._core`, is the operator; the class here gives it a source, a type and a
docstring.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from headrace._core import DedupeKernel, FilterKernel, MapKernel, ReduceKernel
from headrace.configuration import Filtering, Mapping, Reducing
from headrace.errors import NOTHING
from headrace.pull.base import PullObj
from headrace.pull.source import Source, as_pull

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


__all__ = ["PullDedupeObj", "PullFilterObj", "PullMapObj", "PullObj1To1Link", "PullReduceObj"]

IN = TypeVar("IN")
OUT = TypeVar("OUT")
OUT_co = TypeVar("OUT_co", covariant=True)
T = TypeVar("T")


class PullObj1To1Link(PullObj[OUT_co], Generic[IN, OUT_co], stock=True):
    """A stream with one source; the base of operators of your own.

    Override `pull_impl` as an async generator method that iterates `self.source`.

    Args:
        source: A pull object, or any iterable, sync or async.
        kernel: The kernel of a stock operator; leave it out in your own.

    Raises:
        TypeError: `source` is not iterable.
    """

    def __init__(self, source: Source[IN], kernel: Any = None) -> None:
        self._source: PullObj[IN] = as_pull(source)
        if kernel is None:
            # Still its source: closing and restarting go there. Without `pull_impl` it passes items
            # through.
            kernel = MapKernel(_unchanged)
        super().__init__(self._source, kernel)

    @property
    def source(self) -> PullObj[IN]:
        """What it pulls from."""
        return self._source


def _unchanged(item: T) -> T:
    return item


class PullMapObj(PullObj1To1Link[IN, OUT], Mapping[IN], stock=True):
    """`transform(item)` for each item.

    Law: `[await t(x) for x in source]`, with `await` where `transform` returns an awaitable.
    Order: the source's.
    Bound: one item, while its `transform` runs.
    Cost: O(1) and one call an item.
    Cancel safety: an item whose `transform` was cancelled with the pull goes to `transform` again
    at the next pull: at least once.

    An exception of `transform` reaches the consumer as it is, costs that one item, and the stream
    goes on.

    Args:
        source: A pull object, or any iterable, sync or async.
        transform: Sync or async, called with each item.

    Raises:
        TypeError: `source` is not iterable, or `transform` not callable.
    """

    @overload
    def __init__(self, source: Source[IN], transform: Callable[[IN], Awaitable[OUT]]) -> None: ...
    @overload
    def __init__(self, source: Source[IN], transform: Callable[[IN], OUT]) -> None: ...
    def __init__(self, source: Source[IN], transform: Callable[[IN], Any]) -> None:
        self._kernel = MapKernel(transform)
        super().__init__(source, self._kernel)


class PullFilterObj(PullObj1To1Link[T, T], Filtering[T], stock=True):
    """The items for which `predicate(item)` is true.

    Law: `[x for x in source if await p(x)]`, with `await` where `predicate` returns an awaitable.
    Order: the source's.
    Bound: one item, while its `predicate` runs.
    Cost: O(1) and one call an item of the source.
    Cancel safety: an item whose `predicate` was cancelled with the pull goes to `predicate` again
    at the next pull: at least once.

    Args:
        source: A pull object, or any iterable, sync or async.
        predicate: Sync or async, called with each item.

    Raises:
        TypeError: `source` is not iterable, or `predicate` not callable.
    """

    def __init__(self, source: Source[T], predicate: Callable[[T], Any]) -> None:
        self._kernel = FilterKernel(predicate)
        super().__init__(source, self._kernel)


class PullDedupeObj(PullObj1To1Link[T, T], stock=True):
    """Each item once. **Unbounded** unless `maxsize` is given: it remembers every key.

    Law: the items of `dict.fromkeys(source)`; by `key(item)` if it is given. With
    `consecutive`, an item is dropped only if it equals the one before.
    Order: the source's.
    Bound: `maxsize` keys, of which the one that was met longest ago is forgotten first; none by
    default. One key with `consecutive`.
    Cost: O(1) an item, and one call if there is a `key`.
    Cancel safety: an item whose `key` was cancelled with the pull goes to `key` again at
    the next pull: at least once.

    Args:
        source: A pull object, or any iterable, sync or async.
        key: Sync or async, called with each item; gives what is compared, which must be hashable.
            `None`: the item itself.
        maxsize: How many keys are remembered, a positive integer; `None` for any number.
        consecutive: Whether only the item before counts.

    Raises:
        TypeError: `source` is not iterable, `key` not callable, or `maxsize` no integer; at a pull: a key is
            not hashable.
        ValueError: `maxsize` is not positive, or given together with `consecutive`.
    """

    def __init__(
        self,
        source: Source[T],
        *,
        key: Callable[[T], Any] | None = None,
        maxsize: int | None = None,
        consecutive: bool = False,
    ) -> None:
        if consecutive and maxsize is not None:
            raise ValueError(
                f"maxsize has no meaning with consecutive=True, got {maxsize!r}; leave one of them out"
            )
        super().__init__(source, DedupeKernel(key, maxsize, consecutive))


class PullReduceObj(PullObj1To1Link[IN, OUT], Reducing[IN], stock=True):
    """The running result of `reducer(accumulator, item)`: one for each item.

    Law: `list(itertools.accumulate(source, reducer))`; with `initial`, the same without `initial`
    itself.
    Order: the source's.
    Bound: the accumulator, and one item while its `reducer` runs.
    Cost: O(1) and one call an item.
    Cancel safety: an item whose `reducer` was cancelled with the pull goes to `reducer` again at the
    next pull, with the same accumulator.

    Args:
        source: A pull object, or any iterable, sync or async.
        reducer: Sync or async, called with the accumulator and each item.
        initial: What a cycle begins with; without it, it begins with its first item, which comes
            out as it is.

    Raises:
        TypeError: `source` is not iterable, or `reducer` not callable.
    """

    @overload
    def __init__(
        self,
        source: Source[IN],
        reducer: Callable[[OUT, IN], Awaitable[OUT]],
        initial: OUT = ...,
    ) -> None: ...
    @overload
    def __init__(
        self, source: Source[IN], reducer: Callable[[OUT, IN], OUT], initial: OUT = ...
    ) -> None: ...
    def __init__(
        self, source: Source[IN], reducer: Callable[[Any, IN], Any], initial: Any = NOTHING
    ) -> None:
        self._kernel = ReduceKernel(reducer, *(() if initial is NOTHING else (initial,)))
        super().__init__(source, self._kernel)
