"""`PullAmapObj`: the stream of `headrace.amap`. It is a `PullMapPoolObj` whose tasks know their item.

The key of each task is a `_Call`, which the envelopes of the task carry back. So each error becomes a `Failure`, and is raised in its
place, returned, or skipped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, cast

from headrace._core import AsyncIterSource
from headrace._internal.error_notes import name_item
from headrace._internal.reprs import callable_name, describe_value, pluralize
from headrace._internal.validate import check_callable_or_none, check_flag
from headrace.capacity._as_capacity import as_capacity
from headrace.capacity.limits import Rate
from headrace.capacity.node import CapacitySource, checked_capacity
from headrace.errors import ClosedError, JournalError, RunStopped
from headrace.pool._call_progress import CallProgress, as_progress
from headrace.pool._threaded import Threaded, is_async
from headrace.pool.events import EnvelopeType
from headrace.pool.map_error import Failure, MapError
from headrace.pool.map_pool import Calls, PullMapPoolObj, as_pull_error, cache_use
from headrace.pull.source import Source, as_pull
from headrace.task.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Hashable, Sequence

    from headrace._core import EventQueue, TaskProgressEnvelope
    from headrace._internal.validate import Path
    from headrace.cache.cache import Cache
    from headrace.capacity.limits import Cost
    from headrace.journal.journal import Journal
    from headrace.pool.cache_use import CacheUse
    from headrace.pool.executor.executor import Executor
    from headrace.pool.journal_pass import JournalPass
    from headrace.pool.options import RunnerOptions
    from headrace.pull.base import PullObj
    from headrace.task.retry import Retry

OUT = TypeVar("OUT")

Errors = Literal["raise", "return", "skip"]

SOURCE_ERRORS = 100
"""The number of errors in a row of `items` after which `collect()` pulls no more of them: some iterators raise for ever."""


class PullAmapObj(PullMapPoolObj[OUT], stock=True):
    """The results of `fn(item)` for each item; `headrace.amap` creates it and describes the parameters.

    Law: as `PullMapPoolObj`; with `errors="return"` a `Failure` takes the place of an error, with `"skip"` nothing does. After a
        fatal error the stream ends with a `RunStopped`.
    Order: the order of the items, or as the calls end with `ordered=False`.
    Bound: as `PullMapPoolObj`, and for each of these calls its item.
    Cost: one asyncio task per item, and a few calls of Python functions.
    Cancel safety: a cancelled pull loses nothing, and the calls continue.
    """

    def __init__(
        self,
        fn: Callable[[Any], Any],
        items: Source[Any],
        *,
        limit: CapacitySource | int,
        rate: Rate | str | None,
        retry: Retry | int | None,
        timeout: float | None,
        ordered: bool,
        errors: Errors,
        progress: bool | Callable[[int, int | None], object],
        key: Callable[[Any], Hashable] | None,
        thread: bool | None,
        journal: Journal | Path | None,
        cache: Cache | None,
        executor: Executor | None,
    ) -> None:
        if errors not in ("raise", "return", "skip"):
            raise ValueError(
                f"errors must be 'raise', 'return' or 'skip', got {describe_value(errors)}"
            )
        capacity, cost = as_capacity("limit", limit), cast("Cost", 1)
        if rate is not None:
            # Below the limit, so that one that is shared with others has no rate of this stream.
            capacity = CapacitySource({"calls": _as_rate(rate)}, capacity)
            cost = {"slots": 1, "calls": 1}
        name = f"amap({callable_name(fn)})"
        report = as_progress(progress, name, items)
        if executor is not None and thread is True:
            raise ValueError(
                f"thread=True runs the calls in threads of the run, not in {describe_value(executor)}: give one of the two"
            )
        if executor is not None and thread is None:
            # The executor calls it as it is, also if it is plain.
            thread = False
        tasks = _Tasks(fn, cost, key, thread, timeout, report, is_journaled=journal is not None)
        checked_capacity(capacity, cost, 0)
        options: RunnerOptions = {
            "name": name,
            "ordered": ordered,
            "retry": retry,
            "timeout": timeout,
            "executor": executor,
        }
        self._outcomes: _Outcomes[OUT] = _Outcomes(
            tasks,
            as_pull(items, "items"),
            capacity,
            options,
            errors,
            None if journal is None else _pass_maker(journal, fn),
            None if cache is None else cache_use(cache, fn),
        )
        self._calls = self._outcomes
        # Not the constructor of the base, which makes its own tasks.
        super(PullMapPoolObj, self).__init__(AsyncIterSource(self._calls))

    def collect(self) -> Coroutine[Any, Any, list[OUT]]:
        """Collect all results in a list. Failed calls do not end it, so that no finished work is lost.

        Order: the stream's. Bound: all results.
        Cancel safety: a `collect()` ended by a cancellation returns its results to the stream: the next pull gets them first.

        Raises:
            MapError: Calls failed, with `errors="raise"`, after all others have ended. It has their results and the failures.
                The errors that `items` raised are among its exceptions. Or a fatal error, such as a refused key, stopped the
                run, whatever `errors` says: then a `RunStopped` is the last of its exceptions. With `errors="skip"`, its
                failures are those since then.
        """
        is_raising = self._outcomes.errors == "raise"
        return self._collect() if is_raising else self._collect_until_stopped()

    async def _collect_until_stopped(self) -> list[OUT]:
        """Collect without errors, unless the run is stopped."""
        calls = self._outcomes
        calls.collecting += 1
        try:
            try:
                return await super().collect()
            except RunStopped as error:
                stopped = _Raised(error, None)
            try:
                # The first `collect()` has returned its results to the stream, which yields them again.
                found: list[Any] = await super().collect()
            except BaseException:
                calls.keep([stopped])
                raise
        finally:
            calls.collecting -= 1
        failures = [one for one in found if isinstance(one, Failure)] + calls.take_failures()
        raised = [_Raised(failure.error, failure) for failure in failures]
        results = [one for one in found if not isinstance(one, Failure)]
        group = _map_error([*results, *raised, stopped], self.runner.name)
        try:
            raise group
        finally:
            # The tracebacks of the errors refer to this frame.
            del group, stopped, raised, failures, found

    async def _collect(self) -> list[OUT]:
        """Collect the results and the errors."""
        calls, found = self._outcomes, cast("list[OUT | _Raised]", [])
        draining: asyncio.Future[list[Any]] | None = None
        in_a_row = 0
        calls.collecting += 1
        try:
            # The number of errors in a row is above this only if the stream raises although its source is not pulled.
            while in_a_row <= SOURCE_ERRORS:
                try:
                    found.append(await anext(self))
                    in_a_row = 0
                except StopAsyncIteration:
                    break
                except Exception as error:
                    if isinstance(error, JournalError) and not isinstance(error, RunStopped):
                        # Nothing was called.
                        raise
                    failure = calls.failure_of(error)
                    found.append(_Raised(error, failure))
                    in_a_row = 0 if failure else in_a_row + 1
                if in_a_row == SOURCE_ERRORS and draining is None:
                    draining = asyncio.ensure_future(self.runner.drain())
            if draining is not None:
                found.extend(_not_called(task) for task in await draining)
        except BaseException:
            calls.keep(found)
            raise
        finally:
            calls.collecting -= 1
        if not any(isinstance(one, _Raised) for one in found):
            return cast("list[OUT]", found)
        group = _map_error(found, self.runner.name)
        try:
            raise group
        finally:
            # The tracebacks of the errors refer to this frame.
            del group, found


def _map_error(found: list[Any], name: str) -> MapError:
    """Return the error for the results and the errors that `collect()` has found."""
    raised = [one for one in found if isinstance(one, _Raised)]
    results = [one for one in found if not isinstance(one, _Raised)]
    failures = [one.failure for one in raised if one.failure is not None]
    calls = pluralize(len(results) + len(failures), "call")
    message = f"{len(failures)} of {calls} of {name} failed"
    others = [one for one in raised if one.failure is None]
    if any(isinstance(one.error, RunStopped) for one in others):
        message += "; the others were not called"
        others = [one for one in others if not isinstance(one.error, RunStopped)]
    if others:
        message += f", and its items raised {pluralize(len(others), 'error')}"
    errors = [one.error for one in raised if isinstance(one.error, Exception)]
    return MapError(message, errors, results, failures)


class _Raised:
    """An error among the results, with its failure if it is that of a call."""

    __slots__ = ("error", "failure")

    def __init__(self, error: BaseException, failure: Failure | None) -> None:
        self.error = error
        self.failure = failure


class _Call:
    """The key of a task: its item, and the index of the item."""

    __slots__ = ("index", "item")

    def __init__(self, index: int, item: Any) -> None:
        self.index = index
        self.item = item

    def __str__(self) -> str:
        # Not the item, whose `repr` may take long: each asyncio task has this in its name.
        return str(self.index)


class _NamedCall(_Call):
    """The same with the key that the user's function returns."""

    __slots__ = ("key",)

    def __init__(self, index: int, item: Any, key: Hashable) -> None:
        super().__init__(index, item)
        self.key = key

    def __str__(self) -> str:
        return str(self.key)


