"""The runner: a source of tasks, a capacity to run them under."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, cast

from headrace._internal.copying import Uncopied
from headrace._internal.reprs import describe_value, format_repr, short_repr
from headrace._internal.validate import check_flag, check_int, check_time_limit
from headrace.capacity.node import CapacitySource
from headrace.errors import SourceCancelledError
from headrace.pool.events import EnvelopeType
from headrace.pool.job import State
from headrace.pool.plan import Plan
from headrace.pool.progress import TaskRun
from headrace.pool.snapshot import PoolSnapshot, uses
from headrace.pull.source import Source, as_pull
from headrace.task.retry import Retry, as_retry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace.pool.run import Run
    from headrace.task.task import Task

_numbers = count(1)

MOST_IDS = 2**64
"""There are fewer ids of tasks."""


class HierarchicalTaskPoolRunner(Uncopied):
    """Pulls tasks from a source and runs them under a capacity; tells about them in envelopes.

    A task is an async function, an async generator function, a plain function that is called on the loop (a coroutine,
    an async generator or another awaitable that it returns is run, anything else is the final value), or a `Task`. Each
    runs as an `asyncio.Task` of its own (but see `isolate`), in a copy of the context of `run_tasks()`, or of the context in which its
    `Task` was built.

    Nothing is called before its capacity is held. The runner pulls one task ahead (or `lookahead`), acquires that
    task's cost, has it called, and then pulls the next; so it holds nothing while its source is silent. A task that ends
    makes room for the next one without waiting for the consumer. A task that cannot be called gives an `ERROR` envelope
    at once, and the run goes on: something in the source that is no task, a cost above what the capacity can ever hold,
    a key that a task which has not ended has already.

    A source that is an `OutcomeListener`, like a dependency source, is told how each of its items ended.

    Order: tasks are called in the order of the source, but that with `lookahead` above 1 priorities and costs decide
        among those that wait; envelopes come as things happen, or with `ordered` by their tasks.
    Bound: at most the capacity runs at once; at most `lookahead` tasks were pulled and not called; at most
        `max_buffered` envelopes are unread, and one more for each task that runs, since with `max_buffered` of them
        nothing more is called and tasks that yield wait, but what runs by then ends; at most `max_buffered` tasks back
        off before nothing new is called, and what runs by then. With `ordered`, at most `window` tasks are between the
        first that has not ended and the last that was called, and `max_buffered` envelopes more may be held back for
        their order.
    Cost: one asyncio task, or a part of one with `isolate=False`, and O(1) bookkeeping a task; one asyncio task more for
        one whose capacity is not free and that asks for more than a cost and a key.
    Cancel safety: a cancelled pull of an envelope loses nothing; leaving the run gives no task up that was not called.

    Args:
        source: where tasks come from: a pull object, most often `PushPullBufferObj.source`, or any iterable or async
            iterable. It is not closed here, unless `run_tasks(close_source=True)` says so: after a run was left, the
            next goes on where that one stopped. Only an async generator of yours is ended by the pull that leaving or
            `drain()` cancels, as `SourceIterObj` says; with `.prefetch()` behind it, it stays whole.
        capacity: what the tasks run under, with all its ancestors. Others may use it at the same time.
        name: for messages, and the names of asyncio tasks and threads; None for `"pool-1"` and so on.
        on_error: `"continue"`, or `"stop"`: the first `ERROR` ends the run. Nothing more is called, what runs is
            cancelled and awaited, each with its own envelope, and then the stream of envelopes ends.
        ordered: whether all envelopes of a task come before those of the tasks that were pulled after it.
        window: with `ordered`, how many tasks may run or wait for their turn to be read; a positive integer, None for
            `max_buffered`.
        lookahead: how many tasks may be pulled and wait to be called, a positive integer.
        max_buffered: how many envelopes may be unread, a positive integer, before nothing more is called and tasks that
            yield wait. It does not stop what runs by then: each of that adds one envelope when it ends, so that as many
            more may be unread as the capacity lets run.
        retry: whether and when a task is called again after an error; a number `n` stands for `Retry(retries=n)`: n
            calls after the first. None for never. A `Task` may have its own.
        timeout: how many seconds each call of a task may run; None for any time. A `Task` may have its own. The time
            that it waits for its capacity is not counted.
        isolate: whether each task has an `asyncio.Task` of its own. False lets those that ask for nothing but a cost and
            a key share a few, one after the other, which takes a fraction of the time. What they then share with tasks
            before and after is what hangs on `asyncio.current_task()`: its name, its done-callbacks, which are called
            when the run ends, and whoever keeps it, and cancels it when the task is over, cancels another. A task
            still has its own copy of the context, `asyncio.timeout`, task groups and `cancel()` work in it, and a
            cancellation that it did not undo does not reach the next. `Task`s with more terms, and all tasks of a
            runner that is `ordered`, has `lookahead`, `retry` or `timeout` or an `OutcomeListener` source, have their own.

    Raises:
        TypeError: if `source` cannot be iterated, `capacity` is no `CapacitySource`, or another parameter is of the
            wrong type.
        ValueError: if a number is out of its range, `on_error` is none of its words, or `window` is given without
            `ordered`.
    """

    def __init__(
        self,
        source: Source[Callable[[], Any] | Task],
        capacity: CapacitySource,
        *,
        name: str | None = None,
        on_error: Literal["continue", "stop"] = "continue",
        ordered: bool = False,
        window: int | None = None,
        lookahead: int = 1,
        max_buffered: int = 1024,
        retry: Retry | int | None = None,
        timeout: float | None = None,
        isolate: bool = True,
    ) -> None:
        _check(capacity, name, on_error, ordered, isolate)
        check_int("max_buffered", 1, max_buffered)
        if window is not None:
            check_int("window", 1, window)
            if not ordered:
                raise ValueError(f"window needs ordered=True, got window={window!r} without it")
        self._plan: Plan[Run] = Plan(
            name=f"pool-{next(_numbers)}" if name is None else name,
            source=as_pull(source),
            capacity=capacity,
            on_error=on_error,
            ordered=ordered,
            window=max_buffered if window is None else window,
            lookahead=check_int("lookahead", 1, lookahead),
            max_buffered=max_buffered,
            retry=as_retry("retry", retry),
            timeout=check_time_limit("timeout", timeout),
            isolate=isolate,
        )

    @property
    def name(self) -> str:
        """The name in messages, asyncio tasks and threads."""
        return self._plan.name

    @property
    def capacity(self) -> CapacitySource:
        """What the tasks run under."""
        return self._plan.capacity

    def run_tasks(self, *, close_source: bool = False) -> TaskRun:
        """Begins a run: an async context manager, and the stream of its envelopes.

            async with runner.run_tasks() as progress:
                async for envelope in progress:
                    ...

        It ends when the source has ended and every task has. Leaving it earlier, by `break`, an error or a
        cancellation, cancels what runs and waits until it has stopped; a thread cannot be cancelled, and is waited
        for.

        Args:
            close_source: whether leaving it earlier, or stopping at an error, closes the source too, when everything has
                stopped, by the task that pulled it. `drain()` leaves it open all the same.

        Raises:
            RuntimeError: if a run of this runner is under way.
            TypeError: if `close_source` is no bool.
        """
        self._plan.check_idle()
        return TaskRun(self._plan, close_source=check_flag("close_source", close_source))

    async def run(self) -> list[Any]:
        """Runs every task to its end, and gives the final values. **Unbounded**: it holds all of them.

        Values that tasks yielded on their way are passed over.

        Returns:
            the final values, as the tasks ended, or with `ordered` in the order of the source.

        Raises:
            BaseException: the first error of a task, the very object, when all tasks have ended, or with
                `on_error="stop"` when those that ran were stopped; a note says how many more there were. For a task that
                was cancelled a `SourceCancelledError`. Or what the source raised, at once.
            RuntimeError: if a run of this runner is under way.

        Cancel safety: a cancellation stops what runs, as leaving `run_tasks()` does, and the values are lost.
        """
        values: list[Any] = []
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

    async def drain(self, timeout: float | None = None) -> list[Any]:
        """Ends the run in peace: calls nothing new, waits for what was called, and hands back what was not.

        What backs off is called again when its time has come. Envelopes are still put, and somebody has to read them
        meanwhile if tasks yield more than `max_buffered`; then the stream ends. If a pull of the source waits just then, it
        is cancelled: an async generator of yours is ended by that, and the next run raises `SourceCancelledError`. With
        `SourceIterObj(generator()).prefetch()` as the source it stays whole.

        Args:
            timeout: seconds after which what still runs is cancelled, as by `abort()`; None for never.

        Returns:
            the items of the source that were pulled and never called, in their order; the source has all others. The
            runner will not call them. Without a run, those that the last one left.

        Raises:
            TypeError: if `timeout` is no number.
            ValueError: if it is not positive.
            RuntimeError: in a task of the run, which would wait for itself, however it runs.
            WrongLoopError: on another loop than the one where the run started.

        An asyncio task that a task of the run has started may drain the run, for nobody need wait for it. If the task of the run
        does, as `asyncio.gather(runner.drain())` would have it, it is waited for too: nothing more is called, and both wait until
        one of them is cancelled, the consumer leaves, or somebody aborts the run.

        Cancel safety: the run goes on draining, and what was not called stays with the runner.
        """
        timeout = check_time_limit("timeout", timeout)
        if self._plan.run is not None:
            await self._plan.run.drain(timeout)
        items = list(self._plan.kept)
        self._plan.kept.clear()
        return items

    async def abort(self, *, wait: bool = True) -> tuple[int, ...]:
        """Ends the run now: calls nothing more, cancels what runs, and waits until it has stopped.

        Each task that was called gets its last envelope, an `ERROR` with `CancelledError` as a rule; the envelopes may
        still be read, and then the stream ends. What was not called stays with the runner for its next run. Does
        nothing without a run.

        Args:
            wait: False does not wait for work that cannot be cancelled, which is work in threads. It gets an `ERROR`
                that says so, goes on, and holds its capacity until it ends.

        Returns:
            the ids of the tasks that were left running; none with `wait`.

        Raises:
            RuntimeError: in a task of the run, which would wait for itself.
            WrongLoopError: on another loop than the one where the run started.

        Cancel safety: a cancellation is raised when all has stopped, or the consumer leaves, not before. But at once in
            an asyncio task that a task of the run has started, which may wait for it (unless that is a `Task` of the
            loop with no more terms than a cost and a key). So what ends its own run by `wait_for(runner.abort(), 5)` is
            cancelled with the rest.
        """
        run = self._plan.run
        return () if run is None else await run.abort(wait=wait)

    def cancel(self, task_id: int) -> bool:
        """Cancels one task, whether it waits, runs or backs off; its capacity is freed when it has stopped.

        Its last envelope is an `ERROR` with `CancelledError` as a rule. Work may refuse, as any asyncio task may, and a
        thread cannot be cancelled: then it ends as it would have, and is not called again.

        Args:
            task_id: that of its envelopes.

        Returns:
            whether there is such a task that has not ended.

        Raises:
            TypeError: if `task_id` is no integer.
        """
        if not isinstance(cast("object", task_id), int) or isinstance(task_id, bool):
            raise TypeError(f"task_id must be an integer, not {describe_value(task_id)}")
        run = self._plan.run
        return run is not None and 0 < task_id < MOST_IDS and run.cancel(task_id)

    def pause(self) -> None:
        """Calls nothing until `resume()`; what runs goes on. The runner waits for no capacity meanwhile.

        Also for runs to come, if there is none now. Idempotent.
        """
        self._plan.paused = True
        if self._plan.run is not None:
            self._plan.run.pause()

    def resume(self) -> None:
        """Undoes `pause()`."""
        self._plan.paused = False
        if self._plan.run is not None:
            self._plan.run.resume()

    def snapshot(self) -> PoolSnapshot:
        """How things stand now. O(depth of the tree of capacities)."""
        plan, run = self._plan, self._plan.run
        return PoolSnapshot(
            queued=len(plan.kept) + (0 if run is None else run.queued_tasks),
            running=0 if run is None else run.running_tasks,
            backing_off=0 if run is None else run.counts[State.BACKING_OFF],
            done=plan.meter.done,
            failed=plan.meter.failed,
            unread=0 if run is None else len(run.outlet),
            rate=0.0 if run is None else plan.meter.rate(run.clock()),
            paused=plan.paused,
            capacity=uses(plan.capacity),
        )

    def __repr__(self) -> str:
        try:
            name = f" {short_repr(self.name)}"
        except Exception:
            name = ""
        return format_repr(f"{type(self).__name__}{name}", self._repr_parts())

    def _repr_parts(self) -> Iterator[str]:
        yield "idle" if self._plan.run is None else self._plan.run.how()
        if self._plan.paused:
            yield "paused"


def _check(
    capacity: object,
    name: object,
    on_error: object,
    ordered: object,
    isolate: object,
) -> None:
    """Refuses what a type checker would have, for those who run none."""
    if not isinstance(capacity, CapacitySource):
        raise TypeError(f"capacity must be a CapacitySource, not {describe_value(capacity)}")
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a string or None, not {describe_value(name)}")
    if on_error not in ("continue", "stop"):
        raise ValueError(f"on_error must be 'continue' or 'stop', not {on_error!r}")
    check_flag("ordered", ordered)
    check_flag("isolate", isolate)
