"""Concurrent calls: the implementation of `map` with a `concurrency`. `PullMapObj` creates a `ConcurrentMap`.

One task, the driver, pulls the source while there is space, and closes it. Context variables and task groups that a source
holds open across its `yield`s therefore work as if it ran alone. An awaitable result becomes an asyncio task of its own.
All calls and results are in one queue: in input order, or in the order in which they finished. The consumer takes from the
head of this queue and waits for nothing else, so a cancelled pull loses nothing and cancels no call.

Driver and consumer wait on one future each, resolved when there is space or a result. Ready results are taken without
waiting, so a consumer that finds many of them wakes the driver once, which then makes many calls.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from headrace._core import pin_to_loop, unpin
from headrace._internal.error_notes import add_note_once, raise_closing, wrap_iteration_error
from headrace._internal.reprs import format_count, format_repr
from headrace._internal.tasks import wait_until_done
from headrace._internal.validate import check_int
from headrace.errors import SourceCancelledError, WrongLoopError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator

    from headrace._core import MapKernel
    from headrace.pull.base import PullObj

OUT = TypeVar("OUT")
T = TypeVar("T")

_EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
"""Eager tasks, where CPython has them: a call that never suspends needs no event-loop iteration."""


class _Value(Generic[T]):
    """A result that needed no task."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def done(self) -> bool:
        return True


class _Error:
    """An error that is raised unchanged: it has its note already, or is not the callable's."""

    __slots__ = ("_error",)

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def done(self) -> bool:
        return True

    def result(self) -> Any:
        """Raise the error, as `result()` of a failed task does."""
        raise self._error


class ConcurrentMap(Generic[OUT]):
    """The state that the driver, the calls and the consumer of one stream share."""

    def __init__(
        self, source: PullObj[Any], kernel: MapKernel, *, ordered: bool, raw: bool, operator: str
    ) -> None:
        self.source = source
        self.concurrency: int = 0
        self.window: int | None = None
        """The window as given; `max_held` is its effective value."""
        self.max_held: int = 0
        self._kernel = kernel
        self._is_ordered = ordered
        self._is_raw = raw
        self._operator = operator
        self._call_name = f"transform of {operator}"
        # The results to deliver; if ordered, also the running calls.
        self._queue: deque[asyncio.Task[OUT] | _Value[OUT] | _Error] = deque()
        self._tasks: set[asyncio.Task[OUT]] = set()
        """The running calls."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._driver: asyncio.Task[Any] | None = None
        self.is_driven: bool = False
        """Whether the driver or a call runs."""
        # Resolved when the driver has space, and when the consumer has a result. The native link admits one pull at a
        # time.
        self._parked: asyncio.Future[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        # An eager call runs its first step inside the driver's.
        self._is_calling = False
        self._is_ended = False
        """Whether the source has ended."""
        self._is_closing = False
        self._ending: Callable[[], Coroutine[Any, Any, Any]] = source.aclose
        """The function that closes the source."""
        self._is_ending = False
        self._closer: asyncio.Task[Any] | None = None
        """The task that closes the source if the driver cannot."""
        # The error of the pull that was cancelled in order to close the source.
        self._close_error: BaseException | None = None
        self._closers = 0
        """The number of tasks that wait in `close`."""

    def __repr__(self) -> str:
        return format_repr(self._operator, self.parts())

    def parts(self) -> Iterator[str]:
        """Describe the state, for `repr`: running calls, and calls whose result was not taken yet."""
        yield format_count(len(self._tasks), self.concurrency, "calls run")
        # A copy, made in one step: `repr` may run in another thread while the loop's thread changes the queue.
        if waiting := sum(call.done() for call in tuple(self._queue)):
            yield f"{waiting} done"

    def set_limits(self, concurrency: int, window: int | None) -> None:
        """Set the maximum number of running calls, and of calls that run or wait to be delivered.

        Raises:
            TypeError: One is not an integer.
            ValueError: `concurrency` is not positive, or `window` less than it.
        """
        check_limits(concurrency, window)
        self.concurrency, self.window = concurrency, window
        self.max_held = 2 * concurrency if window is None else window
        self._wake_driver()

    # Methods of the consumer.

    async def pull(self) -> OUT:
        """Return the next result, or raise its error."""
        queue = self._queue
        while not (queue and queue[0].done()):
            if self._is_ended and not queue and not self._tasks:
                raise StopAsyncIteration
            loop = asyncio.get_running_loop()
            self._check(loop)
            self._waiter = loop.create_future()
            try:
                if self._driver is None:
                    if not self._is_closing:
                        self._start(loop)
                elif self._parked is not None:
                    self._wake_driver()
                await self._waiter
            finally:
                self._waiter = None
        # Nothing below suspends, so a taken result cannot be lost.
        entry = queue.popleft()
        if self._parked is not None:
            self._wake_driver()
        if isinstance(entry, _Value):
            return entry.value
        try:
            return entry.result()
        except (StopAsyncIteration, GeneratorExit) as error:
            # They would end the consumer's iteration (PEP 479). A task cannot raise `StopIteration`.
            if type(entry) is _Error:
                raise
            raise wrap_iteration_error(error, self._call_name) from error
        except Exception as error:
            if type(entry) is not _Error:
                self._annotate(error)
            raise
        finally:
            # The error refers to this frame: otherwise its own task would keep it alive.
            del entry

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        """Refuse another event loop, and a call that would wait for itself."""
        if self._driver is None:
            return
        if self._loop is not loop:
            raise WrongLoopError(
                "this stream is under way on another event loop; use it there, or close it there first"
            )
        task = asyncio.current_task(loop)
        if self._is_calling or task in self._tasks or task is self._driver:
            raise RuntimeError(
                "this stream is being pulled already: its own callable cannot pull or close it"
            )

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.is_driven = True
        pin_to_loop(loop, self)
        # Not `loop.create_task`: an eager task factory would run the driver before `_driver` is set.
        self._driver = asyncio.Task(
            self._drive(loop), loop=loop, name=f"the source of {self._operator}"
        )
        self._driver.add_done_callback(self._driver_ended)

    # Methods of the driver.

    async def _drive(self, loop: asyncio.AbstractEventLoop) -> Any:
        """Pull while there is space. If the stream is being closed, close the source."""
        me = asyncio.current_task(loop)
        try:
            await self._pull_all(loop, me)
            if not self._is_closing:
                # The end of the source, which stays open; or a restart.
                return None
        except asyncio.CancelledError as cancellation:
            if not self._is_closing:
                self._put(_Error(self._source_cancelled(cancellation)))
        self._is_ending = True
        if me is not None and me.cancelling():
            # The cancellation was delivered: the source is closed in a task without a pending cancellation.
            me.uncancel()
        # First the calls: they may use resources that the source holds open.
        await wait_until_done(*self._tasks)
        return await self._ending()

    async def _pull_all(
        self, loop: asyncio.AbstractEventLoop, me: asyncio.Task[Any] | None
    ) -> None:
        source = self.source
        while not self._is_closing:
            if not self._has_space():
                self._parked = loop.create_future()
                await self._parked
                if self._driver is not me:
                    return
                continue
            try:
                item = await anext(source)
            except StopAsyncIteration:
                return
            except GeneratorExit:
                # The loop is closed, and nothing can be awaited any more.
                raise
            except asyncio.CancelledError as error:
                if me is None or me.cancelling():
                    # Not raised by the source: the driver was cancelled, by `close` or from outside.
                    raise
                self._put(_Error(error))
            except BaseException as error:
                self._source_failed(error)
            else:
                # A source that ignores its cancellation may yield an item that is no longer needed.
                if not self._is_closing:
                    self._call(item, loop)

    def _source_failed(self, error: BaseException) -> None:
        """Deliver an error of the source to the consumer, or to `close` while that cancels the pull."""
        if self._is_closing:
            self._close_error = error
        else:
            self._put(_Error(error))

    def _has_space(self) -> bool:
        running, held = len(self._tasks), len(self._queue)
        if self.concurrency == 1:
            # No call runs ahead of its pull.
            return self._waiter is not None and not running and not held
        if not self._is_ordered:
            held += running
        return running < self.concurrency and held < self.max_held

    def _wake_driver(self) -> None:
        """Wake the driver if it waits and there is space."""
        parked = self._parked
        if parked is not None and self._has_space():
            self._parked = None
            if not parked.done():
                parked.set_result(None)

    def _call(self, item: Any, loop: asyncio.AbstractEventLoop) -> None:
        """Call the callable. Its error is the result of the item."""
        try:
            result: object = self._kernel.transform(item)
            if self._is_raw or not hasattr(type(result), "__await__"):
                self._put(_Value(cast("OUT", result)))
                return
            work = cast("Coroutine[Any, Any, OUT]", result)
            if type(result) is not CoroutineType:
                work = _awaited(work)
            self._is_calling = True
            try:
                task = asyncio.Task(work, loop=loop, name=self._call_name, **_EAGER)
            finally:
                self._is_calling = False
        except (StopIteration, StopAsyncIteration, GeneratorExit) as error:
            self._put(_Error(wrap_iteration_error(error, self._call_name)))
        except BaseException as error:
            self._put(_Error(self._annotate(error)))
        else:
            if task.done():
                _mark_retrieved(task)
                self._put(task)
                return
            self._tasks.add(task)
            task.add_done_callback(self._call_ended)
            if self._is_ordered:
                self._queue.append(task)

    def _put(self, entry: asyncio.Task[OUT] | _Value[OUT] | _Error) -> None:
        """Queue a result for delivery."""
        self._queue.append(entry)
        if self._waiter is not None:
            self._wake_consumer()

    def _wake_consumer(self) -> None:
        """Wake the consumer if it waits and there is a result for it."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        queue = self._queue
        if queue[0].done() if queue else self._is_ended and not self._tasks:
            waiter.set_result(None)

    def _call_ended(self, task: asyncio.Task[OUT]) -> None:
        self._tasks.discard(task)
        _mark_retrieved(task)
        if not self._is_ordered and not self._is_closing:
            self._queue.append(task)
        if self._waiter is not None:
            self._wake_consumer()
        if self._parked is not None:
            self._wake_driver()
        if self._is_ended and not self._tasks:
            self._on_idle()

    def _driver_ended(self, driver: asyncio.Task[Any]) -> None:
        if self._driver is not driver:
            # The driver of an earlier cycle.
            return
        self._is_ended = True
        if not self._is_closing:
            if driver.cancelled():
                # Before its first step.
                self._put(_Error(self._source_cancelled(asyncio.CancelledError())))
            elif (error := driver.exception()) is not None:
                self._put(_Error(error))
        self._wake_consumer()
        if not self._tasks:
            self._on_idle()

    def _on_idle(self) -> None:
        """Unpin the state from the loop once neither the driver nor a call runs."""
        self.is_driven = False
        if self._loop is not None:
            unpin(self._loop, self)

    # Closing.

    async def close(self, ending: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Cancel the calls, wait for them, then end the source by `ending()`, and return its result."""
        loop = asyncio.get_running_loop()
        if self.is_driven:
            self._check(loop)
        is_first = not self._is_closing
        if is_first:
            self._ending = ending
        running = self._cancel_all()
        self._closers += 1
        driver = self._driver
        cancellation = await wait_until_done(*self._tasks, *(() if driver is None else (driver,)))
        if not self._is_ending:
            # No task drives the source: it was never pulled, or has ended. It is closed in a new task, because a long
            # chain of such streams would otherwise be closed by recursion.
            self._is_ending = True
            self._closer = asyncio.Task(
                ending(), loop=loop, name=f"the closing of {self._operator}"
            )
        closer = self._closer or driver
        if closer is not None:
            cancellation = await wait_until_done(closer) or cancellation
        self._closers -= 1
        self._is_ended = True
        self._wake_consumer()
        errors = [
            self._annotate(error)
            for task in running
            if not task.cancelled() and (error := task.exception()) is not None
        ]
        if is_first and self._close_error is not None:
            errors.append(self._close_error)
            self._close_error = None
        result = None
        try:
            if closer is not None and is_first:
                result = closer.result()
        except asyncio.CancelledError as cancelled:
            cancellation = cancellation or cancelled
        except BaseException as failure:
            errors.append(failure)
        raise_closing(cancellation, errors, f"several calls of {self._operator} failed to close")
        return result

    def _cancel_all(self) -> list[asyncio.Task[OUT]]:
        """Cancel the driver and the calls, once; return the calls that were running."""
        if self._is_closing:
            return []
        self._is_closing = True
        running = [task for task in self._tasks if not task.done()]
        self._queue.clear()
        for task in running:
            task.cancel()
        if self._driver is not None and not self._is_ending:
            self._driver.cancel()
        return running

    def on_dropped(self) -> None:
        """Cancel everything for a stream that was dropped. A finaliser may call this in any thread."""
        loop = self._loop
        if loop is None or loop.is_closed():
            self._on_idle()
        else:
            loop.call_soon_threadsafe(self._cancel_all)

    def restarting(self) -> Generator[PullObj[Any], None, None]:
        """Run the steps of a restart; yield the source, which must be restarted.

        Raises:
            RuntimeError: Calls run, the source is being pulled, or the source cannot restart.
        """
        driver, parked = self._driver, self._parked
        if parked is not None and parked.done():
            parked = None
        is_idle = driver is None or driver.done() or parked is not None
        if self._tasks or not is_idle or self._waiter is not None or self._closers:
            raise RuntimeError(
                f"cannot restart while calls of {self._operator} run ahead, or it is being closed; close it first"
            )
        yield self.source
        self._on_idle()
        # A driver that waits for space finds that `_driver` is another one, and ends.
        self._driver = self._parked = self._closer = None
        if parked is not None and not parked.get_loop().is_closed():
            parked.set_result(None)
        self._queue.clear()
        self._loop = None
        self._ending = self.source.aclose
        self._is_ended = self._is_closing = self._is_ending = False

    # Errors.

    def _annotate(self, error: BaseException) -> BaseException:
        """Return the error, with a note that names the callable."""
        if isinstance(error, Exception):
            add_note_once(error, f"raised by {self._call_name}")
        return error

    def _source_cancelled(self, cancellation: asyncio.CancelledError) -> SourceCancelledError:
        error = SourceCancelledError(
            f"the task that pulls the source of {self._operator} was cancelled; items may be lost"
        )
        error.__cause__ = cancellation
        return error


def check_limits(concurrency: int, window: int | None) -> None:
    """Check `concurrency` and `window`.

    Raises:
        TypeError: One is not an integer.
        ValueError: `concurrency` is not positive, or `window` less than it.
    """
    check_int("concurrency", 1, concurrency)
    if window is None:
        return
    check_int("window", 1, window)
    if window < concurrency:
        raise ValueError(f"window must be at least concurrency ({concurrency}), got {window} (int)")


def _mark_retrieved(task: asyncio.Task[Any]) -> None:
    """Mark the exception of a task as retrieved: it may never be pulled, and asyncio would log it."""
    if not task.cancelled():
        task.exception()


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable
