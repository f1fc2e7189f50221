"""`BackgroundPuller`: pulls a source in a task of its own; the base of `prefetch`, `timeout` and `batch` with a timeout.

The task pulls while there is space, and parks while there is none. The outcome of a pull, an item or an error, is kept in
`buffer` until the stream is pulled. One task, in one context, drives the source for its whole life and closes it, so a
cancellation of the consumer never reaches the source.

    consumer ──anext()──> stream ──> `BackgroundPuller.buffer` <── the task ──anext()──> source

The puller is also the iterator that the stream pulls from. It refers to its source but not to the stream: the stream holds
a handle. When the handle is collected, the task closes the source.
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
from headrace.pull.source import Restartable

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


class BackgroundPuller(Generic[IN, OUT]):
    """The base of iterators that pull a source in a background task.

    A subclass implements `__anext__`: it calls `wait` until `buffer` has the outcomes that it needs, then `take`. To pull
    ahead, it overrides `max_buffered`. The link of the stream admits one pull at a time.

    An error of the source, whatever its class, is the outcome of one pull; the source is pulled again after that error was
    raised. `KeyboardInterrupt` and `SystemExit` end the program. If no pull waits for them, they are raised out of the event
    loop immediately, as from any task, and the stream continues without them. A `CancelledError` of the source is an error
    too, unless the task was cancelled. If the task was cancelled, but not by the stream, the consumer gets a
    `SourceCancelledError`, and the stream ends. At the end of the source the task closes it and ends.
    """

    def __init__(self, source: PullObj[IN]) -> None:
        self.buffer: deque[IN | Failure] = deque()
        """The outcomes that were not taken yet, oldest first."""
        self.first_at: float = 0.0
        """The arrival time of the oldest outcome in the buffer, on the loop's clock."""
        self.is_over: bool = False
        """Whether the source is closed and the task has ended, so that no outcome will follow."""
        self._source = source
        self._task: asyncio.Task[None] | None = None
        # Whether the task has started: it then closes the source.
        self._has_started = False
        self._is_pulling = False
        self._is_closing = False
        # The task waits on the first while there is no space, the consumer on the second while the buffer is empty.
        self._parked: asyncio.Future[None] | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def source(self) -> PullObj[IN]:
        """The source."""
        return self._source

    @property
    def is_pulling(self) -> bool:
        """Whether a pull of the source is in progress."""
        return self._is_pulling

    @property
    def is_running(self) -> bool:
        """Whether there is a task that has not ended."""
        return self._task is not None and not self._task.done()

    def parts(self) -> Iterator[str]:
        """Describe the state, for `repr`."""
        yield f"{len(self.buffer)} held"

    def max_buffered(self) -> int:
        """Return the maximum length of the buffer; called before each pull. Here 1, while a pull waits."""
        return self._waiter is not None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> OUT:
        raise NotImplementedError

    async def wait(self, until: float | None = None) -> None:
        """Wait for one more outcome, for the end, or until a time on the loop's clock, possibly a little less.

        Cancel safety: outcomes that arrive meanwhile stay in the buffer.
        """
        if self.is_over:
            return
        loop = asyncio.get_running_loop()
        self._start(loop)
        self._waiter = waiter = loop.create_future()
        # Wake the task before the timer is set, so that it runs once even if `until` has passed already.
        self._wake_task()
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
            StopAsyncIteration: The source has ended.
            BaseException: The outcome is an error.
        """
        if not self.buffer:
            raise StopAsyncIteration
        outcome = self.buffer.popleft()
        if self._parked is not None:
            self._wake_task()
        if type(outcome) is Failure:
            raise outcome.error
        return outcome  # type: ignore[return-value]

    def restarting(self) -> Generator[PullObj[IN], None, None]:
        """Run the steps of a restart; yield the source to be restarted. A parked task is reused.

        Raises:
            RuntimeError: The source is being pulled or closed, or cannot restart.
        """
        parked = self._parked is not None and not self._parked.done() and self._waiter is None
        if self.is_running and (self._is_closing or not parked):
            raise RuntimeError(
                "cannot restart while an item is being fetched from the source; call aclose() first"
            )
        yield self._source
        if not self.is_running:
            self._task, self._has_started = None, False
        self.buffer.clear()
        self.is_over = self._is_closing = False

    async def aclose(self) -> None:
        """Request the task to close the source, and wait until it has ended. Idempotent.

        Cancel safety: a cancellation is raised only after everything is closed.
        """
        task = self._task
        if task is not None and not task.done():
            self._check(task)
        self.close_soon()
        if task is not None and not task.done():
            await _join(task)
        if not self._has_started:
            # Never pulled; or the task was cancelled before its first step. In a task, so that nested streams do not fill one stack.
            self._has_started = True
            await _join(
                asyncio.create_task(self._source.aclose(), name=f"closer of {self._source!r}")
            )

    def close_soon(self) -> None:
        """Request the task to close the source and end. A pull in progress is cancelled once."""
        if self._is_closing:
            return
        self._is_closing = True
        self.buffer.clear()
        if self._is_pulling and self._task is not None:
            self._task.cancel()
        elif self._parked is not None:
            _wake(self._parked)

    def on_dropped(self) -> None:
        """Close soon, for a stream that was dropped. A finaliser may call this in any thread."""
        if self._task is not None:
            # The loop may be closed.
            with contextlib.suppress(RuntimeError):
                self._task.get_loop().call_soon_threadsafe(self.close_soon)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._task is not None:
            self._check(self._task)
            return
        # Not `loop.create_task`: an eager task factory would run the task before `_task` is set.
        self._task = asyncio.Task(self._run(loop), loop=loop, name=f"puller of {self._source!r}")
        self._task.add_done_callback(self._on_ended)
        pin_to_loop(loop, self._task)

    def _check(self, task: asyncio.Task[None]) -> None:
        if task.get_loop() is not asyncio.get_running_loop():
            raise WrongLoopError(
                "the task of this stream belongs to another event loop; use it there, or close it there first"
            )
        if task is asyncio.current_task():
            raise RuntimeError("a source cannot pull or close the stream that pulls it")

    async def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Pull the source until its end or until the stream is closed, and close it."""
        self._has_started = True
        async with contextlib.aclosing(self._source):
            await self._pull_all(loop)

    async def _pull_all(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._has_space() or await self._wait_for_space(loop):
            self._is_pulling = True
            try:
                outcome: IN | Failure = await anext(self._source)
            except StopAsyncIteration:
                return
            except asyncio.CancelledError as error:
                task = self._task
                if task is not None and task.cancelling():
                    if not self._is_closing:
                        raise
                    # The cancellation by `close_soon`: the source is closed in a task without a pending cancellation.
                    task.uncancel()
                    return
                outcome = Failure(error)
            except GeneratorExit:
                # The loop is closed, and nothing can be awaited any more.
                raise
            except BaseException as error:
                if self._is_closing:
                    raise
                is_awaited = self._waiter is not None and not self._waiter.done()
                if ends_program(error) and not is_awaited:
                    # In the buffer, it would end the program only at a later pull, or be dropped by closing.
                    loop.call_soon(_raise, error)
                    continue
                outcome = Failure(error)
            finally:
                self._is_pulling = False
            self._put(outcome, loop)

    def _has_space(self) -> bool:
        buffer = self.buffer
        # An error must be taken before the next pull.
        return (
            len(buffer) < self.max_buffered()
            and not (buffer and type(buffer[-1]) is Failure)
            and not self._is_closing
        )

    async def _wait_for_space(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Park until there is space; return False if the task must close the source."""
        while not (self._is_closing or self._has_space()):
            self._parked = loop.create_future()
            try:
                await self._parked
            finally:
                self._parked = None
        return not self._is_closing

    def _wake_task(self) -> None:
        """Wake the parked task if there is space."""
        if self._parked is not None and self._has_space():
            _wake(self._parked)

    def _put(self, outcome: IN | Failure, loop: asyncio.AbstractEventLoop) -> None:
        if not self.buffer:
            self.first_at = loop.time()
        self.buffer.append(outcome)
        if self._waiter is not None:
            _wake(self._waiter)

    def _on_ended(self, task: asyncio.Task[None]) -> None:
        """Deliver the error of the ended task, unless `aclose` raises it."""
        unpin(task.get_loop(), task)
        if task is not self._task:
            return
        if not self._is_closing:
            error: BaseException | None
            if task.cancelled():
                error = SourceCancelledError(
                    "the task that pulls this source was cancelled; items may be lost"
                )
            else:
                error = task.exception()
            if error is not None:
                self._put(Failure(error), task.get_loop())
        self.is_over = True
        if self._waiter is not None:
            _wake(self._waiter)


def _raise(error: BaseException) -> None:
    raise error


async def _join(task: asyncio.Task[None]) -> None:
    """Wait for a task that closes the source, and raise its error. A cancellation is raised afterwards."""
    cancellation = await wait_until_done(task)
    error = None if task.cancelled() else task.exception()
    if cancellation is not None:
        raise cancellation from error
    if error is not None:
        raise error


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class _Handle(Restartable[OUT_co], Generic[IN, OUT_co]):
    """The origin of a stream over a puller. The task does not refer to it, so that dropping the stream finalises it."""

    _iterator: BackgroundPuller[IN, OUT_co]

    def __init__(self, puller: BackgroundPuller[IN, OUT_co], name: str) -> None:
        super().__init__(puller)
        self._name = name

    def __del__(self) -> None:
        if self._iterator.is_running:
            self._iterator.on_dropped()
            warn_unclosed(self)

    def __repr__(self) -> str:
        puller = self._iterator
        return format_repr(f"{self._name} of {short_repr(puller.source)}", puller.parts())


class PullBackgroundObj(PullObj[OUT_co], Generic[IN, OUT_co], stock=True):
    """The base of streams over a `BackgroundPuller`. They must be closed while its task runs."""

    def __init__(self, puller: BackgroundPuller[IN, OUT_co]) -> None:
        self._puller = puller
        super().__init__(AsyncIterSource(_Handle(puller, type(self).__name__)))

    @property
    def source(self) -> PullObj[IN]:
        """The source."""
        return self._puller.source

    def _repr_parts(self) -> Iterator[str]:
        yield from self._puller.parts()
        yield from super()._repr_parts()

    def _restarting(self) -> Generator[PullObj[Any], None, None]:
        # Its own link first: if the puller then refuses, the stream is unchanged.
        yield from super()._restarting()
        yield from self._puller.restarting()
