"""Operators that yield the items of each item, itself an iterable or mapped to one. Their logic is a native kernel.

`PullObj.flatten()` and `flat_map()` create them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from headrace._core import FlatMapKernel, FlattenKernel
from headrace._internal.kernel_properties import HasTransform
from headrace.pull.transform import PullObj1To1Link

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterable

    from headrace.pull.source import Source

IN = TypeVar("IN")
OUT = TypeVar("OUT")


class PullFlattenObj(PullObj1To1Link[Any, OUT], stock=True):
    """The items of each item, an iterable, sync or async.

    Law: `list(itertools.chain.from_iterable(source))`. An iterable is read as items are pulled, and the next one is not
    requested before it has ended.
    Order: the source's, and each iterable's.
    Bound: one iterable.
    Cost: O(1) per item.
    Cancel safety: as for the iterables; for async generators see `SourceIterObj`.

    Args:
        source: A pull object, or any iterable, sync or async, of iterables.

    Raises:
        TypeError: `source` is not iterable; at a pull: an item is not; only that item is lost.
    """

    def __init__(self, source: Source[Iterable[OUT] | AsyncIterable[OUT]]) -> None:
        super().__init__(source, FlattenKernel())


class PullFlatMapObj(PullObj1To1Link[IN, OUT], HasTransform[IN], stock=True):
    """The items of `transform(item)`, an iterable, sync or async, for each item.

    Law: `[y for x in source for y in transform(x)]`, with `await` and `async for` where they are
    needed.
    Order: the source's, and each iterable's.
    Bound: one iterable.
    Cost: O(1) per item, and one call per item of the source.
    Cancel safety: an item whose `transform` was cancelled with the pull is passed to `transform` again at the next
    pull; for async generators see `SourceIterObj`.

    Args:
        source: A pull object or an iterable, sync or async.
        transform: Called with each item: a function or an async function that returns an iterable, or a generator
            function or async generator function.

    Raises:
        TypeError: `source` is not iterable, or `transform` is not callable; at a pull: its result cannot be iterated;
            only that item is lost.
    """

    def __init__(
        self,
        source: Source[IN],
        transform: Callable[
            [IN],
            Iterable[OUT] | AsyncIterable[OUT] | Awaitable[Iterable[OUT] | AsyncIterable[OUT]],
        ],
    ) -> None:
        super().__init__(source, FlatMapKernel(transform))
