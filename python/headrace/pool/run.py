"""`Run`: one run of a pool, from the first pulled task until all its tasks have stopped. `TaskRun` creates it.

One asyncio task, the feeder, drives the run. In the steps of the feeder, the engine (`_core.Engine`) pulls items, calls their tasks and
reports their events. The engine returns when no more tasks can be called, and the feeder waits until one can. The run therefore holds
no capacity while the source is idle. The consumer and the rest of the run share only the event queue: no task waits for the consumer
before `max_buffered` events are unread.

When the run ends, for any reason, the feeder shuts it down. It cancels the tasks that still run, waits until the last of them has
stopped, and ends as the last asyncio task of the run. Items whose tasks were not called stay with the runner.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING
from weakref import ref

import headrace.pool._live as live
import headrace.task._current_lease as current_lease
from headrace._core import pin_to_loop, unpin
from headrace._internal.error_notes import add_note_once
from headrace._internal.tasks import wait_until_done
from headrace.errors import SourceCancelledError, WrongLoopError
from headrace.pool._run_journal import RunJournal
from headrace.pool.engine import clock_of, make_engine, use_cache
from headrace.pool.event_queue import EventQueue, RunFailure
from headrace.pool.executor.loop import error_of
from headrace.pool.executor.use import RunExecutors
from headrace.pool.inner_waits import InnerWaits
from headrace.pool.policy import Policy
from headrace.pool.shutdown import End

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from headrace._core import Engine
    from headrace.errors import RunStopped
    from headrace.pool._stall import StallWatch
    from headrace.pool.cache_policy import CachePolicy
    from headrace.pool.config import Config
    from headrace.pool.failure_limits import FailureLimits
    from headrace.pool.first_error import FirstError


class Run:
    """The state of one run, shared by its feeder, its stream, its policy and the runner."""

    loop: asyncio.AbstractEventLoop
    """The event loop of the run; set when the run starts."""

    def __init__(
        self, config: Config[Run], first: FirstError, *, close_source: bool = False
    ) -> None:
        self.config = config
        self._closes_source = close_source
        # The first error; None after the run has ended.
        self._first: FirstError | None = first
        self.context: Context = current_lease.unleased()
        self.end: End = End(self.context)
        self.events: EventQueue = EventQueue(config.max_buffered, config.window)
        # Whether no task is called any more, and running tasks must stop.
        self.ending: bool = False
        # Whether no new task is called any more.
        self.draining: bool = False
        # The limits on its failures; deleted at the end, because they refer to an error.
        self.limits: FailureLimits = config.failure_limits()
        # The error of a run that its failures have stopped.
        self._halted: RunStopped | None = None
        self._ended_before = 0
        self.executors: RunExecutors = RunExecutors(config.name, config.executor, config.capacity)
        # The items whose tasks were not called, by task id.
        self._unstarted: dict[int, object] = {}
        self._engine: Engine | None = None
        self._policy: Policy
        self._clock: Callable[[], float]
        self._feeder: asyncio.Task[None] | None = None
        # Whether the feeder pulls the source.
        self.is_feeding: bool = False
        self._stall_watch: StallWatch | None = None
        # The reason for which the feeder calls no task, if it is not the source or the capacity, and since when.
        self.blocked: tuple[str, float] | None = None
        # The thread of the event loop; set when the run starts.
        self.thread: int = 0
        # Whether the run itself cancelled the feeder.
        self._stopped = False
        self._idle: asyncio.Future[None] | None = None
        self._inner = InnerWaits()
        # Whether the tasks were cancelled at the end of the run.
        self._is_cancelled = False
        self._journal: RunJournal | None = RunJournal.of(config.journal)
        self.cache_policy: CachePolicy | None = None
        self._fatal: BaseException | None = None
        # The error that ended the run, as the entry for the consumer; set when the run has ended.
        self._last: RunFailure | None = None

    @property
    def engine(self) -> Engine:
        """The engine, from the start to the end of the run."""
        if self._engine is None:
            raise RuntimeError(f"{self.config.name}: this run does not run")
        return self._engine

    # The methods for the consumer.

    @property
    def feeder(self) -> asyncio.Task[None] | None:
        """The asyncio task that drives the run; None before the start."""
        return self._feeder

    @property
    def running(self) -> bool:
        """Whether the run has started and not ended."""
        return self._feeder is not None and not self._feeder.done()

    def status(self) -> str:
        """Return the state in words."""
        if self._feeder is None:
            return "closed" if self.events.closed else "not started"
        if self._feeder.done():
            return "closed" if self.events.closed else f"ended, {len(self.events)} unread"
        return f"{self.running_tasks} running, {len(self.events)} unread"

    @property
    def running_tasks(self) -> int:
        """The number of running tasks."""
        return 0 if self._engine is None else self._engine.running

    @property
    def queued_tasks(self) -> int:
        """The number of tasks that were accepted and not called."""
        return 0 if self._engine is None else self._engine.queued

    @property
    def backing_off_tasks(self) -> int:
        """The number of tasks that will be called again."""
        return 0 if self._engine is None else self._engine.backing_off

    @property
    def tasks_under_way(self) -> int:
        """See `LimitedRun`."""
        return self.running_tasks + self.backing_off_tasks

    @property
    def ended_tasks(self) -> int:
        """See `LimitedRun`. Replayed tasks are counted neither here nor as failures."""
        throughput = self.config.throughput
        replayed = 0 if self._engine is None else self._engine.replayed
        return throughput.done + throughput.failed - self._ended_before - replayed

    def clock(self) -> float:
        """Read the clock of the event loop."""
        return self._clock()

    def start(self) -> None:
        """Start the feeder, unless it was started."""
        config = self.config
        if self.events.closed:
            raise RuntimeError(
                f"{config.name}: this run was closed; start another with run_tasks()"
            )
        if self._feeder is not None:
            self._check_loop()
            return
        config.check_idle()
        self.loop = asyncio.get_running_loop()
        self._clock = clock_of(self.loop)
        self._policy = Policy(self)
        self.events.engine = self._engine = make_engine(self, self._policy, self._clock)
        self.end.inside.engine = ref(self._engine)
        self.cache_policy = use_cache(self)
        self.update_state()
        self.end.begin(self.loop)
        self.events.unread.begin(self.loop)
        config.run = self
        pin_to_loop(self.loop, self)
        self.thread = threading.get_ident()
        live.add(self)
        self._ended_before = config.throughput.done + config.throughput.failed
        if config.stall_after is not None:
            # Late: an option that most programs do not use.
            from headrace.pool._stall import StallWatch

            self._stall_watch = StallWatch(self, config.stall_after)
        # Not `loop.create_task`: a factory of eager tasks would run the feeder before `_feeder` is set.
        self._feeder = asyncio.Task(
            self._feed(),
            loop=self.loop,
            name=f"{config.name}: feeder",
            context=self.context.copy(),
        )
        self._feeder.add_done_callback(self._ended)
        self.limits.add(self)

    async def close(self) -> None:
        """End the run and wait until it has ended; raise its error, if no pull has raised it."""
        self._check_outside("close")
        self.events.close()
        self.end.leave()
        self.stop()
        await self._wait_for_end(leaving=True)
        if self._last is not None and (error := self._last.take()) is not None:
            raise error

    async def abort(self, *, wait: bool) -> tuple[int, ...]:
        """End the run, whose events can still be read; return the ids of the detached tasks."""
        self._check_outside("abort")
        self.stop()
        left = () if wait or self._engine is None else tuple(self._engine.detach_all())
        await self._wait_for_end(leaving=False)
        return left

    async def drain(self, timeout: float | None, caller: int | None) -> None:
        """Call no new tasks, and wait for those that were called. `caller` is the result of `caller` before the first step."""
        self._check_outside("drain")
        if self._feeder is None or self._feeder.done():
            return
        if not self.draining and not self.ending:
            self.draining = True
            self._give_back()
            # Tasks that were called are still retried, even if the runner is paused.
            self.update_state()
            if self.is_feeding:
                self._feeder.cancel()
        if caller is None and not self.end.inside.is_here():
            await asyncio.wait([self._feeder], timeout=timeout)
            is_over = self._feeder.done()
        else:
            is_over = await self._inner.wait(self, self._feeder, caller, timeout=timeout)
        if not is_over:
            await self.abort(wait=True)

    def caller(self) -> int | None:
        """Return the id of the task whose step calls this, or None."""
        # Another thread may call this while the event loop runs another task.
        is_here = self._engine is not None and asyncio._get_running_loop() is self.loop
        return self.engine.caller() if is_here else None

    async def _wait_for_end(self, *, leaving: bool) -> None:
        if self._feeder is None:
            return
        cancellation = None
        if self.end.inside.is_here():
            if not self._feeder.done():
                await self._inner.wait(self, self._feeder, cancels=not self._is_cancelled)
        else:
            cancellation = await self.end.wait(self._feeder, leaving=leaving)
        if self._feeder.done():
            # The feeder may have ended in this event-loop iteration, before its done-callback was called.
            self._ended(self._feeder)
        if cancellation is not None:
            raise cancellation

    def _check_outside(self, action: str) -> None:
        """Raise an error on another event loop, and in a task that would wait for its own end."""
        if self._feeder is None or self._feeder.done():
            return
        self._check_loop()
        if self.engine.caller() is not None:
            raise RuntimeError(
                f"{self.config.name}: a task cannot {action} the run that it is part of"
            )

    def _check_loop(self) -> None:
        if self.loop is not asyncio.get_running_loop():
            raise WrongLoopError(f"{self.config.name}: this run belongs to another event loop")

    def stop(self) -> None:
        """Cancel the feeder, once, so that it shuts the run down; a second cancellation would only disturb it."""
        if self._feeder is not None and not self.ending:
            self.ending = self._stopped = True
            self.update_state()
            self._feeder.cancel()

    def abandon(self) -> None:
        """End a run whose stream was dropped. May be called by a finaliser, in any thread."""
        self.events.close(wake=False)
        if self._feeder is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.stop)

    def update_state(self) -> None:
        """Pass the state to the engine: whether the run ends, and whether the runner is paused."""
        if self._engine is not None:
            paused, ending = self.config.paused, self.ending or self._halted is not None
            self._engine.set_state(
                not (ending or self.draining or paused),
                not ending and (self.draining or not paused),
                ending,
            )

    def halt(self, error: RunStopped) -> None:
        """Call no more tasks, also none again, and raise an error at the end. Running tasks continue."""
        if self._halted is not None or self.ending:
            return
        self._halted, self.draining = error, True
        self.update_state()
        # Later: this call may be inside a step of the feeder or of the engine.
        self.loop.call_soon(self._end_halted, context=self.context)

    def _end_halted(self) -> None:
        """Take back the tasks of a halted run that were not called, and end those that wait for another call."""
        if self._engine is not None and not self.ending:
            self._unstarted.update(self._engine.halt())
            if self.is_feeding and self._feeder is not None:
                self._feeder.cancel()

    # The feeder.

    async def _feed(self) -> None:
        is_lost = False
        try:
            if self._journal is not None:
                await self._journal.open(self)
            self.is_feeding = True
            try:
                await self._feed_loop()
            except asyncio.CancelledError:
                if self.ending or not self.draining or self._feeder is None:
                    raise
                self._feeder.uncancel()
            finally:
                self.is_feeding = False
                self.engine.clear_prefetch()
            if self.draining:
                # The source may have returned an item to the cancelled pull.
                self._give_back()
            if self._halted is not None:
                self._end_halted()
            await self._wait_for_tasks()
        except (KeyboardInterrupt, SystemExit) as error:
            # The source raised it. asyncio would raise it out of the running event loop before the run is closed.
            self._fatal = error
        except GeneratorExit:
            # The event loop was dropped, so nothing can be awaited.
            is_lost = True
            raise
        finally:
            self.ending = True
            if not is_lost:
                await self._shutdown()

    async def _feed_loop(self) -> None:
        engine, kept = self.engine, self.config.unstarted
        # An eagerly started task may end the run inside this loop, in which the feeder may never suspend: check at each pass.
        while not self.ending and not self.draining:
            if not self.events.has_room():
                engine.clear_prefetch()
                self.blocked = "space for events", self._clock()
                await self.events.room(self.loop)
                self.blocked = None
                self.events.wake_next()
            elif (gate := engine.gate()) is not None:
                engine.clear_prefetch()
                self.blocked = "gate", self._clock()
                await gate
                self.blocked = None
            elif (is_given := engine.needs_executor()) is not None:
                use = self.executors.use(is_given)
                await use.start(self.loop, self.context, engine.on_slots)
                engine.set_executor_started(is_given)
            else:
                try:
                    await engine.feed(kept)
                except StopAsyncIteration:
                    if self._journal is not None:
                        self._journal.note_source_end()
                    return
                except asyncio.CancelledError as cancelled:
                    if self._feeder is None or self._feeder.cancelling():
                        raise
                    error = SourceCancelledError(
                        "the source raised CancelledError without having been cancelled"
                    )
                    error.__cause__ = cancelled
                    await self._source_failed(error)
                    del error
                except (KeyboardInterrupt, SystemExit, GeneratorExit):
                    raise
                except BaseException as raised:
                    await self._source_failed(raised)

    async def _source_failed(self, error: BaseException) -> None:
        """Raise an error of the source to the consumer; do not pull the source until then."""
        add_note_once(error, f"raised by the source of {self.config.name}")
        await self.events.raise_to_consumer(self.loop, error)

    async def _wait_for_tasks(self, *, shielded: bool = False) -> None:
        """Wait until no task is left; with `shielded`, also while the feeder is cancelled."""
        while self.engine.watch(len(self._inner)):
            self._inner.release(self)
            self._idle = self.loop.create_future()
            if shielded:
                await wait_until_done(self._idle)
            else:
                await self._idle

    def _give_back(self) -> None:
        """Take back the items whose tasks were not called, for the next run of the runner."""
        self._unstarted.update(self.engine.give_back())

    def keep(self, task_id: int, item: object) -> None:
        """Keep an item whose task was not called for the next run."""
        self._unstarted[task_id] = item

    def keep_unstarted(self) -> None:
        """Store the items whose tasks were not called with the runner."""
        self.config.unstarted.extendleft(
            self._unstarted[number] for number in sorted(self._unstarted, reverse=True)
        )
        self._unstarted.clear()

    async def _shutdown(self) -> None:
        """Stop all tasks and wait for the last of them, however often the feeder is cancelled meanwhile."""
        self.update_state()
        self._give_back()
        self.engine.cancel_all()
        self._is_cancelled = True
        await wait_until_done(*self._policy.requests)
        if self.cache_policy is not None:
            await wait_until_done(*self.cache_policy.rooms)
        await self._wait_for_tasks(shielded=True)
        if sys.version_info < (3, 12):
            # A task that ended in its first step leaves an asyncio task that ends in the next iteration.
            iteration: asyncio.Future[None] = self.loop.create_future()
            self.loop.call_soon(iteration.set_result, None)
            await wait_until_done(iteration)
        await self.executors.aclose()
        self.keep_unstarted()
        is_early = self._stopped or self._halted is not None or self.events.closed
        if self._closes_source and is_early:
            # Last, because tasks may use resources of the source. The feeder must not appear cancelled while it closes the source.
            while self._feeder is not None and self._feeder.cancelling():
                self._feeder.uncancel()
            await self.config.source.aclose()

    def _ended(self, feeder: asyncio.Task[None]) -> None:
        """Report the end to the consumer, and release the runner for its next run."""
        self.end.leave()
        if self.config.run is not self:
            return
        unpin(self.loop, self)
        live.discard(self)
        if self._stall_watch is not None:
            self._stall_watch.cancel()
            self._stall_watch = None
        self.config.run = None
        error = error_of(feeder)
        if not isinstance(error, asyncio.CancelledError):
            self._fatal = self._fatal or error
        elif self._fatal is None and not self._stopped and not self.events.closed:
            self._fatal = SourceCancelledError(
                f"{feeder.get_name()} was cancelled from outside the pool"
            )
        if self._fatal is not None:
            self._last = RunFailure(self._fatal)
            self.events.unread.put(self._last)
        elif self._halted is not None:
            # Not kept in `_last`: `close` must not raise it to a consumer that has left.
            self.events.unread.put(RunFailure(self._halted))
        self.events.unread.finish()
        if self._journal is not None:
            self._journal.leave(self)
        self.engine.close()
        self.limits.remove(self)
        # Drop references that lead back to the run, so that it is freed with its stream, without a garbage collection.
        self._engine = self.events.engine = self._fatal = self._first = self._halted = None
        self.cache_policy = None
        del self._policy, self.limits

    # Called by the policy and the runner.

    def idle(self) -> None:
        """Note that only as many tasks are left as the engine watches for."""
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
        self._inner.release(self)

    def failed(self, error: BaseException) -> None:
        """Note that a task ended with an error."""
        first = self._first
        if first is not None and first.error is None and not self.ending:
            first.error = error
            if self.config.on_error == "stop":
                self.stop()

    def report(self, message: str, error: BaseException) -> None:
        """Report an error that no consumer can receive. One that ends the program ends the run."""
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            self.interrupt(error)
            return
        self.loop.call_exception_handler({"message": message, "exception": error})

    def interrupt(self, error: BaseException) -> None:
        """End the run with an error that ends the program; the consumer gets it when everything is closed."""
        self._fatal = self._fatal or error
        self.stop()
