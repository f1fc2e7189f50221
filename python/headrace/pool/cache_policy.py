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
    from headrace.task.retry import Retry


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

    def report(self, message: str, error: BaseException) -> None:
        """Report an error that no consumer can receive."""
        ...


class CachePolicy:
    """The part of a run with a cache that is written in Python. The engine calls the methods by their names."""

    def __init__(self, run: CachedRun, use: CacheUse) -> None:
        self._run = run
        self._use = use
        self._flights = use.flights
        # The calls that tasks of this run make for others, by task id: the key, the flight, and the place of the task in it; None once
        # the task has ended before its call.
        self._led: dict[int, tuple[bytes, Flight, asyncio.Future[Any] | None]] = {}
        # The calls that tasks wait for.
        self._followed: dict[int, tuple[Flight, asyncio.Future[Any]]] = {}
        self.rooms: set[asyncio.Future[Any]] = set()
        """The waits for the store, which has more unwritten results than it should hold."""

    def look_up(self, task_id: int, key: Hashable, item: Any) -> tuple[Any] | bool | None:
        """Return the stored result of a task as a tuple; otherwise whether the task leads.

        A task that does not lead waits for the call of another one: the engine is notified of its end. For None, that other task has left
        its call already; otherwise, the engine is also notified when it does.

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
            stop = partial(self._stop, task_id)
            flight = self._flights.lead(identity, name, stop)
            # The task is a caller too, so that the flight does not end with its followers.
            self._led[task_id] = identity, flight, flight.join()
            return True
        waiter = found.join(partial(self._was_left, task_id))
        self._followed[task_id] = found, waiter
        waiter.add_done_callback(partial(self._ended, task_id), context=self._run.context)
        return None if found.is_left else False

    def _was_left(self, task_id: int) -> None:
        """Note that the task whose call this one waits for has left it."""
        self._run.engine.call_was_left(task_id)

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

    def may_leave(self, task_id: int, retry: Retry | None, attempt: int, timed_out: bool) -> bool:
        """Return whether a task that leads may end before its call, because others wait for that.

        Args:
            task_id: The id of the task.
            retry: Its policy.
            attempt: The number of calls.
            timed_out: Whether the call has exceeded its timeout. A call that may be made again then is not left.
        """
        found = self._led.get(task_id)
        if found is None or (timed_out and _may_retry_timeout(retry, attempt)):
            return False
        _, flight, waiter = found
        return waiter is not None and flight.has_others(waiter)

    def leave_call(self, task_id: int) -> None:
        """Let the call of a task that leads go on for the others."""
        identity, flight, waiter = self._led[task_id]
        self._led[task_id] = identity, flight, None
        if waiter is not None:
            flight.hand_over(waiter)

    def _stop(self, task_id: int) -> None:
        """Stop a call that its task has left, or give a call up whose cache is being closed."""
        found = self._led.get(task_id)
        if found is not None and found[2] is None:
            self._run.engine.cancel(task_id, call=True)
        else:
            self.fail(task_id, None)

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
        if waiter is None and not flight.has_others(None) and isinstance(error, Exception):
            name = self._run.config.name
            self._run.report(f"a call of {name} raised after its last caller had left", error)
        if isinstance(error, Exception):
            flight.fail(error)
        else:
            flight.lapse()
        if waiter is not None:
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


def _may_retry_timeout(retry: Retry | None, attempt: int) -> bool:
    """Return whether a task may be called again after a timeout of this attempt. Does not call functions of the user."""
    if retry is None or attempt > retry.retries:
        return False
    on: Any = retry.on
    # A function, or `classify`, may decide either way.
    return not isinstance(on, (type, tuple)) or issubclass(TimeoutError, on)
