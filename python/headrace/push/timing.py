"""`PushWindowTimeoutObj`: lists of items that are pushed on when they are full or old enough, by the event loop's clock.

`PushChain.batch()` with a timeout creates it.
"""

from __future__ import annotations

import asyncio
import warnings
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from headrace._core import BatchKernel, IteratorResult
from headrace._internal.error_notes import raise_all
from headrace._internal.fair_lock import FairLock
from headrace._internal.kernel_properties import HasSize, KernelProperty
from headrace._internal.reprs import format_count
from headrace._internal.tasks import cancelling, is_cancellation, wait_until_done
from headrace._internal.validate import check_positive
from headrace.errors import WouldBlock
from headrace.push.base import acceptors, is_done_result, name_acceptors, refuse_after_end
from headrace.push.transform import PushObj1To1Link

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.abc import PushProtocol

T = TypeVar("T")


class PushWindowTimeoutObj(PushObj1To1Link[T, list[T]], HasSize, stock=True):
    """Lists of `size` items; an incomplete one is pushed on `timeout` seconds after its first item.

    Law: the lists, one after the other, are the items; each has 1 to `size` of them.
    Order: of arrival.
    Bound: the list being delivered, the list being filled, and one more per overlapping push. The push that fills a
    list waits until it and the lists before it are delivered.
    Cost: O(1) per item; a timer and a task for each list completed by the timeout.
    Cancel safety: an item that is in a list is accepted. A push that is cancelled while lists are being
    delivered leaves them here, and the error names this object in `accepted_by`; the next push, the timeout or the end
    delivers them first.

    The error of a list completed by the timeout is raised by the next push, which then has not accepted its item, or by
    `return_()`. `throw(error)` drops the held items. An object dropped while it holds items emits a `ResourceWarning`;
    end it first.

    Args:
        sink: A push object.
        size: The number of items per list, a positive integer.
        timeout: The maximum age of a list in seconds, more than 0.

    Raises:
        TypeError: `sink` is not a push object, `size` no integer, or `timeout` is not a number.
        ValueError: `size` or `timeout` is not positive, or `timeout` not finite.
    """

    seconds: KernelProperty[float, float] = KernelProperty(
        "The maximum age of a list in seconds, live: a new number applies from the next list.",
        of="_window",
        check=check_positive,
    )

    def __init__(self, sink: PushProtocol[list[T]], size: int, timeout: float) -> None:
        super().__init__(sink)
        # It only holds and checks the size: `next_impl` fills the lists.
        self._kernel = BatchKernel(size, True)
        self._window: _Window[T] = _Window(sink, check_positive("timeout", timeout))

    def _repr_parts(self) -> Iterator[str]:
        yield from self._window.parts(self.size)
        yield "ended" if self.closed else "open"

    async def next_impl(self, item: T) -> IteratorResult[Any]:
        """Accept one item, and deliver the lists that are due."""
        window = self._window
        window.raise_delivery_errors()
        window.add(item, self.size)
        if window.is_due:
            try:
                await window.deliver()
            except (asyncio.CancelledError, GeneratorExit) as error:
                name_acceptors(
                    error, [*acceptors(error), self], f"the item was accepted by {self!r}"
                )
                raise
        return IteratorResult(None, window.is_done)

    def next_nowait(self, item: T) -> IteratorResult[Any]:
        """Accept one item; deliver a full list in the background.

        Raises:
            WouldBlock: The item would fill a list, and the one before it is not delivered yet.
        """
        window = self._window
        refuse_after_end(self, item)
        window.raise_delivery_errors()
        if window.lists and len(window.filling) + 1 >= self.size:
            raise WouldBlock(
                "the item cannot be accepted without waiting for a list to be delivered; await next(item)",
                item=item,
            )
        window.add(item, self.size)
        if window.lists:
            window.deliver_in_background()
        return IteratorResult(None, window.is_done)

    async def return_impl(self, value: Any) -> None:
        """Deliver the held items, then end the sink."""
        window, errors = self._window, list[BaseException]()
        window.close_list()
        while window.lists:
            try:
                await window.deliver()
            except (asyncio.CancelledError, GeneratorExit):
                raise
            except BaseException as error:
                errors.append(error)
        await window.settle()
        errors += window.take_delivery_errors()
        try:
            await self._sink.return_(value)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:
            errors.append(error)
        raise_all(errors, "several errors at the end of supply")

    async def throw_impl(self, error: BaseException) -> None:
        """Drop the held items, then end the sink with the error."""
        self._window.drop()
        await self._window.settle()
        await self._sink.throw(error)

    def __del__(self) -> None:
        window = getattr(self, "_window", None)
        if window is not None and (count := window.drop()):
            warnings.warn(
                f"{count} items were lost in a PushWindowTimeoutObj that was not ended",
                ResourceWarning,
                source=self,
                stacklevel=1,
            )


