"""`PoolMethod`: the method `map_pool()` of `PullObj`, with the options of the pool. `Fluent` derives from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from headrace.pull._merge_methods import MergeMethods

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable
    from typing import Never, Unpack

    from headrace._internal.validate import Path
    from headrace.cache.cache import Cache
    from headrace.capacity.limits import Cost
    from headrace.capacity.node import CapacitySource
    from headrace.journal.journal import Journal
    from headrace.pool.executor.executor import Executor
    from headrace.pool.map_pool import PullMapPoolObj
    from headrace.pool.options import RunnerOptions
    from headrace.task.retry import Retry

T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")


class PoolMethod(MergeMethods[T_co]):
    """The base class that gives `PullObj` its method `map_pool`; use `PullObj` itself."""

    @overload
    def map_pool(
        self,
        fn: Callable[[T_co], Awaitable[U]],
        capacity: CapacitySource | int,
        *,
        cost: Cost | Callable[[Any], Cost] = ...,
        priority: int | Callable[[Any], int] = ...,
        thread: Literal[False] = ...,
        key: Callable[[Any], Hashable] | None = ...,
        **options: Unpack[RunnerOptions],
    ) -> PullMapPoolObj[U]: ...
    @overload
    def map_pool(
        self,
        fn: Callable[[T_co], U],
        capacity: CapacitySource | int,
        *,
        cost: Cost | Callable[[Any], Cost] = ...,
        priority: int | Callable[[Any], int] = ...,
        thread: bool = ...,
        key: Callable[[Any], Hashable] | None = ...,
        **options: Unpack[RunnerOptions],
    ) -> PullMapPoolObj[U]: ...
    def map_pool(
        self,
        fn: Callable[[T_co], Any],
        capacity: CapacitySource | int,
        *,
        cost: Cost | Callable[[Any], Cost] = 1,
        priority: int | Callable[[Any], int] = 0,
        thread: bool = False,
        key: Callable[[Any], Hashable] | None = None,
        name: str | None = None,
        on_error: Literal["stop_if_fatal", "continue", "stop"] = "stop_if_fatal",
        max_failures: float | None = None,
        ordered: bool = False,
        window: int | None = None,
        lookahead: int = 1,
        max_buffered: int = 1024,
        retry: Retry | int | None = None,
        retry_budget: float | None = None,
        timeout: float | None = None,
        cooldown: bool | None = True,
        max_cooldown: float = 300.0,
        executor: Executor | None = None,
        stall_after: float | None = None,
        journal: Journal | Path | None = None,
        cache: Cache | None = None,
        **unknown: Never,
    ) -> PullMapPoolObj[Any]:
        """Run `fn(item)` for each item in a task pool under a capacity; see `PullMapPoolObj`."""
        from headrace.pool.map_pool import PullMapPoolObj

        return PullMapPoolObj(
            self,
            fn,
            capacity,
            cost=cost,
            priority=priority,
            thread=thread,
            key=key,
            name=name,
            on_error=on_error,
            max_failures=max_failures,
            ordered=ordered,
            window=window,
            lookahead=lookahead,
            max_buffered=max_buffered,
            retry=retry,
            retry_budget=retry_budget,
            timeout=timeout,
            cooldown=cooldown,
            max_cooldown=max_cooldown,
            executor=executor,
            stall_after=stall_after,
            journal=journal,
            cache=cache,
            **unknown,
        )
