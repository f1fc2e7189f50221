"""`EventQueue`: the unread events of a run, and the waiters for space. `Run` makes one; the engine puts events into it.

In an unordered run an event can be read as soon as it is put. In an ordered run each task has a slot. The events of the first task that
has not ended can be read at once; the events of all other tasks are held in their slots. The first task never waits because of held
events, because they wait for it. The native part (`_core.EventQueue`) contains the events and the slots, this class the waiters.

Tasks that wait for space keep their capacity. In an ordered run this could last for ever:

1. The first task fails, and releases its capacity during the delay before its retry.
2. Later tasks get that capacity, yield values, and wait for space.
3. The consumer has read everything. It waits for the first task, which waits for the capacity that the others hold.

So while the first task lacks capacity and no event can be read, the others put their values in spite of the bound, one in each event-loop
iteration, the earliest task first. One that ends releases its capacity. No new task is called meanwhile. The bound holds while the first
task waits for the end of a pause or a cooldown, or only for a rate: released capacity would not help it.
"""

from __future__ import annotations

import asyncio
import sys
from collections import OrderedDict
from itertools import count
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from headrace._core import Buffer, EventQueue as _Events

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from headrace._core import Engine, TaskProgressEnvelope


_LOOK_AGAIN = 0.1
"""The seconds after which a first task that released capacity would not help is looked at again. Nothing announces the end of a pause."""


class RunFailure:
    """An entry of the queue that a pull raises."""

    __slots__ = ("_error", "raised")

    def __init__(self, error: BaseException) -> None:
        self._error: BaseException | None = error
        # Resolved when the error was raised to a consumer.
        self.raised: asyncio.Future[None] | None = None

    def take(self) -> BaseException | None:
        """Return the error, and drop it: its traceback refers to the caller."""
        error, self._error = self._error, None
        return error


