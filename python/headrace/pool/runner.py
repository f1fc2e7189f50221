"""`HierarchicalTaskPoolRunner`: runs the tasks of a source under a capacity. Used by `PullMapPoolObj`, `cli.map` and `cli.groups`."""

from __future__ import annotations

import asyncio
import time
from itertools import count
from typing import TYPE_CHECKING, Any, Generic, Literal, cast, overload

from headrace._internal.copying import Uncopied
from headrace._internal.reprs import NotebookMixin, describe_value, format_repr, short_repr
from headrace._internal.typevars import R, R_co
from headrace._internal.validate import check_flag, check_int, check_positive, check_time_limit
from headrace.capacity._as_capacity import as_capacity
from headrace.errors import SourceCancelledError
from headrace.pool.config import Config
from headrace.pool.events import EnvelopeType
from headrace.pool.failure_limits import check_max_failures, check_retry_budget
from headrace.pool.progress import TaskRun
from headrace.pool.snapshot import PoolSnapshot, snapshot_of
from headrace.pull.source import Source, as_pull
from headrace.task.retry import Retry, as_retry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator
    from typing import Unpack

    from headrace._internal.validate import Path
    from headrace.cache.cache import Cache
    from headrace.capacity.node import CapacitySource
    from headrace.journal.journal import Journal
    from headrace.pool.cache_use import CacheUse
    from headrace.pool.executor.executor import Executor
    from headrace.pool.journal_pass import JournalPass
    from headrace.pool.options import RunnerOptions
    from headrace.pool.run import Run
    from headrace.task.task import Task

_numbers = count(1)

MOST_IDS = 2**64
"""An upper bound of task ids."""


