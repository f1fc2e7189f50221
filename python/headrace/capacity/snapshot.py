"""`CapacitySnapshot`: the state of a tree of capacities at one moment, as `CapacitySource.snapshot()` returns it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeAlias, TypeVar

from headrace.capacity.breaker import BreakerState
from headrace.capacity.limits import from_core

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from headrace.capacity.limits import Limit

CoreNode: TypeAlias = tuple[Any, Any, Any, Any, Any, Any, Any]
"""A node in the form that the core returns: configuration, counts, times, flags, cooldown, breaker and the children in the
same form."""

V = TypeVar("V")


def _refuse(*_args: object, **_kwargs: object) -> NoReturn:
    raise TypeError("a snapshot is of one moment and cannot be changed; dict(...) makes a copy")


class FrozenDict(dict[str, V]):
    """An immutable dictionary that can be hashed, copied and pickled."""

    __slots__ = ()

    # Typed as `Any`: one function replaces methods with different signatures.
    __setitem__: ClassVar[Any] = _refuse
    __delitem__: ClassVar[Any] = _refuse
    __ior__: ClassVar[Any] = _refuse
    clear: ClassVar[Any] = _refuse
    pop: ClassVar[Any] = _refuse
    popitem: ClassVar[Any] = _refuse
    setdefault: ClassVar[Any] = _refuse
    update: ClassVar[Any] = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


@dataclass(frozen=True, slots=True)
class Cooldown:
    """The state of a node from the start of a cooldown, or from the time at which its breaker opened, until it is in full use again."""

    resource: str | None
    """The resource that was cooled down; `None` for the whole node."""
    left: float
    """The seconds until the cooldown is over; 0 while the node is ramped up."""
    window: int | None
    """The number of leases that may be held at once of those granted since the cooldown started: the rest of the probes until a breaker
    has closed. `None` if there is no such bound
    any more: the cooldown is only remembered for as long again, so that the next one is longer."""
    events: int
    """The number of cooldowns since the node was last in full use. Calls of `cool_down` at one moment are one cooldown."""


@dataclass(frozen=True, slots=True)
class CapacitySnapshot:
    """The state of a capacity and its descendants, all at the same moment.

    Iterate over it to get this node and its descendants, each before its children. A snapshot is immutable. It can be hashed,
    copied, pickled and passed to `dataclasses.asdict`.
    """

    name: str | None
    """The name of the node."""
    limit: Mapping[str, Limit]
    """The limit of each resource."""
    held: Mapping[str, float]
    """The amount held of each resource, by this node and its descendants. For a rate it is the quota that has not been
    replenished yet, for a budget the amount spent or held."""
    reserved: Mapping[str, float]
    """The amount of each resource that is reserved for waiters that were overtaken too often."""
    weight: float
    """The share relative to the siblings."""
    floor: float
    """The guaranteed minimum of slots; 0 without one."""
    waiting: int
    """The number of waiters of this node and its descendants, without those already granted."""
    leases: int
    """The number of leases held at this node and its descendants."""
    granted: int
    """The number of leases granted at this node and its descendants since the node was created."""
    bypassed: int
    """How often, at this node and its descendants, a smaller cost overtook a waiter that did not fit. Always 0 for rates."""
    mean_hold: float | None
    """The mean time in seconds for which leases are held, at this node and its descendants; `None` before the first measurement.
    It is a moving average in which the newest value counts for an eighth. Without waiters, only one lease in sixteen is
    measured, after the first sixteen."""
    share_received: float | None
    """The fraction, from 0 to 1, that this node received of the usage of all siblings while there were waiters. Usage is cost x
    time. `None` for a root, and before the first wait. Usage by a single sibling alone does not count. Neither do the leases
    that it still holds when others arrive, for the mean time that its leases are held."""
    share_due: float | None
    """The fraction that its weight entitles it to, among the siblings that received or wait for anything. For a node that has
    received nothing yet, it is computed as if the node arrived now. `None` for a root."""
    paused: bool
    """Whether this node or an ancestor is paused."""
    closed: bool
    """Whether this node or an ancestor is closed."""
    cooldown: Cooldown | None
    """The cooldown of this node, until it is in full use again and has forgotten it; otherwise `None`."""
    breaker: BreakerState | None
    """The state of the breaker of this node; `None` if it has none."""
    children: tuple[CapacitySnapshot, ...]
    """The snapshots of the children, in order of creation."""

    @classmethod
    def of(cls, node: CoreNode) -> CapacitySnapshot:
        """Build a snapshot from the tuples of the core."""
        configuration, counts, times, flags, cooldown, breaker, children = node
        name, resources, (weight, floor), waiting = configuration
        leases, granted, bypassed = counts
        mean_hold, received, due = times
        paused, closed = flags
        return cls(
            name,
            FrozenDict({resource: from_core(*limit) for resource, limit, _, _ in resources}),
            FrozenDict({resource: held for resource, _, held, _ in resources}),
            FrozenDict({resource: reserved for resource, _, _, reserved in resources}),
            weight,
            floor,
            waiting,
            leases,
            granted,
            bypassed,
            mean_hold,
            received,
            due,
            paused,
            closed,
            None if cooldown is None else Cooldown(*cooldown),
            BreakerState.of(breaker),
            tuple(cls.of(child) for child in children),
        )

    def __iter__(self) -> Iterator[CapacitySnapshot]:
        left: list[CapacitySnapshot] = [self]
        while left:
            one = left.pop()
            yield one
            left.extend(reversed(one.children))
