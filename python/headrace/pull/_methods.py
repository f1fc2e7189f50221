"""The methods that build operators over one stream, and those that run a stream to its end.

`source.filter(f).map(g)` makes the same objects as `PullMapObj(PullFilterObj(source, f), g)`. The classes are imported late, since each
of them is a pull stream itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Never, TypeVar, cast, overload

import headrace._core as _core
from headrace._core import PullLink
from headrace._internal.sentinels import NOTHING
from headrace.pull._merge_methods import MergeMethods

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterable,
        Awaitable,
        Callable,
        Coroutine,
        Iterable,
        Mapping,
    )
    from typing import Unpack

    from headrace._internal.sentinels import Skip
    from headrace.abc import PushProtocol
    from headrace.capacity.limits import Cost
    from headrace.capacity.node import CapacitySource
    from headrace.pool.map_pool import PullMapPoolObj
    from headrace.pool.options import RunnerOptions
    from headrace.pull.base import PullObj
    from headrace.pull.batching import PullBufferObj, PullWindowObj
    from headrace.pull.flattening import PullFlatMapObj, PullFlattenObj
    from headrace.pull.gate import PullGateObj
    from headrace.pull.limit import SourceCapacityObj
    from headrace.pull.prefetch import PullEagerObj
    from headrace.pull.slicing import (
        PullSkipObj,
        PullSkipWhileObj,
        PullTakeObj,
        PullTakeWhileObj,
    )
    from headrace.pull.tee import Overflow
    from headrace.pull.timing import PullThrottleObj, PullTimeoutObj, PullWindowTimeoutObj
    from headrace.pull.transform import (
        PullCallbackObj,
        PullCatchObj,
        PullDedupeObj,
        PullFilterObj,
        PullInOrderObj,
        PullMapObj,
        PullReduceObj,
    )
    from headrace.signal import WaitObject

T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")


class Fluent(MergeMethods[T_co]):
    """Methods of every pull stream; use `PullObj`."""

    @overload
    def map(
        self,
        transform: Callable[[T_co], Awaitable[U]],
        *,
        concurrency: int = ...,
        ordered: bool = ...,
        window: int | None = ...,
        on_cancel: Literal["retry", "keep"] = ...,
        raw: Literal[False] = ...,
    ) -> PullMapObj[T_co, U]: ...
    @overload
    def map(
        self,
        transform: Callable[[T_co], U],
        *,
        concurrency: int = ...,
        ordered: bool = ...,
        window: int | None = ...,
        on_cancel: Literal["retry", "keep"] = ...,
        raw: bool = ...,
    ) -> PullMapObj[T_co, U]: ...
    def map(
        self,
        transform: Callable[[T_co], Any],
        *,
        concurrency: int = 1,
        ordered: bool = True,
        window: int | None = None,
        on_cancel: Literal["retry", "keep"] = "retry",
        raw: bool = False,
    ) -> PullMapObj[T_co, Any]:
        """`transform(item)` for each item, awaited if it is awaitable; see `PullMapObj`."""
        from headrace.pull.transform import PullMapObj

        return PullMapObj(
            self,
            transform,
            concurrency=concurrency,
            ordered=ordered,
            window=window,
            on_cancel=on_cancel,
            raw=raw,
        )

    def filter(self, predicate: Callable[[T_co], Any]) -> PullFilterObj[T_co]:
        """The items for which `predicate(item)`, awaited if it is awaitable, is true; see `PullFilterObj`."""
        from headrace.pull.transform import PullFilterObj

        return PullFilterObj(self, predicate)

    @overload
    def accumulate(self, reducer: Callable[[T_co, T_co], T_co]) -> PullReduceObj[T_co, T_co]: ...
    @overload
    def accumulate(
        self, reducer: Callable[[U, T_co], Awaitable[U]], initial: U = ...
    ) -> PullReduceObj[T_co, U]: ...
    @overload
    def accumulate(
        self, reducer: Callable[[U, T_co], U], initial: U = ...
    ) -> PullReduceObj[T_co, U]: ...
    def accumulate(
        self, reducer: Callable[[Any, T_co], Any], initial: Any = NOTHING
    ) -> PullReduceObj[T_co, Any]:
        """The running result of `reducer(accumulator, item)`; see `PullReduceObj`."""
        from headrace.pull.transform import PullReduceObj

        return PullReduceObj(self, reducer, initial)

    def dedupe(
        self,
        *,
        key: Callable[[T_co], Any] | None = None,
        maxsize: int | None = None,
        consecutive: bool = False,
    ) -> PullDedupeObj[T_co]:
        """Each item once; see `PullDedupeObj`."""
        from headrace.pull.transform import PullDedupeObj

        return PullDedupeObj(self, key=key, maxsize=maxsize, consecutive=consecutive)

    def tap(self, *callbacks: Callable[[T_co], Any]) -> PullCallbackObj[T_co]:
        """The items as they are, each shown to all of `callbacks`; see `PullCallbackObj`."""
        from headrace.pull.transform import PullCallbackObj

        return PullCallbackObj(self, *callbacks)

    @overload
    def catch(
        self, handler: Callable[[Exception], Skip | Awaitable[Skip]]
    ) -> PullCatchObj[T_co, Never]: ...
    @overload
    def catch(
        self, handler: Callable[[Exception], Awaitable[U | Skip]]
    ) -> PullCatchObj[T_co, U]: ...
    @overload
    def catch(self, handler: Callable[[Exception], U | Skip]) -> PullCatchObj[T_co, U]: ...
    def catch(self, handler: Callable[[Exception], Any]) -> PullCatchObj[T_co, Any]:
        """`handler(error)` in the place of each error from above; see `PullCatchObj`."""
        from headrace.pull.transform import PullCatchObj

        return PullCatchObj(self, handler)

    def in_order(
        self, index: Callable[[T_co], Any], *, start: int = 0, maxsize: int = 1024
    ) -> PullInOrderObj[T_co]:
        """The items by their index, from `start` on; see `PullInOrderObj`."""
        from headrace.pull.transform import PullInOrderObj

        return PullInOrderObj(self, index, start=start, maxsize=maxsize)

    def take(self, size: int) -> PullTakeObj[T_co]:
        """The first `size` items; see `PullTakeObj`."""
        from headrace.pull.slicing import PullTakeObj

        return PullTakeObj(self, size)

    def skip(self, size: int) -> PullSkipObj[T_co]:
        """All but the first `size` items; see `PullSkipObj`."""
        from headrace.pull.slicing import PullSkipObj

        return PullSkipObj(self, size)

    def take_while(self, predicate: Callable[[T_co], Any]) -> PullTakeWhileObj[T_co]:
        """The items up to the first for which `predicate(item)` is false; see `PullTakeWhileObj`."""
        from headrace.pull.slicing import PullTakeWhileObj

        return PullTakeWhileObj(self, predicate)

    def skip_while(self, predicate: Callable[[T_co], Any]) -> PullSkipWhileObj[T_co]:
        """The items from the first for which `predicate(item)` is false; see `PullSkipWhileObj`."""
        from headrace.pull.slicing import PullSkipWhileObj

        return PullSkipWhileObj(self, predicate)

    def flatten(self: Fluent[Iterable[U] | AsyncIterable[U]]) -> PullFlattenObj[U]:
        """The items of each item, which is an iterable, sync or async; see `PullFlattenObj`."""
        from headrace.pull.flattening import PullFlattenObj

        return PullFlattenObj(self)

    def flat_map(
        self,
        transform: Callable[
            [T_co],
            Iterable[U] | AsyncIterable[U] | Awaitable[Iterable[U] | AsyncIterable[U]],
        ],
    ) -> PullFlatMapObj[T_co, U]:
        """The items of `transform(item)`, an iterable, for each item; see `PullFlatMapObj`."""
        from headrace.pull.flattening import PullFlatMapObj

        return PullFlatMapObj(self, transform)

    @overload
    def batch(
        self, size: int, timeout: None = ..., *, partial: Literal["keep", "drop"] = ...
    ) -> PullWindowObj[T_co]: ...
    @overload
    def batch(
        self, size: int, timeout: float, *, partial: Literal["keep"] = ...
    ) -> PullWindowTimeoutObj[T_co]: ...
    @overload
    def batch(
        self, size: int, timeout: float | None, *, partial: Literal["keep"] = ...
    ) -> PullWindowObj[T_co] | PullWindowTimeoutObj[T_co]: ...
    def batch(
        self,
        size: int,
        timeout: float | None = None,
        *,
        partial: Literal["keep", "drop"] = "keep",
    ) -> PullWindowObj[T_co] | PullWindowTimeoutObj[T_co]:
        """Group the items into lists of `size`; see `PullWindowObj`.

        With a `timeout` a list is also yielded when it is `timeout` seconds old; see `PullWindowTimeoutObj`.

        Raises:
            ValueError: `partial="drop"` is given together with a `timeout`; or as the class does.
        """
        from headrace._internal.validate import check_partial_with_timeout
        from headrace.pull.batching import PullWindowObj
        from headrace.pull.timing import PullWindowTimeoutObj

        if timeout is None:
            return PullWindowObj(self, size, partial=partial)
        check_partial_with_timeout(timeout, partial)
        return PullWindowTimeoutObj(self, size, timeout)

    def batch_until(
        self, condition: Callable[[list[T_co]], Any], *, partial: Literal["keep", "drop"] = "keep"
    ) -> PullBufferObj[T_co]:
        """Group the items into lists, each complete once `condition(list so far)` is true; see `PullBufferObj`."""
        from headrace.pull.batching import PullBufferObj

        return PullBufferObj(self, condition, partial=partial)

    def tee(
        self, n: int, *, maxsize: int = 1024, overflow: Overflow = "auto"
    ) -> tuple[PullObj[T_co], ...]:
        """Split this stream into `n` streams, each of which yields all items.

        Law: each is `[x async for x in self]`, errors and the end in their places. An item is pulled when
        the first of them needs it, by the pull that needs it.
        Order: the stream's, in each.
        Bound: `maxsize` items for each branch that is behind; the items themselves are shared.
        Cost: O(`n`) an item, once for all.
        Cancel safety: as this stream's. A cancelled pull of a branch loses nothing: if it was pulling this
        stream, the next branch in need does so instead. Branches may be pulled by different tasks, and so may
        this stream then.

        Read the branches at the same time, each in a task of its own. Reading one to its end before the other is
        begun works for up to `maxsize` items; one more raises `WouldBlock`. A branch that was closed, or dropped,
        is not waited for; this stream is closed with the last branch that is closed.

        Depth: at most 100 branches, gates and bridges may be nested; a link whose task pulls the source, such as
        `.prefetch(1)`, resets the count.

        Args:
            n: The number of branches, a positive integer, at most 100,000.
            maxsize: How many items a branch may be ahead of the slowest one, a positive integer.
            overflow: What a pull does that would go further. `"auto"` waits for a slow branch that another task
                reads, and raises `WouldBlock` if there is none: if the full branches were never pulled, were
                pulled last by the same task, or by a task that has ended. `"block"` waits in any case, `"error"`
                raises in any case. A pull after a `WouldBlock` continues where that one stopped.

        Raises:
            TypeError: `n` or `maxsize` is not an integer.
            ValueError: One of them is not positive, or `n` too large; `overflow` is none of the three; or this stream
                is nested too deeply.
        """
        from headrace.pull.tee import tee

        return tee(cast("PullObj[T_co]", self), n, maxsize=maxsize, overflow=overflow)

    def collect(self) -> Coroutine[Any, Any, list[T_co]]:
        """All items, in a list.

        Order: the stream's. Bound: all items. Cost: O(1) per item; nothing of Python's runs between two items but your
        callables.
        Cancel safety: a cancelled `collect()`, or one that an error ended, hands what it had back to the stream: the
        next pull gets those items first. Only a class with an `__anext__` of its own takes nothing back.
        """
        return _core.collect(_driven(self))

    def count(self) -> Coroutine[Any, Any, int]:
        """How many items there are, to the end.

        Bound: nothing is held. Cancel safety: the items counted so far are gone; the stream goes on.
        """
        return _core.count(_driven(self))

    @overload
    async def first(self) -> T_co: ...
    @overload
    async def first(self, default: U) -> T_co | U: ...
    async def first(self, default: Any = NOTHING) -> Any:
        """The next item, or `default` if there is none. The stream stays open.

        Cancel safety: that of `anext()`.

        Raises:
            LookupError: The stream is at its end, and there is no `default`.
        """
        try:
            return await anext(self)
        except StopAsyncIteration:
            if default is NOTHING:
                raise LookupError(
                    f"first() of {self!r}, which is at its end; give a default"
                ) from None
            return default

    def for_each(self, function: Callable[[T_co], Any]) -> Coroutine[Any, Any, None]:
        """Calls `function(item)`, awaited if it is awaitable, for each item to the end.

        Order: the stream's, one call after the other. Bound: one item.
        Cancel safety: an item whose call was cancelled goes back to the stream: the next pull gets it.
        An error of `function` costs its item and ends this call; the stream stays usable.

        Raises:
            TypeError: `function` is not callable.
        """
        return _core.for_each(_driven(self), function)

    @overload
    def reduce(self, reducer: Callable[[T_co, T_co], T_co]) -> Coroutine[Any, Any, T_co]: ...
    @overload
    def reduce(
        self, reducer: Callable[[U, T_co], Awaitable[U]], initial: U = ...
    ) -> Coroutine[Any, Any, U]: ...
    @overload
    def reduce(
        self, reducer: Callable[[U, T_co], U], initial: U = ...
    ) -> Coroutine[Any, Any, U]: ...
    def reduce(
        self, reducer: Callable[[Any, T_co], Any], initial: Any = NOTHING
    ) -> Coroutine[Any, Any, Any]:
        """The last result of `reducer(accumulator, item)`: `functools.reduce` over the stream.

        Order: the stream's. Bound: the accumulator, and one item while its call runs.
        Cancel safety: an item whose call was cancelled goes back to the stream, but what had been reduced is gone;
        `accumulate()` keeps it in its `accumulator`.

        Args:
            reducer: Sync or async.
            initial: The accumulator at first; without it, the first item.

        Raises:
            TypeError: `reducer` is not callable; when awaited: there is no item, and no `initial`.
        """
        return _core.reduce(_driven(self), reducer, *(() if initial is NOTHING else (initial,)))

    def prefetch(self, buffer_size: int = 1) -> PullEagerObj[T_co]:
        """The items, fetched ahead by a task of its own; see `PullEagerObj`."""
        from headrace.pull.prefetch import PullEagerObj

        return PullEagerObj(self, buffer_size)

    def gate(self, wait_obj: WaitObject[Any]) -> PullGateObj[T_co]:
        """What is ready at each signal; see `PullGateObj`."""
        from headrace.pull.gate import PullGateObj

        return PullGateObj(self, wait_obj)

    def limit(
        self,
        capacity: CapacitySource,
        *,
        cost: float | Mapping[str, float] = 1,
        priority: int = 0,
    ) -> SourceCapacityObj[T_co]:
        """The items, each under a lease of `capacity` until the next stage has it; see `SourceCapacityObj`."""
        from headrace.pull.limit import SourceCapacityObj

        return SourceCapacityObj(self, capacity, cost=cost, priority=priority)

    def timeout(
        self, timeout: float, *, on_timeout: Literal["raise", "skip"] = "raise"
    ) -> PullTimeoutObj[T_co]:
        """The items, each within `timeout` seconds; see `PullTimeoutObj`."""
        from headrace.pull.timing import PullTimeoutObj

        return PullTimeoutObj(self, timeout, on_timeout=on_timeout)

    def throttle(self, rate: float, *, per: float = 1.0, burst: int = 1) -> PullThrottleObj[T_co]:
        """At most `rate` items every `per` seconds; see `PullThrottleObj`."""
        from headrace.pull.timing import PullThrottleObj

        return PullThrottleObj(self, rate, per=per, burst=burst)

    def drain_to(
        self, sink: PushProtocol[T_co], *, forward_close: bool = True
    ) -> Coroutine[Any, Any, None]:
        """Pushes every item into `sink`, and then ends it by `sink.return_()`.

        It stops when the sink is done, or at the end of the stream. The stream stays open.

        Order: the stream's, one push after the other. Bound: one item.
        Cancel safety: an item whose push was cancelled before the sink had it, or which the sink
        refused with a `ClosedError`, goes back to the stream: the next pull gets it.
        An error of the sink costs its item; an error of either ends this call and leaves both open.

        Args:
            sink: Any push object.
            forward_close: Whether the sink is ended at the end (default).

        Raises:
            TypeError: `sink` is not a push object.
        """
        from headrace.push._drain import drain
        from headrace.push.base import checked_sink

        return drain(self, checked_sink(sink), forward_close=forward_close)

    @overload
    def map_pool(
        self,
        fn: Callable[[T_co], Awaitable[U]],
        capacity: CapacitySource,
        *,
        cost: Cost | Callable[[Any], Cost] = ...,
        priority: int | Callable[[Any], int] = ...,
        thread: Literal[False] = ...,
        **options: Unpack[RunnerOptions],
    ) -> PullMapPoolObj[U]: ...
    @overload
    def map_pool(
        self,
        fn: Callable[[T_co], U],
        capacity: CapacitySource,
        *,
        cost: Cost | Callable[[Any], Cost] = ...,
        priority: int | Callable[[Any], int] = ...,
        thread: bool = ...,
        **options: Unpack[RunnerOptions],
    ) -> PullMapPoolObj[U]: ...
    def map_pool(
        self, fn: Callable[[T_co], Any], capacity: CapacitySource, **options: Any
    ) -> PullMapPoolObj[Any]:
        """`fn(item)` for each item, as tasks of a pool under a capacity; see `PullMapPoolObj`."""
        from headrace.pool.map_pool import PullMapPoolObj

        return PullMapPoolObj(self, fn, capacity, **options)


def _driven(stream: PullLink[Any]) -> PullLink[Any]:
    """What a terminal pulls: the stream; or, where its class has an `__anext__` of its own, one over it."""
    name = "__anext__"
    if getattr(type(stream), name) is getattr(PullLink, name):
        return stream
    return PullLink(_core.ForeignFeed(stream))
