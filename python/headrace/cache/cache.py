"""`Cache`: keeps the results of an async function, and makes equal calls of one moment once."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from headrace._internal.copying import Uncopied
from headrace._internal.error_notes import raise_closing, wrap_iteration_error
from headrace._internal.reprs import ReprMixin, callable_name, describe_value
from headrace._internal.tasks import mark_retrieved, wait_until_done
from headrace._internal.validate import check_callable, check_callable_or_none, check_positive
from headrace.cache._call_key import CallKey
from headrace.cache._flight import LAPSED, Flights, Hit
from headrace.cache.store import CacheStore
from headrace.capacity.node import CapacitySource, checked_capacity
from headrace.errors import ClosedError, WouldDeadlock
from headrace.task._current_lease import variable as lease_variable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping
    from typing import Self

    from headrace.cache._call_key import Key
    from headrace.cache._flight import Flight
    from headrace.capacity.limits import Cost

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class CacheStats:
    """The counts of a `Cache` since it was created. `Cache.stats()` returns it."""

    hits: int
    """Callers that got a stored result."""
    misses: int
    """Callers that found none: they started a call, or joined one that was under way."""
    flights: int
    """Calls of the function."""
    stored: int
    """Results that the store has accepted."""


class Cache(ReprMixin, Uncopied):
    """Keep the results of async functions in a store, and make equal calls of one moment once.

        async with Cache(LruStore(10_000), key=lambda url: url) as cache:
            fetch_once = cache.wrap(fetch, capacity=capacity)
            pages = [await fetch_once(url) for url in ("/a", "/b", "/a")]

    A caller whose result is stored gets it at once: without a slot, without quota, and without waiting. The first one without a
    result starts the call; callers with the same key that come meanwhile wait for that call, and hold nothing. An error
    is delivered to all of them and is not kept.

    The key of a result includes the module, the name and the version of the function, so a changed function is called
    again. `cache=` of the pool, of `map_pool`, `amap` and `map` does the same for tasks, before these request their capacity.

    Calls of one moment are recognised within one event loop. Another loop, or another process with the same store, makes its
    own call, unless the result is stored already.

    Law: while a call is under way, its event loop starts no other call with the same key.
    Order: callers of one call are resumed in the order in which they came.
    Bound: one task for each call, one future for each caller. The store has its own bound.
    Cost: a hit, about 3 us and the time of the store and of `key`; a call, one asyncio task.
    Cancel safety: a cancelled caller takes nothing from the others. The call goes on while one caller waits. With the last one
        it is cancelled, and that caller's cancellation is raised when the call has ended. The lease of the call is held until
        then, and released once.

    Args:
        store: Where results are kept: an `LruStore`, a `SqliteStore` or a `CacheStore` of yours. Closing the cache closes it.
        key: Called with the arguments of each call. It returns the identity of the call: a str, bytes, int, or a tuple of
            these. Include all that the result depends on; `wrap` takes another one for its function.
        ttl: The seconds after which a result is forgotten; None for never.

    Raises:
        TypeError: `store` lacks a method of `CacheStore`, `key` is not callable, or `ttl` is not a number.
        ValueError: `ttl` is not positive or not finite.
    """

    _instead = "share the cache itself"

    def __init__(
        self, store: CacheStore, *, key: Callable[..., Key], ttl: float | None = None
    ) -> None:
        if not isinstance(cast("object", store), CacheStore):
            raise TypeError(
                f"store must have the methods of CacheStore, such as LruStore(10_000), got {describe_value(store)}"
            )
        self._key = check_callable("key", key)
        self._flights = Flights(store, None if ttl is None else check_positive("ttl", ttl))

    def wrap(
        self,
        fn: Callable[P, Awaitable[R]],
        *,
        key: Callable[..., Key] | None = None,
        capacity: CapacitySource | None = None,
        cost: Cost = 1,
        priority: int = 0,
        version: str | None = None,
    ) -> Callable[P, Coroutine[Any, Any, R]]:
        """Return an async function that returns stored results of `fn`, and calls it for the others.

        The call runs in an asyncio task of its own, in a copy of the first caller's context. Under a capacity, the task acquires a
        lease for the call, and `current_lease()` returns it there.

        Args:
            fn: An async function, or another callable that returns an awaitable.
            key: As in `Cache`, for this function; None for that of the cache.
            capacity: The capacity that each call acquires; None for calls without a lease of their own.
            cost: The cost of a call, as in `CapacitySource.acquire`.
            priority: The priority of a call, as there.
            version: The version of the function. None for a hash of its bytecode, constants, defaults, closure and partial
                arguments, which does not cover the functions that it calls: give a version if these matter.

        Raises:
            TypeError: A parameter is of the wrong type.
            ValueError: `capacity` can never grant `cost`, or a cost is given without a capacity.
            ClosedError: `capacity` is closed.

        The returned function raises the errors of `fn`, `key` and `capacity`, and these:
            ClosedError: The cache is closed, or was closed while the caller waited.
            StoreError: A store in a file cannot be read.
            TypeError: `key` returned something else than a key, or `fn` something else than an awaitable.
            WouldDeadlock: The call would wait for itself: inside `fn`, it is made again with the same key.
        """
        check_callable("fn", fn)
        check_callable_or_none("key", key)
        if capacity is not None:
            checked_capacity(capacity, cost, priority)
        elif cost != 1:
            raise ValueError(f"cost needs a capacity, got cost={cost!r} without one")
        call_key = CallKey(fn, key or self._key, version)
        name = callable_name(fn)

        async def cached(*args: P.args, **kwargs: P.kwargs) -> R:
            identity = call_key.of(args, kwargs)

            def call() -> Awaitable[R]:
                return fn(*args, **kwargs)

            while True:
                found = self._flights.lookup(identity)
                if isinstance(found, Hit):
                    return found.value  # type: ignore[no-any-return]
                if found is None:
                    led = _Call(self._flights, identity, name, call, capacity, cost, priority)
                    found = led.flight
                result = await _wait(found)
                # A task of a pool may give up the call that it makes.
                if result is not LAPSED:
                    return result  # type: ignore[no-any-return]

        # Not its attributes: a callable object has a state there.
        return functools.update_wrapper(cached, fn, updated=())

    def stats(self) -> CacheStats:
        """Return the counts since the cache was created."""
        flights = self._flights
        return CacheStats(
            hits=flights.hits,
            misses=flights.joined + flights.led,
            flights=flights.led,
            stored=flights.stored,
        )

    async def aclose(self) -> None:
        """Close the cache and its store. Idempotent.

        Calls under way are cancelled, and the method waits until they have ended; their callers get a `ClosedError`. Calls on
        other event loops go on, and their results are delivered but not stored. Then the store writes all that it has accepted.

        Raises:
            StoreError: Results could not be written.
            WouldDeadlock: The method is called inside a call, and would wait for itself.

        Cancel safety: a cancellation is raised when all is closed.
        """
        if self._flights.is_inside():
            raise WouldDeadlock("a call of a cache cannot close it: closing waits for the call")
        self._flights.closed = True
        flights = self._flights.here()
        ended = [flight.ended() for flight in flights]
        for flight in flights:
            flight.stop()
        cancellation = await wait_until_done(*ended)
        for one in ended:
            # The callers get it.
            mark_retrieved(one)
        errors: list[BaseException] = []
        closing = asyncio.ensure_future(self._flights.store.aclose())
        cancellation = await wait_until_done(closing) or cancellation
        if not closing.cancelled() and (error := closing.exception()) is not None:
            errors.append(error)
        raise_closing(cancellation, errors, "the store of a cache cannot be closed")

    @property
    def closed(self) -> bool:
        """Whether the cache is closed."""
        return self._flights.closed

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the cache."""
        await self.aclose()

    def _repr_parts(self) -> Iterator[str]:
        yield repr(self._flights.store)
        stats = self.stats()
        yield f"{stats.hits} hits"
        yield f"{stats.misses} misses"
        yield "closed" if self.closed else "open"


