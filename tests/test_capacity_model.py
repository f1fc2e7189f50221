"""Random trees, used by real tasks in random ways, checked against a simple model of the capacity held.

A failure prints a blob: to run it again, put `@reproduce_failure(...)` with the blob on the test.
`HYPOTHESIS_PROFILE=explore` runs more examples, at random.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from functools import partial
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
from tests.capacity_model import Node, RateCharge, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace import CapacitySnapshot

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

# The number of requests of a wait queue that are considered at a time.
CONSIDERED = 8
# The number of times that a waiting request may be overtaken by smaller costs.
MAX_OVERTAKEN = 8
# Each rate grants TOKENS a second, and at most BURST at once.
TOKENS, BURST = 3, 4
# Tolerance: the tokens of the 50 ms by which a grant may be dated back, and the rounding error of summed floats.
INSTANT = 1e-6
SLACK = TOKENS * 0.05 + INSTANT


class Trees(RuleBasedStateMachine):
    """Random operations on a tree."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.runner = asyncio.Runner(loop_factory=self.clock)
        self.nodes: list[Node] = []
        self.workers: list[Worker] = []
        self.shots: dict[Node, CapacitySnapshot] = {}
        self.requested = 0
        self.overtaken = 0

    def advance(self, seconds: float = 0.0, act: Callable[[], object] | None = None) -> None:
        """Act, run everything that is ready, and advance the clock."""

        async def act_and_run() -> None:
            if act is not None:
                # Inside the running loop: waiters on a stopped loop are served later, in no guaranteed order.
                act()
            await asyncio.sleep(seconds)
            for _ in range(20):
                await asyncio.sleep(0)

        self.mark_delayed()
        self.runner.run(act_and_run())
        self.mark_delayed()
        done = [worker for worker in self.workers if worker.task and worker.task.done()]
        for worker in done:
            self.workers.remove(worker)
            self.record_release(worker)
        for worker in done:
            assert worker.task is not None
            if not worker.task.cancelled() and (error := worker.task.exception()) is not None:
                self.check_error(worker, error)
        self.take_snapshot()

    def mark_delayed(self) -> None:
        for worker in self.waiters:
            worker.delayed = worker.delayed or worker.parked

    def take_snapshot(self) -> None:
        """Take a snapshot of the whole tree."""
        named = {str(number): node for number, node in enumerate(self.nodes)}
        self.shots = {named[shot.name or ""]: shot for shot in self.nodes[0].capacity.snapshot()}

    def check_error(self, worker: Worker, error: BaseException) -> None:
        if isinstance(error, BudgetExhausted):
            # The budget left, with all that may be returned, did not cover the cost.
            assert any(
                node.budget is not None and node.unrefundable + worker.cost["dollars"] > node.budget
                for node in worker.node.path()
            )
        elif isinstance(error, TimeoutError):
            assert worker.timeout is not None
            assert self.is_late(worker)
        elif not isinstance(error, ClosedError):
            # An error of a check in `book`.
            raise error
        else:
            assert worker.node.ended

    def make(self, slots: int, budget: float | None, rate: bool, **kwargs: Any) -> None:
        limits: dict[str, Any] = {"slots": slots}
        if budget is not None:
            limits["dollars"] = Budget(budget)
        if rate:
            limits["tokens"] = Rate(TOKENS, per=1.0, burst=BURST)
        parent: Node | None = kwargs.pop("parent", None)
        above = None if parent is None else parent.capacity
        name = str(len(self.nodes))
        given = limits if len(limits) > 1 else slots
        capacity = CapacitySource(given, above, name=name, **kwargs)
        self.nodes.append(Node(capacity, parent, slots, budget, rate, highest=slots))
        self.take_snapshot()

    @initialize(slots=st.integers(1, 6), rate=st.booleans())
    def make_root(self, slots: int, rate: bool) -> None:
        self.make(slots, 40, rate, clock=self.clock.time)

    @precondition(lambda self: len(self.nodes) < 7)
    @rule(
        at=st.integers(0),
        slots=st.integers(1, 6),
        weight=st.sampled_from([0.5, 1, 3]),
        budget=st.sampled_from([None, None, 3, 12]),
        rate=st.sampled_from([False, False, True]),
    )
    def add_child(
        self, at: int, slots: int, weight: float, budget: float | None, rate: bool
    ) -> None:
        parent = self.nodes[at % len(self.nodes)]
        if not parent.ended:
            self.make(slots, budget, rate, parent=parent, weight=weight)

    def new_worker(
        self, at: int, slots: int, tokens: int, dollars: int, **kwargs: Any
    ) -> Worker | None:
        """Create a worker for a request, or return None if its cost can never be granted."""
        node = self.nodes[at % len(self.nodes)]
        path = node.path()
        if node.ended or any(slots > above.highest for above in path):
            return None
        cost: dict[str, float] = {"slots": slots, "dollars": dollars}
        if any(above.rate for above in path):
            cost["tokens"] = tokens
        self.requested += 1
        return Worker(node, cost, queued_at=self.clock.time(), number=self.requested, **kwargs)

    @rule(
        at=st.integers(0),
        slots=st.integers(1, 4),
        tokens=st.integers(0, 4),
        dollars=st.integers(0, 1),
        priority=st.integers(-1, 1),
        timeout=st.sampled_from([None, None, None, 0.5, 3.0]),
    )
    def request(
        self, at: int, slots: int, tokens: int, dollars: int, priority: int, timeout: float | None
    ) -> None:
        worker = self.new_worker(at, slots, tokens, dollars, priority=priority, timeout=timeout)
        if worker is not None:
            self.start(worker)

    @precondition(lambda self: self.overtakable)
    @rule(at=st.integers(0), times=st.integers(2, 12))
    def overtake(self, at: int, times: int) -> None:
        """Acquire and release the smallest cost repeatedly, overtaking a request that waits for slots at the same node."""
        first = self.overtakable[at % len(self.overtakable)]
        node, priority = self.nodes.index(first.node), first.priority
        for _ in range(times):
            worker = self.new_worker(node, 1, 0, 0, priority=priority)
            if worker is None:
                return
            self.start(worker)
            if worker.lease is None:
                return
            self.advance(act=partial(self.unpin, worker))

    def start(self, worker: Worker) -> None:
        worker.on_lease = self.book

        async def run() -> None:
            worker.task = asyncio.create_task(worker.run())

        self.runner.run(run())
        self.workers.append(worker)
        self.advance()

    @rule(
        at=st.integers(0),
        slots=st.integers(1, 4),
        tokens=st.sampled_from([0, 0, 1, 4]),
        dollars=st.integers(0, 1),
    )
    def request_nowait(self, at: int, slots: int, tokens: int, dollars: int) -> None:
        worker = self.new_worker(at, slots, tokens, dollars, priority=0)
        if worker is None:
            return
        capacity = worker.node.capacity
        free = capacity.peek() or dict.fromkeys(worker.cost, 0)
        fits = all(part <= free[resource] for resource, part in worker.cost.items())
        try:
            worker.lease = capacity.acquire_nowait(worker.cost, owner=None)
        except BudgetExhausted as error:
            self.check_error(worker, error)
            return
        # A cost that fits is granted, unless its capacity is reserved for waiters; any other is not.
        assert fits or worker.lease is None
        assert not fits or worker.lease is not None or self.waiters
        if worker.lease is not None:
            self.workers.append(worker)
            self.book(worker)
            self.advance()

    def book(self, worker: Worker) -> None:
        worker.charge = RateCharge(self.clock.time(), worker.cost.get("tokens", 0))
        worker.dollars = worker.cost["dollars"]
        for node in worker.node.path():
            node.granted += 1
            node.charges.append(worker.charge)
            node.spent += worker.dollars
            # Each grant is within the current limit, even if more was held before the limit was lowered.
            assert node.held <= node.slots
        for other in self.waiters:
            if other.node is not worker.node or other.cancelled or self.is_late(other):
                continue
            if other.cost == worker.cost and self.is_by_rank(worker, other):
                assert worker.rank < other.rank
            is_later = other.number < worker.number and other.priority == worker.priority
            if is_later and other.lacks_slots_alone:
                other.passed += 1
                self.overtaken += 1
                assert other.passed <= MAX_OVERTAKEN

    def is_by_rank(self, worker: Worker, other: Worker) -> bool:
        """Return whether FIFO order holds among equal costs, where ten seconds of waiting outweigh a priority."""
        # A request that was overtaken too often is served before later requests of a higher priority.
        may_have_reservation = worker.node.capacity.snapshot().bypassed >= MAX_OVERTAKEN
        return other.priority == worker.priority or not (
            may_have_reservation or worker.cost.get("tokens")
        )

    def record_release(self, worker: Worker) -> None:
        for node in worker.node.path():
            node.unrefundable += worker.dollars

    def is_late(self, worker: Worker) -> bool:
        return worker.timeout is not None and self.waited(worker) >= worker.timeout - INSTANT

    def waited(self, worker: Worker) -> float:
        return self.clock.time() - worker.queued_at

    def unpin(self, worker: Worker) -> None:
        if worker.task is None and worker.lease is not None:
            worker.lease.release()
            worker.lease = None
            self.workers.remove(worker)
            self.record_release(worker)
        worker.unpin.set()

    @precondition(lambda self: self.holders)
    @rule(at=st.integers(0))
    def release(self, at: int) -> None:
        worker = self.holders[at % len(self.holders)]
        self.advance(act=lambda: self.unpin(worker))

    @precondition(lambda self: self.workers)
    @rule(at=st.integers(0), together=st.booleans())
    def cancel(self, at: int, together: bool) -> None:
        worker = self.workers[at % len(self.workers)]
        # In the same loop iteration as a grant that the worker may have received.
        if together and (holders := self.holders):

            async def unpin() -> None:
                self.unpin(holders[0])
                await asyncio.sleep(0)

            self.runner.run(unpin())
        if worker.task is not None:
            worker.cancelled = True
            worker.task.cancel()
        self.advance()

    @precondition(lambda self: self.holders)
    @rule(at=st.integers(0), tokens=st.integers(0, 4), dollars=st.integers(0, 2))
    def settle(self, at: int, tokens: int, dollars: int) -> None:
        worker = self.holders[at % len(self.holders)]
        lease, charge = worker.lease, worker.charge
        assert lease is not None
        assert charge is not None
        actual: dict[str, float] = {}
        if "tokens" in lease.cost:
            # Only downwards, so that the windows of the rate stay valid.
            actual["tokens"] = charge.tokens = min(tokens, lease.cost["tokens"])
        if "dollars" in lease.cost:
            for node in worker.node.path():
                node.spent += dollars - worker.dollars
            actual["dollars"] = worker.dollars = dollars
        self.advance(act=lambda: lease.settle(**actual))

    @rule(at=st.integers(0), slots=st.integers(0, 6))
    def resize(self, at: int, slots: int) -> None:
        node = self.nodes[at % len(self.nodes)]
        if node.ended:
            return
        node.slots = slots
        node.highest = slots or node.highest
        self.advance(act=lambda: node.capacity.resize({"slots": slots}))

    @rule(at=st.integers(0), paused=st.booleans())
    def pause(self, at: int, paused: bool) -> None:
        node = self.nodes[at % len(self.nodes)]
        if node.ended:
            return
        node.paused = paused
        self.advance(act=node.capacity.pause if paused else node.capacity.resume)

    @precondition(lambda self: len(self.nodes) > 1)
    @rule(at=st.integers(0), sure=st.integers(0, 3))
    def close(self, at: int, sure: int) -> None:
        node = self.nodes[1 + at % (len(self.nodes) - 1)]
        if sure == 0:
            node.closed = True
            self.advance(act=node.capacity.close)
            assert not any(worker.node is node and worker.lease is None for worker in self.workers)

    @rule(seconds=st.sampled_from([0.1, 1.0, 7.5]))
    def wait(self, seconds: float) -> None:
        self.advance(seconds)

    @property
    def holders(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.lease is not None]

    @property
    def overtakable(self) -> list[Worker]:
        return [one for one in self.waiters if one.slots > 1 and one.lacks_slots_alone]

    @property
    def waiters(self) -> list[Worker]:
        # Workers that have released stay in the list until the next snapshot.
        return [worker for worker in self.workers if worker.lease is None and not worker.outcomes]

    @invariant()
    def held_is_the_sum_of_the_leases(self) -> None:
        for node in self.nodes:
            holders = [one for one in self.holders if node in one.node.path()]
            assert node.held == sum(holder.slots for holder in holders)
            waiting = sum(node in worker.node.path() for worker in self.waiters)
            shot = self.shots[node]
            assert (shot.waiting, shot.leases) == (waiting, len(holders))
            assert (shot.granted, shot.closed, shot.paused) == (
                node.granted,
                node.ended,
                node.stopped,
            )

    @invariant()
    def limit_is_not_exceeded(self) -> None:
        for node in self.nodes:
            held = self.shots[node].held["slots"]
            # The amount held when the limit was lowered may only decrease.
            assert held <= max(node.slots, node.last_held)
            node.last_held = held

    @invariant()
    def spent_is_the_sum_of_settled_costs(self) -> None:
        for node in self.nodes:
            if node.budget is not None:
                assert self.shots[node].held["dollars"] == node.spent

    @invariant()
    def rate_holds_in_every_window(self) -> None:
        # A leaky bucket: its level is what the worst window that ends here has beyond the rate.
        for node in self.nodes:
            level, last = 0.0, 0.0
            for charge in node.charges if node.rate else ():
                level = max(0.0, level - TOKENS * (charge.when - last)) + charge.tokens
                last = charge.when
                assert level <= BURST + SLACK

    @invariant()
    def at_most_one_grant_and_no_late_waiter(self) -> None:
        for worker in self.workers:
            assert worker.outcomes <= 1
            if worker.lease is None and worker.timeout is not None:
                assert self.waited(worker) <= worker.timeout + INSTANT

    @invariant()
    def overtaking_is_counted(self) -> None:
        if self.nodes:
            assert self.overtaken <= self.shots[self.nodes[0]].bypassed

    @invariant()
    def no_waiter_fits_into_free_capacity(self) -> None:
        # A request that fits into free, unreserved capacity waits only for a rate, for the end of a pause, or behind the
        # eight requests that its wait queue considers.
        queued = Counter(worker.node for worker in self.waiters)
        for worker in self.waiters:
            if queued[worker.node] > CONSIDERED or worker.node.stopped or worker.cost.get("tokens"):
                continue
            assert any(
                worker.slots
                > node.slots - self.shots[node].held["slots"] - self.shots[node].reserved["slots"]
                or (
                    node.budget is not None
                    and worker.cost["dollars"]
                    > node.budget - node.spent - self.shots[node].reserved["dollars"]
                )
                for node in worker.node.path()
            )

    @invariant()
    def nothing_is_reserved_without_waiters(self) -> None:
        if not self.waiters:
            assert not any(any(shot.reserved.values()) for shot in self.shots.values())

    def open(self) -> None:
        for node in self.nodes:
            if not node.ended:
                node.paused, node.slots = False, node.highest
                node.capacity.resume()
                node.capacity.resize({"slots": node.highest})
        for worker in tuple(self.workers):
            self.unpin(worker)

    def teardown(self) -> None:
        # Resume all nodes and release all leases: every request that fits is served, and nothing is left.
        if self.nodes:
            self.advance(1_000, act=self.open)
            waiting_workers = [
                worker for worker in self.workers if worker.task and not worker.task.done()
            ]
            assert all(
                any(worker.slots > node.highest for node in worker.node.path())
                for worker in waiting_workers
            )
            for worker in waiting_workers:
                if worker.task:
                    worker.task.cancel()
            self.advance()
            assert [node.capacity.waiting for node in self.nodes] == [0] * len(self.nodes)
            assert self.nodes[0].held == 0
        self.runner.close()


TestTrees = Trees.TestCase
TestTrees.settings = PROFILE
