"""`HierarchicalBalancer`: moves limits between capacities to follow the load, over minutes. User code creates it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from headrace._internal.copying import Uncopied
from headrace._internal.reprs import ReprMixin, describe_value, pluralize
from headrace._internal.tasks import wait_until_done
from headrace.capacity.limits import SLOTS, checked, checked_amount, micros, units
from headrace.capacity.node import CapacitySource
from headrace.errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self


class HierarchicalBalancer(ReprMixin, Uncopied):
    """Move slots from idle children to busy ones, over minutes.

        async with HierarchicalBalancer({fetches: (2, 40), parses: (2, 40)}):
            ...

    Within a tree the scheduler shares the capacity of a parent by weight, from grant to grant. The balancer changes the
    limits of the children themselves. Use it where a limit represents something that changes slowly: the connections of a
    pool, the workers of a service.

    Law: every limit stays within its bounds, and each increase is matched by a decrease: the sum of the limits is constant,
    to the millionth.
    A child gives up `step` when, at every check for `idle_after` seconds, at most `idle_below` of its limit was in use and
    it had no waiters. It receives `step` when, at every check for `busy_after` seconds, at least `busy_above` was in use.
    Both children then start a new measurement. A child with a limit of 0 is busy when anything is held there or waits.
    Order: the busiest child receives first, the idlest child gives first.
    Bound: three numbers per child.
    Cost: O(n log n) for n children, every `interval` seconds.
    Cancel safety: leaving the block, for any reason, keeps the current limits.

    The balancer calls `resize`, which never revokes a lease. A limit that is resized elsewhere in the meantime is moved from
    its new value. Of an `AdaptiveLimit` the maximum is moved. A closed child is dropped with its limit, and balancing
    continues for the others. Call `balance()` directly to check once, from a timer of your own.

    Args:
        children: A mapping of each `CapacitySource` to the bounds of its limit, `(min, max)`.
        interval: Seconds between two checks, on the clock of the event loop.
        idle_after: Seconds for which a child must be idle before it gives.
        busy_after: Seconds for which a child must be busy before it receives.
        idle_below: The utilization, from 0 to 1, up to which a child counts as idle.
        busy_above: The utilization, from 0 to 1, from which a child counts as busy; above `idle_below`.
        step: The amount moved at a time, above 0.
        resource: The resource to move, one with a plain number as its limit; slots by default.

    Raises:
        TypeError: A child is not a `CapacitySource`, or a parameter is not a number.
        ValueError: There is no child, a child is not limited in `resource` or not between its bounds, or a number is out
            of range.
    """

    def __init__(
        self,
        children: Mapping[CapacitySource, tuple[float, float]],
        *,
        interval: float = 1.0,
        idle_after: float = 60.0,
        busy_after: float = 10.0,
        idle_below: float = 0.5,
        busy_above: float = 0.9,
        step: float = 1,
        resource: str = SLOTS,
    ) -> None:
        self._interval = checked("interval", interval, above=0)
        self._idle_after = checked("idle_after", idle_after)
        self._busy_after = checked("busy_after", busy_after)
        self._idle_below = _checked_part("idle_below", idle_below)
        self._busy_above = _checked_part("busy_above", busy_above)
        if not self._idle_below < self._busy_above:
            raise ValueError(
                f"busy_above must be above idle_below, which is {idle_below!r}, got {busy_above!r}"
            )
        self._step = micros(checked_amount("step", step, above=0))
        self._children = _checked_children(children, resource)
        self._task: asyncio.Task[None] | None = None

    def balance(self, now: float) -> dict[CapacitySource, float]:
        """Check all children once, move what is due, and return the changed limits.

        Args:
            now: The time in seconds, on any monotonic clock; use the same clock in every call.
        """
        # A closed capacity is never reopened.
        self._children = [child for child in self._children if not child.capacity.closed]
        for child in self._children:
            child.measure(now, self._idle_below, self._busy_above)
        givers = sorted(
            (child for child in self._children if child.idle_for(now) >= self._idle_after),
            key=lambda child: child.use,
        )
        takers = sorted(
            (child for child in self._children if child.busy_for(now) >= self._busy_after),
            key=lambda child: -child.use,
        )
        changed: dict[CapacitySource, float] = {}
        # Each giver gives once. A giver at its lower bound is skipped.
        giving = (giver for giver in givers if giver.can_give > 0)
        for taker in takers:
            if taker.can_take <= 0:
                continue
            if (giver := next(giving, None)) is None:
                break
            amount = min(self._step, giver.can_give, taker.can_take)
            changed.update(_moved(giver, taker, amount))
        return changed

    async def __aenter__(self) -> Self:
        """Start a background task that checks the children every `interval` seconds.

        Raises:
            RuntimeError: The balancer is running already.
        """
        if self._task is not None:
            raise RuntimeError("this balancer is running already; leave that block first")
        self._task = asyncio.create_task(self._balance_forever(), name="balancer of capacities")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the background task, and raise the error that ended it, if any."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        cancellation = await wait_until_done(task)
        if cancellation is not None:
            raise cancellation
        if not task.cancelled() and (failure := task.exception()) is not None:
            if error is None:
                raise failure
            error.add_note(f"while balancing: {failure!r}")

    async def _balance_forever(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            self.balance(clock())
            await asyncio.sleep(self._interval)

    def _repr_parts(self) -> Iterator[str]:
        yield f"moves {pluralize(len(self._children), 'limit')}"
        if self._task is None:
            yield "idle"
        elif not self._task.done():
            yield "running"
        else:
            yield "stopped" if self._task.cancelled() else "failed"


class _Child:
    """A capacity with its bounds, and the times since when it is idle or busy. Amounts are whole millionths, as in the core."""

    def __init__(self, capacity: CapacitySource, least: int, greatest: int, resource: str) -> None:
        self.capacity = capacity
        self.use = 0.0
        self._least = least
        self._greatest = greatest
        self._resource = resource
        self._idle_since: float | None = None
        self._busy_since: float | None = None

    @property
    def limit(self) -> int:
        limit: Any = self.capacity.limits[self._resource]
        # The balancer moves the maximum of an adaptive limit.
        _, limit = self.capacity._adaptive().get(self._resource, (None, limit))
        return micros(limit)

    def measure(self, now: float, idle_below: float, busy_above: float) -> None:
        limit, waiting = self.limit, self.capacity.waiting
        held = micros(self.capacity.snapshot().held[self._resource])
        self.use = held / limit if limit else float(held > 0 or waiting > 0)
        is_idle = self.use <= idle_below and not waiting
        self._busy_since = _since(now, self._busy_since, self.use >= busy_above)
        self._idle_since = _since(now, self._idle_since, is_idle)

    def idle_for(self, now: float) -> float:
        return -1 if self._idle_since is None else now - self._idle_since

    def busy_for(self, now: float) -> float:
        return -1 if self._busy_since is None else now - self._busy_since

    @property
    def can_give(self) -> int:
        return self.limit - self._least

    @property
    def can_take(self) -> int:
        return self._greatest - self.limit

    def move(self, amount: int) -> dict[CapacitySource, float]:
        """Resize the capacity and return its new limit; an empty mapping if it was closed in the meantime."""
        limit = units(self.limit + amount)
        try:
            self.capacity.resize({self._resource: limit})
        except ClosedError:
            return {}
        self._idle_since = self._busy_since = None
        return {self.capacity: limit}


def _moved(giver: _Child, taker: _Child, amount: int) -> dict[CapacitySource, float]:
    """Move an amount and return the new limits; an empty mapping if one of the two was closed in the meantime."""
    # Lower first: the sum of the limits must never grow.
    given = giver.move(-amount)
    if not given:
        return {}
    taken = taker.move(amount)
    if not taken:
        giver.move(amount)
        return {}
    return {**given, **taken}


def _since(now: float, since: float | None, holds: bool) -> float | None:
    """Return the start of the period in which a condition holds; `None` if it does not hold now."""
    if not holds:
        return None
    return now if since is None else since


def _checked_part(parameter: str, value: object) -> float:
    part = checked(parameter, value)
    if part > 1:
        raise ValueError(f"{parameter} must be at most 1, got {value!r}")
    return part


def _checked_children(children: object, resource: str) -> list[_Child]:
    if not isinstance(children, Mapping):
        raise TypeError(
            f"children must be a mapping of CapacitySource to (min, max), got {describe_value(children)}"
        )
    found: list[_Child] = []
    for capacity, bounds in cast("Mapping[object, object]", children).items():
        if not isinstance(capacity, CapacitySource):
            raise TypeError(f"children must be CapacitySources, got {describe_value(capacity)}")
        least, greatest = _checked_bounds(capacity, bounds)
        limit: Any = capacity.limits.get(resource)
        if not isinstance(limit, (int, float)):
            raise ValueError(f"{capacity!r} has no number of {resource!r} that could be moved")
        _, limit = capacity._adaptive().get(resource, (None, limit))
        if not micros(least) <= micros(limit) <= micros(greatest):
            raise ValueError(
                f"the limit of {capacity!r} must be between its bounds, {least!r} and {greatest!r}"
            )
        found.append(_Child(capacity, micros(least), micros(greatest), resource))
    if not found:
        raise ValueError("children must have at least one child, got none")
    return found


def _checked_bounds(capacity: CapacitySource, bounds: object) -> tuple[float, float]:
    parts = cast("tuple[object, ...]", bounds) if isinstance(bounds, tuple) else ()
    if len(parts) != 2:
        raise TypeError(f"the bounds of {capacity!r} must be a tuple (min, max), got {bounds!r}")
    least, greatest = (checked_amount(f"the bounds of {capacity!r}", bound) for bound in parts)
    if least > greatest:
        raise ValueError(f"the bounds of {capacity!r} must be (min, max), got {bounds!r}")
    return least, greatest