class EventQueue:
    """The unread events of a run, and the waiters for space.

    Args:
        most: The number of unread events at which tasks that yield wait; in an ordered run, as many more may be held in slots.
        window: In an ordered run, the number of tasks between the first that has not ended and the last that was accepted; None
            for an unordered one.
    """

    engine: Engine | None = None
    """The engine that puts the events, while the run has one."""

    def __init__(self, most: int, window: int | None) -> None:
        # No bound, so that a task that ends can put its last event without waiting.
        buffer: Buffer[Any] = Buffer(None, "block", "fifo", None)
        # The core stores the numbers as `usize`, whose maximum no run reaches.
        self.unread: _Events = _Events(
            buffer,
            _raise,
            self.wake_next,
            most=min(most, sys.maxsize),
            window=None if window is None else min(window, sys.maxsize),
        )
        # The waiters for space in FIFO order, with their numbers: those without a slot, and those with one. Their result is whether
        # they may exceed the bound.
        self._waiting: OrderedDict[asyncio.Future[bool], int] = OrderedDict()
        self._slotted: OrderedDict[asyncio.Future[bool], tuple[int, int]] = OrderedDict()
        self._by_slot: dict[int, dict[asyncio.Future[bool], None]] = {}
        self._numbers = count()
        self._front = 0
        self._look_again: asyncio.TimerHandle | None = None
        # Whether no consumer reads events any more.
        self.closed: bool = False

    def __len__(self) -> int:
        return len(self.unread)

    async def raise_to_consumer(
        self, loop: asyncio.AbstractEventLoop, error: BaseException
    ) -> None:
        """Put an error behind the events, and wait until a pull raises it."""
        failure = RunFailure(error)
        failure.raised = loop.create_future()
        slot = self.unread.new_slot()
        self.unread.put_at(slot, failure)
        if slot is not None:
            self.unread.leave(slot)
        await failure.raised

    def close(self, *, wake: bool = True) -> None:
        """Drop all events from now on. With `wake`, pending pulls raise `ClosedError`."""
        self.closed = True
        if self._look_again is not None:
            self._look_again.cancel()
        if wake:
            self.unread.close()
        else:
            self.unread.shut()

    def put_when_room(
        self,
        loop: asyncio.AbstractEventLoop,
        event: TaskProgressEnvelope[Any],
        slot: int | None,
        *,
        stopping: bool,
    ) -> Awaitable[None]:
        """Return an awaitable that puts an event of a task when there is space. See `Listener.emit`."""
        if stopping:
            # The task yielded in spite of its cancellation.
            return _cancelled()
        if self.closed:
            # A closed queue always has space. The task must suspend here until it is cancelled: it may wait for nothing else.
            return loop.create_future()
        return self._put_when_room(loop, event, slot)

    async def _put_when_room(
        self, loop: asyncio.AbstractEventLoop, event: TaskProgressEnvelope[Any], slot: int | None
    ) -> None:
        await self.room(loop, slot)
        self.unread.put_at(slot, event)
        self.wake_next()

    def has_room(self, slot: int | None = None) -> bool:
        """Return whether an event may be put now."""
        return self.unread.has_room(slot)

    async def room(self, loop: asyncio.AbstractEventLoop, slot: int | None = None) -> None:
        """Wait for space, in FIFO order. The caller calls `wake_next` when it has used the space or does not need it."""
        if self.has_room(slot):
            return
        waiter: asyncio.Future[bool] = loop.create_future()
        self._add(waiter, slot, next(self._numbers))
        if self._may_exceed():
            # In the next iteration of the event loop, so that a task that never waits yields to the loop.
            loop.call_soon(self.wake_next)
        while True:
            self.unread.contested = True
            try:
                may_exceed = await waiter
            except asyncio.CancelledError:
                # The future is cancelled before this code runs: `wake_next` may have skipped it meanwhile.
                if waiter.cancelled():
                    self._remove(waiter, slot)
                    self._set_contested()
                else:
                    self.wake_next()
                raise
            if may_exceed or self.unread.fits(slot):
                return
            # The last events of ended tasks took the space meanwhile: wait again, as the first in the queue.
            waiter = loop.create_future()
            self._front -= 1
            self._add(waiter, slot, self._front)
            # This waiter could not use its wake-up: wake another one that can continue.
            self.wake_next()

    def _add(self, waiter: asyncio.Future[bool], slot: int | None, number: int) -> None:
        """Add a waiter to its queue: at the end, or at the front if its number is negative."""
        if slot is None:
            self._waiting[waiter] = number
            if number < 0:
                self._waiting.move_to_end(waiter, last=False)
        else:
            self._slotted[waiter] = number, slot
            self._by_slot.setdefault(slot, {})[waiter] = None
            if number < 0:
                self._slotted.move_to_end(waiter, last=False)

    def _remove(self, waiter: asyncio.Future[bool], slot: int | None) -> None:
        if slot is None:
            self._waiting.pop(waiter, None)
        elif self._slotted.pop(waiter, None) is not None:
            waiters = self._by_slot[slot]
            del waiters[waiter]
            if not waiters:
                del self._by_slot[slot]

    def wake_next(self) -> None:
        """Wake the longest-waiting of the waiters for which there is space."""
        while (entry := self._first_that_fits()) is not None:
            waiter = entry[0]
            self._remove(*entry)
            if not waiter.done():
                waiter.set_result(False)
                break
        else:
            self._let_one_exceed()
        self._set_contested()

    def _may_exceed(self) -> bool:
        """Return whether the consumer waits for a task that lacks capacity, which tasks that wait for space may hold."""
        if not self._by_slot or self.engine is None:
            return False
        awaited = self.unread.awaited_task()
        if awaited is None or not self.engine.lacks_capacity(awaited):
            return False
        if self.engine.release_helps(awaited):
            return True
        if self._look_again is None and not self.closed:
            loop = asyncio.get_running_loop()
            self._look_again = loop.call_later(_LOOK_AGAIN, self._on_timer)
        return False

    def _on_timer(self) -> None:
        self._look_again = None
        self.wake_next()

    def _let_one_exceed(self) -> None:
        """Wake the earliest of the tasks that wait for space, if it may exceed the bound."""
        while self._may_exceed():
            slot = min(self._by_slot)
            waiter = next(iter(self._by_slot[slot]))
            self._remove(waiter, slot)
            if not waiter.done():
                waiter.set_result(True)
                return

    def _set_contested(self) -> None:
        self.unread.contested = bool(self._waiting or self._slotted)

    def _first_that_fits(self) -> tuple[asyncio.Future[bool], int | None] | None:
        fits: list[tuple[int, asyncio.Future[bool], int | None]] = []
        if self._waiting and self.unread.fits():
            waiter, number = next(iter(self._waiting.items()))
            fits.append((number, waiter, None))
        first = self.unread.first_slot
        if first in self._by_slot and self.unread.fits(first):
            waiter = next(iter(self._by_slot[first]))
            fits.append((self._slotted[waiter][0], waiter, first))
        for waiter, (number, slot) in self._slotted.items():
            # All others wait for the same space, so only the first of them is checked.
            if slot != first:
                if self.unread.fits(slot):
                    fits.append((number, waiter, slot))
                break
        return min(fits, key=itemgetter(0))[1:] if fits else None


async def _cancelled() -> None:
    """Raise the cancellation of a task that is to stop."""
    raise asyncio.CancelledError


def _raise(failure: RunFailure) -> None:
    """Raise a failure to the consumer that took it."""
    if failure.raised is not None and not failure.raised.done():
        failure.raised.set_result(None)
    error = failure.take()
    try:
        if error is not None:
            raise error
    finally:
        del error
