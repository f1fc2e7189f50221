"""Operators that push the items of each item, itself an iterable or mapped to one. Their logic is a native kernel.

`PushChain.flatten()` and `flat_map()` create them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from headrace._core import FlatMapKernel, FlattenKernel
from headrace._internal.kernel_properties import HasTransform
from headrace.push.transform import PushObj1To1Link

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Coroutine, Iterable

    from headrace.abc import PushProtocol

IN = TypeVar("IN")
OUT = TypeVar("OUT")


class PushFlattenObj(PushObj1To1Link[Any, OUT], stock=True):
    """The items of each item, an iterable, sync or async.

    Law: the sink gets `list(itertools.chain.from_iterable(items))`.
    Order: of arrival, and each iterable's.
    Bound: nothing is held, except the rest of a cancelled push.
    Cost: O(1) per item.
    Cancel safety: a push that is cancelled before the first item of the iterable has delivered nothing. After that the
    rest of the iterable stays here, and the next push or the end continues with it. The same applies if one of its
    items fails downstream. The error names this object in `accepted_by`.

    Args:
        sink: A push object.

    Raises:
        TypeError: `sink` is not a push object; at a push: the item is not an iterable.
    """

    __slots__ = ()

    def __init__(self, sink: PushProtocol[OUT]) -> None:
        super().__init__(sink, FlattenKernel())


class PushFlatMapObj(PushObj1To1Link[IN, OUT], HasTransform[IN], stock=True):
    """The items of `transform(item)`, an iterable, sync or async, for each item.

    Law: the sink gets `[y for x in items for y in transform(x)]`, with `await` and `async for` where
    they are needed.
    Order: of arrival, and each iterable's, for as long as nothing suspends.
    Bound: nothing is held, except the rest of a cancelled push.
    Cost: O(1) per item, and one call per pushed item.
    Cancel safety: a push cancelled in `transform` has delivered nothing; after that see
    `PushFlattenObj`.

    Args:
        sink: A push object.
        transform: Called with each item: a function or an async function that returns an iterable, or a generator
            function or async generator function.

    Raises:
        TypeError: `sink` is not a push object, or `transform` is not callable; at a push: its result cannot be
            iterated.
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
        super().__init__(sink, FlatMapKernel(transform))