class HierarchicalTaskPoolRunner(NotebookMixin, Uncopied, Generic[R_co]):
    """Run the tasks of a source under a capacity, and report their events in envelopes.

    A task is an async function, an async generator function, a plain function that is called on the event loop, or a
    `Task`. If a plain function returns a coroutine, an async generator or another awaitable, it is run; any other result
    is the final value. Each task runs as its own `asyncio.Task`, in a copy of the context of
    `run_tasks()` or, for a `Task`, of the context in which it was created.

    A task is called only after its capacity is granted. The runner pulls one task ahead (or `lookahead`), acquires its
    cost, starts it, and then pulls the next; it holds no capacity while its source is idle. A task that ends frees its
    capacity for the next one without waiting for the consumer. A task that cannot be called yields an `ERROR` envelope
    at once, and the run continues. Examples are an item that is not a task, a cost that the capacity can never grant, and
    the key of a task that has not ended.

    A source that is an `OutcomeListener`, such as a dependency source, is notified of the outcome of each of its items.

    Order: tasks are called in the order of the source. With `lookahead` above 1, priorities and costs decide among the
        waiting tasks. Envelopes are in the order of events or, with `ordered`, grouped in the order of tasks.
    Bound: the running tasks fit in the capacity. At most `lookahead` tasks are pulled and not called. At most
        `max_buffered` envelopes are unread, and one more for each running task: at `max_buffered` no more tasks are
        called and tasks that yield wait, but running tasks can still end. No new task is called while `max_buffered`
        tasks are in the delay before a retry; tasks already running may be added to these. With `ordered`, at most
        `window` tasks are between the first that has not ended and the last that was called, and `max_buffered` more
        envelopes may be held back for the order. Tasks that were called may exceed that while the first one waits for
        capacity which they may hold.
    Cost: one asyncio task and O(1) bookkeeping per task; O(log n) for a timeout, in the tasks that have one.
    Cancel safety: a cancelled pull of an envelope loses nothing; leaving the run loses no task that was not called.

    Args:
        source: The source of the tasks: a pull object, most often `PushPullBufferObj.source`, or any iterable or async
            iterable. The runner closes it only with `run_tasks(close_source=True)`; otherwise the next run continues
            where the last one stopped. Exception: leaving a run or `drain()` may cancel a pull, which ends an async
            generator of yours (see `SourceIterObj`). Add `.prefetch()` behind the generator to keep it usable.
        capacity: The capacity under which the tasks run, with all its ancestors. It can be shared with other users. A number
            `n` is short for `CapacitySource(n)`: `n` tasks at once.
        name: The name in messages, asyncio tasks and threads; None for `"pool-1"` and so on.
        on_error: `"stop_if_fatal"` stops the run at the first error that every later call would repeat, such as a refused
            key or an exhausted quota: one that `headrace.classify`, or the `classify` of its `Retry`, finds *fatal*. Then no
            more tasks are called, also none again. Running tasks run to their end, tasks that wait for another call end
            with a `CancelledError`, and the stream of envelopes ends with a `RunStopped`. `"continue"` does not stop.
            `"stop"` ends the run at the first `ERROR` of any kind: no more tasks are called, running tasks are cancelled
            and awaited, each with its own envelope, and the stream of envelopes ends. In each case, `drain()` returns the
            tasks that were pulled and not called; otherwise the next run calls them first.
        max_failures: The number of failed tasks, an integer from 0, beyond which the run stops as by a fatal error; or, as a
            float between 0 and 1, their share of the tasks that have ended, which is compared from 20 ended tasks on. A
            task that is called again has not failed yet, and a cancelled one is not counted. None for no limit.
        ordered: Whether all envelopes of a task precede those of the tasks that were pulled after it.
        window: With `ordered`, the maximum number of tasks that run or wait for their envelopes to be read; a positive
            integer, None for `max_buffered`.
        lookahead: The maximum number of tasks that are pulled and wait to be called, a positive integer.
        max_buffered: The number of unread envelopes, a positive integer, at which no more tasks are called and tasks that
            yield wait. Running tasks are not stopped: each adds one envelope when it ends, so the number of unread
            envelopes may be larger by the number of running tasks.
        retry: Whether and when a task is called again after an error. A number `n` is short for `Retry(retries=n)`: n
            calls after the first. None for no retries. A `Task` may have its own policy.
        retry_budget: The maximum number of retries in a run for each first call, above 0 and at most 1, and 10 more: 0.2 for
            1.2 calls a task. At most 100 unused ones are saved, or as many as tasks are under way. A task that fails
            when none is left ends with its error, which gets a note. Calls after a throttled answer that `cooldown`
            handles are not counted. None for no limit.
        timeout: The maximum time of each call of a task in seconds, without the wait for capacity; None for no limit. A
            `Task` may have its own timeout.
        cooldown: Whether a throttled answer, such as a 429 (see `headrace.classify`), cools down the node of the service:
            `capacity.cooldown_node`. Nothing is called there before the delay that the server requires is over, or a
            back-off of the node from 0.5 to 64 s if it requires none; see `CapacitySource.cool_down`. If the answer lowers
            an `AdaptiveLimit` of the path instead, the node pauses for at most one mean duration of a call. The task is then
            called again before all that were pulled after it. The answer costs it no attempt, also without `retry`.
            A `queue_timeout` does not run meanwhile. A task that has yielded values is called again only if its `Retry`
            says so, as another attempt. False or None treats the answer as any other error.
        max_cooldown: The maximum delay in seconds that a server may require, and the maximum sum of the delays of a task, a
            positive number. Beyond it the task ends with a `ThrottledError`. An answer without a delay counts as half a second
            or more. A longer single delay cools the node down for this time, once; calls that the server refuses with the rest
            of that delay end their tasks at once.
        executor: The executor that runs the tasks, except those with `thread=True`; None for the event loop. It is
            started by the first task, and not closed: it may serve several runners at a time, on one event loop.
        stall_after: The time in seconds after which a `StallWarning` names a call that has made no progress: that was not
            called and yielded no value in this time. The warning comes at most a quarter of it late, once for each such
            time, with the top of the stack. The call goes on. None for no warning.
        journal: A `Journal`, or its path. Tasks whose end it has recorded are not called: their results are delivered. Each task needs
            a key then, a string, an integer, bytes, or a tuple of these. None for no journal.
        cache: A `Cache`, whose `key` is called with the arguments of each task. A task whose result is stored gets it without
            capacity, and is not called. While an equal task runs or waits to be called, a task waits for its result, and
            holds nothing; if that task fails, or is cancelled or given back before its call, the next one is called. If it is
            cancelled, or exceeds its timeout, during its call, only that task ends: the call goes on, with its lease, while one
            task waits, and their own timeouts limit these waits. At most `max_buffered` tasks wait so. Their envelopes have
            `attempt` 0. Only final values are stored. None for no cache.

    Raises:
        TypeError: `source` cannot be iterated, `capacity` is neither a `CapacitySource` nor an integer, or another parameter
            is of the wrong type.
        ValueError: A number or a share is out of range, `on_error` is unknown, or `window` is given without `ordered`.
    """

    @overload
    def __init__(
        self: HierarchicalTaskPoolRunner[R],
        source: Source[Task[R]],
        capacity: CapacitySource | int,
        **options: Unpack[RunnerOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: HierarchicalTaskPoolRunner[R],
        source: Source[Callable[[], Awaitable[R]]],
        capacity: CapacitySource | int,
        **options: Unpack[RunnerOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: HierarchicalTaskPoolRunner[Any],
        source: Source[Callable[[], Any] | Task],
        capacity: CapacitySource | int,
        **options: Unpack[RunnerOptions],
    ) -> None: ...
    def __init__(
        self,
        source: Source[Callable[[], Any] | Task],
        capacity: CapacitySource | int,
        *,
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
    ) -> None:
        _check_executor(executor)
        _check(name, on_error, ordered)
        capacity = as_capacity("capacity", capacity)
        check_int("max_buffered", 1, max_buffered)
        if window is None:
            window = max_buffered if ordered else None
        elif not ordered:
            raise ValueError(f"window needs ordered=True, got window={window!r} without it")
        else:
            check_int("window", 1, window)
        self._config: Config[Run] = Config(
            name=f"pool-{next(_numbers)}" if name is None else name,
            source=as_pull(source),
            given=source,
            capacity=capacity,
            on_error=on_error,
            max_failures=check_max_failures(max_failures),
            window=window,
            lookahead=check_int("lookahead", 1, lookahead),
            max_buffered=max_buffered,
            retry=as_retry("retry", retry),
            retry_budget=check_retry_budget(retry_budget),
            timeout=check_time_limit("timeout", timeout),
            max_cooldown=_checked_cooldown(cooldown, max_cooldown),
            executor=executor,
            stall_after=check_time_limit("stall_after", stall_after),
            journal=None if journal is None else _pass(journal),
            cache=None if cache is None else _cache_use(cache),
        )

    @property
    def name(self) -> str:
        """The name in messages, asyncio tasks and threads."""
        return self._config.name

    @property
    def capacity(self) -> CapacitySource:
        """The capacity under which the tasks run."""
        return self._config.capacity

    def run_tasks(self, *, close_source: bool = False) -> TaskRun[R_co]:
        """Create a run: an async context manager and the stream of its envelopes.

            async with runner.run_tasks() as progress:
                async for envelope in progress:
                    ...

        The run ends when the source and all tasks have ended. Leaving the block earlier, for any reason, cancels the
        running tasks and waits until they have stopped. A thread cannot be cancelled; the block waits until it ends.

        Args:
            close_source: Whether leaving the block earlier, or stopping at errors, also closes the source. It is closed
                after everything has stopped, by the asyncio task that pulled it. `drain()` never closes it.

        Raises:
            RuntimeError: A run of this runner is active.
            TypeError: `close_source` is not a bool.
        """
        self._config.check_idle()
        return TaskRun(self._config, close_source=check_flag("close_source", close_source))

    async def run(self) -> list[R_co]:
        """Run all tasks to their end, and return the final values. **Unbounded**: it holds all of them.

        Intermediate values are discarded.

        Returns:
            The final values, in the order in which the tasks ended or, with `ordered`, in the order of the source.

        Raises:
            BaseException: The exception object of the first failed task, after all tasks have ended or, with
                `on_error="stop"`, after the running tasks were stopped. A note gives the number of errors. For a
                cancelled task, a `SourceCancelledError`. An error of the source is raised at once.
            RunStopped: A fatal error or `max_failures` stopped the run, and the running tasks have ended.
            RuntimeError: A run of this runner is active.

        Cancel safety: a cancellation stops the running tasks, as leaving `run_tasks()` does, and the values are lost.
        """
        values: list[R_co] = []
        failed = 0
        async with self.run_tasks() as progress:
            async for envelope in progress:
                if envelope.type is EnvelopeType.FINAL:
                    values.append(envelope.value)
                elif envelope.type is EnvelopeType.ERROR:
                    failed += 1
            error = progress.first_error
        if error is None:
            return values
        if isinstance(error, asyncio.CancelledError):
            cancelled = SourceCancelledError(f"a task of {self.name} was cancelled")
            cancelled.__cause__ = error
            error = cancelled
        if failed > 1:
            error.add_note(f"the first of {failed} errors of {self.name}")
        raise error

    def drain(self, timeout: float | None = None) -> Coroutine[Any, Any, list[Any]]:
        """End the run gracefully: call no new tasks, wait for those already called, and return the others.

        Tasks in the delay before a retry are still retried. Envelopes are still produced, and must be read if tasks yield
        more than `max_buffered`; then the stream ends. A pending pull of the source is cancelled. This ends an async
        generator of yours, and the next run raises `SourceCancelledError`. Use
        `SourceIterObj(generator()).prefetch()` as the source to avoid this.

        Args:
            timeout: Seconds after which tasks that still run are cancelled, as by `abort()`; None for no limit.

        Returns:
            The items that were pulled and never called, in their order; the source still has all later items. The runner
            will not call them. Without an active run, the items left by the last run.

        Raises:
            TypeError: `timeout` is not a number.
            ValueError: `timeout` is not positive.
            RuntimeError: The caller is a task of the run, which would wait for itself.
            WrongLoopError: The run was started on another event loop.

        An asyncio task started by a task of the run may drain the run, and the task may wait for it, as in
        `asyncio.gather(runner.drain())`. The call waits for the other tasks only. A call by other code inside the run, such
        as a helper in that asyncio task, or a callback, does not know the task, and waits until one task is left.

        Cancel safety: the run continues to drain, and tasks that were not called stay with the runner.
        """
        run = self._config.run
        # Noted before the first step, which another asyncio task may take.
        return self._drain(timeout, None if run is None else run.caller())

    async def _drain(self, timeout: float | None, caller: int | None) -> list[Any]:
        timeout = check_time_limit("timeout", timeout)
        if (run := self._config.run) is not None:
            await run.drain(timeout, caller)
            # The run may have tasks left that wait for this call.
            run.keep_unstarted()
        items = list(self._config.unstarted)
        self._config.unstarted.clear()
        return items

    async def abort(self, *, wait: bool = True) -> tuple[int, ...]:
        """End the run now: call no more tasks, cancel running tasks, and wait until they have stopped.

        Each task that was called gets its last envelope, usually an `ERROR` with `CancelledError`. The envelopes can still
        be read, and then the stream ends. Tasks that were not called stay with the runner for its next run. Without an
        active run the call has no effect.

        Args:
            wait: False does not wait for work in threads, which cannot be cancelled. Its `ERROR` envelope says so; the
                thread continues, and holds its capacity until it ends.

        Returns:
            The ids of the tasks that were left running; empty with `wait`.

        Raises:
            RuntimeError: The caller is a task of the run, which would wait for itself.
            WrongLoopError: The run was started on another event loop.

        Cancel safety: a cancellation is raised only after everything has stopped or the consumer leaves. It is raised at
            once in an asyncio task started by a task of the run, because that task may wait for it. Code that ends its own
            run by `wait_for(runner.abort(), 5)` is therefore cancelled with the rest. A task in a thread, and one that is
            cancelled already, may wait for a call that it has started: the call returns when only such tasks are left.
        """
        run = self._config.run
        return () if run is None else await run.abort(wait=wait)

    def cancel(self, task_id: int) -> bool:
        """Cancel one task, in any state; its capacity is released when it has stopped.

        Its last envelope is usually an `ERROR` with `CancelledError`. A task may suppress the cancellation, like any
        asyncio task, and a thread cannot be cancelled. Such a task ends normally, and is not retried. With `cache=`, a call for
        which equal tasks wait goes on without its task.

        Args:
            task_id: The id in the envelopes of the task.

        Returns:
            Whether there is an unfinished task with this id.

        Raises:
            TypeError: `task_id` is not an integer.
        """
        if not isinstance(cast("object", task_id), int) or isinstance(task_id, bool):
            raise TypeError(f"task_id must be an integer, not {describe_value(task_id)}")
        run = self._config.run
        return run is not None and 0 < task_id < MOST_IDS and run.engine.cancel(task_id)

    def pause(self) -> None:
        """Call no more tasks until `resume()`; running tasks continue. A paused runner does not wait for capacity.

        Without an active run, it applies to later runs. Idempotent.
        """
        if not self._config.paused:
            self._config.paused_at = time.monotonic()
        self._config.paused = True
        if self._config.run is not None:
            self._config.run.update_state()

    def resume(self) -> None:
        """Undo `pause()`."""
        self._config.paused = False
        if self._config.run is not None:
            self._config.run.update_state()

    def snapshot(self) -> PoolSnapshot:
        """Return a snapshot of the current state. O(depth of the tree of capacities)."""
        return snapshot_of(self._config)

    def __repr__(self) -> str:
        try:
            name = f" {short_repr(self.name)}"
        except Exception:
            name = ""
        return format_repr(f"{type(self).__name__}{name}", self._repr_parts())

    def _repr_parts(self) -> Iterator[str]:
        yield "idle" if self._config.run is None else self._config.run.status()
        if self._config.paused:
            yield "paused"


def _checked_cooldown(cooldown: object, max_cooldown: float) -> float | None:
    """Return the maximum delay after throttled answers, or None if they cool nothing down."""
    most = check_positive("max_cooldown", max_cooldown)
    return most if cooldown is not None and check_flag("cooldown", cooldown) else None


def _pass(journal: Journal | Path) -> JournalPass:
    """Return the pass of a journal."""
    # Late: an option that most programs do not use.
    from headrace.pool.journal_pass import JournalPass

    return JournalPass.of(journal)


def _cache_use(cache: Cache) -> CacheUse:
    """Return the use of a cache by a runner, whose tasks may have several functions."""
    # Late: an option that most programs do not use.
    from headrace.pool.cache_use import CacheUse

    return CacheUse.of(cache)


def _check_executor(executor: object) -> None:
    if executor is None:
        return
    parts = ("capabilities", "watch", "start", "submit", "aclose")
    if isinstance(executor, type) or not all(hasattr(executor, part) for part in parts):
        raise TypeError(
            f"executor must be an Executor, such as ThreadExecutor(), or None, not {describe_value(executor)}"
        )


def _check(
    name: object,
    on_error: object,
    ordered: object,
) -> None:
    """Check at run time for errors that a type checker reports, for users without one."""
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a string or None, not {describe_value(name)}")
    if on_error not in ("stop_if_fatal", "continue", "stop"):
        raise ValueError(
            f"on_error must be 'stop_if_fatal', 'continue' or 'stop', not {on_error!r}"
        )
    check_flag("ordered", ordered)
