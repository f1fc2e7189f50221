"""`CachePolicy`: the flights of a run with a cache. `Run` makes one, and the engine calls it."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from headrace._internal.tasks import mark_retrieved
from headrace.cache._flight import LAPSED, Hit

if TYPE_CHECKING:
    from collections.abc import Hashable
    from contextvars import Context

    from headrace._core import Engine
    from headrace.cache._flight import Flight
    from headrace.pool.cache_use import CacheUse
    from headrace.pool.config import Config


class CachedRun(Protocol):
    """The run of a policy."""

    config: Config[Any]
    loop: asyncio.AbstractEventLoop
    context: Context

    @property
    def engine(self) -> Engine:
        """The engine."""
        ...

    @property
    def running(self) -> bool:
        """Whether the run has started and not ended."""
        ...


class CachePolicy:
    """The part of a run with a cache that is written in Python. The engine calls the methods by their names."""

    def __init__(self, run: CachedRun, use: CacheUse) -> None:
        self._run = run
        self._use = use
        self._flights = use.flights
        # The calls that tasks of this run make for others, by task id: the key, the flight, and the place of the task in it.
        self._led: dict[int, tuple[bytes, Flight, asyncio.Future[Any]]] = {}
        # The calls that tasks wait for.
        self._followed: dict[int, tuple[Flight, asyncio.Future[Any]]] = {}
        self.rooms: set[asyncio.Future[Any]] = set()
        """The waits for the store, which has more unwritten results than it should hold."""

    def look_up(self, task_id: int, key: Hashable, item: Any) -> tuple[Any] | bool:
        """Return the stored result of a task as a tuple; otherwise whether the task leads.

        A task that does not lead waits for the call of another one: the engine is notified of its end.

        Raises:
            ClosedError: The cache is closed.
            WouldDeadlock: The task would wait for the call that it is part of.
            Exception: The user's key function has raised an error, or the store cannot be read.
        """
        identity = self._use.identity(item)
        found = self._flights.lookup(identity)
        if isinstance(found, Hit):
            return (found.value,)
        if found is None:
            name = self._run.config.name_of(task_id, key)
            stop = partial(self.fail, task_id, None)
            flight = self._flights.lead(identity, name, stop)
            # The task is a caller too, so that the flight does not end with its followers.
            self._led[task_id] = identity, flight, flight.join()
            return True
        waiter = found.join()
        self._followed[task_id] = found, waiter
        waiter.add_done_callback(partial(self._ended, task_id), context=self._run.context)
        return False

    def _ended(self, task_id: int, waiter: asyncio.Future[Any]) -> None:
        """Handle the end of the call that a task waits for."""
        if waiter.cancelled():
            return
        error = waiter.exception()
        if self._followed.pop(task_id, None) is None:
            return
        engine = self._run.engine
        if error is not None or waiter.result() is LAPSED:
            engine.look_up_again(task_id)
        else:
            engine.landed(task_id, waiter.result())

    def leave(self, task_id: int) -> None:
        """Note that a task no longer waits for a call."""
        found = self._followed.pop(task_id, None)
        if found is not None:
            flight, waiter = found
            flight.leave(waiter)

    def mark(self, task_id: int, context: Context) -> None:
        """Mark the context of an attempt, if the task leads."""
        found = self._led.get(task_id)
        if found is not None:
            found[1].mark(context)

    def keep(self, task_id: int, value: Any) -> None:
        """Store the result of a task that leads, and deliver it to all that wait for it."""
        found = self._led.pop(task_id, None)
        if found is None:
            return
        identity, flight, _ = found
        name = self._run.config.name
        if not self._flights.closed:
            room = self._flights.keep(identity, value, name)
            if room is not None:
                self._wait_for_room(asyncio.ensure_future(room))
        flight.finish(value)

    def fail(self, task_id: int, error: BaseException | None) -> None:
        """End the flight of a task that leads and has no result; with its error for callers outside a pool, if it has failed."""
        found = self._led.pop(task_id, None)
        if found is None:
            return
        _, flight, waiter = found
        if isinstance(error, Exception):
            flight.fail(error)
        else:
            flight.lapse()
        mark_retrieved(waiter)

    def _wait_for_room(self, room: asyncio.Future[Any]) -> None:
        """Let the run call no more tasks until the store has written a part of its results."""
        if not self.rooms:
            self._run.engine.set_cache_room(False)
        self.rooms.add(room)
        room.add_done_callback(self._has_room, context=self._run.context)

    def _has_room(self, room: asyncio.Future[Any]) -> None:
        self.rooms.discard(room)
        # The store reports its errors when it is closed.
        mark_retrieved(room)
        if not self.rooms and self._run.running:
            self._run.engine.set_cache_room(True)