class _Window(Generic[T]):
    """The state that the timer and the task refer to, so that they do not keep the push object alive."""

    def __init__(self, sink: PushProtocol[list[T]], seconds: float) -> None:
        self._sink = sink
        self.seconds = seconds
        self.filling: list[T] = []
        # Lists that are full or timed out; the first one may be in delivery.
        self.lists: deque[list[T]] = deque()
        self.is_done = False
        self._lock = FairLock()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._delivery_errors: list[BaseException] = []

    def parts(self, size: int) -> Iterator[str]:
        """Describe the state, for `repr`."""
        yield format_count(len(self.filling), size, "gathered")
        yield f"for {self.seconds} s"
        if self.lists:
            yield f"{len(self.lists)} lists to deliver"

    def add(self, item: T, size: int) -> None:
        if self.is_done:
            return
        self.filling.append(item)
        if len(self.filling) >= size:
            self.close_list()
        elif self._timer is None:
            self._loop = asyncio.get_running_loop()
            self._timer = self._loop.call_later(self.seconds, self._elapsed)

    def close_list(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.filling:
            self.lists.append(self.filling)
            self.filling = []

    def _elapsed(self) -> None:
        self._timer = None
        self.close_list()
        self.deliver_in_background()

    @property
    def is_due(self) -> bool:
        """Whether the current push has lists to deliver."""
        # If the list being filled is empty, this push completed one; if no delivery is in progress, lists were left
        # over.
        return bool(self.lists) and (not self.filling or not self._lock.locked())

    async def deliver(self) -> None:
        """Deliver the complete lists, in order."""
        async with self._lock:
            while self.lists and not self.is_done:
                await self._deliver_one(self.lists[0])
            if self.is_done:
                self.lists.clear()

    async def _deliver_one(self, items: list[T]) -> None:
        before = cancelling()
        try:
            result = await self._sink.next(items)
        except BaseException as error:
            if not is_cancellation(error, before) or acceptors(error):
                self._remove(items)
            raise
        self._remove(items)
        self.is_done = self.is_done or is_done_result(result)

    def _remove(self, items: list[T]) -> None:
        if self.lists and self.lists[0] is items:
            self.lists.popleft()

    def deliver_in_background(self) -> None:
        if self._task is None or self._task.done():
            self._loop = asyncio.get_running_loop()
            self._task = self._loop.create_task(self._deliver_and_keep_errors())

    async def _deliver_and_keep_errors(self) -> None:
        while self.lists:
            try:
                await self.deliver()
            except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit):
                # The last two end the program: kept for the next push, they might never be raised.
                raise
            except BaseException as error:
                self._delivery_errors.append(error)

    def raise_delivery_errors(self) -> None:
        raise_all(self.take_delivery_errors(), "several lists were not delivered")

    def take_delivery_errors(self) -> list[BaseException]:
        errors, self._delivery_errors = self._delivery_errors, []
        return errors

    async def settle(self) -> None:
        if self._task is not None and (cancellation := await wait_until_done(self._task)):
            raise cancellation

    def drop(self) -> int:
        """Drop all items and return their number."""
        count = len(self.filling) + sum(map(len, self.lists))
        self.filling = []
        self.lists.clear()
        timer, self._timer, task, loop = self._timer, None, self._task, self._loop
        if loop is not None and not loop.is_closed():
            if timer is not None:
                # The garbage collector may call this in another thread.
                loop.call_soon_threadsafe(timer.cancel)
            if task is not None and not task.done():
                loop.call_soon_threadsafe(task.cancel)
        return count
