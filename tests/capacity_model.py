"""What `test_capacity_model.py` knows of a tree of capacities and of those who ask there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace import CapacitySource, Lease

# Seconds of waiting that make up for a priority of 1.
AGEING = 10.0


@dataclass
class Taking:
    """What was taken of the rates of a path when, as it is known by now."""

    when: float
    tokens: float


@dataclass(eq=False)
class Node:
    """A capacity, and what we know of it."""

    capacity: CapacitySource
    parent: Node | None
    slots: float
    budget: float | None
    rate: bool
    paused: bool = False
    closed: bool = False
    highest: float = 0
    """The last limit above 0."""
    over: float = 0
    """What was held when it was looked at last; more than the limit only after that was lowered."""
    granted: int = 0
    spent: float = 0
    """What was settled of the budget, by leases that are held too."""
    gone: float = 0
    """The part of it that was released, and cannot come back."""
    takings: list[Taking] = field(default_factory=list)

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
        """As the capacity has it."""
        held = self.capacity.held
        slots: float = held["slots"] if isinstance(held, Mapping) else held
        return slots


@dataclass(eq=False)
class Worker:
    """Who asks for a lease, and holds it until it is told to let go: a task, or what `acquire_nowait` gave."""

    node: Node
    cost: dict[str, float]
    priority: int
    begun: float
    number: int
    timeout: float | None = None
    on_lease: Callable[[Worker], None] | None = None
    task: asyncio.Task[None] | None = None
    lease: Lease | None = None
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    outcomes: int = 0
    taking: Taking | None = None
    dollars: float = 0
    """As settled."""
    passed: int = 0
    cancelled: bool = False
    hindered: bool = False
    """Whether something but others' leases has stood in its way since it came."""

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
                await self.let_go.wait()
        finally:
            self.lease = None

    @property
    def slots(self) -> float:
        return self.cost["slots"]

    @property
    def lacks_slots_alone(self) -> bool:
        return not (self.hindered or self.cost.get("tokens") or self.cost["dollars"])

    @property
    def rank(self) -> tuple[float, int]:
        return (self.begun - AGEING * self.priority, self.number)

    @property
    def parked(self) -> bool:
        return self.node.stopped or any(self.slots > node.slots for node in self.node.path())
