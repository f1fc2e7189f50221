"""`TreeListing`: the nodes, leases and waiters of a tree of capacities. `explain()` and the warning of stuck trees read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace._core import tree_listing
from headrace.capacity.breaker import BreakerState
from headrace.capacity.limits import SLOTS, Budget, Rate, from_core

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace._core import TreeRef
    from headrace.capacity.limits import Limit


@dataclass(frozen=True, slots=True)
class ListedNode:
    """A node of a tree."""

    number: int
    parent: int | None
    name: str | None
    limits: dict[str, Limit]
    held: dict[str, float]
    available: dict[str, float]
    held_off: dict[str | None, float]
    """The seconds for which it grants nothing, by resource; None for all."""
    paused: bool
    closed: bool
    breaker: BreakerState | None

    @property
    def label(self) -> str:
        """The name in messages."""
        return f"capacity {self.name!r}" if self.name is not None else "an unnamed capacity"

    @property
    def is_held_off(self) -> bool:
        """Whether something besides its limits holds requests back."""
        breaker = self.breaker
        breaks = breaker is not None and breaker.state != "closed"
        return self.paused or bool(self.held_off) or breaks

    @property
    def states(self) -> list[str]:
        """The reasons for which it grants less than its limits allow, in words."""
        states = ["paused"] * self.paused + ["closed"] * self.closed
        states += [
            f"grants nothing{'' if resource is None else f' of {resource}'} for {left:.1f} s"
            for resource, left in self.held_off.items()
        ]
        if self.breaker is not None and self.breaker.state != "closed":
            states.append(str(self.breaker))
        return states


@dataclass(frozen=True, slots=True)
class ListedLease:
    """A lease, or the capacity of a task."""

    permit: int
    node: int
    cost: dict[str, float]
    held_for: float | None
    """None if the clock was not read at the grant."""
    owner: int | None
    has_slots: bool


@dataclass(frozen=True, slots=True)
class ListedWaiter:
    """A request that waits."""

    node: int
    cost: dict[str, float]
    waited: float
    owner: int | None
    is_parked: bool
    """Whether its cost exceeds a limit."""


@dataclass(frozen=True, slots=True)
class TreeListing:
    """A tree. Its parts are read one after another, so they are of slightly different moments."""

    nodes: dict[int, ListedNode]
    leases: list[ListedLease]
    waiters: list[ListedWaiter]

    @classmethod
    def of(cls, tree: TreeRef) -> TreeListing:
        """Read a tree."""
        nodes, leases, waiters = tree_listing(tree)
        return cls(
            {node.number: node for node in map(_node, nodes)},
            [ListedLease(*lease) for lease in leases],
            [ListedWaiter(*waiter) for waiter in waiters],
        )

    def path(self, number: int) -> Iterator[ListedNode]:
        """Yield a node and its ancestors, up to the root."""
        above: int | None = number
        while above is not None and (node := self.nodes.get(above)) is not None:
            yield node
            above = node.parent

    def lacking(self, waiter: ListedWaiter) -> list[tuple[ListedNode, str]]:
        """Return the nodes that hold a waiter back, each with the resource that it lacks or the state of the node."""
        found: list[tuple[ListedNode, str]] = []
        for node in self.path(waiter.node):
            if node.paused and not any(
                above is not node and above.paused for above in self.path(node.number)
            ):
                found.append((node, "paused"))
            for resource, amount in waiter.cost.items():
                if node.available.get(resource, amount) < amount:
                    found.append((node, resource))
            if node.breaker is not None and (
                node.breaker.state == "half_open" and not node.breaker.probes
            ):
                found.append((node, "a probe of the breaker"))
            found += [
                (node, "held off")
                for resource in node.held_off
                if resource is None or resource in waiter.cost
            ]
        return found

    def leases_under(self, node: ListedNode, resource: str = SLOTS) -> list[ListedLease]:
        """Return the leases at a node and below it that hold some of a resource."""
        return [
            lease
            for lease in self.leases
            if (lease.has_slots or resource != SLOTS)
            and lease.cost.get(resource)
            and any(above is node for above in self.path(lease.node))
        ]


def wait_for_quota(node: ListedNode, resource: str, amount: float) -> float | None:
    """Return the seconds until a rate has an amount, if no other request takes it; None for other limits."""
    limit = node.limits.get(resource)
    if not isinstance(limit, Rate):
        return None
    burst = limit.amount if limit.burst is None else limit.burst
    lacking = node.held[resource] + amount - max(burst, amount)
    return max(0.0, lacking * limit.per / limit.amount) if limit.amount else None


def describe_use(node: ListedNode, resource: str) -> str:
    """Describe the usage of a resource of a node."""
    limit, held = node.limits[resource], node.held[resource]
    if isinstance(limit, Rate):
        return f"{resource}: {held:g} of a rate of {limit.amount:g} in {limit.per:g} s taken"
    if isinstance(limit, Budget):
        return f"{resource}: {held:g} of a budget of {limit.amount:g} spent or held"
    return f"{resource}: {held:g} of {limit:g} held"


def _node(facts: Any) -> ListedNode:
    number, parent, name, resources, held_off, paused, closed, breaker = facts
    return ListedNode(
        number,
        parent,
        name,
        {resource: from_core(*limit) for resource, limit, _, _ in resources},
        {resource: held for resource, _, held, _ in resources},
        {resource: available for resource, _, _, available in resources},
        dict(held_off),
        paused,
        closed,
        BreakerState.of(breaker),
    )
