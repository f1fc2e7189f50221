"""`Flights`: the calls of a cache that are under way, each for all callers that wait for it.

`Cache` leads them, and so does a run of a pool (`pool/cache_policy.py`).

The steps of a caller, all of them synchronous:

1. `Flights.lookup(key)` returns a `Hit`, a `Flight` that is under way, or None.
2. For None, the caller leads: `Flights.lead(key, ...)` returns a new flight, and the caller starts the call, in a context that
   `Flight.mark` has marked.
3. Each caller, the first one too, gets a future by `Flight.join`. When it no longer waits, it calls `Flight.leave`.
4. Where the call ends, its leader calls `Flights.keep` with the result, and then `Flight.finish`; or `Flight.fail`.

A leader that makes the call for itself, such as a task of a pool, joins its own flight, so that the flight outlives the other callers. If
it gives the call up, it calls `Flight.lapse`, and the other callers look up again. If it ends before its call, it calls
`Flight.hand_over`, and the call goes on for the others.

A flight belongs to the event loop on which it was made, and only that loop's thread touches it. A caller on another loop finds no
flight, and makes its own.

Races:

- The last caller leaves while the call runs. The flight is *abandoned*: it is removed at once, so that a later caller starts another
  call, and its leader stops the call. If the call ends with a result nevertheless, that is stored.
- A caller is cancelled after its future was resolved: the result is stored already, and the caller leaves a flight that has ended.
- The asyncio task of the call is cancelled before its first step. Its coroutine never runs, so a done-callback ends the flight.

A call may lead to others. A flight that waits for another has an edge to it, from the join of a caller inside its call to the leave. A
join that would close a cycle raises `WouldDeadlock`. A caller is inside a call if its context is a copy of the call's: asyncio tasks
that the call starts are part of it.
"""

from __future__ import annotations

import asyncio
import warnings
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from headrace._internal.sentinels import NOTHING
from headrace._internal.tasks import mark_retrieved
from headrace.errors import ClosedError, WouldDeadlock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextvars import Context

    from headrace.cache.store import CacheStore


LAPSED: Final = object()
"""The result of a flight whose leader has given it up."""


