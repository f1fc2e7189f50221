"""Operators with one source: each applies a kernel to it. `PullObj.map()`, `filter()` and others of `pull._methods` create them.

The kernel, in `headrace._core`, is the operator; the class here adds a source, a type and a docstring.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Generic, Literal, Never, TypeVar, cast, overload

from headrace._core import (
    CallbackKernel,
    CatchKernel,
    FilterKernel,
    InOrderKernel,
    MapKernel,
    ReduceKernel,
    SkipKernel,
)
from headrace._internal.kernel_properties import (
    HasCallbacks,
    HasHandler,
    HasIndex,
    HasMemory,
    HasPredicate,
    HasReducer,
    HasTransform,
    dedupe_kernel,
    takes_item,
)
from headrace._internal.sentinels import NOTHING, SKIP, Skip
from headrace.pull._concurrent_map import ConcurrentMap, check_limits, check_partition
from headrace.pull._concurrent_source import ConcurrentSource
from headrace.pull.base import PullObj
from headrace.pull.source import Source, as_pull

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Iterator


IN = TypeVar("IN")
OUT = TypeVar("OUT")
OUT_co = TypeVar("OUT_co", covariant=True)
T = TypeVar("T")
U = TypeVar("U")


class PullObj1To1Link(PullObj[OUT_co], Generic[IN, OUT_co], stock=True):
    """A stream with one source; the base of operators of your own.

    Override `pull_impl` as an async generator method that iterates `self.source`.

    Args:
        source: A pull object or an iterable, sync or async.
        kernel: The kernel of a stock operator; omit it in your own.

    Raises:
        TypeError: `source` is not iterable.
    """

    def __init__(self, source: Source[IN], kernel: Any = None) -> None:
        self._source: PullObj[IN] = as_pull(source)
        # With a kernel, closing and restarting reach the source. Without `pull_impl` the link passes items through.
        self._kernel: Any = MapKernel(_unchanged) if kernel is None else kernel
        super().__init__(self._source, self._kernel)

    @property
    def source(self) -> PullObj[IN]:
        """The source."""
        return self._source


def _unchanged(item: T) -> T:
    return item


class PullMapObj(PullObj1To1Link[IN, OUT], HasTransform[IN], stock=True):
    """`transform(item)` for each item.

    Law: `[await t(x) for x in source]`, with `await` where `transform` returns an awaitable.
    Order: the source's; with `ordered=False`, the order in which the calls end. With `partition_by`, the items of one key
    are called in the order of the source, and with a `per_key` of 1 their calls also end in it.
    Bound: one item, while its `transform` runs. With a `concurrency` above 1, `window` items that wait for their key,
    whose call runs, or whose result is not yet pulled; at most `concurrency` of them run. Each key of these items.
    Cost: O(1) and one call per item. With a `concurrency`, or `on_cancel="keep"`, one asyncio task for each awaited
    call, and one that pulls the source. With `partition_by`, one more call, O(log `window`), and a task for each item
    that waits for its key.
    Cancel safety: an item whose `transform` was cancelled with the pull is passed to `transform` again at the next
    pull: at least once. With `on_cancel="keep"`, and always with a `concurrency` above 1, a cancelled pull cancels no
    call: the next pull gets its result, exactly once.

    An exception of `transform` is raised at the pull unchanged. Only that item is lost, and the stream stays usable.

    Nothing runs before the first pull. From then on calls run ahead of the pulls, if `concurrency`
    is above 1. A stream that was not read to its end must be closed, which cancels the calls and waits for them.
    Dropping the stream cancels them with a `ResourceWarning`. It cannot restart while they run. A call must not wait
    for its own stream.

    With `partition_by`, a free call goes to the oldest item whose key has fewer than `per_key` calls. At most `window` items
    wait for their key; then the source is not pulled, even if items of other keys could start. An error of a call, or of
    `partition_by`, costs that item alone, and the other items of its key go on.

    Args:
        source: A pull object or an iterable, sync or async.
        transform: Sync or async, called with each item.
        concurrency: The maximum number of calls that run at once, a positive integer.
        ordered: Whether results are yielded in the order of their items, or as they become available.
        window: The maximum number of items that are pulled and not yet delivered, at least `concurrency`; `None` for
            twice that. A larger window lets more calls run behind a slow one, or behind a busy key.
        partition_by: Called with each item, as it is pulled; returns its key, a hashable object. Not async. With a
            `concurrency` of 1, and without `on_cancel="keep"`, it is not called: the calls are in order without it.
        per_key: The maximum number of calls of one key that run at once, a positive integer up to `concurrency`.
        on_cancel: The effect of a cancelled pull on its call at `concurrency` 1: `"retry"` cancels the call and repeats
            it; `"keep"` lets it finish in a task of its own.
        raw: Whether the return value of `transform` is the result even if it is awaitable.

    Raises:
        TypeError: `source` is not iterable, `transform` or `partition_by` not callable, or `concurrency`, `window` or
            `per_key` is not an integer; at a pull: a key is not hashable, or an awaitable.
        ValueError: `concurrency` or `per_key` is not positive, `window` less than `concurrency`, `per_key` more than it or
            given without `partition_by`, or `on_cancel` is neither of the two.
    """

    _calls: ConcurrentMap[OUT] | None = None

    @overload
    def __init__(
        self,
        source: Source[IN],
        transform: Callable[[IN], Awaitable[OUT]],
        *,
        concurrency: int = ...,
        ordered: bool = ...,
        window: int | None = ...,
        partition_by: Callable[[IN], Hashable] | None = ...,
        per_key: int = ...,
        on_cancel: Literal["retry", "keep"] = ...,
        raw: Literal[False] = ...,
    ) -> None: ...
    @overload
    def __init__(
        self,
        source: Source[IN],
        transform: Callable[[IN], OUT],
        *,
        concurrency: int = ...,
        ordered: bool = ...,
        window: int | None = ...,
        partition_by: Callable[[IN], Hashable] | None = ...,
        per_key: int = ...,
        on_cancel: Literal["retry", "keep"] = ...,
        raw: bool = ...,
    ) -> None: ...
    def __init__(
        self,
        source: Source[IN],
        transform: Callable[[IN], Any],
        *,
        concurrency: int = 1,
        ordered: bool = True,
        window: int | None = None,
        partition_by: Callable[[IN], Hashable] | None = None,
        per_key: int = 1,
        on_cancel: Literal["retry", "keep"] = "retry",
        raw: bool = False,
    ) -> None:
        kernel = MapKernel(transform, raw)
        if type(concurrency) is not int or concurrency != 1 or window is not None:
            check_limits(concurrency, window)
        if partition_by is not None or type(per_key) is not int or per_key != 1:
            check_partition(partition_by, per_key, concurrency)
        if on_cancel != "keep":
            if on_cancel != "retry":
                raise ValueError(f'on_cancel must be "retry" or "keep", got {on_cancel!r}')
            if concurrency == 1:
                super().__init__(source, kernel)
                return
        pulled = as_pull(source)
        self._calls = ConcurrentMap(
            kernel, type(self).__name__, pulled, ordered=ordered, partition_by=partition_by
        )
        self._calls.set_limits(concurrency, window, per_key)
        # The source has called `transform` already: all items pass.
        super().__init__(cast("Any", ConcurrentSource(self._calls)), SkipKernel(0))
        # The configuration is that of the calls and their source.
        self._source, self._kernel = pulled, kernel

    @property
    def concurrency(self) -> int:
        """The maximum number of running calls; live if it was given above 1, or with `on_cancel="keep"`."""
        return 1 if self._calls is None else self._calls.concurrency

    @concurrency.setter
    def concurrency(self, concurrency: int) -> None:
        calls = self._concurrent()
        calls.set_limits(concurrency, calls.window, calls.per_key)

    @property
    def window_size(self) -> int:
        """The maximum number of items pulled and not yet delivered; live where `concurrency` is."""
        return 1 if self._calls is None else self._calls.max_held

    @window_size.setter
    def window_size(self, window: int | None) -> None:
        calls = self._concurrent()
        calls.set_limits(calls.concurrency, window, calls.per_key)

    @property
    def partition_by(self) -> Callable[[IN], Hashable] | None:
        """The callable that returns the key of an item, live where `concurrency` is: a new one applies from the next item."""
        return None if self._calls is None else self._calls.partition_by

    @partition_by.setter
    def partition_by(self, partition_by: Callable[[IN], Hashable]) -> None:
        self._partitioned().partition_by = partition_by

    @property
    def per_key(self) -> int:
        """The maximum number of running calls of a key; live where `partition_by` is."""
        return 1 if self._calls is None else self._calls.per_key

    @per_key.setter
    def per_key(self, per_key: int) -> None:
        calls = self._partitioned()
        calls.set_limits(calls.concurrency, calls.window, per_key)

    def _repr_parts(self) -> Iterator[str]:
        if self._calls is not None:
            yield from self._calls.parts()
        yield from super()._repr_parts()

    def _concurrent(self) -> ConcurrentMap[OUT]:
        if self._calls is None:
            raise AttributeError(
                "concurrency and window of this stream are fixed; make it with a concurrency above 1, "
                'or with on_cancel="keep"'
            )
        return self._calls

    def _partitioned(self) -> ConcurrentMap[OUT]:
        calls = self._concurrent()
        if calls.partition_by is None:
            raise AttributeError("this stream has no keys; make it with partition_by")
        return calls


class PullFilterObj(PullObj1To1Link[T, T], HasPredicate[T], stock=True):
    """The items for which `predicate(item)` is true.

    Law: `[x for x in source if await p(x)]`, with `await` where `predicate` returns an awaitable.
    Order: the source's.
    Bound: one item, while its `predicate` runs.
    Cost: O(1) and one call per item of the source.
    Cancel safety: an item whose `predicate` was cancelled with the pull is passed to `predicate` again at the next
    pull: at least once.

    Args:
        source: A pull object or an iterable, sync or async.
        predicate: Sync or async, called with each item.

    Raises:
        TypeError: `source` is not iterable, or `predicate` is not callable.
    """

    def __init__(self, source: Source[T], predicate: Callable[[T], Any]) -> None:
        super().__init__(source, FilterKernel(predicate))


class PullDedupeObj(PullObj1To1Link[T, T], HasMemory, stock=True):
    """Drop repeated items. **Unbounded** unless `maxsize` is given: it remembers every key.

    Law: the items of `dict.fromkeys(source)`; by `key(item)` if it is given. With
    `consecutive`, an item is dropped only if it equals the one before.
    Order: the source's.
    Bound: `maxsize` keys, the key seen longest ago is forgotten first; no bound by default. One key with `consecutive`.
    Cost: O(1) per item, and one call if there is a `key`.
    Cancel safety: an item whose `key` was cancelled with the pull is passed to `key` again at the
    next pull: at least once.

    Args:
        source: A pull object or an iterable, sync or async.
        key: Sync or async, called with each item; returns the hashable key to compare. `None`: the item itself.
        maxsize: The maximum number of remembered keys, a positive integer; `None` for no limit.
        consecutive: Whether to compare with the previous item only.

    Raises:
        TypeError: `source` is not iterable, `key` not callable, or `maxsize` is not an integer; at a pull: a key is not
            hashable.
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
        super().__init__(source, dedupe_kernel(key, maxsize, consecutive=consecutive))


