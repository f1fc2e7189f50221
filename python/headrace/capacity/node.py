"""`CapacitySource`: a node of a tree of limits.

The scheduler of the tree is native (`headrace._core.Capacity`): it queues, grants and charges. The class here checks limits, keeps
references to parent and children, and gives amounts the form in which the limit was given. Tasks, pools and the `limit()` operators
acquire leases from it.
"""

from __future__ import annotations

import weakref
from dataclasses import replace
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, cast

import headrace._core as _core
from headrace._internal.copying import Uncopied
from headrace._internal.reprs import NotebookMixin, describe_value, format_repr, short_repr
from headrace._internal.validate import check_flag
from headrace.capacity.breaker import BreakerState, breaker_to_core, checked_breaker
from headrace.capacity.limits import (
    SLOTS,
    AdaptiveLimit,
    AutoRate,
    Budget,
    Rate,
    checked_limits,
    to_core,
)
from headrace.capacity.snapshot import CapacitySnapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from headrace.capacity.breaker import Breaker
    from headrace.capacity.limits import Amounts, Limit, Limits

# The number of resources that a `repr` lists.
_SHOWN = 4


class CapacitySource(NotebookMixin, Uncopied, _core.Capacity):
    """A node in a tree of limits; each node shares its capacity fairly among its children.

        machine = CapacitySource(64)
        fetches = CapacitySource({"slots": 32, "tokens": Rate(90_000)}, machine, weight=2)

        async with fetches.acquire({"slots": 1, "tokens": 900}) as lease:
            ...
            lease.settle(tokens=812)

    Acquiring takes the cost at this node and at every ancestor, all or nothing: a waiter never holds part of a path. A
    resource that an ancestor does not limit costs nothing there. Creating a node needs no event loop, and one tree can be
    used from any number of loops and threads.

    Law: the amount held at a node never exceeds its limit, even when tasks are cancelled or fail. Lowering a limit revokes
    no lease. A waiter is served when its cost fits the free capacity.
    Order: at one node, the highest priority first, and FIFO among equal priorities. A wait of ten seconds counts as much as
    1 of priority, so no waiter starves. Among the children of a node, the child with the least usage for its weight comes
    first; usage is cost times the time for which it was held. An idle child accumulates no credit.
    A smaller cost may overtake a waiter that lacks slots or part of a budget, eight times; after that, freed capacity is
    reserved for the waiter. Order at a rate is strict: a smaller cost never overtakes a larger one that lacks only quota.
    Bound: one entry for each waiter.
    Cost: O(depth) to acquire and release without contention; with it, O(depth x log(children)).
    Cancel safety: a cancelled waiter holds nothing, even if it was granted at that moment, and loses its place in the
    queue. The amount that such a grant took of a rate or a budget is refunded.

    Args:
        limit: A number of slots, an `AdaptiveLimit`, a `Rate` or `Rate.auto()`, a `Budget`, or a mapping of resource to one of
            them. A number is 0 or more, and is stored as a whole number of millionths. 0 grants nothing until the limit is raised.
        parent: The parent node; `None` for a root.
        weight: The share relative to the siblings, from 0.001 to 1,000,000.
        floor: A guaranteed minimum of slots, for a node with a parent; 0 for none. While this node holds fewer and has a
            waiter that fits, the next release goes to it. An idle floor is lent to the siblings, so the wait for a slot of
            the floor is at most the longest hold. It is guaranteed if each ancestor below the root has a floor that covers
            the floors of its children. A floor gives no precedence at a rate.
        name: A name for messages and displays.
        clock: For a root only: the clock of the whole tree, a function that returns the time in seconds; `time.monotonic`
            by default. Pass `loop.time` to run the tree on virtual time. It is called in the thread that uses the tree.
        cooldown: Whether the node stands for one service, so that a throttled answer to a call below it cools down this node.
            Without such a node the answer cools down the capacity of the pool. Can be changed at any time.
        breaker: A `Breaker`, which stops the calls below this node while they fail. Can be changed at any time.

    Raises:
        TypeError: `limit` is not a limit, `parent` not a `CapacitySource`, `weight` or `floor` not a number, `name` not
            a string, `clock` not callable, `cooldown` not a bool, or `breaker` not a `Breaker`.
        ValueError: A limit is negative or not finite, above 10**12, or above 0 and less than a millionth; `weight` is out of
            range; `floor` is negative, above the limit, or given for a root, or the floors of all children of `parent` are
            above its limit; a resource has another kind of limit elsewhere in the tree; both `clock` and `parent` are given; or
            `parent` is this node or one of its descendants.
        ClosedError: `parent` is closed.
    """

    _instead = "a limit is one for all that share it: hand on the object itself"

    def __init__(
        self,
        limit: Limits,
        parent: CapacitySource | None = None,
        *,
        weight: float = 1.0,
        floor: float = 0,
        name: str | None = None,
        clock: Callable[[], float] | None = None,
        cooldown: bool = False,
        breaker: Breaker | None = None,
    ) -> None:
        limits = checked_limits("limit", limit)
        self._cooldown: bool = check_flag("cooldown", cooldown)
        self._breaker = checked_breaker(breaker)
        if parent is not None and not isinstance(cast("object", parent), CapacitySource):
            raise TypeError(
                f"parent must be a CapacitySource or None, got {describe_value(parent)}"
            )
        if parent is not None and any(node is self for node in _path(parent)):
            raise ValueError(f"parent must not be the capacity itself or below it, got {parent!r}")
        super().__init__(to_core(limits), parent, weight, name, clock)
        if type(floor) is not int or floor:
            self.floor = floor
        if breaker is not None:
            self.breaker = breaker
        # A list of one element: the core replaces the element in the same atomic step as its own limits.
        self._current: list[Mapping[str, Limit]] = [MappingProxyType(limits)]
        self._is_adaptive = any(
            isinstance(one, (AdaptiveLimit, AutoRate)) for one in limits.values()
        )
        # Whether this node, and the whole path, limits only slots: amounts are then bare numbers.
        self._is_plain = not hasattr(limit, "keys")
        self._has_plain_path: bool = self._is_plain and (parent is None or parent._has_plain_path)
        self._parent = parent
        # Weak references, in order of creation: a child that is dropped elsewhere is no longer in use.
        self._children: dict[int, weakref.KeyedRef[int, CapacitySource]] = {}
        # Created with the first child: a tree may create and drop thousands of leaves, which need none.
        self._forget: Callable[[weakref.KeyedRef[int, CapacitySource]], None] | None = None
        if parent is not None:
            parent._adopt(self)

    def _adopt(self, child: CapacitySource) -> None:
        if self._forget is None:
            children = self._children

            def forget(ref: weakref.KeyedRef[int, CapacitySource]) -> None:
                children.pop(ref.key, None)

            self._forget = forget
        self._children[id(child)] = weakref.KeyedRef(child, self._forget, id(child))

    @property
    def _limits(self) -> Mapping[str, Limit]:
        return self._current[0]

    # Configuration.

    @property
    def parent(self) -> CapacitySource | None:
        """The parent node; `None` for a root."""
        return self._parent

    @property
    def children(self) -> tuple[CapacitySource, ...]:
        """The child nodes that are still in use, in order of creation."""
        found = (child() for child in tuple(self._children.values()))
        return tuple(child for child in found if child is not None)

    @property
    def limits(self) -> Mapping[str, Limit]:
        """The limit of each resource, read-only; for an adaptive one its current number, for `Rate.auto()` its current rate."""
        if not self._is_adaptive:
            return self._limits
        limits = dict(self._limits)
        for resource, (amount, _) in self._adaptive().items():
            limit = limits[resource]
            limits[resource] = (
                Rate(amount, limit.per, limit.burst) if isinstance(limit, AutoRate) else amount
            )
        return MappingProxyType(limits)

    @property
    def limit(self) -> Any:
        """The limit in the form in which it was given: one limit, or a mapping. Of an adaptive one the current number or rate."""
        return self.limits[SLOTS] if self._is_plain else self.limits

    @property
    def cooldown(self) -> bool:
        """Whether a throttled answer to a call below this node cools down this node; may be set at any time."""
        return self._cooldown

    @cooldown.setter
    def cooldown(self, cooldown: bool) -> None:
        self._cooldown = check_flag("cooldown", cooldown)

    @property
    def cooldown_node(self) -> CapacitySource:
        """The node that a throttled answer to a call here cools down: the nearest with `cooldown=True`, otherwise this node.

        The nearest is this node itself or an ancestor.
        """
        return next((node for node in _path(self) if node._cooldown), self)

    @property
    def breaker(self) -> Breaker | None:
        """The breaker, which stops the calls below this node while they fail; may be set at any time.

        Setting it closes it, and starts its counts anew: `node.breaker = node.breaker` ends the time for which it is open.

        Raises:
            TypeError: When set: it is neither a `Breaker` nor `None`.
            ClosedError: When set: the node is closed.
        """
        return self._breaker

    @breaker.setter
    def breaker(self, breaker: Breaker | None) -> None:
        breaker = checked_breaker(breaker)
        self._set_breaker(None if breaker is None else breaker_to_core(breaker))
        self._breaker = breaker

    @property
    def breaker_state(self) -> Literal["closed", "open", "half_open"] | None:
        """The state of the breaker of this node; `None` if it has none. `snapshot().breaker` has more."""
        status = self._breaker_status()
        return None if status is None else status[0]

    # State. Amounts are numbers if the node limits only slots, otherwise mappings of resource to number.

    @property
    def held(self) -> Amounts:
        """The amount held by this node and its descendants.

        For a rate it is the quota that has not been replenished yet, for a budget the amount spent or held.
        """
        return _shaped(self._held(), self._is_plain)

    @property
    def available(self) -> Amounts:
        """The amount that is free along the path, from this node to the root. Waiters may be about to get it.

        Raises:
            ClosedError: The node is closed; `peek` raises it too.
        """
        return _shaped(self._left(), self._has_plain_path)

    @property
    def utilization(self) -> float:
        """The fraction of the limit that is held, for the most used resource. Above 1 after a limit was lowered.

        For a limit of 0 it is 1 if anything is held, otherwise 0.
        """
        held, limits = self._held(), self.limits
        return max(_part(held[resource], limit) for resource, limit in limits.items())

    def peek(self) -> Amounts | None:
        """Return the amount free along the path, ignoring waiters; `None` if it is zero, for example while paused."""
        found = self._left()
        return _shaped(found, self._has_plain_path) if any(found.values()) else None

    def snapshot(self) -> CapacitySnapshot:
        """Return a consistent snapshot of this node and its descendants. O(number of nodes)."""
        return CapacitySnapshot.of(self._snapshot())

    # Changes.

    def resize(self, limit: Limits) -> None:
        """Change the limit at once, for all users of the node.

        Raising the limit grants, in the same call, all waiters that now fit. Lowering it revokes nothing: the excess
        returns as leases are released. 0 pauses the node. A waiter whose cost is above the new limit keeps waiting until
        the limit is raised.

        Args:
            limit: One limit, if the node limits only slots; or a mapping of some of the resources to their new limits. A
                resource keeps its kind: a number stays a number, a rate stays a rate. A number becomes the maximum of an
                adaptive limit, and an `AdaptiveLimit` replaces its minimum and maximum; both keep what it has learned. Likewise a
                `Rate` becomes the maximum of a `Rate.auto()`.

        Raises:
            TypeError: `limit` is not a limit.
            ValueError: A limit is negative or not finite, the node has no such resource, or the kind differs; or a number of
                slots above 0 is below the floor of the node, or below the floors of its children together.
            ClosedError: The node is closed.
        """
        changed = checked_limits("limit", limit)
        for resource, new in changed.items():
            old = self._limits.get(resource)
            if old is None:
                raise ValueError(
                    f"{self!r} does not limit {resource!r}; it limits {', '.join(map(repr, self._limits))}"
                )
            if _kind(old) is not _kind(new) or any(
                isinstance(new, kind) and not isinstance(old, kind)
                for kind in (AdaptiveLimit, AutoRate)
            ):
                raise ValueError(f"{resource!r} of {self!r} is {old!r}, and cannot become {new!r}")
        converted = to_core(changed)
        if self._is_adaptive:
            # The core keeps the maximum. Here the limit stays adaptive.
            changed = {
                resource: _resized(self._limits[resource], new) for resource, new in changed.items()
            }
        # A concurrent call may change the limits first: from another thread, or in this one from a signal handler, a
        # finaliser or the clock. The core then changes nothing, and the loop retries on top of that change.
        while True:
            before = self._limits
            after = MappingProxyType({**before, **changed})
            if self._resize(converted, self._current, before, after):
                return

    def __repr__(self) -> str:
        try:
            name = "" if self.name is None else f" {short_repr(self.name)}"
        except Exception:
            name = ""
        return format_repr(f"{type(self).__name__}{name}", self._repr_parts())

    def _repr_parts(self) -> Iterator[str]:
        held = self._held()
        for resource, limit in islice(self.limits.items(), _SHOWN):
            whole = _whole(limit)
            how = f" in {limit.per} s" if isinstance(limit, Rate) else ""
            if isinstance(self._limits[resource], AdaptiveLimit):
                how = ", adaptive"
            elif isinstance(self._limits[resource], AutoRate):
                how += ", auto"
            yield f"{held[resource]} of {whole} {short_repr(resource)[1:-1]}{how}"
        if len(self._limits) > _SHOWN:
            yield f"{len(self._limits) - _SHOWN} more resources"
        if self.floor:
            yield f"floor {self.floor}"
        if self.waiting:
            yield f"{self.waiting} waiting"
        if self.closed or self.paused:
            yield "closed" if self.closed else "paused"
        else:
            cooling, breaker = self.cooling, BreakerState.of(self._breaker_status())
            states = [f"cooled down for {cooling:.3g} s"] if cooling else []
            if breaker is not None and breaker.state != "closed":
                states.append(str(breaker))
            yield from states or ["open"]


