"""One run of a pool: from the first task that is pulled until nothing of it is left.

One asyncio task, the feeder, drives it: it pulls one task, waits until there is room for envelopes and then for the
capacity of that task, has it called, and pulls the next. So there is never more than one task that was pulled and not
called, and while the source is silent nothing is held. A task that ends gives its capacity back and puts its envelope
into a buffer, which is all that the consumer and the rest of the run share: no task waits for the consumer before
`max_buffered` envelopes are unread.

When the run ends, whatever the reason, the feeder sees it out: it asks what still runs to stop, waits until the last of
it has, and ends as the last task of the run. A task that was pulled and not called stays with the runner.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import copy_context
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from headrace.blame import noted
from headrace.buffer import PushPullBufferObj
from headrace.errors import SourceCancelledError, WrongLoopError
from headrace.pool.envelope import TaskProgressEnvelope
from headrace.pool.executor import Stop
from headrace.pool.executor.loop import LoopExecutor
from headrace.pool.executor.thread import ThreadExecutor
from headrace.pool.job import Job
from headrace.tasks import settled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.capacity import CapacitySource
    from headrace.pool.executor import Executor
    from headrace.pull import PullObj

__all__ = ["Failure", "Plan", "Run"]

Envelope = TaskProgressEnvelope[Any]


@dataclass(slots=True)
class Plan:
    """What a runner hands to each of its runs, and what they leave to the next."""

    name: str
    source: PullObj[Any]
    capacity: CapacitySource
    max_buffered: int
    ids: Iterator[int] = field(default_factory=lambda: count(1))
    kept: deque[object] = field(default_factory=deque[object])
    """What was pulled and not called yet: one item at most."""
    run: Run | None = None
    """The run that is under way."""

    def check_idle(self) -> None:
        """Raises RuntimeError if a run is under way."""
        if self.run is not None:
            raise RuntimeError(f"{self.name}: this runner is running already; leave that run first")


class Failure:
    """An entry of the buffer of envelopes that a pull raises."""

    __slots__ = ("error", "told")

    def __init__(self, error: BaseException) -> None:
        self.error = error
        # Set by the feeder, if it waits until somebody has been told.
        self.told: asyncio.Future[None] | None = None


_started: set[Run] = set()
"""Every run under way: the loop itself holds its tasks only weakly."""


class Run:
    """The state that everything of one run shares."""

    loop: asyncio.AbstractEventLoop
    """Where it runs; known from its start on."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.context = copy_context()
        # Behind everything else it holds None: the end. It has no bound of its own, so that a task that ends can put
        # its last envelope without waiting; `room` bounds what it holds.
        self._unread: PushPullBufferObj[Envelope | Failure | None] = PushPullBufferObj()
        self._into, self._out_of = self._unread.sink, self._unread.source
        self.closed = False
        self.ending = False
        self._feeder: asyncio.Task[None] | None = None
        self._live: set[Job] = set()
        self._idle: asyncio.Future[None] | None = None
        self._beginning: asyncio.Future[None] | None = None
        self._blocked: deque[asyncio.Future[None]] = deque()
        self._fatal: BaseException | None = None
        # By `Task.thread`; made and started when the first task needs it.
        self._executors: dict[bool, Executor] = {}

    # The consumer's side.

    @property
    def running(self) -> bool:
        """Whether anything of it is left to stop."""
        return self._feeder is not None and not self._feeder.done()

    def how(self) -> str:
        """How it goes, in words."""
        if self._feeder is None:
            return "closed" if self.closed else "not started"
        if self._feeder.done():
            return "closed" if self.closed else f"ended, {len(self._unread)} unread"
        return f"{len(self._live)} running, {len(self._unread)} unread"

    def start(self) -> None:
        """Starts the feeder, if that has not happened."""
        if self.closed:
            raise RuntimeError(
                f"{self.plan.name}: this run was closed; start another with run_tasks()"
            )
        if self._feeder is not None:
            self._check_loop()
            return
        self.plan.check_idle()
        self.loop = asyncio.get_running_loop()
        self.plan.run = self
        _started.add(self)
        # Not `loop.create_task`: under a factory of eager tasks the feeder would run before it is known here.
        self._feeder = asyncio.Task(
            self._feed(),
            loop=self.loop,
            name=f"{self.plan.name}: feeder",
            context=self.context.copy(),
        )
        self._feeder.add_done_callback(self._ended)

    async def pull(self) -> Envelope:
        """The next envelope."""
        if not self.closed:
            self.start()
        entry = await anext(self._out_of)
        # From here on nothing waits, so that nothing that was taken can be lost.
        if entry is None:
            # For every other pull, now and later.
            self.put(None)
            raise StopAsyncIteration
        if self._blocked:
            self._let_in()
        if not isinstance(entry, Failure):
            return entry
        if entry.told is not None and not entry.told.done():
            entry.told.set_result(None)
        if entry.error is self._fatal:
            self._fatal = None
        raise entry.error

    async def close(self) -> None:
        """Ends the run and waits until it has; raises what ended it, if nobody was told."""
        if self._feeder is not None and not self._feeder.done():
            self._check_loop()
            if any(job.handle is not None and job.handle.inside() for job in self._live):
                raise RuntimeError(
                    f"{self.plan.name}: a task cannot close the run that it is part of"
                )
        self.closed = True
        self.stop()
        struck: BaseException | None = None
        try:
            # Whoever waits for an envelope will get none.
            await self._out_of.aclose()
        finally:
            if self._feeder is not None:
                struck = await settled(self._feeder)
                # It may have ended in this very turn, its callback still to come.
                self._ended(self._feeder)
        if struck is not None:
            raise struck
        if self._fatal is not None:
            error, self._fatal = self._fatal, None
            raise error

    def _check_loop(self) -> None:
        if self.loop is not asyncio.get_running_loop():
            raise WrongLoopError(
                f"{self.plan.name}: this run belongs to another event loop, where it started"
            )

    def stop(self) -> None:
        """Has the feeder see the run out. Once: a second cancellation would only disturb it."""
        if self._feeder is not None and not self.ending:
            self.ending = True
            self._feeder.cancel()

    def abandon(self) -> None:
        """Ends a run whose stream nobody holds any more. May be called by a finaliser, in any thread."""
        self.closed = True
        if self._feeder is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.stop)

    # Room for envelopes.

    def put(self, entry: Envelope | Failure | None) -> None:
        """Puts an entry behind the others, whether there is room or not."""
        if not self.closed:
            self._into.next_nowait(entry)

    async def put_when_room(self, envelope: Envelope) -> None:
        """Puts an envelope when fewer than `max_buffered` are unread."""
        await self._room()
        self.put(envelope)
        self._let_in()

    def has_room(self) -> bool:
        """Whether an envelope may be put now, without overtaking anybody who waits."""
        return not self._blocked and len(self._unread) < self.plan.max_buffered

    async def _room(self) -> None:
        """Waits for room, FIFO. Whoever got it calls `_let_in` when the room is used or not needed."""
        if self.has_room():
            return
        queue = self._blocked.append
        while True:
            turn: asyncio.Future[None] = self.loop.create_future()
            queue(turn)
            try:
                await turn
            except asyncio.CancelledError:
                # Its future is cancelled before it gets here: `_let_in` may have passed over it meanwhile.
                if not turn.cancelled():
                    self._let_in()
                elif turn in self._blocked:
                    self._blocked.remove(turn)
                raise
            if len(self._unread) < self.plan.max_buffered:
                return
            # The last envelopes of tasks that ended took the room since: wait on, as the first in the queue.
            queue = self._blocked.appendleft

    def _let_in(self) -> None:
        """Lets the first who waits for room go on, if there is any."""
        while self._blocked and len(self._unread) < self.plan.max_buffered:
            turn = self._blocked.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    # The feeder.

    async def _feed(self) -> None:
        try:
            await self._take_up()
            await self._until_idle()
        except (KeyboardInterrupt, SystemExit) as error:
            # The source raised it. asyncio would raise it out of the running loop before anything was closed.
            self._fatal = error
        finally:
            self.ending = True
            await self._see_out()

    async def _take_up(self) -> None:
        kept, capacity = self.plan.kept, self.plan.capacity
        # A task that is started eagerly may end the run from inside this loop, and nothing below need suspend.
        while not self.ending:
            if not kept:
                try:
                    kept.append(await self._pull())
                except StopAsyncIteration:
                    return
            # `begun` takes the item out of `kept`: a cancellation at any of these waits leaves it to the next run.
            job = Job(self, kept[0])
            await self._room()
            self._let_in()
            if job.task is None:
                kind = type(kept[0]).__name__
                job.fail(TypeError(f"a task must be callable or a Task, not {kept[0]!r} ({kind})"))
                continue
            executor = self._executors.get(job.task.thread) or await self._executor(job.task.thread)
            try:
                lease = await capacity.acquire(job.task.cost)
            except ValueError as error:
                # More than the capacity or one of its ancestors can ever hold.
                job.fail(error)
                continue
            job.lease = lease
            self._live.add(job)
            try:
                handle = executor.submit(job.task, job)
            except Exception as error:
                # A key that cannot be printed, say. It is this task that fails then, not the run.
                job.raised(error)
            else:
                # One that is over already would make a circle with its handle.
                job.handle = handle if job in self._live else None
            if kept:
                self._beginning = self.loop.create_future()
                await self._beginning

    async def _pull(self) -> object:
        """The next item. An error of the source goes to the consumer; until it got there the source is left alone."""
        while True:
            try:
                return await anext(self.plan.source)
            except StopAsyncIteration:
                raise
            except asyncio.CancelledError as cancelled:
                if self._feeder is None or self._feeder.cancelling():
                    raise
                error: Exception = SourceCancelledError(
                    "the source raised CancelledError, and nobody had cancelled it"
                )
                error.__cause__ = cancelled
            except Exception as raised:
                error = raised
            noted(error, f"raised by the source of {self.plan.name}")
            failure = Failure(error)
            failure.told = self.loop.create_future()
            self.put(failure)
            await failure.told

    async def _executor(self, thread: bool) -> Executor:
        executor: Executor = ThreadExecutor(self.plan.name) if thread else LoopExecutor()
        await executor.start()
        self._executors[thread] = executor
        return executor

    async def _until_idle(self) -> None:
        while self._live:
            self._idle = self.loop.create_future()
            await self._idle

    async def _see_out(self) -> None:
        """Stops whatever runs and waits for the last of it, however often the feeder is cancelled meanwhile."""
        for job in tuple(self._live):
            if job.handle is not None:
                job.asked_to_stop = job.handle.cancel() is not Stop.STOPPED
        while self._live:
            self._idle = self.loop.create_future()
            await settled(self._idle)
        for executor in self._executors.values():
            await executor.aclose()

    def _ended(self, feeder: asyncio.Task[None]) -> None:
        """The last of a run: the consumer learns how it ended, and the runner may run again."""
        if self not in _started:
            return
        _started.discard(self)
        self.plan.run = None
        if feeder.cancelled():
            if self._fatal is None and not self.closed:
                self._fatal = SourceCancelledError(
                    f"{feeder.get_name()} was cancelled from outside the pool"
                )
        else:
            self._fatal = self._fatal or feeder.exception()
        if self._fatal is not None:
            self.put(Failure(self._fatal))
        self.put(None)

    # What jobs report.

    def begun(self) -> None:
        """The task that was pulled last is called, or will never be."""
        self.plan.kept.popleft()
        if self._beginning is not None and not self._beginning.done():
            self._beginning.set_result(None)

    def over(self, job: Job) -> None:
        """The work of a job has really stopped."""
        if job.lease is not None:
            job.lease.release()
        self._live.discard(job)
        job.handle = None
        if not self._live and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def interrupt(self, error: BaseException) -> None:
        """A task raised what ends the program: everything is closed first, then the consumer gets it."""
        self._fatal = self._fatal or error
        self.stop()
