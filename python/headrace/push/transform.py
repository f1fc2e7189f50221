"""Operators with one sink: each puts a kernel in front of it. Methods of `PushChain`, such as `map()`, create them.

The kernel, in `headrace._core`, is the operator, the same as in `headrace.pull.transform`; the class here adds a sink,
a type and a docstring.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import headrace._core as _core
from headrace._core import FilterKernel, IteratorResult, MapKernel, ReduceKernel
from headrace._internal.error_notes import name_failed, raise_all
from headrace._internal.fair_lock import FairLock
from headrace._internal.kernel_properties import (
    HasMemory,
    HasPredicate,
    HasReducer,
    HasTransform,
    dedupe_kernel,
)
from headrace._internal.reprs import callable_name
from headrace._internal.sentinels import NOTHING
from headrace._internal.tasks import cancelling, is_cancellation
from headrace._internal.validate import check_callable_or_none
from headrace.errors import WouldBlock
from headrace.push.base import PushObj, checked_sink, name_acceptors, push_now, refuse_after_end

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from headrace.abc import PushProtocol

IN = TypeVar("IN")
IN_contra = TypeVar("IN_contra", contravariant=True)
OUT = TypeVar("OUT")
T = TypeVar("T")


class PushObj1To1Link(PushObj[IN_contra], Generic[IN_contra, OUT], stock=True):
    """A push object with one sink; the base of operators of your own.

    Override `next_impl(item)`, and push its output into `self.sink`. Ending it ends its sink.

    Args:
        sink: A push object.
        kernel: The kernel of a stock operator; omit it in your own.

    Raises:
        TypeError: `sink` is not a push object.
    """

    __slots__ = ("_kernel", "_sink")

    def __init__(self, sink: PushProtocol[OUT], kernel: Any = None) -> None:
        self._sink: PushProtocol[OUT] = checked_sink(sink)
        self._kernel: Any = MapKernel(_unchanged) if kernel is None else kernel
        super().__init__(sink, self._kernel)

    @property
    def sink(self) -> PushProtocol[OUT]:
        """The sink."""
        return self._sink

    async def return_impl(self, value: Any) -> None:
        """Deliver the held items, then end the sink.

        An error loses only the items that it was raised for; the sink is still ended.
        """
        before, errors = cancelling(), list[BaseException]()
        tail: PushProtocol[Any] | None = None
        while tail is None:
            # End the whole pipeline of stock links at once, since it may have 10,000 of them.
            flushing = _core.flush_push(self)
            try:
                tail = await flushing
            except BaseException as error:
                if is_cancellation(error, before):
                    raise
                errors.append(error)
        try:
            await self._below(tail).return_(value)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:
            errors.append(error)
        raise_all(errors, "several errors at the end of supply")

    async def throw_impl(self, error: BaseException) -> None:
        """Drop the held items, then end the sink with the error."""
        await self._below(_core.drop_push(self)).throw(error)

    def _below(self, tail: PushProtocol[Any]) -> PushProtocol[Any]:
        # The pipeline of an object that overrides `next_impl` ends in that object.
        return self._sink if tail is self else tail


def _unchanged(item: T) -> T:
    return item


class PushMapObj(PushObj1To1Link[IN, OUT], HasTransform[IN], stock=True):
    """Push `transform(item)` for each item.

    Law: the sink gets `[await t(x) for x in items]`, with `await` where `transform` returns an
    awaitable.
    Order: of arrival, for as long as `transform` does not suspend; otherwise, put a `PushSerialObj` before it.
    Bound: nothing is held.
    Cost: O(1) and one call per item.
    Cancel safety: a push cancelled in `transform` has delivered nothing.

    An exception of `transform` is raised at the push.

    Args:
        sink: A push object.
        transform: Sync or async, called with each item.

    Raises:
        TypeError: `sink` is not a push object, or `transform` is not callable.
    """

    __slots__ = ()

    @overload
    def __init__(
        self, sink: PushProtocol[OUT], transform: Callable[[IN], Awaitable[OUT]]
    ) -> None: ...
    @overload
    def __init__(self, sink: PushProtocol[OUT], transform: Callable[[IN], OUT]) -> None: ...
    def __init__(self, sink: PushProtocol[OUT], transform: Callable[[IN], Any]) -> None:
        super().__init__(sink, MapKernel(transform))


class PushFilterObj(PushObj1To1Link[T, T], HasPredicate[T], stock=True):
    """Push the items for which `predicate(item)` is true; accept and drop the others.

    Law: the sink gets `[x for x in items if await p(x)]`, with `await` where `predicate` returns an
    awaitable.
    Order: of arrival, for as long as `predicate` does not suspend.
    Bound: nothing is held.
    Cost: O(1) and one call per item.
    Cancel safety: a push cancelled in `predicate` has delivered nothing.

    Args:
        sink: A push object.
        predicate: Sync or async, called with each item.

    Raises:
        TypeError: `sink` is not a push object, or `predicate` is not callable.
    """

    __slots__ = ()

    def __init__(self, sink: PushProtocol[T], predicate: Callable[[T], Any]) -> None:
        super().__init__(sink, FilterKernel(predicate))


class PushDedupeObj(PushObj1To1Link[T, T], HasMemory, stock=True):
    """Drop repeated items. **Unbounded** unless `maxsize` is given: it remembers every key.

    Law: the sink gets the items of `dict.fromkeys(items)`; by `key(item)` if it is given. With
    `consecutive`, an item is dropped only if it equals the one before.
    Order: of arrival.
    Bound: `maxsize` keys, the key seen longest ago is forgotten first; no bound by default. One key with `consecutive`.
    Cost: O(1) per item, and one call if there is a `key`.
    Cancel safety: a push cancelled in `key` has delivered nothing, and its item counts as not seen.

    Args:
        sink: A push object.
        key: Sync or async, called with each item; returns the hashable key to compare. `None`: the item itself.
        maxsize: The maximum number of remembered keys, a positive integer; `None` for no limit.
        consecutive: Whether to compare with the previous item only.

    Raises:
        TypeError: `sink` is not a push object, `key` not callable, or `maxsize` is not an integer; at a push: a key is
            not hashable.
        ValueError: `maxsize` is not positive, or given together with `consecutive`.
    """

    __slots__ = ()

    def __init__(
        self,
        sink: PushProtocol[T],
        *,
        key: Callable[[T], Any] | None = None,
        maxsize: int | None = None,
        consecutive: bool = False,
    ) -> None:
        super().__init__(sink, dedupe_kernel(key, maxsize, consecutive=consecutive))


class PushReduceObj(PushObj1To1Link[IN, OUT], HasReducer[IN], stock=True):
    """Push the running result of `reducer(accumulator, item)`: one for each item.

    Law: the sink gets `list(itertools.accumulate(items, reducer))`; with `initial`, the same without
    `initial` itself.
    Order: of arrival. With an async `reducer`, overlapping pushes would use the same accumulator: put a `PushSerialObj`
    before it.
    Bound: the accumulator.
    Cost: O(1) and one call per item.
    Cancel safety: a push cancelled in `reducer` has delivered nothing and changed nothing.

    Args:
        sink: A push object.
        reducer: Sync or async, called with the accumulator and each item.
        initial: The initial accumulator; without it, the first item, which is pushed on unchanged.

    Raises:
        TypeError: `sink` is not a push object, or `reducer` is not callable.
    """

    __slots__ = ()

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
        super().__init__(sink, ReduceKernel(reducer, *(() if initial is NOTHING else (initial,))))


class PushCallbackObj(PushObj1To1Link[T, T], stock=True):
    """Push items on, and call a callback before or after each.

    Law: for each item `before(item)`, then the push, then `after(item)`, each awaited if it is
    awaitable.
    Order: of arrival, for as long as nothing suspends.
    Bound: nothing is held.
    Cost: O(1) per item, and one or two calls.
    Cancel safety: a push cancelled in `before` has delivered nothing; one that is cancelled in `after` has delivered
    its item, and the sink is in the error's `accepted_by`. The same applies to errors.

    Args:
        sink: A push object.
        before: Sync or async, called with each item before it is pushed on; after an error the item is not pushed.
        after: Sync or async, called when the sink has accepted the item.

    Raises:
        TypeError: `sink` is not a push object, or `before` or `after` is not callable.
        ValueError: Neither `before` nor `after` is given.
    """

    def __init__(
        self,
        sink: PushProtocol[T],
        *,
        before: Callable[[T], Any] | None = None,
        after: Callable[[T], Any] | None = None,
    ) -> None:
        super().__init__(sink)
        if before is None and after is None:
            raise ValueError("before or after must be given, got neither")
        self.before = before
        self.after = after

    @property
    def before(self) -> Callable[[T], Any] | None:
        """The callable called before the push, live: a new one applies from the next item."""
        return self._before

    @before.setter
    def before(self, before: Callable[[T], Any] | None) -> None:
        self._before = check_callable_or_none("before", before)

    @property
    def after(self) -> Callable[[T], Any] | None:
        """The callable called after the push, live."""
        return self._after

    @after.setter
    def after(self, after: Callable[[T], Any] | None) -> None:
        self._after = check_callable_or_none("after", after)

    def _repr_parts(self) -> Iterator[str]:
        for when, callback in (("before", self._before), ("after", self._after)):
            if callback is not None:
                yield f"calls {callable_name(callback)} {when}"
        yield from super()._repr_parts()

    async def next_impl(self, item: T) -> IteratorResult[Any]:
        """Call `before`, push, call `after`."""
        await self._call("before", self._before, item)
        result = await self._sink.next(item)
        try:
            await self._call("after", self._after, item)
        except BaseException as error:
            name_acceptors(error, (self._sink,))
            raise
        return result

    def next_nowait(self, item: T) -> IteratorResult[Any]:
        """Call `before`, push, call `after`, without waiting.

        Raises:
            WouldBlock: The sink would have to wait, or a callback is async.
        """
        refuse_after_end(self, item)
        if inspect.iscoroutinefunction(self._after) or not self._call_now(
            "before", self._before, item
        ):
            raise WouldBlock(
                "the item cannot be accepted without waiting for a callback; await next(item)",
                item=item,
            )
        result = push_now(self._sink, item)
        try:
            if not self._call_now("after", self._after, item):
                raise TypeError(
                    "after of PushCallbackObj is async, and next_nowait cannot await it; await next(item)"
                )
        except BaseException as error:
            name_acceptors(error, (self._sink,))
            raise
        return result

    async def _call(self, parameter: str, callback: Callable[[T], Any] | None, item: T) -> None:
        if callback is None:
            return
        try:
            result = callback(item)
            if inspect.isawaitable(result):
                await result
        except Exception as error:
            name_failed(error, f"{parameter} of {type(self).__name__}", item)
            raise

    def _call_now(self, parameter: str, callback: Callable[[T], Any] | None, item: T) -> bool:
        """Call a callback; return whether it ran without waiting."""
        if callback is None:
            return True
        try:
            result = callback(item)
        except Exception as error:
            name_failed(error, f"{parameter} of {type(self).__name__}", item)
            raise
        if not inspect.isawaitable(result):
            return True
        if inspect.iscoroutine(result):
            result.close()
        return False


class PushSerialObj(PushObj1To1Link[T, T], stock=True):
    """Serialise concurrent pushes in their order of arrival.

    Law: no item is pushed into the sink before it has accepted the previous one.
    Order: of arrival, also when an earlier push is cancelled or fails. The end is queued too, behind earlier pushes.
    Bound: nothing is held; the item of a waiting push stays with its producer.
    Cost: O(1) per item, whatever the number of waiters.
    Cancel safety: a push that is cancelled while it waits leaves the wait queue and has delivered nothing.

    Args:
        sink: A push object.

    Raises:
        TypeError: `sink` is not a push object.
    """

    def __init__(self, sink: PushProtocol[T]) -> None:
        super().__init__(sink)
        # A fair lock: it wakes waiters in FIFO order, and no task overtakes them.
        self._lock = FairLock()

    def _repr_parts(self) -> Iterator[str]:
        if self._lock.locked():
            yield "being pushed into"
        yield from super()._repr_parts()

    async def next_impl(self, item: T) -> IteratorResult[Any]:
        """Push one item on, after the pushes queued before it."""
        async with self._lock:
            return await self._sink.next(item)

    def next_nowait(self, item: T) -> IteratorResult[Any]:
        """Push one item on if no other push is in progress.

        Raises:
            WouldBlock: Another push is in progress, or the sink would have to wait.
        """
        refuse_after_end(self, item)
        if self._lock.locked():
            raise WouldBlock(
                "the item cannot be accepted without waiting for its turn; await next(item)",
                item=item,
            )
        return push_now(self._sink, item)

    async def return_impl(self, value: Any) -> None:
        """End the sink, after the pushes queued before it."""
        async with self._lock:
            await super().return_impl(value)
