"""One run of a pool: from the first task that is pulled until nothing of it is left.

One asyncio task, the feeder, drives it: it pulls a task, waits until there is room for envelopes, has it admitted, and
pulls the next as soon as fewer than `lookahead` tasks wait to be called. (With plain tasks all of that happens in the lane,
as long as nothing comes between.) So the run holds nothing while the source is
silent. A task that ends gives its capacity back and puts its envelope into the outlet, which is all that the consumer
and the rest of the run share: no task waits for the consumer before `max_buffered` envelopes are unread.

When the run ends, whatever the reason, the feeder sees it out: it asks what still runs to stop, waits until the last of
it has, and ends as the last task of the run. A task that was pulled and not called stays with the runner.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from headrace._core import pin_to_loop, unpin
from headrace._internal.error_notes import add_note_once
from headrace._internal.reprs import describe_value
from headrace._internal.tasks import wait_until_done
from headrace.errors import SourceCancelledError, WrongLoopError
from headrace.pool.admission import Admission
from headrace.pool.end import End
from headrace.pool.executor.loop import error_of
from headrace.pool.executors import Executors
from headrace.pool.gate import Gate
from headrace.pool.job import Job, State
from headrace.pool.keys import Keys
from headrace.pool.outlet import Failure, Outlet
from headrace.pool.plain import lane_of, take_over
from headrace.task._current_lease import unleased

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from headrace._core import Lane, Lease
    from headrace.pool.first import First
    from headrace.pool.plan import Plan


class Run:
    """The state that everything of one run shares."""

    loop: asyncio.AbstractEventLoop
    """Where it runs; known from its start on."""
    admission: Admission[Job]
    """Made at its start."""

    def __init__(self, plan: Plan[Run], first: First, *, close_source: bool = False) -> None:
        self.plan = plan
        # The clock of the loop, set by `start`.
        self.clock: Callable[[], float]
        self._closes_source = close_source
        # Until it has ended.
        self._first: First | None = first
        self.context: Context = unleased()
        self.end: End = End(self.context)
        self.outlet: Outlet = Outlet(plan.max_buffered, ordered=plan.ordered, window=plan.window)
        # Nothing is called any more, and what runs is to stop.
        self.ending: bool = False
        # Nothing new is called any more.
        self.draining: bool = False
        self.jobs: dict[int, Job] = {}
        self.counts: dict[State, int] = dict.fromkeys(State, 0)
        self.keys: Keys = Keys(plan.name)
        # What was taken up and not called, by task id.
        self.unstarted: dict[int, object] = {}
        # Whose first step runs inside this very step of the loop.
        self.launching: Job | None = None
        self._feeder: asyncio.Task[None] | None = None
        self._taking_up = False
        # Whether it was we who cancelled the feeder, to end the run.
        self._stopped = False
        self._idle: asyncio.Future[None] | None = None
        # Where the feeder waits until it may go on.
        self._gate = Gate()
        self._fatal: BaseException | None = None
        # The same, for whoever is told of it, when the run has ended.
        self._last: Failure | None = None
        # The short way for plain tasks, where all of the run's options allow it.
        self._lane: Lane | None = None
        # For tasks that were admitted.
        self.executors: Executors = Executors(plan.name)

    # The consumer's side.

    @property
    def running(self) -> bool:
        """Whether anything of it is left to stop."""
        return self._feeder is not None and not self._feeder.done()

    def how(self) -> str:
        """How it goes, in words."""
        if self._feeder is None:
            return "closed" if self.outlet.closed else "not started"
        if self._feeder.done():
            return "closed" if self.outlet.closed else f"ended, {len(self.outlet)} unread"
        return f"{self.running_tasks} running, {len(self.outlet)} unread"

    @property
    def running_tasks(self) -> int:
        """How many tasks run."""
        return self.counts[State.RUNNING] + (0 if self._lane is None else self._lane.live)

    @property
    def queued_tasks(self) -> int:
        """How many tasks were taken up and wait to be called."""
        return self.counts[State.QUEUED] + (0 if self._lane is None else self._lane.waits)

    def start(self) -> None:
        """Starts the feeder, if that has not happened."""
        if self.outlet.closed:
            raise RuntimeError(
                f"{self.plan.name}: this run was closed; start another with run_tasks()"
            )
        if self._feeder is not None:
            self._check_loop()
            return
        self.plan.check_idle()
        self.loop = asyncio.get_running_loop()
        self.admission = Admission(
            self.plan.name,
            self.plan.capacity,
            self.loop,
            self._granted,
            lambda: self.running_tasks,
            looks_ahead=self.plan.lookahead > 1,
        )
        # What `loop.time` of asyncio's own loops does, with one call less.
        own = type(self.loop).time is asyncio.BaseEventLoop.time
        self.clock = time.monotonic if own else self.loop.time
        if self.plan.paused:
            self.admission.pause()
        if self.plan.is_plain and not self.loop.get_debug():
            self._lane = lane_of(self)
            self._gauge()
        self.end.begin(self.loop)
        self.outlet.unread.begin(self.loop)
        self.plan.run = self
        pin_to_loop(self.loop, self)
        # Not `loop.create_task`: under a factory of eager tasks the feeder would run before it is known here.
        self._feeder = asyncio.Task(
            self._feed(),
            loop=self.loop,
            name=f"{self.plan.name}: feeder",
            context=self.context.copy(),
        )
        self._feeder.add_done_callback(self._ended)

    async def close(self) -> None:
        """Ends the run and waits until it has; raises what ended it, if nobody was told."""
        self._check_outside("close")
        self.outlet.close()
        self.end.leave()
        self.stop()
        await self._settled(leaving=True)
        if self._last is not None and (error := self._last.take()) is not None:
            raise error

    async def abort(self, *, wait: bool) -> tuple[int, ...]:
        """Ends the run, whose envelopes may still be read; gives the ids of what was left running."""
        self._check_outside("abort")
        self.stop()
        jobs = () if wait else tuple(self.jobs.values())
        left = tuple(job.task_id for job in jobs if job.leave())
        await self._settled(leaving=False)
        return left

    async def drain(self, timeout: float | None) -> None:
        """Calls nothing new, and waits for what was called."""
        self._check_outside("drain")
        if self._feeder is None or self._feeder.done():
            return
        if not self.draining and not self.ending:
            self.draining = True
            self._gauge()
            self.admission.clear()
            self._withdraw()
            for job in tuple(self.jobs.values()):
                if job.state is State.QUEUED and not job.is_launched:
                    job.give_back()
            # Those that were called are called again if they fail, paused or not.
            self.admission.resume()
            if self._taking_up:
                self._feeder.cancel()
        await asyncio.wait([self._feeder], timeout=timeout)
        if not self._feeder.done():
            await self.abort(wait=True)

    async def _settled(self, *, leaving: bool) -> None:
        if self._feeder is None:
            return
        cancellation = await self.end.wait(self._feeder, leaving=leaving)
        if self._feeder.done():
            # Perhaps in this very turn, its callback still to come.
            self._ended(self._feeder)
        if cancellation is not None:
            raise cancellation

    def _check_outside(self, action: str) -> None:
        """Refuses another loop, and work that would wait for its own end."""
        if self._feeder is None or self._feeder.done():
            return
        self._check_loop()
        inside_lane = self._lane is not None and self._lane.inside()
        if inside_lane or any(job.inside() for job in self.jobs.values()):
            raise RuntimeError(
                f"{self.plan.name}: a task cannot {action} the run that it is part of"
            )

    def _check_loop(self) -> None:
        if self.loop is not asyncio.get_running_loop():
            raise WrongLoopError(f"{self.plan.name}: this run belongs to another event loop")

    def stop(self) -> None:
        """Has the feeder see the run out. Once: a second cancellation would only disturb it."""
        if self._feeder is not None and not self.ending:
            self.ending = self._stopped = True
            self._gauge()
            self.admission.clear()
            self._feeder.cancel()

    def abandon(self) -> None:
        """Ends a run whose stream nobody holds any more. May be called by a finaliser, in any thread."""
        self.outlet.close(wake=False)
        if self._feeder is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.stop)

    def pause(self) -> None:
        """Calls nothing until it is resumed."""
        if not self.draining:
            self.admission.pause()
            if (waited := self._withdraw()) is not None:
                self.admission.seek(waited)
            self._gauge()

    def resume(self) -> None:
        """Calls again."""
        if not self.ending:
            self.admission.resume()
            self._wake()

    # The feeder.

    async def _feed(self) -> None:
        is_lost = False
        try:
            self._taking_up = True
            try:
                await self._take_up()
            except asyncio.CancelledError:
                if self.ending or not self.draining or self._feeder is None:
                    raise
                self._feeder.uncancel()
            finally:
                self._taking_up = False
                self.admission.clear()
            while self._has_work():
                self._idle = self.loop.create_future()
                await self._idle
        except (KeyboardInterrupt, SystemExit) as error:
            # The source raised it. asyncio would raise it out of the running loop before anything was closed.
            self._fatal = error
        except GeneratorExit:
            # The loop is gone, and with it every chance to await something.
            is_lost = True
            raise
        finally:
            self.ending = True
            if not is_lost:
                await self._see_out()

    async def _take_up(self) -> None:
        kept = self.plan.kept
        # A task that is started eagerly may end the run from inside this loop, and nothing below need suspend.
        while not self.ending and not self.draining:
            await self._gate.until(self._may_pull)
            if kept:
                job = self._queue(kept.popleft())
            else:
                try:
                    item = await self._pull()
                except StopAsyncIteration:
                    return
                if item is not self._lane:
                    job = self._queue(item)
                elif (waited := self._withdraw()) is not None:
                    # It cannot have its capacity, of which it is told below.
                    job = waited
                else:
                    # Nothing was pulled, since nothing could be called.
                    await self._until_callable()
                    continue
            await self._until_callable()
            if job.state is State.QUEUED and self._accept(job):
                if not self.executors.has(job.task):
                    await self.executors.prepare(job.task)
                if job.state is State.QUEUED:
                    self.admission.seek(job, more=True)

    def _queue(self, item: object, *known: Any) -> Job:
        job = Job(self, item, *known)
        self.jobs[job.task_id] = job
        self.counts[State.QUEUED] += 1
        return job

    def _withdraw(self, task_id: int | None = None) -> Job | None:
        """The plain task that waits for its capacity, if one does, or if this one does; it does not any more."""
        waited = None if self._lane is None else self._lane.withdraw(task_id)
        if waited is None:
            return None
        job = self._queue(*waited)
        self._accept(job)
        return job

    async def _until_callable(self) -> None:
        while not (self.outlet.has_room() and self._may_call()):
            self.admission.clear()
            await self.outlet.room(self.loop)
            self.outlet.let_in()
            await self._gate.until(self._may_call)

    def _gauge(self) -> None:
        """Lets the lane know whether tasks may be called: after whatever changes that."""
        if self._lane is not None:
            self._lane.open = not self.ending and not self.draining and self._may_call()

    def _may_pull(self) -> bool:
        return self.counts[State.QUEUED] < self.plan.lookahead

    def _may_call(self) -> bool:
        # Those that back off are bounded as envelopes are: each owes one.
        return (
            not self.plan.paused
            and self.counts[State.BACKING_OFF] < self.plan.max_buffered
            and not self.outlet.is_narrow()
        )

    def _wake(self) -> None:
        """Has the lane and the feeder go on if they may: after whatever changes that."""
        self._gauge()
        self._gate.look()

    def _accept(self, job: Job) -> bool:
        """Whether this is a task that may be called now; else it has got its error."""
        if not hasattr(job, "task"):
            from headrace._internal.hints import for_task

            hint = for_task(job.item)
            job.refuse(
                TypeError(
                    f"a task must be callable or a Task, not {describe_value(job.item)}{hint}"
                )
            )
            return False
        try:
            self.keys.give(job)
        except BaseException as error:
            job.refuse(error)
            return False
        return True

    async def _pull(self) -> object:
        """The next item. An error of the source goes to the consumer; until it got there the source is left alone."""
        while True:
            try:
                if self._lane is None or self.admission.waiting:
                    return await self.admission.pull(self.plan.source)
                return await self._lane.feed()
            except StopAsyncIteration:
                raise
            except asyncio.CancelledError as cancelled:
                if self._feeder is None or self._feeder.cancelling():
                    raise
                error: BaseException = SourceCancelledError(
                    "the source raised CancelledError, and nobody had cancelled it"
                )
                error.__cause__ = cancelled
            except (KeyboardInterrupt, SystemExit, GeneratorExit):
                raise
            except BaseException as raised:
                error = raised
            add_note_once(error, f"raised by the source of {self.plan.name}")
            await self.outlet.tell(self.loop, error)

    def _has_work(self) -> bool:
        # Both are asked: the lane tells that it is idle only if it was.
        lane = self._lane is not None and self._lane.watch()
        return lane or bool(self.jobs)

    async def _see_out(self) -> None:
        """Stops whatever runs and waits for the last of it, however often the feeder is cancelled meanwhile."""
        self._withdraw()
        for job in tuple(self.jobs.values()):
            if job.state is State.QUEUED and not job.is_launched:
                job.give_back()
            else:
                job.cancel()
        if self._lane is not None:
            self._lane.cancel_all()
        await self.admission.aclose()
        while self._has_work():
            self._idle = self.loop.create_future()
            await wait_until_done(self._idle)
        await self.executors.aclose()
        self.plan.kept.extendleft(
            self.unstarted[number] for number in sorted(self.unstarted, reverse=True)
        )
        if self._closes_source and (self._stopped or self.outlet.closed):
            # Last: calls may have used what it holds open. And what closes it finds a task that nobody cancels.
            while self._feeder is not None and self._feeder.cancelling():
                self._feeder.uncancel()
            await self.plan.source.aclose()

    def _ended(self, feeder: asyncio.Task[None]) -> None:
        """The last of a run: the consumer learns how it ended, and the runner may run again."""
        self.end.leave()
        if self.plan.run is not self:
            return
        unpin(self.loop, self)
        self.plan.run = None
        error = error_of(feeder)
        if not isinstance(error, asyncio.CancelledError):
            self._fatal = self._fatal or error
        elif self._fatal is None and not self._stopped and not self.outlet.closed:
            self._fatal = SourceCancelledError(
                f"{feeder.get_name()} was cancelled from outside the pool"
            )
        if self._fatal is not None:
            self._last = Failure(self._fatal)
            self.outlet.put(self._last)
        self.outlet.unread.finish()
        # What refers to the run, so that it goes when its stream does, and does not wait for a collection.
        self._lane = self._fatal = self._first = None
        del self.admission

    # What jobs report.

    def move(self, job: Job, state: State) -> None:
        """A job is somewhere else now."""
        self.counts[job.state] -= 1
        self.counts[state] += 1
        job.state = state
        self._wake()

    def over(self, job: Job) -> None:
        """Nothing of a job is left."""
        self.keys.take_back(job)
        del self.jobs[job.task_id]
        self.move(job, State.ENDED)
        if not self.jobs:
            self.idle()

    def cancel(self, task_id: int) -> bool:
        """Cancels a task, if it has not ended."""
        job = self.jobs.get(task_id) or self._withdraw(task_id)
        if job is None:
            return self._lane is not None and self._lane.cancel(task_id)
        job.cancel()
        return True

    def is_disturbed(self, task_id: int) -> bool:
        """Whether a plain task was asked to stop."""
        return self._lane is not None and self._lane.is_disturbed(task_id)

    def idle(self) -> None:
        """No task runs any more, of one kind or the other."""
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def failed(self, error: BaseException) -> None:
        """A job ended with an error."""
        first = self._first
        if first is not None and first.error is None and not self.ending:
            first.error = error
            if self.plan.on_error == "stop":
                self.stop()

    def refuse(self, item: object, error: BaseException) -> None:
        """What was pulled cannot be called, for this reason."""
        self._queue(item).refuse(error)

    def report(self, message: str, error: BaseException) -> None:
        """An error that nobody can be given; what ends the program has everything closed first."""
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            self.interrupt(error)
            return
        self.loop.call_exception_handler({"message": message, "exception": error})

    def interrupt(self, error: BaseException) -> None:
        """A task raised what ends the program: everything is closed first, then the consumer gets it."""
        self._fatal = self._fatal or error
        self.stop()

    def _granted(self, job: Job, lease: Lease) -> None:
        if self.ending:
            # It is about to be withdrawn.
            lease.release()
            return
        if self._lane is None or not take_over(self, self._lane, job, lease):
            job.launch(lease, self.executors.of(job.task))
