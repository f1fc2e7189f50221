"""`PullMapPoolObj`: maps a function over a stream under a capacity, the common use of a pool. `PullObj.map_pool()` creates it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar, cast, overload

from headrace._core import AsyncIterSource, install_native_anext
from headrace._internal.reprs import describe_value, format_repr
from headrace._internal.tasks import wait_until_done
from headrace._internal.validate import check_callable_or_none
from headrace.capacity._as_capacity import as_capacity
from headrace.capacity.node import checked_capacity
from headrace.errors import SourceCancelledError
from headrace.pool.options import RunnerOptions
from headrace.pool.runner import HierarchicalTaskPoolRunner
from headrace.pull.base import PullObj
from headrace.pull.source import Source, as_pull
from headrace.task.task import Task

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Hashable, Iterator
    from typing import Never, Self, Unpack

    from headrace._core import EventQueue
    from headrace._internal.validate import Path
    from headrace.cache.cache import Cache
    from headrace.capacity.limits import Cost
    from headrace.capacity.node import CapacitySource
    from headrace.journal.journal import Journal
    from headrace.pool.cache_use import CacheUse
    from headrace.pool.executor.executor import Executor
    from headrace.pool.journal_pass import JournalPass
    from headrace.pool.progress import TaskRun
    from headrace.pull.transform import PullMapObj
    from headrace.task.retry import Retry

IN = TypeVar("IN")
OUT = TypeVar("OUT")


class PullMapPoolObj(PullObj[OUT], stock=True):
    """Call `fn(item)` for each item as a task of a pool under `capacity`; also `source.map_pool(fn, capacity)`.

    A `HierarchicalTaskPoolRunner` runs the tasks; this stream yields their final values. After the first pull it runs
    ahead of its consumer. Use it in an `async with` block, which stops all calls at its end.

    Law: the results are those of `[await fn(item) for item in source]`; the error of an item is raised in its place.
    Order: as the calls end; with `ordered`, the order of the items.
    Bound: as in the runner: the calls that the capacity grants, `max_buffered` results that were not pulled, and one more
        for each running call.
    Cost: one asyncio task per item.
    Cancel safety: a cancelled pull loses nothing, and the calls continue.

    Args:
        source: A pull object, iterable or async iterable of items.
        fn: Called with each item; an async function, or a plain function, which is called on the event loop unless
            `thread` is true. For an async generator function, the result is the value of its `Final`; other items are
            ignored.
        capacity: The capacity under which the calls run; a number `n` is short for `CapacitySource(n)`.
        cost: The cost of a call, or a function that returns the cost for an item.
        priority: The priority, as in `Task`, or a function that returns the priority for an item.
        thread: Whether `fn` blocks and must run in threads.
        key: A function of the item that returns the key of its task. Without `journal`, a call whose key is that of one that has not ended
            fails. None for no key.
        name: This and all others are the options of `HierarchicalTaskPoolRunner`.
        on_error: As there. `"stop"` ends the stream after the first error. After a fatal error and beyond `max_failures`, the
            stream ends with a `RunStopped` behind the results of the running calls, and `.runner.drain()` returns the tasks
            that were not called.
        max_failures: The number of failed calls beyond which no more calls begin, or their share as a float.
        ordered: Whether the results are in the order of the items.
        window: With `ordered`, the maximum number of calls that run or wait for their results to be pulled.
        lookahead: The maximum number of items that are pulled and wait to be called.
        max_buffered: The number of results that were not pulled at which no more calls begin.
        retry: Whether and when a call is repeated after an error; a number `n` is short for `Retry(retries=n)`.
        retry_budget: The number of repeated calls for each first call, such as 0.2; None for no limit.
        timeout: The maximum time of each call in seconds.
        cooldown: Whether a throttled answer, such as a 429, cools down the capacity.
        max_cooldown: The maximum delay after throttled answers, in seconds.
        executor: The executor that runs the calls; None for the event loop.
        stall_after: The time in seconds after which a `StallWarning` names a call that has made no progress.
        journal: A `Journal`, or its path: a file by which a repeated run does not make the calls again that have ended. The items, or the
            results of `key`, are then the keys of the calls: strings, integers, bytes, or tuples of these.
        cache: A `Cache`: items whose results are stored take no capacity, and equal items of one moment are one call; see the runner.
        **unknown: Not accepted; the error lists the options.

    Raises:
        TypeError: `fn` is not callable, an option is unknown, or a parameter is of the wrong type.
        ValueError: A number is out of range, or the capacity can never grant a constant `cost`.
        ClosedError: The capacity is closed.
    """

    @overload
    def __init__(
        self,
        source: Source[IN],
        fn: Callable[[IN], Awaitable[OUT]],
        capacity: CapacitySource | int,
        *,
        cost: Cost | Callable[[Any], Cost] = ...,
        priority: int | Callable[[Any], int] = ...,
        thread: Literal[False] = ...,
        key: Callable[[Any], Hashable] | None = ...,
        **options: Unpack[RunnerOptions],
    ) -> None: ...
    @overload
    def __init__(
        self,
        source: Source[IN],
        fn: Callable[[IN], OUT],
        capacity: CapacitySource | int,
        *,
        cost: Cost | Callable[[Any], Cost] = ...,
        priority: int | Callable[[Any], int] = ...,
        thread: bool = ...,
        key: Callable[[Any], Hashable] | None = ...,
        **options: Unpack[RunnerOptions],
    ) -> None: ...
    def __init__(
        self,
        source: Source[Any],
        fn: Callable[[Any], Any],
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
    ) -> None:
        for option, value in cast("dict[str, object]", unknown).items():
            raise _unknown_option(option, value)
        options: RunnerOptions = {
            "name": name,
            "on_error": on_error,
            "max_failures": max_failures,
            "ordered": ordered,
            "window": window,
            "lookahead": lookahead,
            "max_buffered": max_buffered,
            "retry": retry,
            "retry_budget": retry_budget,
            "timeout": timeout,
            "cooldown": cooldown,
            "max_cooldown": max_cooldown,
            "executor": executor,
            "stall_after": stall_after,
        }
        use = None if cache is None else cache_use(cache, fn)
        capacity = as_capacity("capacity", capacity)
        call: Callable[..., Any] = fn
        cost_of = None if not callable(cost) else cost
        priority_of = None if not callable(priority) else priority
        # Creating this task also checks the arguments before the first item.
        check_callable_or_none("key", key)
        same = Task(
            call,
            cost=1 if callable(cost) else cost,
            priority=0 if callable(priority) else priority,
            thread=thread,
        )

        def task(item: Any) -> Task:
            return Task(
                call,
                item,
                cost=same.cost if cost_of is None else cost_of(item),
                priority=same.priority if priority_of is None else priority_of(item),
                thread=thread,
                key=None if task_key is None else task_key(item),
            )

        # In a journal, equal keys are occurrences of one call, which a pool would refuse.
        task_key = key if journal is None else None
        is_same = cost_of is None and priority_of is None and task_key is None
        every = same.with_args if is_same else task
        make_pass = None if journal is None else _pass_maker(journal, key, fn)
        tasks = as_pull(source).map(every)
        self._calls: Calls[OUT] = Calls(tasks, capacity, options, make_pass, use)
        if cost_of is None:
            checked_capacity(capacity, same.cost, same.priority)
        super().__init__(AsyncIterSource(self._calls))

    @property
    def source(self) -> PullObj[Any]:
        """The source of the items."""
        return cast("PullMapObj[Any, Any]", self._calls.tasks).source

    @property
    def runner(self) -> HierarchicalTaskPoolRunner:
        """The runner, for `snapshot()`, `pause()`, `cancel()` and its other methods."""
        return self._calls.runner

    def _repr_parts(self) -> Iterator[str]:
        yield from self._calls.facts()
        yield from super()._repr_parts()

    def _restarting(self) -> Generator[PullObj[Any], None, None]:
        # The link of this stream first: if a later step fails, the stream continues as before.
        yield from super()._restarting()
        yield from self._calls.restarting()


class Calls(Generic[OUT]):
    """The runs of a pool behind the stream, one for each cycle. `amap` has a subclass."""

    names_items: ClassVar[bool] = True
    """Whether the pool adds the note that names the item of an error."""

    def __init__(
        self,
        tasks: PullObj[Any],
        capacity: CapacitySource,
        options: RunnerOptions,
        make_pass: Callable[[], JournalPass] | None = None,
        cache: CacheUse | None = None,
    ) -> None:
        self.tasks = tasks
        self._make_pass = make_pass
        self._cache = cache
        self.runner: HierarchicalTaskPoolRunner[Any] = self._make_runner(capacity, options)
        self._options: RunnerOptions = {**options, "name": self.runner.name}
        self._run: TaskRun | None = None
        self._events: EventQueue | None = None
        # The event queue, once it returns results instead of events.
        self.results: EventQueue | None = None

    def _make_runner(
        self, capacity: CapacitySource, options: RunnerOptions
    ) -> HierarchicalTaskPoolRunner:
        runner = HierarchicalTaskPoolRunner(self.tasks, capacity, **options)
        config = runner._config  # pyright: ignore[reportPrivateUsage]
        config.names_items = self.names_items
        config.journal = None if self._make_pass is None else self._make_pass()
        config.cache = self._cache
        return runner

    def __aiter__(self) -> _Results[OUT]:
        return _Results(self)

    def result(self) -> Coroutine[Any, Any, OUT]:
        """Return an awaitable of the next result.

        Raises:
            StopAsyncIteration: All calls have ended.
            BaseException: The exception object of a call or of the source; the next pull continues. For a cancelled call,
                a `SourceCancelledError`.
        """
        events = self.results
        return self._first_result() if events is None else _taken(events)

    async def _first_result(self) -> OUT:
        results = self._begin()
        results.give_results(as_pull_error)
        self.results = results
        result: OUT = await _taken(results)
        return result

    def _begin(self) -> EventQueue:
        """Start the run, and return its events."""
        if self._run is None:
            self._run = self.runner.run_tasks(close_source=True)
        self._events = self._run._begin()  # pyright: ignore[reportPrivateUsage]
        return self._events

    async def aclose(self) -> None:
        """Cancel the calls, wait for them, and close the source, in the task that pulled it if that still runs."""
        try:
            try:
                if self._run is not None:
                    await self._run.aclose()
            finally:
                self._end_pass()
        finally:
            # In a separate task, because a long chain of such streams would otherwise be closed by recursion.
            closer = asyncio.Task(self.tasks.aclose(), name=f"{self.runner.name}: closer")
            if (cancellation := await wait_until_done(closer)) is not None:
                raise cancellation
            closer.result()

    def _end_pass(self) -> None:
        """Close the journal, unless the run could not be closed."""
        journal = self.runner._config.journal  # pyright: ignore[reportPrivateUsage]
        if journal is not None and (self._run is None or not self._run.running):
            journal.end()

    def restarting(self) -> Generator[PullObj[Any], None, None]:
        """Begin a new cycle; yield the source, which the caller restarts.

        Raises:
            RuntimeError: The last cycle was neither read to its end nor closed, or the source cannot restart.
        """
        if self._run is not None and self._run.running:
            raise RuntimeError(
                f"the calls of {self.runner.name} are under way: read the stream to its end or close it before restart()"
            )
        yield self.tasks
        # A new runner has no state of the last cycle, such as an item that was not called.
        self.runner = self._make_runner(self.runner.capacity, self._options)
        self._run = self._events = self.results = None

    def facts(self) -> Iterator[str]:
        """Yield the parts of the `repr` that describe the state."""
        now = self.runner.snapshot()
        yield f"{now.running} running"
        yield f"{now.unread} unread"
        if now.paused:
            yield "paused"

    def __repr__(self) -> str:
        return format_repr(self.runner.name, self.facts())


class _Results(Generic[OUT]):
    """The results of one cycle."""

    __slots__ = ("_calls", "_events")

    def __init__(self, calls: Calls[OUT]) -> None:
        self._calls = calls
        # The queue behind `__anext__` once the run has started; see `install_native_anext`.
        self._events: EventQueue | None = None

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, OUT]:
        self._events = self._calls.results
        return self._calls.result()

    def aclose(self) -> Coroutine[Any, Any, None]:
        return self._calls.aclose()


install_native_anext(_Results)


def _taken(results: EventQueue) -> Coroutine[Any, Any, Any]:
    """Return an awaitable of the next result."""
    return cast("Coroutine[Any, Any, Any]", results.take())


def _pass_maker(
    journal: Journal | Path, key: Callable[[Any], Hashable] | None, fn: Callable[..., Any]
) -> Callable[[], JournalPass]:
    """Return the maker of the passes of a stream with a journal."""
    # Late: an option that most programs do not use.
    from headrace.journal.journal import as_journal
    from headrace.pool.journal_pass import checked_item_key, pass_maker

    key_of = checked_item_key if key is None else key
    return pass_maker(as_journal("journal", journal), lambda task: key_of(task.args[0]), fn)


def cache_use(cache: Cache, fn: Callable[..., Any]) -> CacheUse:
    """Return the use of a cache by a stream that calls one function."""
    # Late: an option that most programs do not use.
    from headrace.pool.cache_use import CacheUse

    return CacheUse(cache, fn)


def _unknown_option(name: str, value: object) -> TypeError:
    """Return the error of an unknown option. Python's own would not say how many calls run at once."""
    known = ", ".join(["cost", "priority", "thread", "key", *RunnerOptions.__annotations__])
    return TypeError(
        f"map_pool has no parameter {name!r}, got {describe_value(value)}; it has {known}, "
        "and its capacity says how many calls run at once"
    )


def as_pull_error(error: BaseException) -> BaseException:
    """Return an error as a pull raises it; a `CancelledError` would be mistaken for a cancellation of the pull."""
    if isinstance(error, asyncio.CancelledError):
        cancelled = SourceCancelledError("the call was cancelled")
        cancelled.__cause__ = error
        return cancelled
    return error
