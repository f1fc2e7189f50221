"""Random trees, used by real tasks in a random way, against a plain account of what is held.

A failure prints a blob: put `@reproduce_failure(...)` with it over the test to run it again. `HYPOTHESIS_PROFILE=explore`
looks further, at random.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from headrace import Budget, BudgetExhausted, CapacitySource, ClosedError, Rate
from headrace.testing import VirtualClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace import Lease

settings.register_profile(
    "headrace-capacity",
    derandomize=True,
    max_examples=150,
    stateful_step_count=60,
    database=None,
)
settings.register_profile("headrace-capacity-explore", max_examples=2_000, stateful_step_count=100)
PROFILE = settings.get_profile(
    "headrace-capacity-explore"
    if os.environ.get("HYPOTHESIS_PROFILE") == "explore"
    else "headrace-capacity"
)

# So many of a line are looked at.
OFFERED = 8
# Of the rate of the root, if it has one: so much each second, and so much at once.
TOKENS, BURST = 3, 4
# What a rate brings in the 50 ms by which what is let through may be taken for having been so earlier, and what is lost where
# floats are added up.
SLACK = TOKENS * 0.05 + 1e-6


@dataclass
class Taking:
    """What was taken of the rate when, as it is known by now."""

    when: float
    tokens: float


@dataclass(eq=False)
class Node:
    """A capacity, and what we know of it."""

    capacity: CapacitySource
    parent: Node | None
    slots: float
    paused: bool = False
    closed: bool = False
    highest: float = 0
    """The last limit above 0."""

    def path(self) -> list[Node]:
        return [self] if self.parent is None else [self, *self.parent.path()]

    @property
    def stopped(self) -> bool:
        return any(node.paused for node in self.path())

    @property
    def ended(self) -> bool:
        return any(node.closed for node in self.path())


@dataclass(eq=False)
class Worker:
    """A task that asks for a lease, and holds it until it is told to let go."""

    node: Node
    cost: dict[str, float]
    priority: int
    on_lease: Callable[[Worker], None]
    task: asyncio.Task[None] | None = None
    lease: Lease | None = None
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    outcomes: int = 0
    taking: Taking | None = None

    async def run(self) -> None:
        try:
            async with self.node.capacity.acquire(self.cost, priority=self.priority) as lease:
                self.outcomes += 1
                self.lease = lease
                self.on_lease(self)
                await self.let_go.wait()
        finally:
            self.lease = None


class Trees(RuleBasedStateMachine):
    """What may happen to a tree."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.runner = asyncio.Runner(loop_factory=self.clock)
        self.nodes: list[Node] = []
        self.workers: list[Worker] = []
        self.takings: list[Taking] = []
        self.spent = 0.0

    def turn(self, seconds: float = 0.0) -> None:
        """Lets everything happen that can, and time go on."""

        async def whole() -> None:
            await asyncio.sleep(seconds)
            for _ in range(20):
                await asyncio.sleep(0)

        self.runner.run(whole())
        for worker in tuple(self.workers):
            if worker.task is not None and worker.task.done():
                self.workers.remove(worker)
                if not worker.task.cancelled() and (error := worker.task.exception()) is not None:
                    assert isinstance(error, (ClosedError, BudgetExhausted))

    @initialize(slots=st.integers(1, 6), rate=st.booleans())
    def plant(self, slots: int, rate: bool) -> None:
        limits: dict[str, Any] = {"slots": slots, "dollars": Budget(40)}
        if rate:
            limits["tokens"] = Rate(TOKENS, per=1.0, burst=BURST)
        self.rate = rate
        root = CapacitySource(limits, clock=self.clock.time)
        self.nodes.append(Node(root, None, slots, highest=slots))

    @precondition(lambda self: len(self.nodes) < 7)
    @rule(at=st.integers(0), slots=st.integers(1, 6), weight=st.sampled_from([0.5, 1, 3]))
    def grow(self, at: int, slots: int, weight: float) -> None:
        parent = self.nodes[at % len(self.nodes)]
        if not parent.ended:
            made = CapacitySource(slots, parent.capacity, weight=weight)
            self.nodes.append(Node(made, parent, slots, highest=slots))

    @rule(
        at=st.integers(0),
        slots=st.integers(1, 4),
        tokens=st.integers(0, 4),
        dollars=st.integers(0, 1),
        priority=st.integers(-1, 1),
    )
    def ask(self, at: int, slots: int, tokens: int, dollars: int, priority: int) -> None:
        node = self.nodes[at % len(self.nodes)]
        cost: dict[str, float] = {"slots": slots, "dollars": dollars}
        if self.rate:
            cost["tokens"] = tokens
        worker = Worker(node, cost, priority, self.book)

        async def start() -> None:
            worker.task = asyncio.create_task(worker.run())

        if node.ended or any(slots > above.highest for above in node.path()):
            return
        self.runner.run(start())
        self.workers.append(worker)
        self.turn()

    def book(self, worker: Worker) -> None:
        self.spent += worker.cost["dollars"]
        worker.taking = Taking(self.clock.time(), worker.cost.get("tokens", 0))
        self.takings.append(worker.taking)

    @precondition(lambda self: self.holders)
    @rule(at=st.integers(0))
    def release(self, at: int) -> None:
        self.holders[at % len(self.holders)].let_go.set()
        self.turn()

    @precondition(lambda self: self.workers)
    @rule(at=st.integers(0), together=st.booleans())
    def cancel(self, at: int, together: bool) -> None:
        worker = self.workers[at % len(self.workers)]
        # In the same turn as a grant that it may have got.
        if together and (holders := self.holders):
            holders[0].let_go.set()
            self.runner.run(asyncio.sleep(0))
        if worker.task is not None:
            worker.task.cancel()
        self.turn()

    @precondition(lambda self: self.holders)
    @rule(at=st.integers(0), tokens=st.integers(0, 4), dollars=st.integers(0, 2))
    def settle(self, at: int, tokens: int, dollars: int) -> None:
        worker = self.holders[at % len(self.holders)]
        lease, taking = worker.lease, worker.taking
        assert lease is not None
        assert taking is not None
        if "tokens" in lease.cost:
            # To less alone, so that the windows stay what they are.
            taking.tokens = min(tokens, lease.cost["tokens"])
            lease.settle(tokens=taking.tokens)
        if "dollars" in lease.cost:
            self.spent += dollars - lease.cost["dollars"]
            lease.settle(dollars=dollars)
        self.turn()

    @rule(at=st.integers(0), slots=st.integers(0, 6))
    def resize(self, at: int, slots: int) -> None:
        node = self.nodes[at % len(self.nodes)]
        if node.ended:
            return
        node.capacity.resize({"slots": slots})
        node.slots = slots
        node.highest = slots or node.highest
        self.turn()

    @rule(at=st.integers(0), paused=st.booleans())
    def pause(self, at: int, paused: bool) -> None:
        node = self.nodes[at % len(self.nodes)]
        if node.ended:
            return
        if paused:
            node.capacity.pause()
        else:
            node.capacity.resume()
        node.paused = paused
        self.turn()

    @precondition(lambda self: len(self.nodes) > 1)
    @rule(at=st.integers(0), sure=st.integers(0, 3))
    def close(self, at: int, sure: int) -> None:
        node = self.nodes[1 + at % (len(self.nodes) - 1)]
        if sure == 0:
            node.capacity.close()
            node.closed = True
            self.turn()
            assert not any(worker.node is node and worker.lease is None for worker in self.workers)

    @rule(seconds=st.sampled_from([0.1, 1.0, 7.5]))
    def wait(self, seconds: float) -> None:
        self.turn(seconds)

    @property
    def holders(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.lease is not None]

    @property
    def waiters(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.lease is None]

    def held(self, node: Node) -> float:
        return sum(worker.cost["slots"] for worker in self.holders if node in worker.node.path())

    @invariant()
    def what_is_held_is_the_sum_of_the_leases(self) -> None:
        for node in self.nodes:
            held = node.capacity.held
            assert (held if node.parent else held["slots"]) == self.held(node)
            waiting = sum(node in worker.node.path() for worker in self.waiters)
            assert node.capacity.waiting == waiting

    @invariant()
    def what_is_spent_is_the_sum_of_what_was_settled(self) -> None:
        if self.nodes:
            assert self.nodes[0].capacity.held["dollars"] == self.spent

    @invariant()
    def no_window_lets_more_through_than_the_rate(self) -> None:
        # What is missing in a bucket is what the worst window that ends here lets through beyond what the rate brings.
        missing, last = 0.0, 0.0
        for taking in self.takings:
            missing = max(0.0, missing - TOKENS * (taking.when - last)) + taking.tokens
            last = taking.when
            assert missing <= BURST + SLACK

    @invariant()
    def nobody_was_served_twice(self) -> None:
        assert all(worker.outcomes <= 1 for worker in self.workers)

    @invariant()
    def somebody_is_served_if_everything_is_free(self) -> None:
        if not self.nodes or self.holders:
            return
        # Nothing is held: who fits the limits of its path waits for time alone, or for a pause to end; or behind the eight that
        # its line offers.
        lines = Counter(worker.node for worker in self.waiters)
        for worker in self.waiters:
            if lines[worker.node] > OFFERED:
                continue
            path = worker.node.path()
            fits = all(worker.cost["slots"] <= node.slots for node in path)
            assert not fits or worker.node.stopped or worker.cost.get("tokens")

    def teardown(self) -> None:
        # Everything is opened and let go: whoever fits is served, and nothing is left.
        if self.nodes:
            for node in self.nodes:
                if not node.ended:
                    node.capacity.resume()
                    with suppress(ClosedError):
                        node.capacity.resize({"slots": node.highest})
            for worker in self.workers:
                worker.let_go.set()
            self.turn(1_000)
            left = [worker for worker in self.workers if worker.task and not worker.task.done()]
            assert all(
                any(worker.cost["slots"] > node.highest for node in worker.node.path())
                for worker in left
            )
            for worker in left:
                if worker.task:
                    worker.task.cancel()
            self.turn()
            assert [node.capacity.waiting for node in self.nodes] == [0] * len(self.nodes)
            assert self.nodes[0].capacity.held["slots"] == 0
        self.runner.close()


TestTrees = Trees.TestCase
TestTrees.settings = PROFILE