class QuotaCapacitySource(CapacitySource):
    """A capacity that has only rates and budgets: time restores a rate, and releasing a lease returns nothing.

        service = QuotaCapacitySource({"requests": Rate(500), "tokens": Rate(90_000)})
        async with service.acquire({"requests": 1, "tokens": 900}) as lease:
            ...
            lease.settle(tokens=812)

    It behaves like `CapacitySource`, which accepts rates too. The difference is a check: a bare number, which would be
    held until it is released, is rejected.

    Args:
        limit: A `Rate` or a `Budget`, for `"slots"`; or a mapping of resource to one of the two.
        parent: As in `CapacitySource`.
        weight: As in `CapacitySource`.
        name: As in `CapacitySource`.
        clock: As in `CapacitySource`.
        cooldown: As in `CapacitySource`.
        breaker: As in `CapacitySource`.

    Raises:
        TypeError: As `CapacitySource`.
        ValueError: As `CapacitySource`; and a limit is a bare number.
    """

    def __init__(
        self,
        limit: Rate | Budget | Mapping[str, Rate | Budget],
        parent: CapacitySource | None = None,
        *,
        weight: float = 1.0,
        name: str | None = None,
        clock: Callable[[], float] | None = None,
        cooldown: bool = False,
        breaker: Breaker | None = None,
    ) -> None:
        for resource, one in checked_limits("limit", limit).items():
            if not isinstance(one, (Rate, Budget)):
                raise ValueError(
                    f"limit of {resource!r} must be a Rate or a Budget, which only quotas are, got {one!r}"
                )
        super().__init__(
            limit, parent, weight=weight, name=name, clock=clock, cooldown=cooldown, breaker=breaker
        )


