"""Concurrent calls: the Python part of `map` with a `concurrency`. `PullMapObj` creates a `ConcurrentMap`.

Its native base pulls the source, makes the calls and delivers their results; the essay in
`rust/py/src/concurrent_map/mod.rs` describes them. This class starts the driver, the task that pulls the source, and closes
the stream. The driver closes the source, too. Context variables and task groups that a source holds open across its `yield`s
therefore work as if it ran alone.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from headrace._core import ConcurrentCalls, pin_to_loop, unpin
from headrace._internal.error_notes import add_note_once, raise_closing
from headrace._internal.reprs import format_count, format_repr
from headrace._internal.tasks import wait_until_done
from headrace._internal.validate import check_callable_or_none, check_int
from headrace.errors import SourceCancelledError, WrongLoopError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterator

    from headrace._core import MapKernel
    from headrace.pull.base import PullObj

OUT = TypeVar("OUT")


class ConcurrentMap(ConcurrentCalls, Generic[OUT]):
    """The state that the driver, the calls and the consumer of one stream share."""

    def __init__(
        self,
        kernel: MapKernel,
        operator: str,
        source: PullObj[Any],
        *,
        ordered: bool,
        partition_by: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__()
        self.source = source
        self.concurrency: int = 0
        self.window: int | None = None
        """The window as given; `max_held` is its effective value."""
        self.max_held: int = 0
        self.per_key: int = 1
        self._operator = operator
        self._loop: asyncio.AbstractEventLoop | None = None
        self._driver: asyncio.Task[Any] | None = None
        self.is_driven: bool = False
        """Whether the driver or a call runs."""
        self._end_source: Callable[[], Coroutine[Any, Any, Any]] = source.aclose
        """The function that ends the source: its `aclose`, `return_` or `throw`."""
        self._is_ending_source = False
        self._closing_task: asyncio.Task[Any] | None = None
        """The task that closes the source if the driver cannot."""
        # The error of the pull that was cancelled in order to close the source.
        self._close_error: BaseException | None = None
        self._waiting_closes = 0
        """The number of tasks that wait in `close`."""

    def __repr__(self) -> str:
        return format_repr(self._operator, self.parts())

    def parts(self) -> Iterator[str]:
        """Describe the state, for `repr`: running calls, waiting items, and calls whose result was not taken yet."""
        yield format_count(self.running, self.concurrency, "calls run")
        if waiting := self.waiting:
            yield f"{waiting} waiting for their key"
        if held := self.held:
            yield f"{held} done"

    def set_limits(self, concurrency: int, window: int | None, per_key: int) -> None:
        """Set the maximum number of running calls, of items that are pulled and not delivered, and of running calls of a key.

        Raises:
            TypeError: One is not an integer.
            ValueError: `concurrency` or `per_key` is not positive, `window` is less than `concurrency`, or `per_key` more.
        """
        check_limits(concurrency, window)
        check_per_key(per_key, concurrency)
        self.concurrency, self.window, self.per_key = concurrency, window, per_key
        self.max_held = 2 * concurrency if window is None else window
        limits = (concurrency, self.max_held, per_key)
        self.resize(*(min(limit, sys.maxsize) for limit in limits))

    # Called by the native base.

    def _start(self) -> None:
        """Start the driver for a pull that has to wait, unless it has been started."""
        loop = asyncio.get_running_loop()
        self._check(loop)
        if self._driver is not None or self.is_closing:
            return
        self._loop = loop
        self.is_driven = True
        pin_to_loop(loop, self)
        # Not `loop.create_task`: an eager task factory would run the driver before `_driver` is set.
        self._driver = asyncio.Task(
            self._drive(loop), loop=loop, name=f"the source of {self._operator}"
        )
        self._driver.add_done_callback(self._driver_ended)

    def _source_failed(self, error: BaseException) -> bool:
        """Deliver an error of the source to the consumer, or to `close` while that cancels the pull.

        Returns:
            Whether the error ends the driver instead.
        """
        if isinstance(error, GeneratorExit):
            # The loop is closed, and nothing can be awaited any more.
            return True
        if isinstance(error, asyncio.CancelledError):
            me = asyncio.current_task()
            if me is None or me.cancelling():
                # Not raised by the source: the driver was cancelled, by `close` or from outside.
                return True
            self.put_error(error)
        elif self.is_closing:
            self._close_error = error
        else:
            self.put_error(error)
        return False

    def _on_idle(self) -> None:
        """Unpin the state from the loop once neither the driver nor a call runs."""
        self.is_driven = False
        if self._loop is not None:
            unpin(self._loop, self)

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        """Refuse another event loop, and a call that would wait for itself."""
        if self._driver is None:
            return
        if self._loop is not loop:
            raise WrongLoopError(
                "this stream is under way on another event loop; use it there, or close it there first"
            )
        task = asyncio.current_task(loop)
        # An eager call takes its first step inside the driver's.
        if self.is_calling or task in self.tasks or task is self._driver:
            raise RuntimeError(
                "this stream is being pulled already: its own callable cannot pull or close it"
            )

    # Methods of the driver.

    async def _drive(self, loop: asyncio.AbstractEventLoop) -> Any:
        """Pull while there is space. If the stream is being closed, close the source."""
        me = asyncio.current_task(loop)
        try:
            await self.feed(self.source, loop)
            if not self.is_closing:
                # The source has ended, and stays open; or the stream was restarted.
                return None
        except asyncio.CancelledError as cancellation:
            if not self.is_closing:
                self.put_error(self._source_cancelled(cancellation))
        self._is_ending_source = True
        if me is not None and me.cancelling():
            # The cancellation was delivered: the source is closed in a task without a pending cancellation.
            me.uncancel()
        # Wait for the calls first: they may use resources that the source holds open.
        await wait_until_done(*self.tasks)
        return await self._end_source()

    def _driver_ended(self, driver: asyncio.Task[Any]) -> None:
        """Deliver the error that ended the driver, if any, and wake the consumer."""
        if self._driver is not driver:
            # The stream was restarted: this driver belongs to the time before.
            return
        self.is_ended = True
        if not self.is_closing:
            if driver.cancelled():
                # It was cancelled before its first step, so that `_drive` could not deliver the error.
                self.put_error(self._source_cancelled(asyncio.CancelledError()))
            elif (error := driver.exception()) is not None:
                self.put_error(error)
        self.wake_consumer()
        if not self.running:
            self._on_idle()

    # Closing.

    async def close(self, end_source: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Cancel the calls, wait for them, then end the source by `end_source()`, and return its result."""
        loop = asyncio.get_running_loop()
        if self.is_driven:
            self._check(loop)
        is_first = not self.is_closing
        if is_first:
            self._end_source = end_source
        running = self._cancel_all()
        self._waiting_closes += 1
        driver = self._driver
        cancellation = await wait_until_done(*self.tasks, *(() if driver is None else (driver,)))
        if not self._is_ending_source:
            # No task drives the source: it was never pulled, or has ended. It is closed in a new task, because a long
            # chain of such streams would otherwise be closed by recursion.
            self._is_ending_source = True
            self._closing_task = asyncio.Task(
                end_source(), loop=loop, name=f"the closing of {self._operator}"
            )
        closing_task = self._closing_task or driver
        if closing_task is not None:
            cancellation = await wait_until_done(closing_task) or cancellation
        self._waiting_closes -= 1
        self.is_ended = True
        self.wake_consumer()
        errors = [
            _annotate(error, self.call_name)
            for task in running
            if not task.cancelled() and (error := task.exception()) is not None
        ]
        if is_first and self._close_error is not None:
            errors.append(self._close_error)
            self._close_error = None
        result = None
        try:
            if closing_task is not None and is_first:
                result = closing_task.result()
        except asyncio.CancelledError as cancelled:
            cancellation = cancellation or cancelled
        except BaseException as failure:
            errors.append(failure)
        raise_closing(cancellation, errors, f"several calls of {self._operator} failed to close")
        return result

    def _cancel_all(self) -> list[asyncio.Task[OUT]]:
        """Cancel the driver and the calls, once; return the calls that were running."""
        if self.is_closing:
            return []
        running = [task for task in self.tasks if not task.done()]
        self.begin_closing()
        for task in running:
            task.cancel()
        if self._driver is not None and not self._is_ending_source:
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
        driver = self._driver
        is_idle = driver is None or driver.done() or self.is_full
        if self.running or not is_idle or self.is_awaited or self._waiting_closes:
            raise RuntimeError(
                f"cannot restart while calls of {self._operator} run ahead, or it is being closed; close it first"
            )
        yield self.source
        self._on_idle()
        # A driver that waits for space finds that the stream was restarted, and ends.
        self._driver = self._closing_task = None
        self.reset()
        self._loop = None
        self._end_source = self.source.aclose
        self._is_ending_source = False

    # Errors.

    def _source_cancelled(self, cancellation: asyncio.CancelledError) -> SourceCancelledError:
        error = SourceCancelledError(
            f"the task that pulls the source of {self._operator} was cancelled; items may be lost"
        )
        error.__cause__ = cancellation
        return error


