"""Concurrent calls: the implementation of `map` with a `concurrency`.

One task, the driver, pulls the source for as long as there is room; it also closes it, so that context variables and
task groups which a source holds open across its `yield`s work as if it ran alone. What is called and has to be awaited
becomes an asyncio task of its own. All of it stands in one queue: in input order, or in the order in which it finished.
The consumer takes from the head of that queue and waits for nothing else; so a pull that is cancelled can lose nothing,
and it cancels nothing either.

Driver and consumer wait on one future each, which whoever makes room, or a result, resolves. What is ready is taken without
waiting; so a consumer that finds many results wakes the driver once, which then has many calls to make.
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


class _Fault:
    """An error that is raised as it stands: it has its note already, or is none of the callable's."""

    __slots__ = ("_error",)

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def done(self) -> bool:
        return True

    def result(self) -> Any:
        """As a task gives its own."""
        raise self._error


class DrivenCalls(Generic[OUT]):
    """What the driver and the calls of one stream share with it."""

    def __init__(
        self, source: PullObj[Any], kernel: MapKernel, *, ordered: bool, raw: bool, operator: str
    ) -> None:
        self.source = source
        self.concurrency: int = 0
        self.window: int | None = None
        """As it was given; `held_at_most` is what holds."""
        self.held_at_most: int = 0
        self._kernel = kernel
        self._is_ordered = ordered
        self._is_raw = raw
        self._operator = operator
        self._call_name = f"transform of {operator}"
        # What is to be delivered: if ordered, also what still runs.
        self._queue: deque[asyncio.Task[OUT] | _Value[OUT] | _Fault] = deque()
        self._tasks: set[asyncio.Task[OUT]] = set()
        """The running calls."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._driver: asyncio.Task[Any] | None = None
        self.is_driven: bool = False
        """Whether tasks of it run."""
        # Where the driver waits for room, and the consumer for a result. The native link lets one
        # pull come here at a time.
        self._parked: asyncio.Future[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        # A call takes its first step inside the driver's.
        self._is_calling = False
        self._is_ended = False
        """Whether the source has ended."""
        self._is_closing = False
        self._ending: Callable[[], Coroutine[Any, Any, Any]] = source.aclose
        """What is done with the source at last."""
        self._is_ending = False
        self._closer: asyncio.Task[Any] | None = None
        """What does it, if the driver cannot."""
        # What came of the pull that was cancelled in order to close the source.
        self._parting: BaseException | None = None
        self._closers = 0
        """The number of tasks that wait in `close`."""

    def __repr__(self) -> str:
        return format_repr(self._operator, self.facts())

    def facts(self) -> Iterator[str]:
        """How it stands: the calls that run, and those whose result waits."""
        yield format_count(len(self._tasks), self.concurrency, "calls run")
        # A copy, made in one step: another thread may ask while the loop's changes it.
        if waiting := sum(call.done() for call in tuple(self._queue)):
            yield f"{waiting} done"

    def set_limits(self, concurrency: int, window: int | None) -> None:
        """Sets the numbers, which were checked."""
        self.concurrency, self.window = concurrency, window
        self.held_at_most = 2 * concurrency if window is None else window
        self._make_room()

    # The consumer's side.

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
                    self._make_room()
                await self._waiter
            finally:
                self._waiter = None
        # From here on nothing waits, so that nothing that was taken can be lost.
        entry = queue.popleft()
        if self._parked is not None:
            self._make_room()
        if isinstance(entry, _Value):
            return entry.value
        try:
            return entry.result()
        except (StopAsyncIteration, GeneratorExit) as error:
            # They would speak for the stream (PEP 479). `StopIteration` no task can raise.
            if type(entry) is _Fault:
                raise
            raise wrap_iteration_error(error, self._call_name) from error
        except Exception as error:
            if type(entry) is not _Fault:
                self._note(error)
            raise
        finally:
            # Or the error, which knows this frame, would be kept alive by its own task.
            del entry

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        """Refuses the wrong loop, and a call that would wait for itself."""
        if self._driver is None:
            return
        if self._loop is not loop:
            raise WrongLoopError(
                "this stream is under way on another event loop; use it there, or close it there first"
            )
        if self._is_inside(loop):
            raise RuntimeError(
                "this stream is being pulled already: its own callable cannot pull or close it"
            )

    def _is_inside(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether the caller is one of its own tasks."""
        task = asyncio.current_task(loop)
        return self._is_calling or task in self._tasks or task is self._driver

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.is_driven = True
        pin_to_loop(loop, self)
        # Not `loop.create_task`: under a factory of eager tasks it would run before it is known here.
        self._driver = asyncio.Task(
            self._drive(loop), loop=loop, name=f"the source of {self._operator}"
        )
        self._driver.add_done_callback(self._driver_ended)

    # The driver's side.

    async def _drive(self, loop: asyncio.AbstractEventLoop) -> Any:
        """Pulls whatever there is room for; at last closes the source, if the stream is closed."""
        me = asyncio.current_task(loop)
        try:
            await self._pull_all(loop, me)
            if not self._is_closing:
                # It is the source's end, which leaves it open like any other end; or a new cycle.
                return None
        except asyncio.CancelledError as cancellation:
            if not self._is_closing:
                self._put(_Fault(self._source_cancelled(cancellation)))
        self._is_ending = True
        if me is not None and me.cancelling():
            # Delivered: what closes the source finds a task that nobody cancels.
            me.uncancel()
        # From the consumer upwards: calls may use what the source holds open.
        await wait_until_done(*self._tasks)
        return await self._ending()

    async def _pull_all(
        self, loop: asyncio.AbstractEventLoop, me: asyncio.Task[Any] | None
    ) -> None:
        source = self.source
        while not self._is_closing:
            if not self._has_room():
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
                # The loop is gone, and with it every chance to await something.
                raise
            except asyncio.CancelledError as error:
                if me is None or me.cancelling():
                    # Not the source's own: that of who closes, or of somebody else.
                    raise
                self._put(_Fault(error))
            except BaseException as error:
                self._source_failed(error)
            else:
                # A source that ignores its cancellation may have one when nobody wants it any more.
                if not self._is_closing:
                    self._call(item, loop)

    def _source_failed(self, error: BaseException) -> None:
        """An error of a pull of the source: for who pulls, or else for who closes."""
        if self._is_closing:
            self._parting = error
        else:
            self._put(_Fault(error))

    def _has_room(self) -> bool:
        running, held = len(self._tasks), len(self._queue)
        if self.concurrency == 1:
            # Nothing runs ahead of its pull.
            return self._waiter is not None and not running and not held
        if not self._is_ordered:
            held += running
        return running < self.concurrency and held < self.held_at_most

    def _make_room(self) -> None:
        """Wake the driver if it waits and there is space."""
        parked = self._parked
        if parked is not None and self._has_room():
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
            self._put(_Fault(wrap_iteration_error(error, self._call_name)))
        except BaseException as error:
            self._note(error)
            self._put(_Fault(error))
        else:
            if task.done():
                _hear(task)
                self._put(task)
                return
            self._tasks.add(task)
            task.add_done_callback(self._done)
            if self._is_ordered:
                self._queue.append(task)

    def _put(self, entry: asyncio.Task[OUT] | _Value[OUT] | _Fault) -> None:
        """Has a result that is there delivered."""
        self._queue.append(entry)
        if self._waiter is not None:
            self._tell()

    def _tell(self) -> None:
        """Wake the consumer if there is a result for it."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        queue = self._queue
        if queue[0].done() if queue else self._is_ended and not self._tasks:
            waiter.set_result(None)

    def _done(self, task: asyncio.Task[OUT]) -> None:
        """Handle the end of a call."""
        self._tasks.discard(task)
        _hear(task)
        if not self._is_ordered and not self._is_closing:
            self._queue.append(task)
        if self._waiter is not None:
            self._tell()
        if self._parked is not None:
            self._make_room()
        if self._is_ended and not self._tasks:
            self._rest()

    def _driver_ended(self, driver: asyncio.Task[Any]) -> None:
        if self._driver is not driver:
            # That of an earlier cycle.
            return
        self._is_ended = True
        if not self._is_closing:
            if driver.cancelled():
                # Before its first step.
                self._put(_Fault(self._source_cancelled(asyncio.CancelledError())))
            elif (error := driver.exception()) is not None:
                self._put(_Fault(error))
        self._tell()
        if not self._tasks:
            self._rest()

    def _rest(self) -> None:
        """No task of it runs any more."""
        self.is_driven = False
        if self._loop is not None:
            unpin(self._loop, self)

    # Closing.

    async def close(self, ending: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Ends everything, the source at last, and waits for it. Gives what `ending` the source gave."""
        loop = asyncio.get_running_loop()
        if self.is_driven:
            self._check(loop)
        is_first = not self._is_closing
        if is_first:
            self._ending = ending
        running = self._stop()
        self._closers += 1
        driver = self._driver
        cancellation = await wait_until_done(*self._tasks, *(() if driver is None else (driver,)))
        if not self._is_ending:
            # No task drives the source: it was never pulled, or had come to its end. One of its own
            # all the same, or a long line of such streams would be closed by recursion.
            self._is_ending = True
            self._closer = asyncio.Task(
                ending(), loop=loop, name=f"the closing of {self._operator}"
            )
        closer = self._closer or driver
        if closer is not None:
            cancellation = await wait_until_done(closer) or cancellation
        self._closers -= 1
        self._is_ended = True
        self._tell()
        errors = [
            self._note(error)
            for task in running
            if not task.cancelled() and (error := task.exception()) is not None
        ]
        if is_first and self._parting is not None:
            errors.append(self._parting)
            self._parting = None
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

    def _stop(self) -> list[asyncio.Task[OUT]]:
        """Cancels what runs, once; gives the calls that it met."""
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

    def abandon(self) -> None:
        """Ends everything for a stream that nobody holds any more. May be called by a finaliser, in any thread."""
        loop = self._loop
        if loop is None or loop.is_closed():
            self._rest()
        else:
            loop.call_soon_threadsafe(self._stop)

    def restarting(self) -> Generator[PullObj[Any], None, None]:
        """The steps of a new cycle; it gives the source, to be restarted.

        Raises:
            RuntimeError: Calls run, or the source is being pulled; or the source cannot start again.
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
        self._rest()
        # A driver that waits for room finds that it is not this one any more.
        self._driver = self._parked = self._closer = None
        if parked is not None and not parked.get_loop().is_closed():
            parked.set_result(None)
        self._queue.clear()
        self._loop = None
        self._ending = self.source.aclose
        self._is_ended = self._is_closing = self._is_ending = False

    # Errors.

    def _note(self, error: BaseException) -> BaseException:
        """The error with a note that says where it came from, once."""
        if isinstance(error, Exception):
            add_note_once(error, f"raised by {self._call_name}")
        return error

    def _source_cancelled(self, cancellation: asyncio.CancelledError) -> SourceCancelledError:
        error = SourceCancelledError(
            f"the task that pulls the source of {self._operator} was cancelled; items may be lost"
        )
        error.__cause__ = cancellation
        return error


def _hear(task: asyncio.Task[Any]) -> None:
    """Takes note of an error, so that asyncio does not complain if nobody pulls it."""
    if not task.cancelled():
        task.exception()


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable
