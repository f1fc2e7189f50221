"""`amap` and `map`: a function over many items under a limit, with a rate, retries, progress, and the errors.

They are exported as `headrace.amap` and `headrace.map`; `map` is not in `__all__`, since it would replace the builtin.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, overload

from headrace._internal.thread_runner import run_in_thread_loop
from headrace.pool.amap import PullAmapObj

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable
    from typing import Required, Unpack

    from headrace._internal.validate import Path
    from headrace.cache.cache import Cache
    from headrace.capacity.limits import Rate
    from headrace.capacity.node import CapacitySource
    from headrace.journal.journal import Journal
    from headrace.pool.amap import Errors
    from headrace.pool.executor.executor import Executor
    from headrace.pool.map_error import Failure
    from headrace.pull.source import Source
    from headrace.task.retry import Retry

    class _Options(TypedDict, total=False):
        """The parameters that do not change the type of the result."""

        limit: Required[CapacitySource | int]
        rate: Rate | str | None
        retry: Retry | int | None
        timeout: float | None
        ordered: bool
        progress: bool | Callable[[int, int | None], object]
        key: Callable[[Any], Hashable] | None
        thread: bool | None
        journal: Journal | Path | None
        cache: Cache | None
        executor: Executor | None


IN = TypeVar("IN")
OUT = TypeVar("OUT")


@overload
def amap(
    fn: Callable[[IN], Awaitable[OUT]],
    items: Source[IN],
    *,
    errors: Literal["raise", "skip"] = ...,
    **options: Unpack[_Options],
) -> PullAmapObj[OUT]: ...
@overload
def amap(
    fn: Callable[[IN], Awaitable[OUT]],
    items: Source[IN],
    *,
    errors: Literal["return"],
    **options: Unpack[_Options],
) -> PullAmapObj[OUT | Failure]: ...
@overload
def amap(
    fn: Callable[[IN], OUT],
    items: Source[IN],
    *,
    errors: Literal["raise", "skip"] = ...,
    **options: Unpack[_Options],
) -> PullAmapObj[OUT]: ...
@overload
def amap(
    fn: Callable[[IN], OUT],
    items: Source[IN],
    *,
    errors: Literal["return"],
    **options: Unpack[_Options],
) -> PullAmapObj[OUT | Failure]: ...
def amap(
    fn: Callable[[Any], Any],
    items: Source[Any],
    *,
    limit: CapacitySource | int,
    rate: Rate | str | None = None,
    retry: Retry | int | None = None,
    timeout: float | None = None,
    ordered: bool = True,
    errors: Errors = "raise",
    progress: bool | Callable[[int, int | None], object] = False,
    key: Callable[[Any], Hashable] | None = None,
    thread: bool | None = None,
    journal: Journal | Path | None = None,
    cache: Cache | None = None,
    executor: Executor | None = None,
) -> PullAmapObj[Any]:
    """Call `fn(item)` for each item, at most `limit` at once, and return the stream of the results.

        texts = await amap(fetch, ["/a", "/b"], limit=20, retry=2).collect()

    Nothing is called before the first pull. Then calls begin ahead of the consumer, until 1024 results are unread. Use `async with`
    to stop all calls when the block is left early.

    Law: the results are those of `[await fn(item) for item in items]`.
    Order: the order of the items; with `ordered=False`, as the calls end.
    Bound: `limit` running calls, their items, and 1024 results that were not pulled.
    Cost: one asyncio task per item.
    Cancel safety: a cancelled pull or `collect()` loses no result, and the calls continue.

    Args:
        fn: An async function, or a plain one, which is called in threads. If a plain function returns an awaitable, as
            `lambda url: fetch(url, client)` does, the event loop awaits that.
        items: The items: an iterable or an async iterable, finite or not.
        limit: The number of calls at once, or a `CapacitySource`, which others may share.
        rate: The maximum rate of calls: `"500/m"`, per `s`, `m`, `h` or `d`; `"auto"` to follow the server; or a `Rate`. None for no
            maximum.
        retry: The number of calls after the first that failed, or a `Retry`, which says when and after which errors.
        timeout: The maximum time of each call in seconds. A call that takes longer fails with a `TimeoutError`.
        ordered: Whether the results are in the order of the items.
        errors: `"raise"` raises the error of an item in its place, and the next pull continues; `collect()` finishes all
            calls and then raises a `MapError`. `"return"` yields a `Failure` in its place. `"skip"` drops it. After a fatal
            error, such as a refused key, no more items are called with any of them: the running calls end, and then the
            stream raises `RunStopped`, and `collect()` a `MapError` with everything.
        progress: True shows a bar of tqdm or rich on the standard error stream, or in a notebook one of HTML. A function is
            called on the event loop with `(done, total)` after each call that has ended; `total` is None if `items` has no length.
        key: A function of the item whose result names the call in messages, such as those of `headrace.explain`. Without `journal`, a
            call whose key is that of one that has not ended fails. None for the index of the item.
        thread: Whether `fn` is called in threads; None for plain functions only. False calls a plain function on the event loop.
        journal: A `Journal`, or its path: a file by which a repeated run does not make the calls again that have ended. The items, or the
            results of `key`, are then the keys of the calls: strings, integers, bytes, or tuples of these.
        cache: A `Cache`: items whose results are stored are not called, and equal items of one moment are one call.
        executor: An executor that runs the calls, such as a `ProcessExecutor`, also those of a plain function; it outlives the stream, and
            you close it. None for the event loop, and for threads of the run.

    Raises:
        TypeError: A parameter is of the wrong type.
        ValueError: A number is out of range, `rate` is no rate, `errors` is none of the three, or `thread` is True with an `executor`.
        ImportError: `progress` is True, and neither tqdm nor rich is installed, outside a notebook.
    """
    return PullAmapObj(
        fn,
        items,
        limit=limit,
        rate=rate,
        retry=retry,
        timeout=timeout,
        ordered=ordered,
        errors=errors,
        progress=progress,
        key=key,
        thread=thread,
        journal=journal,
        cache=cache,
        executor=executor,
    )


@overload
def map(
    fn: Callable[[IN], Awaitable[OUT]],
    items: Source[IN],
    *,
    errors: Literal["raise", "skip"] = ...,
    **options: Unpack[_Options],
) -> list[OUT]: ...
@overload
def map(
    fn: Callable[[IN], Awaitable[OUT]],
    items: Source[IN],
    *,
    errors: Literal["return"],
    **options: Unpack[_Options],
) -> list[OUT | Failure]: ...
@overload
def map(
    fn: Callable[[IN], OUT],
    items: Source[IN],
    *,
    errors: Literal["raise", "skip"] = ...,
    **options: Unpack[_Options],
) -> list[OUT]: ...
@overload
def map(
    fn: Callable[[IN], OUT],
    items: Source[IN],
    *,
    errors: Literal["return"],
    **options: Unpack[_Options],
) -> list[OUT | Failure]: ...
def map(
    fn: Callable[[Any], Any],
    items: Source[Any],
    *,
    limit: CapacitySource | int,
    rate: Rate | str | None = None,
    retry: Retry | int | None = None,
    timeout: float | None = None,
    ordered: bool = True,
    errors: Errors = "raise",
    progress: bool | Callable[[int, int | None], object] = False,
    key: Callable[[Any], Hashable] | None = None,
    thread: bool | None = None,
    journal: Journal | Path | None = None,
    cache: Cache | None = None,
    executor: Executor | None = None,
) -> list[Any]:
    """Call `fn(item)` for each item, at most `limit` at once, and return the list of the results. For code without an event loop.

    Example: `texts = headrace.map(fetch, ["/a", "/b"], limit=20, retry=2)`. The parameters are those of `amap`.

    All calls of a thread use one event loop, so that a client made at the level of a module stays usable from one call to the
    next. Ctrl-C cancels the calls, waits until they have ended, and raises `KeyboardInterrupt`. An `executor` also stays usable; it is
    closed with the event loop, when the thread or the program ends.

    Order: the order of the items; with `ordered=False`, as the calls end.
    Bound: all results.

    Raises:
        MapError: Calls failed, with `errors="raise"`, after all others have ended. It has their results and the failures. Or
            a fatal error, such as a refused key, stopped the calls, whatever `errors` says.
        RuntimeError: An event loop runs in this thread, as in a notebook.
        TypeError: As `amap`; the same for its other errors.
    """
    if asyncio._get_running_loop() is not None:  # pyright: ignore[reportPrivateUsage]  # the public function raises
        raise RuntimeError(
            "headrace.map() cannot wait inside a running event loop, such as that of a notebook; "
            "use `await headrace.amap(...).collect()`, with the same arguments"
        )
    stream = PullAmapObj[Any](
        fn,
        items,
        limit=limit,
        rate=rate,
        retry=retry,
        timeout=timeout,
        ordered=ordered,
        errors=errors,
        progress=progress,
        key=key,
        thread=thread,
        journal=journal,
        cache=cache,
        executor=executor,
    )
    return run_in_thread_loop(_collected(stream), executor)


async def _collected(stream: PullAmapObj[OUT]) -> list[OUT]:
    async with stream:
        return await stream.collect()