class Hit:
    """A stored result."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value: Any = value


class Flight:
    """A call that is under way.

    Args:
        flights: The flights of the cache.
        key: The key of the call.
        name: The name of the function, for messages.
        stop: Stops the call; called when the last caller has left.
    """

    __slots__ = (
        "_flights",
        "_is_stopped",
        "_key",
        "_name",
        "_notified",
        "_stop",
        "_waiters",
        "_waits_for",
        "_watchers",
        "is_left",
        "is_over",
        "loop",
    )

    def __init__(self, flights: Flights, key: bytes, name: str, stop: Callable[[], object]) -> None:
        self._flights = flights
        self._key = key
        self._name = name
        self._stop = stop
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        """The event loop on which it was made."""
        # The future of each caller, with the flight that it is inside of.
        self._waiters: dict[asyncio.Future[Any], Flight | None] = {}
        # The callbacks of callers that are notified if the leader ends before its call.
        self._notified: dict[asyncio.Future[Any], Callable[[], object]] = {}
        # The flights that callers inside this call wait for, by their futures.
        self._waits_for: dict[asyncio.Future[Any], Flight] = {}
        # The futures of `ended`.
        self._watchers: list[asyncio.Future[Any]] = []
        self._is_stopped = False
        self.is_left: bool = False
        """Whether the leader has ended before its call."""
        self.is_over: bool = False
        """Whether the call has ended."""

    def mark(self, context: Context) -> None:
        """Mark a context, and all later copies of it, as inside this call."""
        context.run(_inside.set, self)

    def join(self, was_left: Callable[[], object] | None = None) -> asyncio.Future[Any]:
        """Return a future of the result, for one caller.

        Args:
            was_left: Called when the leader ends before its call, if it has not yet; None for no callback.

        Raises:
            WouldDeadlock: The caller is inside a call that this one waits for, or is.
        """
        inside = _inside.get()
        if inside is not None and (inside.is_over or inside.loop is not self.loop):
            inside = None
        if inside is not None and self._reaches(inside):
            raise WouldDeadlock(
                f"a call of {self._name} would wait for itself: inside it, it is called again with the same key"
            )
        waiter = self.loop.create_future()
        self._waiters[waiter] = inside
        if inside is not None:
            inside._waits_for[waiter] = self
        if was_left is not None and not self.is_left:
            self._notified[waiter] = was_left
        return waiter

    def has_others(self, waiter: asyncio.Future[Any] | None) -> bool:
        """Return whether the call has callers besides this one."""
        return len(self._waiters) > (waiter in self._waiters)

    def hand_over(self, waiter: asyncio.Future[Any]) -> None:
        """Leave the call to the other callers, as the leader of the call and one of its callers."""
        self._forget(waiter)
        self.is_left = True
        notified = list(self._notified.values())
        self._notified.clear()
        for was_left in notified:
            was_left()

    def leave(self, waiter: asyncio.Future[Any]) -> bool:
        """Remove a caller that no longer waits. Idempotent.

        Returns:
            Whether it was the last one of a call that has not ended, which is then stopped.
        """
        if waiter.done():
            mark_retrieved(waiter)
        if waiter not in self._waiters:
            return False
        self._forget(waiter)
        if self.is_over or self._waiters:
            return False
        self._flights.abandon(self._key, self)
        self.stop()
        return True

    def finish(self, value: Any) -> None:
        """Deliver the result to all callers."""
        for waiter in self._end():
            waiter.set_result(value)

    def fail(self, error: BaseException) -> None:
        """Deliver an error to all callers. It is not stored.

        All get the same object. Its traceback does not grow with their number: each future restores that of the call.
        """
        for waiter in self._end():
            waiter.set_exception(error)

    def lapse(self) -> None:
        """Resolve the futures of all callers with `LAPSED`: the leader gives the call up, and they must look up again."""
        for waiter in self._end():
            waiter.set_result(LAPSED)

    def ended(self) -> asyncio.Future[Any]:
        """Return a future that is resolved when the call ends, and whose owner is no caller."""
        future = self.loop.create_future()
        if self.is_over:
            future.set_result(None)
        else:
            self._watchers.append(future)
        return future

    def stop(self) -> None:
        """Stop the call, also if callers wait for it. Idempotent: a second cancellation would interrupt its clean-up."""
        if not self._is_stopped:
            self._is_stopped = True
            self._stop()

    def _end(self) -> list[asyncio.Future[Any]]:
        """End the flight; return the futures to resolve."""
        self.is_over = True
        self._flights.remove(self._key, self)
        # It refers to the leader, which refers to this flight.
        self._stop = _do_nothing
        waiters = list(self._waiters)
        for waiter in waiters:
            self._forget(waiter)
        waiters += self._watchers
        self._watchers.clear()
        return [waiter for waiter in waiters if not waiter.done()]

    def _forget(self, waiter: asyncio.Future[Any]) -> None:
        inside = self._waiters.pop(waiter)
        self._notified.pop(waiter, None)
        if inside is not None:
            inside._waits_for.pop(waiter, None)

    def _reaches(self, other: Flight) -> bool:
        """Return whether this flight is another, or waits for it, directly or through others."""
        seen: set[Flight] = set()
        pending: list[Flight] = [self]
        while pending:
            if (flight := pending.pop()) is other:
                return True
            if flight not in seen:
                seen.add(flight)
                pending.extend(flight._waits_for.values())
        return False


class Flights:
    """The calls of a cache that are under way, in front of its store."""

    def __init__(self, store: CacheStore, ttl: float | None) -> None:
        self.store = store
        self._ttl = ttl
        self._has_warned = False
        self.closed = False
        """Whether the cache is closed."""
        self._under_way: dict[tuple[asyncio.AbstractEventLoop, bytes], Flight] = {}
        # The flights under way, and the abandoned ones that have not ended.
        self._running: set[Flight] = set()
        self.hits: int = 0
        """Lookups that found a result."""
        self.joined: int = 0
        """Lookups that found a call under way."""
        self.led: int = 0
        """Lookups that started a call."""
        self.stored: int = 0
        """Results that the store has accepted."""

    def lookup(self, key: bytes) -> Hit | Flight | None:
        """Return the stored result of a key, or its call that is under way; None if there is neither.

        Raises:
            ClosedError: The cache is closed.
            Exception: The store cannot be read.
        """
        if self.closed:
            raise ClosedError("the cache is closed")
        # First, so that the store is not read for each caller.
        flight = self._under_way.get((asyncio.get_running_loop(), key))
        if flight is not None:
            self.joined += 1
            return flight
        value = self.store.get(key, NOTHING)
        if value is NOTHING:
            return None
        self.hits += 1
        return Hit(value)

    def lead(self, key: bytes, name: str, stop: Callable[[], object]) -> Flight:
        """Return a new flight, which the caller leads.

        Args:
            key: A key for which `lookup` returned None, in this event-loop iteration.
            name: The name of the function, for messages.
            stop: Stops the call; called when the last caller has left.
        """
        flight = Flight(self, key, name, stop)
        self._under_way[asyncio.get_running_loop(), key] = flight
        self._running.add(flight)
        self.led += 1
        return flight

    def keep(self, key: bytes, value: Any, name: str) -> Awaitable[object] | None:
        """Store a result, before it is delivered. If the store does not accept one, warn once.

        Returns:
            The awaitable of the store, if the result should not be delivered yet.
        """
        try:
            room = self.store.put(key, value, self._ttl)
        except Exception as error:
            if not self._has_warned:
                self._has_warned = True
                text = f"a result of {name} is delivered, but not stored: {error}"
                # The warning may be turned into an error, which the event loop reports. The caller gets its result.
                asyncio.get_running_loop().call_soon(warnings.warn, text, RuntimeWarning)
            return None
        self.stored += 1
        return room

    def abandon(self, key: bytes, flight: Flight) -> None:
        """Let the next caller with this key make a call of its own."""
        place = flight.loop, key
        if self._under_way.get(place) is flight:
            del self._under_way[place]

    def remove(self, key: bytes, flight: Flight) -> None:
        """Remove a flight that has ended."""
        self.abandon(key, flight)
        self._running.discard(flight)

    def here(self) -> list[Flight]:
        """Return the flights of the running event loop."""
        loop = asyncio.get_running_loop()
        return [flight for flight in list(self._running) if flight.loop is loop]

    def is_inside(self) -> bool:
        """Return whether the caller is inside a call that has not ended."""
        inside = _inside.get()
        return inside is not None and inside in self._running


def _do_nothing() -> None:
    """Stop a call that has ended."""


_inside: ContextVar[Flight | None] = ContextVar("headrace.inside_flight", default=None)
