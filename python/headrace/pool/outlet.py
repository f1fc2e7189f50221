"""Where the envelopes of a run wait for the consumer, and who waits for room there.

Unordered, an envelope may be read as soon as it was put. Ordered, each task has its place from the moment it is taken
up, and only the first of those that have not ended puts into what may be read; the envelopes of the others are parked
at their places, and follow when their turn has come. The first never waits for the parked ones, which wait for it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from itertools import count
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from headrace._core import Buffer, Unread

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from headrace._core import TaskProgressEnvelope


class Failure:
    """An entry that a pull raises."""

    __slots__ = ("_error", "told")

    def __init__(self, error: BaseException) -> None:
        self._error: BaseException | None = error
        # Set by who waits until somebody has been told.
        self.told: asyncio.Future[None] | None = None

    def take(self) -> BaseException | None:
        """The error, for who tells of it: once. Its traceback would hold whoever it is raised to."""
        error, self._error = self._error, None
        return error


class Place:
    """The place of one task in an ordered run, with the envelopes that are parked there."""

    __slots__ = ("ended", "parked", "turns")

    def __init__(self) -> None:
        self.parked: list[TaskProgressEnvelope[Any] | Failure] = []
        # Who of the task waits for room; as a rule one.
        self.turns: dict[asyncio.Future[None], None] = {}
        self.ended: bool = False


class Outlet:
    """The envelopes that are not read yet.

    `unread` is what the consumer takes from.

    Args:
        most: how many may be unread before those who can wait do so; in an ordered run, and as many more may be parked.
        ordered: whether tasks have places.
        window: in an ordered run, how many tasks may be between the first that has not ended and the last taken up.
    """

    def __init__(self, most: int, *, ordered: bool, window: int) -> None:
        self._most = most
        self._window = window
        # It has no bound of its own, so that a task that ends can put its last envelope without waiting; `room` bounds
        # what it holds.
        buffer: Buffer[Any] = Buffer(None, "block", "fifo", None)
        self.unread: Unread = Unread(buffer, _fail, self.let_in)
        # Who waits for room, in their order, by number: without a place, and those whose task has one.
        self._waiting: OrderedDict[asyncio.Future[None], int] = OrderedDict()
        self._parking: OrderedDict[asyncio.Future[None], tuple[int, Place]] = OrderedDict()
        self._numbers = count()
        self._front = 0
        self._places: deque[Place] | None = deque() if ordered else None
        self._parked = 0
        # Nobody reads envelopes any more.
        self.closed: bool = False

    def __len__(self) -> int:
        return len(self.unread) + self._parked

    # The side of the tasks.

    def place(self) -> Place | None:
        """A place behind the others for a task that is taken up; None if the run is not ordered."""
        if self._places is None:
            return None
        place = Place()
        self._places.append(place)
        return place

    def put(self, entry: TaskProgressEnvelope[Any] | Failure) -> None:
        """Puts an entry where it may be read at once, whether there is room or not."""
        self.unread.put(entry)

    def put_at(self, place: Place | None, entry: TaskProgressEnvelope[Any] | Failure) -> None:
        """Puts an entry at a place, whether there is room or not."""
        if place is None or (self._places and self._places[0] is place):
            self.put(entry)
        else:
            place.parked.append(entry)
            self._parked += 1

    async def tell(self, loop: asyncio.AbstractEventLoop, error: BaseException) -> None:
        """Puts an error behind what there is, and waits until somebody has been told."""
        failure = Failure(error)
        failure.told = loop.create_future()
        place = self.place()
        self.put_at(place, failure)
        self.leave(place)
        await failure.told

    def close(self, *, wake: bool = True) -> None:
        """Nobody reads envelopes any more. Whoever waits for one gets none, if they are to be woken."""
        self.closed = True
        if wake:
            self.unread.close()
        else:
            self.unread.shut()

    def emit(
        self,
        loop: asyncio.AbstractEventLoop,
        envelope: TaskProgressEnvelope[Any],
        place: Place | None,
        *,
        stopping: bool,
    ) -> Awaitable[None] | None:
        """Puts an envelope of a task that goes on at a place, if there is room; else gives what does so when there is.

        See `Listener.emit`.
        """
        if stopping:
            # It yields all the same.
            return stopped()
        if self.closed:
            # There always is room now: one that waits for nothing else has to wait here until it is asked to stop.
            return loop.create_future()
        if self.has_room(place):
            self.put_at(place, envelope)
            return None
        return self._put_when_room(loop, envelope, place)

    async def _put_when_room(
        self,
        loop: asyncio.AbstractEventLoop,
        envelope: TaskProgressEnvelope[Any],
        place: Place | None,
    ) -> None:
        await self.room(loop, place)
        self.put_at(place, envelope)
        self.let_in()

    def leave(self, place: Place | None) -> None:
        """The task of this place will put nothing more."""
        if place is None or self._places is None:
            return
        place.ended = True
        while self._places and self._places[0].ended:
            self._places.popleft()
            if self._places:
                following = self._places[0]
                for entry in following.parked:
                    self.put(entry)
                self._parked -= len(following.parked)
                following.parked.clear()
        # Whoever is the first now waits for the unread ones alone.
        self.let_in()

    def is_narrow(self) -> bool:
        """Whether the task taken up last is outside the window, and has to wait for the first."""
        return self._places is not None and len(self._places) > self._window

    def has_room(self, place: Place | None = None) -> bool:
        """Whether an envelope may be put now.

        Nobody who waits is overtaken; but in an ordered run, where it makes no difference to the order of envelopes.
        """
        return (self._places is not None or not self._waiting) and self._fits(place)

    async def room(self, loop: asyncio.AbstractEventLoop, place: Place | None = None) -> None:
        """Waits for room, FIFO. Whoever got it calls `let_in` when the room is used or not needed."""
        if self.has_room(place):
            return
        turn: asyncio.Future[None] = loop.create_future()
        self._wait(turn, place, next(self._numbers))
        while True:
            self.unread.contested = True
            try:
                await turn
            except asyncio.CancelledError:
                # Its future is cancelled before it gets here: `let_in` may have passed over it meanwhile.
                if turn.cancelled():
                    self._wait_no_more(turn, place)
                    self._look()
                else:
                    self.let_in()
                raise
            if self._fits(place):
                return
            # The last envelopes of tasks that ended took the room since: wait on, as the first in the queue.
            turn = loop.create_future()
            self._front -= 1
            self._wait(turn, place, self._front)
            # It was let in for nothing: let in another, if there is one that may.
            self.let_in()

    def _wait(self, turn: asyncio.Future[None], place: Place | None, number: int) -> None:
        """Puts one who waits into its line: behind the others, or before them if its number is below 0."""
        if place is None:
            self._waiting[turn] = number
            if number < 0:
                self._waiting.move_to_end(turn, last=False)
        else:
            self._parking[turn] = number, place
            place.turns[turn] = None
            if number < 0:
                self._parking.move_to_end(turn, last=False)

    def _wait_no_more(self, turn: asyncio.Future[None], place: Place | None) -> None:
        if place is None:
            self._waiting.pop(turn, None)
        else:
            self._parking.pop(turn, None)
            place.turns.pop(turn, None)

    def let_in(self) -> None:
        """Lets the first who waits for room and finds it go on, if there is any."""
        while (entry := self._first_that_fits()) is not None:
            turn = entry[0]
            self._wait_no_more(*entry)
            if not turn.done():
                turn.set_result(None)
                break
        self._look()

    def _look(self) -> None:
        self.unread.contested = bool(self._waiting or self._parking)

    def _first_that_fits(self) -> tuple[asyncio.Future[None], Place | None] | None:
        """Who waits longest of those for whom there is room. All who may park wait for the same: one of them is looked at."""
        fits: list[tuple[int, asyncio.Future[None], Place | None]] = []
        if self._waiting and self._fits(None):
            turn, number = next(iter(self._waiting.items()))
            fits.append((number, turn, None))
        first = self._places[0] if self._places else None
        if first is not None and first.turns and self._fits(first):
            turn = next(iter(first.turns))
            fits.append((self._parking[turn][0], turn, first))
        for turn, (number, place) in self._parking.items():
            # That one has been looked at.
            if place is not first:
                if self._fits(place):
                    fits.append((number, turn, place))
                break
        if not fits:
            return None
        return min(fits, key=itemgetter(0))[1:]

    def _fits(self, place: Place | None) -> bool:
        unread = len(self.unread) < self._most
        if self._places is None:
            return unread
        if place is not None and self._places and self._places[0] is place:
            return unread
        # The feeder, which has no place, needs both; a task that is not the first parks.
        return self._parked < self._most and (place is not None or unread)


async def stopped() -> None:
    """What a task that is to stop gets, in place of room."""
    raise asyncio.CancelledError


def _fail(failure: Failure) -> None:
    """Raises a failure for whoever took it."""
    if failure.told is not None and not failure.told.done():
        failure.told.set_result(None)
    error = failure.take()
    try:
        if error is not None:
            raise error
    finally:
        del error