class PullReduceObj(PullObj1To1Link[IN, OUT], HasReducer[IN], stock=True):
    """The running result of `reducer(accumulator, item)`: one for each item.

    Law: `list(itertools.accumulate(source, reducer))`; with `initial`, the same without `initial`
    itself.
    Order: the source's.
    Bound: the accumulator, and one item while its `reducer` runs.
    Cost: O(1) and one call per item.
    Cancel safety: an item whose `reducer` was cancelled with the pull is passed to `reducer` again at the next pull,
    with the same accumulator.

    Args:
        source: A pull object or an iterable, sync or async.
        reducer: Sync or async, called with the accumulator and each item.
        initial: The initial accumulator of a cycle; without it, the first item, which is yielded unchanged.

    Raises:
        TypeError: `source` is not iterable, or `reducer` is not callable.
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
        super().__init__(source, ReduceKernel(reducer, *(() if initial is NOTHING else (initial,))))


class PullCallbackObj(PullObj1To1Link[T, T], HasCallbacks[T], stock=True):
    """Pass items through unchanged and call each callback with them.

    Law: `[x for x in source]`, and for each item `await c(x)` for one callable after the other, with `await` where it
    returns an awaitable. Their results are ignored.
    Order: the source's. A callable is called when the one before it has finished.
    Bound: one item, while its callables run.
    Cost: O(1) and one call of each callable an item.
    Cancel safety: an item whose callables were cancelled with the pull is passed to all of them again at the next pull:
    each is called at least once for it.

    An exception of a callable is raised at the pull unchanged. That item is lost, and the callables after it are not
    called.

    Args:
        source: A pull object or an iterable, sync or async.
        *callbacks: Sync or async, called with each item; at least one.

    Raises:
        TypeError: `source` is not iterable, one of `callbacks` is not callable, or there is none.
    """

    def __init__(self, source: Source[T], *callbacks: Callable[[T], Any]) -> None:
        super().__init__(source, CallbackKernel(callbacks, _call_rest))


async def _call_rest(
    awaitable: Awaitable[Any], callbacks: tuple[Callable[[T], Any], ...], item: T
) -> None:
    """Await the result of one callback, then call the others."""
    await awaitable
    for callback in callbacks:
        result = callback(item)
        if inspect.isawaitable(result):
            await result


class PullInOrderObj(PullObj1To1Link[T, T], HasIndex[T], stock=True):
    """Yield the items in the order of their index, beginning with `start`.

    Law: `sorted(source, key=index)`, if the indexes are `start`, `start + 1` and so on, each once, and no item arrives
    more than `maxsize` too early.
    Order: that of `index(item)`. If the source ends while an index is missing, the held items are still yielded by
    index.
    Bound: `maxsize` items that arrived too early, and the items ready to be pulled.
    Cost: O(log n) in the number of items held, and one call per item.
    Cancel safety: held items stay. An item whose `index` was cancelled with the pull is passed to `index` again at the
    next pull: at least once.

    An item that fits nowhere is returned in the `OrderError` that the pull raises. The held items stay, and the stream
    stays usable.

    Args:
        source: A pull object or an iterable, sync or async.
        index: Sync or async, called with each item; returns an integer.
        start: The first index.
        maxsize: The maximum number of items held while an index is missing, a positive integer.

    Raises:
        TypeError: `source` is not iterable, `index` not callable, or `start` or `maxsize` is not an integer.
        ValueError: `maxsize` is not positive.
        OrderError: At a pull: an index is below `start`, or repeated, or more than `maxsize` items would have to be
            held. If the index is not an integer, the error is also a `TypeError`.
    """

    def __init__(
        self, source: Source[T], index: Callable[[T], Any], *, start: int = 0, maxsize: int = 1024
    ) -> None:
        super().__init__(source, InOrderKernel(index, start, maxsize))


class PullCatchObj(PullObj1To1Link[T, T | U], HasHandler, Generic[T, U], stock=True):
    """Replace each error from upstream by `handler(error)`, or by `handler(error, item)` if the handler takes two arguments.

    Law: each error of a pull of `source`, including those of all operators above, is passed to `handler`. Its return
    value is the item of this pull; with `SKIP` the pull continues with the next item; an exception it raises is raised
    here (`raise error` re-raises the original). Exceptions not derived from `Exception`, such as `CancelledError` and
    `KeyboardInterrupt`, are not caught.
    Order: the source's; the result of `handler` takes the place of the error.
    Bound: one error, while its `handler` runs.
    Cost: O(1) per item; one call per error.
    Cancel safety: as the source's. An error whose `handler` was cancelled with the pull is passed to `handler` again at
    the next pull: at least once.

    Args:
        source: A pull object or an iterable, sync or async.
        handler: Sync or async, called with each error. If it requires a second argument, that is the item for which the nearest
            callable above raised the error, or None if no callable did, as when the source raises. A parameter with a
            default does not count.

    Raises:
        TypeError: `source` is not iterable, `handler` is not callable, or takes neither one nor two arguments.
    """

    @overload
    def __init__(
        self: PullCatchObj[IN, Never],
        source: Source[IN],
        handler: Callable[[Exception], Skip | Awaitable[Skip]],
    ) -> None: ...
    @overload
    def __init__(
        self,
        source: Source[T],
        handler: Callable[[Exception], Awaitable[U | Skip]],
    ) -> None: ...
    @overload
    def __init__(self, source: Source[T], handler: Callable[[Exception], U | Skip]) -> None: ...
    @overload
    def __init__(
        self: PullCatchObj[IN, Never],
        source: Source[IN],
        handler: Callable[[Exception, Any], Skip | Awaitable[Skip]],
    ) -> None: ...
    @overload
    def __init__(
        self,
        source: Source[T],
        handler: Callable[[Exception, Any], Awaitable[U | Skip]],
    ) -> None: ...
    @overload
    def __init__(
        self, source: Source[T], handler: Callable[[Exception, Any], U | Skip]
    ) -> None: ...
    def __init__(self, source: Source[Any], handler: Callable[..., Any]) -> None:
        # Such a class would make an item of each error.
        given = cast("object", handler)
        if isinstance(given, type) and issubclass(given, BaseException):
            name = given.__name__
            raise TypeError(
                f"handler must be a function of the error, got the exception {name}; check isinstance(error, {name}) in it"
            )
        super().__init__(source, CatchKernel(handler, SKIP, takes_item(handler)))
