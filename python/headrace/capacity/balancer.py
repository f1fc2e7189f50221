"""`HierarchicalBalancer`: limits that follow the load, over minutes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from headrace._internal.copying import Uncopied
from headrace._internal.reprs import shown, told
from headrace._internal.tasks import settled
from headrace.capacity.limits import SLOTS, checked, checked_amount, micros, units
from headrace.capacity.node import CapacitySource
from headrace.errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

__all__ = ["HierarchicalBalancer"]


class HierarchicalBalancer(Uncopied):
    """Moves slots from children that leave them idle to children that have too few, over minutes.

        async with HierarchicalBalancer({fetches: (2, 40), parses: (2, 40)}):
            ...

    Within a tree the scheduler shares what the parent has from one grant to the next, by weight. This is for the limits
    of the children themselves, where each stands for something that is slow to change: the connections of a pool, the
    workers of a service.

    Law: no child leaves its bounds, and what one is given another has given up: the sum of the limits stays what it was,
    to the millionth.
    A child gives `step` when at most `idle_below` of its limit was in use, and nobody waited for it, at every look for
    `idle_after` seconds; it is given `step` when at least `busy_above` was, at every look for `busy_after` seconds. Both
    are then watched anew. A child without a limit is busy when somebody waits for it.
    Order: the busiest is given first, the idlest gives first.
    Bound: three numbers a child.
    Cost: O(n log n) for n children, every `interval` seconds.
    Cancel safety: leaving the block, in whatever way, leaves the limits as they are.

    Raising and lowering is `resize`: what is held is never taken away. A child that somebody else resizes meanwhile is
    moved from where it is then. A child that is closed leaves the balance, with what it has, and the others go on. `balance()` is
    one look, for those who have a timer of their own.

    Args:
        children: Each child with the least and the greatest limit that it may have: a mapping of `CapacitySource` to
            `(min, max)`.
        interval: Seconds from one look to the next, on the loop's clock.
        idle_after: For how many seconds a child must be idle to give.
        busy_after: For how many seconds a child must be busy to be given.
        idle_below: The utilization, from 0 to 1, up to which a child counts as idle.
        busy_above: The utilization, from 0 to 1, from which on it counts as busy; above `idle_below`.
        step: How much is moved at a time, above 0.
        resource: Which resource is moved, one that is held; slots by default.

    Raises:
        TypeError: A child is no `CapacitySource`, or something that should be a number is none.
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
        """One look: moves what is due, and gives the new limits of those that it changed.

        Args:
            now: The time in seconds, on any clock that does not go backwards; always the same one.
        """
        # A closed one never lives again.
        self._children = [child for child in self._children if not child.capacity.closed]
        for child in self._children:
            child.look(now, self._idle_below, self._busy_above)
        givers = sorted(
            (child for child in self._children if child.idle_for(now) >= self._idle_after),
            key=lambda child: child.use,
        )
        takers = sorted(
            (child for child in self._children if child.busy_for(now) >= self._busy_after),
            key=lambda child: -child.use,
        )
        changed: dict[CapacitySource, float] = {}
        # Each gives once. One that cannot give anything gives nobody anything.
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
        """Begins to look, every `interval` seconds, in a task of its own.

        Raises:
            RuntimeError: It does so already.
        """
        if self._task is not None:
            raise RuntimeError("this balancer is at work already; leave that block first")
        self._task = asyncio.create_task(self._balance_forever(), name="balancer of capacities")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stops. An error that ended the looking is raised here."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        struck = await settled(task)
        if struck is not None:
            raise struck
        if not task.cancelled() and (failure := task.exception()) is not None:
            if error is None:
                raise failure
            error.add_note(f"while balancing: {failure!r}")

    async def _balance_forever(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            self.balance(clock())
            await asyncio.sleep(self._interval)

    def __repr__(self) -> str:
        return told(type(self).__name__, self._facts())

    def _facts(self) -> Iterator[str]:
        yield f"moves {len(self._children)} limits"
        if self._task is None:
            yield "idle"
        elif not self._task.done():
            yield "at work"
        else:
            yield "stopped" if self._task.cancelled() else "failed"


class _Child:
    """A capacity between its bounds, and since when it is what it is. Amounts are whole millionths, as the core has them."""

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
        return micros(limit)

    def look(self, now: float, idle_below: float, busy_above: float) -> None:
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
        """Resizes it, and says to what; not at all if it was closed meanwhile."""
        limit = units(self.limit + amount)
        try:
            self.capacity.resize({self._resource: limit})
        except ClosedError:
            return {}
        self._idle_since = self._busy_since = None
        return {self.capacity: limit}


def _moved(giver: _Child, taker: _Child, amount: int) -> dict[CapacitySource, float]:
    """Moves an amount, and gives the new limits; none if one of the two was closed since it was looked at."""
    # Lowered first, so that the sum is never above what it was.
    given = giver.move(-amount)
    if not given:
        return {}
    taken = taker.move(amount)
    if not taken:
        giver.move(amount)
        return {}
    return {**given, **taken}


def _since(now: float, since: float | None, holds: bool) -> float | None:
    """Since when something holds, which did since then or did not."""
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
            f"children must be a mapping of CapacitySource to (min, max), got {shown(children)}"
        )
    found: list[_Child] = []
    for capacity, bounds in cast("Mapping[object, object]", children).items():
        if not isinstance(capacity, CapacitySource):
            raise TypeError(f"children must be CapacitySources, got {shown(capacity)}")
        least, greatest = _checked_bounds(capacity, bounds)
        limit: Any = capacity.limits.get(resource)
        if not isinstance(limit, (int, float)):
            raise ValueError(f"{capacity!r} has no number of {resource!r} that could be moved")
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
