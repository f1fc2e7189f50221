"""The base of streams that pull their source in a background task.

A pump is that task. It pulls while there is space, and parks while there is none. The outcome of a pull, an item or an
error, is kept in `held` until the stream is pulled. One task, in one context, drives the source for its whole life and
closes it, so that no cancellation of the consumer ever reaches the source.

    consumer ──anext()──> stream ──> `Pump.held` <── the pump's task ──anext()──> source

The pump is also the iterator that the stream pulls from. It refers to its source but not to the stream: the stream
holds a handle, whose collection makes the task close.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from headrace._core import AsyncIterSource, pin_to_loop, unpin
from headrace._internal.error_notes import ends_program
from headrace._internal.reprs import format_repr, short_repr
from headrace._internal.tasks import wait_until_done, warn_unclosed
from headrace.errors import SourceCancelledError, WrongLoopError
from headrace.pull.base import PullObj

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import Any, Self

IN = TypeVar("IN")
OUT = TypeVar("OUT")
OUT_co = TypeVar("OUT_co", covariant=True)


class Failure:
    """An error, in place of an item."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error: BaseException = error


class Pump(Generic[IN, OUT]):
    """The base of iterators that pull a source in a background task.

    A subclass has `__anext__`, which calls `wait` until `held` has what it wants and then `take`; and `room`, if it
    pulls ahead. It is to be called by one pull at a time, which the link of the stream sees to.

    An error of the source, whatever its class, is the result of one pull; the source is pulled again once that error was
    raised. `KeyboardInterrupt` and `SystemExit` end the program: while no pull waits for them they are raised out of the
    event loop at once, as from any task, and the stream goes on without them. A `CancelledError` that comes out of the
    source is an error as well, unless the task was cancelled. If something else than the stream cancelled it, its consumer
    gets a `SourceCancelledError`, and the stream ends. At the end of the source the task closes it and ends.
    """

    def __init__(self, source: PullObj[IN]) -> None:
        self.held: deque[IN | Failure] = deque()
        """The outcomes that were not taken yet, oldest first."""
        self.since: float = 0.0
        """The arrival time of the oldest held outcome, on the loop's clock."""
        self.over: bool = False
        """Whether the source is closed and the task has ended, so that no outcome will follow."""
        self._source = source
        self._task: asyncio.Task[None] | None = None
        # The task has begun: it is the one that closes the source.
        self._driven = False
        # The task is inside a pull of the source.
        self._pulling = False
        self._closing = False
        # What the task waits for while there is no room, and the consumer while nothing is held.
        self._parked: asyncio.Future[None] | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def source(self) -> PullObj[IN]:
        """The source."""
        return self._source

    @property
    def pulling(self) -> bool:
        """Whether a pull of the source is in progress."""
        return self._pulling

    @property
    def running(self) -> bool:
        """Whether there is a task that has not ended."""
        return self._task is not None and not self._task.done()

    def facts(self) -> Iterator[str]:
        """Describe the state, for `repr`."""
        yield f"{len(self.held)} held"

    def room(self) -> int:
        """The number of outcomes that may be held, read before each pull. Here one, while a pull waits."""
        return self._waiter is not None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> OUT:
        raise NotImplementedError

    async def wait(self, until: float | None = None) -> None:
        """Wait for one more outcome, for the end, or until a time on the loop's clock, possibly a little less.

        Cancel safety: outcomes that arrive meanwhile are held.
        """
        if self.over:
            return
        loop = asyncio.get_running_loop()
        self._start(loop)
        self._waiter = waiter = loop.create_future()
        # The pump goes before the timer: with a time that has come, it still has a turn.
        self._go_on()
        timer = None if until is None else loop.call_at(until, _wake, waiter)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def take(self) -> IN:
        """Take the oldest outcome.

        Raises:
            StopAsyncIteration: There is none: the end. BaseException: The outcome is an error.
        """
        if not self.held:
            raise StopAsyncIteration
        outcome = self.held.popleft()
        if self._parked is not None:
            self._go_on()
        if type(outcome) is Failure:
            raise outcome.error
        return outcome  # type: ignore[return-value]

    def restarting(self) -> Generator[PullObj[IN], None, None]:
        """Run the steps of a restart; yield the source to be restarted. A parked task is reused.

        Raises:
            RuntimeError: The source is being pulled or closed, or cannot restart.
        """
        parked = self._parked is not None and not self._parked.done() and self._waiter is None
        if self.running and (self._closing or not parked):
            raise RuntimeError(
                "cannot restart while an item is being fetched from the source; call aclose() first"
            )
        yield self._source
        if not self.running:
            self._task, self._driven = None, False
        self.held.clear()
        self.over = self._closing = False

    async def aclose(self) -> None:
        """Make the task close the source, and wait until it has ended. Idempotent.

        Cancel safety: a cancellation is raised only after everything is closed.
        """
        task = self._task
        if task is not None and not task.done():
            self._check(task)
        self.close_soon()
        if task is not None and not task.done():
            cancellation = await wait_until_done(task)
            error = None if task.cancelled() else task.exception()
            if cancellation is not None:
                raise cancellation from error
            if error is not None:
                raise error
        if not self._driven:
            # Never pulled; or the task was cancelled before its first step.
            self._driven = True
            await self._source.aclose()

    def close_soon(self) -> None:
        """Request the task to close the source and end. A pull in progress is cancelled once."""
        if self._closing:
            return
        self._closing = True
        self.held.clear()
        if self._pulling and self._task is not None:
            self._task.cancel()
        elif self._parked is not None:
            _wake(self._parked)

    def abandon(self) -> None:
        """Request the same for a pump without references, from a finaliser in any thread."""
        if self._task is not None:
            # The loop may be closed.
            with contextlib.suppress(RuntimeError):
                self._task.get_loop().call_soon_threadsafe(self.close_soon)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._task is not None:
            self._check(self._task)
            return
        # Not `loop.create_task`: under a factory of eager tasks it would run before it is known here.
        self._task = asyncio.Task(self._live(loop), loop=loop, name=f"pump of {self._source!r}")
        self._task.add_done_callback(self._ended)
        pin_to_loop(loop, self._task)

    def _check(self, task: asyncio.Task[None]) -> None:
        if task.get_loop() is not asyncio.get_running_loop():
            raise WrongLoopError(
                "the task of this stream belongs to another event loop; use it there, or close it there first"
            )
        if task is asyncio.current_task():
            raise RuntimeError("a source cannot pull or close the stream that pulls it")

    async def _live(self, loop: asyncio.AbstractEventLoop) -> None:
        """The task."""
        self._driven = True
        async with contextlib.aclosing(self._source):
            await self._pull_all(loop)

    async def _pull_all(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._has_room() or await self._get_room(loop):
            self._pulling = True
            try:
                outcome: IN | Failure = await anext(self._source)
            except StopAsyncIteration:
                return
            except asyncio.CancelledError as error:
                task = self._task
                if task is not None and task.cancelling():
                    if not self._closing:
                        raise
                    # Ours, and delivered: what closes the source finds a task that nobody cancels.
                    task.uncancel()
                    return
                outcome = Failure(error)
            except GeneratorExit:
                # The loop has gone, and nothing can be awaited any more.
                raise
            except BaseException as error:
                if self._closing:
                    raise
                is_awaited = self._waiter is not None and not self._waiter.done()
                if ends_program(error) and not is_awaited:
                    # Held, it would end the program only at some later pull, or be dropped by closing.
                    loop.call_soon(_raise, error)
                    continue
                outcome = Failure(error)
            finally:
                self._pulling = False
            self._hold(outcome, loop)

    def _has_room(self) -> bool:
        held = self.held
        # Not beyond an error that nobody has seen.
        return (
            len(held) < self.room()
            and not (held and type(held[-1]) is Failure)
            and not self._closing
        )

    async def _get_room(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Park until there is space; return False if the task must close."""
        while not (self._closing or self._has_room()):
            self._parked = loop.create_future()
            try:
                await self._parked
            finally:
                self._parked = None
        return not self._closing

    def _go_on(self) -> None:
        """End the parking if there is space."""
        if self._parked is not None and self._has_room():
            _wake(self._parked)

    def _hold(self, outcome: IN | Failure, loop: asyncio.AbstractEventLoop) -> None:
        if not self.held:
            self.since = loop.time()
        self.held.append(outcome)
        if self._waiter is not None:
            _wake(self._waiter)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """The task has ended: what it leaves goes to the consumer, or to whoever closes."""
        unpin(task.get_loop(), task)
        if task is not self._task:
            return
        if not self._closing:
            error: BaseException | None
            if task.cancelled():
                error = SourceCancelledError(
                    "the task that pulls this source was cancelled; items may be lost"
                )
            else:
                error = task.exception()
            if error is not None:
                self._hold(Failure(error), task.get_loop())
        self.over = True
        if self._waiter is not None:
            _wake(self._waiter)


def _raise(error: BaseException) -> None:
    raise error


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class _Handle(Generic[IN, OUT]):
    """What a stream over a pump is made of. No task refers to it, so that one which was dropped is noticed."""

    def __init__(self, pump: Pump[IN, OUT], name: str) -> None:
        self._pump = pump
        self._name = name

    def __aiter__(self) -> Pump[IN, OUT]:
        return self._pump

    async def aclose(self) -> None:
        """Close the source of a stream that was never pulled."""
        await self._pump.aclose()

    def __del__(self) -> None:
        if self._pump.running:
            self._pump.abandon()
            warn_unclosed(self)

    def __repr__(self) -> str:
        return format_repr(f"{self._name} of {short_repr(self._pump.source)}", self._pump.facts())


class PullPumpObj(PullObj[OUT_co], Generic[IN, OUT_co], stock=True):
    """The base of streams over a pump: while the pump's task runs, they have to be closed."""

    def __init__(self, pump: Pump[IN, OUT_co]) -> None:
        self._pump = pump
        super().__init__(AsyncIterSource(_Handle(pump, type(self).__name__)))

    @property
    def source(self) -> PullObj[IN]:
        """The source."""
        return self._pump.source

    def _repr_parts(self) -> Iterator[str]:
        yield from self._pump.facts()
        yield from super()._repr_parts()

    def _restarting(self) -> Generator[PullObj[Any], None, None]:
        # Its own link first: with that alone done, the stream goes on as it was.
        yield from super()._restarting()
        yield from self._pump.restarting()
