"""`Fluent`: the methods of `PullObj` that return an operator over the stream, or consume it (`collect()`, `reduce()`, ...).

`source.filter(f).map(g)` creates the same objects as `PullMapObj(PullFilterObj(source, f), g)`. The operator classes are
imported late, since each is a subclass of `PullObj`, which is a subclass of `Fluent`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Never, TypeVar, cast, overload

import headrace._core as _core
from headrace._core import PullLink
from headrace._internal.sentinels import NOTHING
from headrace.pull._pool_method import PoolMethod

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterable,
        Awaitable,
        Callable,
        Coroutine,
        Hashable,
        Iterable,
        Mapping,
    )

    from headrace._internal.sentinels import Skip
    from headrace.abc import PushProtocol
    from headrace.capacity.node import CapacitySource
    from headrace.pull.base import PullObj
    from headrace.pull.batching import PullBufferObj, PullWindowObj
    from headrace.pull.flattening import PullFlatMapObj, PullFlattenObj
    from headrace.pull.gate import PullGateObj
    from headrace.pull.limit import SourceCapacityObj
    from headrace.pull.prefetch import PullEagerObj
    from headrace.pull.slicing import PullSkipObj, PullSkipWhileObj, PullTakeObj, PullTakeWhileObj
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


class Fluent(PoolMethod[T_co]):
    """The base class that gives `PullObj` its operators; use `PullObj` itself."""

    @overload
    def map(
        self,
        transform: Callable[[T_co], Awaitable[U]],
        *,
        concurrency: int = ...,
        ordered: bool = ...,
        window: int | None = ...,
        partition_by: Callable[[T_co], Hashable] | None = ...,
        per_key: int = ...,
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
        partition_by: Callable[[T_co], Hashable] | None = ...,
        per_key: int = ...,
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
        partition_by: Callable[[T_co], Hashable] | None = None,
        per_key: int = 1,
        on_cancel: Literal["retry", "keep"] = "retry",
        raw: bool = False,
    ) -> PullMapObj[T_co, Any]:
        """Apply `transform` to each item, awaiting the result if it is awaitable; see `PullMapObj`."""
        from headrace.pull.transform import PullMapObj

        return PullMapObj(
            self,
            transform,
            concurrency=concurrency,
            ordered=ordered,
            window=window,
            partition_by=partition_by,
            per_key=per_key,
            on_cancel=on_cancel,
            raw=raw,
        )

    def filter(self, predicate: Callable[[T_co], Any]) -> PullFilterObj[T_co]:
        """Keep the items for which `predicate(item)`, awaited if it is awaitable, is true; see `PullFilterObj`."""
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
        """Yield the running result of `reducer(accumulator, item)`; see `PullReduceObj`."""
        from headrace.pull.transform import PullReduceObj

        return PullReduceObj(self, reducer, initial)

    def enumerate(self, start: int = 0) -> PullReduceObj[T_co, tuple[int, T_co]]:
        """Yield `(index, item)` for each item; see `PullReduceObj`, whose accumulator is the last pair.

        Law: `list(enumerate(source, start))`. `restart()` counts from `start` again. An error has no index.

        Args:
            start: The first index, an integer.

        Raises:
            TypeError: `start` is not an integer.
        """
        from headrace._internal.validate import check_integer
        from headrace.pull.transform import PullReduceObj

        before: Any = (check_integer("start", start) - 1, None)
        return PullReduceObj(self, _number, before)

    def dedupe(
        self,
        *,
        key: Callable[[T_co], Any] | None = None,
        maxsize: int | None = None,
        consecutive: bool = False,
    ) -> PullDedupeObj[T_co]:
        """Drop repeated items; see `PullDedupeObj`."""
        from headrace.pull.transform import PullDedupeObj

        return PullDedupeObj(self, key=key, maxsize=maxsize, consecutive=consecutive)

    def tap(self, *callbacks: Callable[[T_co], Any]) -> PullCallbackObj[T_co]:
        """Pass items through unchanged and call all of `callbacks` with each; see `PullCallbackObj`."""
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
    @overload
    def catch(
        self, handler: Callable[[Exception, Any], Skip | Awaitable[Skip]]
    ) -> PullCatchObj[T_co, Never]: ...
    @overload
    def catch(
        self, handler: Callable[[Exception, Any], Awaitable[U | Skip]]
    ) -> PullCatchObj[T_co, U]: ...
    @overload
    def catch(self, handler: Callable[[Exception, Any], U | Skip]) -> PullCatchObj[T_co, U]: ...
    def catch(self, handler: Callable[..., Any]) -> PullCatchObj[T_co, Any]:
        """Replace each error from upstream by `handler(error)` or `handler(error, item)`; see `PullCatchObj`."""
        from headrace.pull.transform import PullCatchObj

        return PullCatchObj(self, handler)

    def in_order(
        self, index: Callable[[T_co], Any], *, start: int = 0, maxsize: int = 1024
    ) -> PullInOrderObj[T_co]:
        """Yield the items in the order of their index, beginning with `start`; see `PullInOrderObj`."""
        from headrace.pull.transform import PullInOrderObj

        return PullInOrderObj(self, index, start=start, maxsize=maxsize)

    def take(self, size: int) -> PullTakeObj[T_co]:
        """Yield the first `size` items; see `PullTakeObj`."""
        from headrace.pull.slicing import PullTakeObj

        return PullTakeObj(self, size)

    def skip(self, size: int) -> PullSkipObj[T_co]:
        """Skip the first `size` items; see `PullSkipObj`."""
        from headrace.pull.slicing import PullSkipObj

        return PullSkipObj(self, size)

    def take_while(self, predicate: Callable[[T_co], Any]) -> PullTakeWhileObj[T_co]:
        """Yield items until `predicate(item)` is false; see `PullTakeWhileObj`."""
        from headrace.pull.slicing import PullTakeWhileObj

        return PullTakeWhileObj(self, predicate)

    def skip_while(self, predicate: Callable[[T_co], Any]) -> PullSkipWhileObj[T_co]:
        """Skip items until `predicate(item)` is false; see `PullSkipWhileObj`."""
        from headrace.pull.slicing import PullSkipWhileObj

        return PullSkipWhileObj(self, predicate)

    def flatten(self: Fluent[Iterable[U] | AsyncIterable[U]]) -> PullFlattenObj[U]:
        """Yield the items of each item, an iterable, sync or async; see `PullFlattenObj`."""
        from headrace.pull.flattening import PullFlattenObj

        return PullFlattenObj(self)

    def flat_map(
        self,
        transform: Callable[
            [T_co],
            Iterable[U] | AsyncIterable[U] | Awaitable[Iterable[U] | AsyncIterable[U]],
        ],
    ) -> PullFlatMapObj[T_co, U]:
        """Yield the items of the iterable `transform(item)`, for each item; see `PullFlatMapObj`."""
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

        Law: each branch yields the items, the errors and the end of this stream. The first branch that needs an item
        pulls it.
        Order: the stream's, in each branch.
        Bound: `maxsize` items for each branch that lags; the items themselves are shared.
        Cost: O(`n`) per item, in total for all branches.
        Cancel safety: as this stream's. A cancelled pull of a branch loses no item: if it was pulling this stream, the
        next branch that needs an item does so instead. Different tasks may pull the branches, and thereby this stream.

        Read the branches at the same time, each in a task of its own. Reading one branch to its end before another is
        started works for up to `maxsize` items; one more raises `WouldBlock`. Closed or dropped branches are not waited
        for; closing the last branch closes this stream.

        Depth: at most 100 branches, gates, limits and bridges may be nested. An operator that pulls its source in a task,
        such as `.prefetch(1)`, resets the count.

        Args:
            n: The number of branches, a positive integer, at most 100,000.
            maxsize: The maximum number of items that a branch may be ahead of the slowest one, a positive integer.
            overflow: The effect of a pull beyond that. `"auto"` waits for a slow branch that another task reads. It
                raises `WouldBlock` if the full branches were never pulled, were pulled last by the same task, or by a
                task that has ended. `"block"` always waits, `"error"` always raises. The pull after a `WouldBlock`
                continues from there.

        Raises:
            TypeError: `n` or `maxsize` is not an integer.
            ValueError: One of them is not positive, or `n` too large; `overflow` is none of the three; or this stream
                is nested too deeply.
        """
        from headrace.pull.tee import tee

        return tee(cast("PullObj[T_co]", self), n, maxsize=maxsize, overflow=overflow)

    def collect(self) -> Coroutine[Any, Any, list[T_co]]:
        """Collect all items in a list.

        Order: the stream's. Bound: all items. Cost: O(1) per item; between two items no Python code runs except your
        callables.
        Cancel safety: a `collect()` ended by a cancellation or an error returns its items to the stream: the next pull
        gets them first. A class with its own `__anext__` takes no items back.
        """
        return _core.collect(_native(self))

    def count(self) -> Coroutine[Any, Any, int]:
        """Count the items up to the end.

        Bound: nothing is held. Cancel safety: the items counted so far are lost; the stream stays usable.
        """
        return _core.count(_native(self))

    @overload
    async def first(self) -> T_co: ...
    @overload
    async def first(self, default: U) -> T_co | U: ...
    async def first(self, default: Any = NOTHING) -> Any:
        """Return the next item, or `default` if there is none. The stream stays open.

        Cancel safety: that of `anext()`.

        Raises:
            LookupError: The stream has ended, and no `default` is given.
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
        """Call `function(item)` for each item up to the end, awaiting the result if it is awaitable.

        Order: the stream's, one call after the other. Bound: one item.
        Cancel safety: an item whose call was cancelled is returned to the stream: the next pull gets it. An error of
        `function` loses its item and ends this call; the stream stays usable.

        Raises:
            TypeError: `function` is not callable.
        """
        return _core.for_each(_native(self), function)

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
        """Return the last result of `reducer(accumulator, item)`: `functools.reduce` over the stream.

        Order: the stream's. Bound: the accumulator, and one item while its call runs.
        Cancel safety: an item whose call was cancelled is returned to the stream, but the result so far is lost;
        `accumulate()` keeps it in its `accumulator`.

        Args:
            reducer: Sync or async.
            initial: The initial accumulator; without it, the first item.

        Raises:
            TypeError: `reducer` is not callable; when awaited: there is no item and no `initial`.
        """
        return _core.reduce(_native(self), reducer, *(() if initial is NOTHING else (initial,)))

    def prefetch(self, buffer_size: int = 1) -> PullEagerObj[T_co]:
        """Prefetch items in a background task; see `PullEagerObj`."""
        from headrace.pull.prefetch import PullEagerObj

        return PullEagerObj(self, buffer_size)

    def gate(self, wait_obj: WaitObject[Any]) -> PullGateObj[T_co]:
        """Yield the ready items at each signal; see `PullGateObj`."""
        from headrace.pull.gate import PullGateObj

        return PullGateObj(self, wait_obj)

    def limit(
        self,
        capacity: CapacitySource,
        *,
        cost: float | Mapping[str, float] = 1,
        priority: int = 0,
    ) -> SourceCapacityObj[T_co]:
        """Pull each item under a lease of `capacity`; see `SourceCapacityObj`."""
        from headrace.pull.limit import SourceCapacityObj

        return SourceCapacityObj(self, capacity, cost=cost, priority=priority)

    def timeout(
        self, timeout: float, *, on_timeout: Literal["raise", "skip"] = "raise"
    ) -> PullTimeoutObj[T_co]:
        """Limit the wait for each item to `timeout` seconds; see `PullTimeoutObj`."""
        from headrace.pull.timing import PullTimeoutObj

        return PullTimeoutObj(self, timeout, on_timeout=on_timeout)

    def throttle(self, rate: float, *, per: float = 1.0, burst: int = 1) -> PullThrottleObj[T_co]:
        """Yield at most `rate` items every `per` seconds; see `PullThrottleObj`."""
        from headrace.pull.timing import PullThrottleObj

        return PullThrottleObj(self, rate, per=per, burst=burst)

    def drain_to(
        self, sink: PushProtocol[T_co], *, forward_close: bool = True
    ) -> Coroutine[Any, Any, None]:
        """Push every item into `sink`, then end it with `sink.return_()`.

        Stop when the sink is done, or at the end of the stream. The stream stays open.

        Order: the stream's, one push after the other. Bound: one item.
        Cancel safety: an item whose push was cancelled before the sink accepted it, or which the sink refused with a
        `ClosedError`, is returned to the stream: the next pull gets it. An error of the sink loses its item. An error
        of the stream or the sink ends this call and leaves both open.

        Args:
            sink: Any push object.
            forward_close: Whether to end the sink at the end of the stream (default).

        Raises:
            TypeError: `sink` is not a push object.
        """
        from headrace.push._drain import drain
        from headrace.push.base import checked_sink

        return drain(self, checked_sink(sink), forward_close=forward_close)


def _number(last: tuple[int, object], item: U) -> tuple[int, U]:
    """Return an item with the index after that of the last pair."""
    return last[0] + 1, item


def _native(stream: PullLink[Any]) -> PullLink[Any]:
    """Return the link that native code pulls: the stream, or a wrapper if its class overrides `__anext__`."""
    name = "__anext__"
    if getattr(type(stream), name) is getattr(PullLink, name):
        return stream
    return PullLink(_core.AsyncIterSource(stream))