class _Call:
    """A call that a cache leads, in an asyncio task of its own."""

    def __init__(
        self,
        flights: Flights,
        identity: bytes,
        name: str,
        call: Callable[[], Awaitable[Any]],
        capacity: CapacitySource | None,
        cost: float | Mapping[str, float],
        priority: int,
    ) -> None:
        self._flights = flights
        self._identity = identity
        self._name = name
        self.flight: Flight = flights.lead(identity, name, self._stop)
        context = copy_context()
        self.flight.mark(context)
        # Not `loop.create_task`: an eager task factory would run the call before `_task` is set.
        self._task: asyncio.Task[Any] | None = asyncio.Task(
            self._run(call, capacity, cost, priority),
            loop=asyncio.get_running_loop(),
            name=f"cached {name}",
            context=context,
        )
        # A callback of the task, not code in it: it also runs if the task is cancelled before its first step. The warning of
        # stuck trees follows it from a caller to this task.
        self._task.add_done_callback(self._deliver)

    async def _run(
        self,
        call: Callable[[], Awaitable[Any]],
        capacity: CapacitySource | None,
        cost: float | Mapping[str, float],
        priority: int,
    ) -> Any:
        if capacity is None:
            value = await self._await(call)
        else:
            async with capacity.acquire(cost, priority=priority) as lease:
                lease_variable.set(lease)
                value = await self._await(call)
        room = self._flights.keep(self._identity, value, self._name)
        if room is not None:
            # The store has the result already, so a cancellation does not matter any more.
            with suppress(asyncio.CancelledError):
                await room
        return value

    async def _await(self, call: Callable[[], Awaitable[Any]]) -> Any:
        result = call()
        if not isinstance(cast("object", result), Awaitable):
            raise TypeError(
                f"fn must be an async function: {self._name} returned {describe_value(result)}"
            )
        return await result

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _deliver(self, task: asyncio.Task[Any]) -> None:
        # Its error refers to frames that refer to this object.
        self._task = None
        # Not `task.result()`, which would add this frame to the traceback.
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            self.flight.finish(task.result())
        elif task.cancelled() and self._flights.closed:
            self.flight.fail(ClosedError("the cache was closed while the call ran"))
        else:
            self.flight.fail(wrap_iteration_error(error, self._name))


async def _wait(flight: Flight) -> Any:
    """Wait for the result of a flight, as one of its callers."""
    waiter = flight.join()
    try:
        return await waiter
    except BaseException as error:
        is_last = flight.leave(waiter)
        if is_last and not isinstance(error, GeneratorExit):
            await _wait_until_stopped(flight, error)
        raise
    finally:
        # It holds an error whose traceback refers to this frame.
        del waiter


async def _wait_until_stopped(flight: Flight, cancellation: BaseException) -> None:
    """Wait until a call has ended that its last caller stopped; note its error on the cancellation."""
    ended = flight.ended()
    await wait_until_done(ended)
    error = ended.exception()
    if error is not None and not isinstance(error, asyncio.CancelledError):
        cancellation.add_note(f"while stopping the call: {error!r}")
