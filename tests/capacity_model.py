"""The model of a capacity tree and its requests, for `test_capacity_model.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace import CapacitySource, Lease

# Seconds of waiting that equal a priority of 1.
AGEING = 10.0


@dataclass
class RateCharge:
    """Tokens that were taken from the rates of a path, and when; corrected when they are settled."""

    when: float
    tokens: float


@dataclass(eq=False)
class Node:
    """A capacity and its modelled state."""

    capacity: CapacitySource
    parent: Node | None
    slots: float
    budget: float | None
    rate: bool
    paused: bool = False
    closed: bool = False
    highest: float = 0
    """The last limit above 0."""
    last_held: float = 0
    """The amount held at the last check; more than the limit only after the limit was lowered."""
    granted: int = 0
    spent: float = 0
    """The settled amount of the budget, including leases that are still held."""
    unrefundable: float = 0
    """The part of `spent` that was released and cannot be refunded."""
    charges: list[RateCharge] = field(default_factory=list)

    def path(self) -> list[Node]:
        return [self] if self.parent is None else [self, *self.parent.path()]

    @property
    def stopped(self) -> bool:
        return any(node.paused for node in self.path())

    @property
    def ended(self) -> bool:
        return any(node.closed for node in self.path())

    @property
    def held(self) -> float:
        """The slots held, according to the capacity."""
        held = self.capacity.held
        slots: float = held["slots"] if isinstance(held, Mapping) else held
        return slots


@dataclass(eq=False)
class Worker:
    """A request that holds its lease until `unpin` is set: a task, or a lease from `acquire_nowait`."""

    node: Node
    cost: dict[str, float]
    priority: int
    queued_at: float
    number: int
    timeout: float | None = None
    on_lease: Callable[[Worker], None] | None = None
    task: asyncio.Task[None] | None = None
    lease: Lease | None = None
    unpin: asyncio.Event = field(default_factory=asyncio.Event)
    outcomes: int = 0
    charge: RateCharge | None = None
    dollars: float = 0
    """The settled amount."""
    passed: int = 0
    cancelled: bool = False
    delayed: bool = False
    """Whether anything but other leases has delayed it since it was queued."""

    async def run(self) -> None:
        acquiring = self.node.capacity.acquire(
            self.cost, priority=self.priority, timeout=self.timeout
        )
        try:
            async with acquiring as lease:
                self.outcomes += 1
                self.lease = lease
                if self.on_lease is not None:
                    self.on_lease(self)
                await self.unpin.wait()
        finally:
            self.lease = None

    @property
    def slots(self) -> float:
        return self.cost["slots"]

    @property
    def lacks_slots_alone(self) -> bool:
        return not (self.delayed or self.cost.get("tokens") or self.cost["dollars"])

    @property
    def rank(self) -> tuple[float, int]:
        return (self.queued_at - AGEING * self.priority, self.number)

    @property
    def parked(self) -> bool:
        return self.node.stopped or any(self.slots > node.slots for node in self.node.path())