class _KeyedCall(_NamedCall):
    """The same for a stream in which no other call may have the key. With a journal, that is another occurrence of it."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _KeyedCall) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


def _pass_maker(journal: Journal | Path, fn: Callable[[Any], Any]) -> Callable[[], JournalPass]:
    """Return the maker of the passes of a stream with a journal."""
    # Late: an option that most programs do not use.
    from headrace.journal.journal import as_journal
    from headrace.pool.journal_pass import checked_item_key, pass_maker

    def key_of(task: Task) -> Hashable:
        call = cast("_Call", task.key)
        return call.key if isinstance(call, _NamedCall) else checked_item_key(call.item)

    return pass_maker(as_journal("journal", journal), key_of, fn)


class _Tasks:
    """Makes the task of each item."""

    def __init__(
        self,
        fn: Callable[[Any], Any],
        cost: Cost,
        key: Callable[[Any], Hashable] | None,
        thread: bool | None,
        timeout: float | None,
        progress: CallProgress | None,
        *,
        is_journaled: bool,
    ) -> None:
        self._cost = cost
        self._key = check_callable_or_none("key", key)
        self._call_type = _NamedCall if is_journaled else _KeyedCall
        self.progress = progress
        self._count = 0
        # Creating this task checks the function.
        Task(cast("Any", fn), thread=thread is not None and check_flag("thread", thread))
        self._fn = fn
        self.threaded: Threaded | None = None
        self._thread = thread is True
        if thread is None and not is_async(fn):
            self.threaded = Threaded(fn, timeout)
            self._fn = self.threaded.function()

    def of(self, item: Any) -> Task:
        """Return the task of the next item."""
        index, key = self._count, self._key
        self._count += 1
        call = _Call(index, item) if key is None else self._call_type(index, item, key(item))
        threaded, progress = self.threaded, self.progress
        return Task(
            self._fn,
            item,
            key=call,
            cost=self._cost,
            thread=self._thread if threaded is None else not threaded.is_async,
            on_complete=None if progress is None else progress.completed,
            on_error=None if progress is None else progress.failed,
        )

    def begin(self) -> None:
        """Note that a cycle has begun, on the running loop."""
        if self.threaded is not None:
            self.threaded.loop = asyncio.get_running_loop()
        if self.progress is not None:
            self.progress.open()

    def end(self) -> None:
        """End what belongs to a cycle."""
        if self.threaded is not None:
            self.threaded.cancel()
        if self.progress is not None:
            self.progress.close()

    def restart(self) -> None:
        """Count the items from 0."""
        self._count = 0


class _Outcomes(Calls[OUT]):
    """The runs behind the stream; each failed call becomes what `errors` says."""

    # The index of the `_Call` also counts the items whose `key` raised.
    names_items = False

    def __init__(
        self,
        tasks: _Tasks,
        items: PullObj[Any],
        capacity: CapacitySource,
        options: RunnerOptions,
        errors: Errors,
        make_pass: Callable[[], JournalPass] | None,
        cache: CacheUse | None,
    ) -> None:
        super().__init__(items.map(tasks.of), capacity, options, make_pass, cache)
        self._makes = tasks
        self.errors: Errors = errors
        # The number of `collect()` that run, and the last failure that was raised meanwhile.
        self.collecting = 0
        self._raised: Failure | None = None
        # The failures that were skipped meanwhile, since the run was stopped.
        self._skipped: list[Failure] = []
        # The results of a cancelled `collect()`.
        self._kept: deque[Any] = deque()

    def keep(self, found: Sequence[Any]) -> None:
        """Take back what was pulled, for the next pulls."""
        self._kept.extendleft(reversed(found))

    def failure_of(self, error: BaseException) -> Failure | None:
        """Return the failure whose error a pull has just raised, or None if `items` raised it."""
        raised, self._raised = self._raised, None
        return raised if raised is not None and raised.error is error else None

    def take_failures(self) -> list[Failure]:
        """Return the failures that `collect()` has skipped since the run was stopped."""
        taken, self._skipped = self._skipped, []
        return taken

    def _is_stopped(self) -> bool:
        return self._run is not None and self._run._run.draining  # pyright: ignore[reportPrivateUsage]

    async def result(self) -> Any:
        """Return the next result; raise the error of the next call that failed, or that of the source."""
        if self._kept:
            kept = self._kept.popleft()
            if not isinstance(kept, _Raised):
                return kept
            self._raise(kept.error, kept.failure)
        while True:
            envelope = await self._next_event()
            if envelope.type is EnvelopeType.FINAL:
                return envelope.value
            if envelope.error is None:
                # A value on the way, of an async generator.
                continue
            failure = self._failure(envelope)
            if self.errors == "return":
                return failure
            if self.errors == "raise":
                self._raise(failure.error, failure)
            if self.collecting and self._is_stopped():
                self._skipped.append(failure)

    async def _next_event(self) -> TaskProgressEnvelope[Any]:
        events = self._events
        try:
            return await (self._begin() if events is None else events).take()
        except StopAsyncIteration:
            self._makes.end()
            raise

    def _failure(self, envelope: TaskProgressEnvelope[Any]) -> Failure:
        call = cast("_Call", envelope.key)
        error = as_pull_error(cast("BaseException", envelope.error))
        name_item(error, self.runner.name, call.index, call.item)
        return Failure(call.index, call.item, error, envelope.attempt)

    def _raise(self, error: BaseException, failure: Failure | None) -> NoReturn:
        if self.collecting:
            self._raised = failure
        try:
            raise error
        finally:
            # The traceback refers to this frame.
            del error, failure

    def _begin(self) -> EventQueue:
        self._makes.begin()
        return super()._begin()

    async def aclose(self) -> None:
        """Cancel the calls, wait for them, and close the source."""
        self._makes.end()
        await super().aclose()

    def restarting(self) -> Generator[PullObj[Any], None, None]:
        """Begin a new cycle; yield the source, which the caller restarts."""
        yield from super().restarting()
        self._kept.clear()
        self._skipped.clear()
        self._makes.restart()


def _as_rate(rate: object) -> Rate:
    if isinstance(rate, str):
        return Rate.parse(rate)
    if not isinstance(rate, Rate):
        raise TypeError(
            f"rate must be a string such as '500/m', or a Rate, got {describe_value(rate)}"
        )
    return rate


def _not_called(task: Task) -> _Raised:
    """Return the failure of an item whose task was not called."""
    call = cast("_Call", task.key)
    error = ClosedError(
        f"item {call.index} was not called: the items raised too many errors in a row"
    )
    return _Raised(error, Failure(call.index, call.item, error, 0))