def checked_capacity(
    capacity: CapacitySource, cost: float | Mapping[str, float], priority: int
) -> CapacitySource:
    """Return the capacity after checking that it can grant this cost at this priority.

    Raises:
        TypeError: It is not a `CapacitySource`, or `cost` or `priority` is of the wrong type.
        ValueError: The cost is invalid, or can never be granted there.
    """
    given = cast("object", capacity)
    if not isinstance(given, CapacitySource):
        raise TypeError(
            f"capacity must be a CapacitySource, got {describe_value(given)}; for 20 slots, give CapacitySource(20)"
        )
    capacity._check(cost, priority)
    return capacity


def under(capacity: CapacitySource) -> str:
    """Return the phrase that names this capacity in a `repr`."""
    return "under a capacity" if capacity.name is None else f"under {short_repr(capacity.name)}"


def _path(capacity: CapacitySource) -> Iterator[CapacitySource]:
    """Yield the capacity and its ancestors, up to the root."""
    # Raises in the core if the capacity was not initialised.
    _ = capacity.name
    above: CapacitySource | None = capacity
    while above is not None:
        yield above
        above = above.parent


def _shaped(amounts: dict[str, float], is_plain: bool) -> Amounts:
    return amounts[SLOTS] if is_plain else MappingProxyType(amounts)


def _kind(limit: Limit) -> type[Rate | Budget] | None:
    if isinstance(limit, Rate):
        return Rate
    return Budget if isinstance(limit, Budget) else None


def _resized(old: Limit, new: Limit) -> Limit:
    """Return the limit to keep in Python: one that follows the server stays so."""
    if isinstance(old, AutoRate) and not isinstance(new, AutoRate):
        burst = new.burst if isinstance(new, Rate) and new.burst is not None else old.burst
        return replace(old, burst=burst)
    return old if isinstance(old, AdaptiveLimit) else new


def _whole(limit: Limit) -> float:
    if isinstance(limit, AdaptiveLimit):
        return limit.start
    return limit if isinstance(limit, (int, float)) else limit.amount


def _part(held: float, limit: Limit) -> float:
    whole = _whole(limit)
    if isinstance(limit, Rate) and limit.burst is not None:
        whole = limit.burst
    return held / whole if whole else float(held > 0)
