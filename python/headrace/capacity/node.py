"""`CapacitySource`: a node of a tree of limits."""

from __future__ import annotations

import weakref
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from headrace import _core
from headrace._core import Lease
from headrace._internal.copying import Uncopied
from headrace._internal.reprs import short, shown, told
from headrace.capacity.limits import SLOTS, Budget, Rate, checked_limits, lowered
from headrace.capacity.snapshot import CapacitySnapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from headrace.capacity.limits import Amounts, Limit, Limits

__all__ = ["CapacitySource", "Lease", "QuotaCapacitySource", "checked_capacity", "under"]

# Of how many resources a `repr` tells.
_TOLD = 4


class CapacitySource(Uncopied, _core.Capacity):
    """A limit, under another limit, and so on up to a root; what one node has is shared fairly among those below it.

        machine = CapacitySource(64)
        fetches = CapacitySource({"slots": 32, "tokens": Rate(90_000)}, machine, weight=2)

        async with fetches.acquire({"slots": 1, "tokens": 900}) as lease:
            ...
            lease.settle(tokens=812)

    Acquiring takes its cost here and at every ancestor, all or nothing: nobody holds a part of a path while waiting for the
    rest. A resource that an ancestor does not limit costs nothing there. No event loop is needed to make one, and one tree
    serves any number of loops and threads.

    Law: at no node is more held than its limit, at any moment, whatever is cancelled or fails; a limit that is lowered takes
    nothing away. Whoever waits and fits what is free is served.
    Order: at one node, the highest priority first, and first come, first served among equals; a wait of ten seconds
    makes up for a priority of 1, so that nobody starves. Among the children of a node, the one that has had least, for
    its weight: what counts is cost times the time for which it was held. A child that had nothing to do saves nothing up.
    A smaller cost may go past one that lacks slots or a part of a budget, eight times; then what comes free is kept for that
    one. Order at a rate is strict: a smaller cost does not go past a larger one that lacks only quota.
    Bound: one entry for each that waits.
    Cost: O(depth) to acquire and release without contention; with it, O(depth x log(children)).
    Cancel safety: whoever is cancelled while waiting holds nothing, also if it was granted in that moment; its place is
    lost. What the grant took of a rate or a budget reverts.

    Args:
        limit: A number of slots; a `Rate` or a `Budget`; or a mapping of resource to one of the three. A number is from 0,
            and kept as a whole number of millionths; 0 lets nobody in until it is raised.
        parent: The node above; `None` for a root.
        weight: The share among its siblings, relative to theirs; from 0.001 to 1,000,000.
        name: For messages and displays.
        clock: For a root: what gives the time in seconds, as `time.monotonic`, which is the default; the clock of the whole
            tree. `loop.time` of a virtual loop makes it one of the loop's things. It is called by whoever uses the tree, in
            that thread.

    Raises:
        TypeError: `limit` is no limit, `parent` no `CapacitySource`, `weight` no number, `name` no string, or `clock` not
            callable.
        ValueError: A limit is negative or not finite, above 10**12, or above 0 and less than a millionth; `weight` is out of
            range; a resource is another kind of limit elsewhere in the tree; there is a `clock` beside a `parent`; or `parent` is
            this capacity or below it.
        ClosedError: `parent` is closed.
    """

    _instead = "a limit is one for all that share it: hand on the object itself"

    def __init__(
        self,
        limit: Limits,
        parent: CapacitySource | None = None,
        *,
        weight: float = 1.0,
        name: str | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        limits = checked_limits("limit", limit)
        if parent is not None and not isinstance(cast("object", parent), CapacitySource):
            raise TypeError(f"parent must be a CapacitySource or None, got {shown(parent)}")
        if parent is not None and any(node is self for node in _path(parent)):
            raise ValueError(f"parent must not be the capacity itself or below it, got {parent!r}")
        super().__init__(lowered(limits), parent, weight, name, clock)
        # In a list of one, which the core exchanges in the step in which it changes its own limits.
        self._current: list[Mapping[str, Limit]] = [MappingProxyType(limits)]
        # Whether slots are all there is here, and on the whole path: amounts are bare numbers then.
        self._is_plain = not hasattr(limit, "keys")
        self._has_plain_path: bool = self._is_plain and (parent is None or parent._has_plain_path)
        self._parent = parent
        # Weak, in the order in which they were made: whoever drops a child has done with it.
        self._children: dict[int, weakref.KeyedRef[int, CapacitySource]] = {}
        # Made for the first child: leaves come and go by the thousand.
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

    # What it is.

    @property
    def parent(self) -> CapacitySource | None:
        """The node above; `None` for a root."""
        return self._parent

    @property
    def children(self) -> tuple[CapacitySource, ...]:
        """The nodes below that are still in use, in the order in which they were made."""
        found = (child() for child in tuple(self._children.values()))
        return tuple(child for child in found if child is not None)

    @property
    def limits(self) -> Mapping[str, Limit]:
        """The limit of each resource, read-only."""
        return self._limits

    @property
    def limit(self) -> Any:
        """What it is limited to, as it was given: one limit, or a mapping."""
        return self._limits[SLOTS] if self._is_plain else self._limits

    # How it goes. Amounts are numbers if slots are all there is, and else mappings of resource to number.

    @property
    def held(self) -> Amounts:
        """What is held, here and below: of a rate what has not come back yet, of a budget what is spent or held."""
        return _shaped(self._held(), self._is_plain)

    @property
    def available(self) -> Amounts:
        """What is free along the path: here and at every ancestor. Those who wait may be about to have it.

        Raises:
            ClosedError: The node is closed; so with `peek`.
        """
        return _shaped(self._left(), self._has_plain_path)

    @property
    def utilization(self) -> float:
        """Which part of the limit is held: of the resource that is most in use. Above 1 after a limit was lowered.

        A limit of 0 is in use wholly if anything is held, and else not at all.
        """
        held, limits = self._held(), self._limits
        return max(_part(held[resource], limit) for resource, limit in limits.items())

    def peek(self) -> Amounts | None:
        """What could be had now along the path, were nobody waiting; `None` if that is nothing, as in a pause."""
        found = self._left()
        return _shaped(found, self._has_plain_path) if any(found.values()) else None

    def snapshot(self) -> CapacitySnapshot:
        """This node and all below it, at one moment. O(number of nodes)."""
        return CapacitySnapshot.of(self._snapshot())

    # What is done to it.

    def resize(self, limit: Limits) -> None:
        """Changes the limit, for everybody, at once.

        Raising it serves in the same call those who fit now. Lowering it takes nothing away: what is held above it comes
        back as it is released. 0 pauses. A waiter that is now above the limit stays, until it is raised.

        Args:
            limit: One limit, if slots are all there is; or a mapping of some of the resources to their new limits. A
                resource keeps its kind: a number stays a number, a rate a rate.

        Raises:
            TypeError: It is no limit.
            ValueError: A limit is negative or not finite, the node knows no such resource, or it is of another kind.
            ClosedError: The node is closed.
        """
        changed = checked_limits("limit", limit)
        for resource, new in changed.items():
            old = self._limits.get(resource)
            if old is None:
                raise ValueError(
                    f"{self!r} does not limit {resource!r}; it limits {', '.join(map(repr, self._limits))}"
                )
            if (isinstance(old, Rate), isinstance(old, Budget)) != (
                isinstance(new, Rate),
                isinstance(new, Budget),
            ):
                raise ValueError(f"{resource!r} of {self!r} is {old!r}, and cannot become {new!r}")
        lower = lowered(changed)
        # Another call may come first: of another thread, or, in this one, of a signal handler, a finaliser or the clock. The
        # core then changes nothing, and what that call changed is kept.
        while True:
            before = self._limits
            after = MappingProxyType({**before, **changed})
            if self._resize(lower, self._current, before, after):
                return

    def __repr__(self) -> str:
        try:
            name = "" if self.name is None else f" {short(self.name)}"
        except Exception:
            name = ""
        return told(f"{type(self).__name__}{name}", self._facts())

    def _facts(self) -> Iterator[str]:
        held = self._held()
        for resource, limit in islice(self._limits.items(), _TOLD):
            whole = limit if isinstance(limit, (int, float)) else limit.amount
            how = f" in {limit.per} s" if isinstance(limit, Rate) else ""
            yield f"{held[resource]} of {whole} {short(resource)[1:-1]}{how}"
        if len(self._limits) > _TOLD:
            yield f"{len(self._limits) - _TOLD} more resources"
        if self.waiting:
            yield f"{self.waiting} waiting"
        yield "closed" if self.closed else "paused" if self.paused else "open"


class QuotaCapacitySource(CapacitySource):
    """A capacity whose resources are all rates, or budgets: releasing a lease gives nothing back, time does.

        service = QuotaCapacitySource({"requests": Rate(500), "tokens": Rate(90_000)})
        async with service.acquire({"requests": 1, "tokens": 900}) as lease:
            ...
            lease.settle(tokens=812)

    All else is as with `CapacitySource`, which takes rates too. What this class adds is that nothing can be held here by
    mistake: a bare number is refused.

    Args:
        limit: A `Rate` or a `Budget`, for `"slots"`; or a mapping of resource to one of the two.
        parent: As with `CapacitySource`; so are `weight`, `name` and `clock`.
        weight: The share among its siblings.
        name: For messages and displays.
        clock: What gives the time, for a root.

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
    ) -> None:
        for resource, one in checked_limits("limit", limit).items():
            if not isinstance(one, (Rate, Budget)):
                raise ValueError(
                    f"limit of {resource!r} must be a Rate or a Budget, which only quotas are, got {one!r}"
                )
        super().__init__(limit, parent, weight=weight, name=name, clock=clock)


def checked_capacity(
    capacity: CapacitySource, cost: float | Mapping[str, float], priority: int
) -> CapacitySource:
    """The capacity, if it is one, and if that cost may be asked of it at that priority.

    Raises:
        TypeError: It is something else, or `cost` or `priority` is of the wrong type.
        ValueError: The cost is none, or can never be had there.
    """
    given = cast("object", capacity)
    if not isinstance(given, CapacitySource):
        raise TypeError(f"capacity must be a CapacitySource, got {shown(given)}")
    capacity._check(cost, priority)
    return capacity


def under(capacity: CapacitySource) -> str:
    """That something is under this capacity, for `repr`."""
    return "under a capacity" if capacity.name is None else f"under {short(capacity.name)}"


def _path(capacity: CapacitySource) -> Iterator[CapacitySource]:
    """The capacity and its ancestors."""
    # Of one that was not initialised, the core says so.
    _ = capacity.name
    above: CapacitySource | None = capacity
    while above is not None:
        yield above
        above = above.parent


def _shaped(amounts: dict[str, float], is_plain: bool) -> Amounts:
    return amounts[SLOTS] if is_plain else MappingProxyType(amounts)


def _part(held: float, limit: Limit) -> float:
    whole = limit if isinstance(limit, (int, float)) else limit.amount
    if isinstance(limit, Rate) and limit.burst is not None:
        whole = limit.burst
    return held / whole if whole else float(held > 0)