def _annotate(error: BaseException, function: str) -> BaseException:
    """Return the error, with a note that names the callable, unless one names it and its item."""
    note = f"raised by {function}"
    if isinstance(error, Exception):
        notes: list[str] = getattr(error, "__notes__", [])
        if not any(one.startswith(f"{note}: item ") for one in notes):
            add_note_once(error, note)
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


def check_per_key(per_key: int, concurrency: int) -> None:
    """Check `per_key`.

    Raises:
        TypeError: It is not an integer.
        ValueError: It is not positive, or more than `concurrency`.
    """
    check_int("per_key", 1, per_key)
    if per_key > concurrency:
        raise ValueError(
            f"per_key must be at most concurrency ({concurrency}), got {per_key} (int)"
        )


def check_partition(
    partition_by: Callable[[Any], Any] | None, per_key: int, concurrency: int
) -> None:
    """Check `partition_by` and `per_key`.

    Raises:
        TypeError: `partition_by` is not callable, or `per_key` is not an integer.
        ValueError: `per_key` is not positive, more than `concurrency`, or given without `partition_by`.
    """
    check_callable_or_none("partition_by", partition_by)
    check_per_key(per_key, concurrency)
    if partition_by is None:
        raise ValueError(
            f"per_key has no meaning without partition_by, got {per_key} (int); leave it out, or add partition_by"
        )
