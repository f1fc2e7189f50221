"""Random trees, used by real tasks in a random way, against a plain account of what is held.

A failure prints a blob: put `@reproduce_failure(...)` with it over the test to run it again. `HYPOTHESIS_PROFILE=explore`
looks further, at random.
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
from tests.capacity_model import Node, Taking, Worker

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

# So many of a line are looked at.
OFFERED = 8
# So often may smaller costs go past one that waits.
PASSES = 8
# Of each rate: so much each second, and so much at once.
TOKENS, BURST = 3, 4
# What a rate brings in the 50 ms by which what is let through may be taken for having been so earlier, and what is lost where
# floats are added up.
INSTANT = 1e-6
SLACK = TOKENS * 0.05 + INSTANT


class Trees(RuleBasedStateMachine):
    """What may happen to a tree."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.runner = asyncio.Runner(loop_factory=self.clock)
        self.nodes: list[Node] = []
        self.workers: list[Worker] = []
        self.shots: dict[Node, CapacitySnapshot] = {}
        self.asked = 0
        self.passes = 0

    def turn(self, seconds: float = 0.0, act: Callable[[], object] | None = None) -> None:
        """Does something, lets everything happen that can, and time go on."""

        async def whole() -> None:
            if act is not None:
                # While the loop runs: those who wait on one that was stopped are served later, in no promised order.
                act()
            await asyncio.sleep(seconds)
            for _ in range(20):
                await asyncio.sleep(0)

        self.hinder()
        self.runner.run(whole())
        self.hinder()
        done = [worker for worker in self.workers if worker.task and worker.task.done()]
        for worker in done:
            self.workers.remove(worker)
            self.has_gone(worker)
        for worker in done:
            assert worker.task is not None
            if not worker.task.cancelled() and (error := worker.task.exception()) is not None:
                self.may_fail(worker, error)
        self.look()

    def hinder(self) -> None:
        for worker in self.waiters:
            worker.hindered = worker.hindered or worker.parked

    def look(self) -> None:
        """The whole tree at one moment."""
        named = {str(number): node for number, node in enumerate(self.nodes)}
        self.shots = {named[shot.name or ""]: shot for shot in self.nodes[0].capacity.snapshot()}

    def may_fail(self, worker: Worker, error: BaseException) -> None:
        if isinstance(error, BudgetExhausted):
            # What is left and what is still held did not cover it.
            assert any(
                node.budget is not None and node.gone + worker.cost["dollars"] > node.budget
                for node in worker.node.path()
            )
        elif isinstance(error, TimeoutError):
            assert worker.timeout is not None
            assert self.is_late(worker)
        elif not isinstance(error, ClosedError):
            # It failed when it was booked.
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
        self.look()

    @initialize(slots=st.integers(1, 6), rate=st.booleans())
    def plant(self, slots: int, rate: bool) -> None:
        self.make(slots, 40, rate, clock=self.clock.time)

    @precondition(lambda self: len(self.nodes) < 7)
    @rule(
        at=st.integers(0),
        slots=st.integers(1, 6),
        weight=st.sampled_from([0.5, 1, 3]),
        budget=st.sampled_from([None, None, 3, 12]),
        rate=st.sampled_from([False, False, True]),
    )
    def grow(self, at: int, slots: int, weight: float, budget: float | None, rate: bool) -> None:
        parent = self.nodes[at % len(self.nodes)]
        if not parent.ended:
            self.make(slots, budget, rate, parent=parent, weight=weight)

    def asker(self, at: int, slots: int, tokens: int, dollars: int, **kwargs: Any) -> Worker | None:
        """Who asks for that much, if it could ever be had."""
        node = self.nodes[at % len(self.nodes)]
        path = node.path()
        if node.ended or any(slots > above.highest for above in path):
            return None
        cost: dict[str, float] = {"slots": slots, "dollars": dollars}
        if any(above.rate for above in path):
            cost["tokens"] = tokens
        self.asked += 1
        return Worker(node, cost, begun=self.clock.time(), number=self.asked, **kwargs)

    @rule(
        at=st.integers(0),
        slots=st.integers(1, 4),
        tokens=st.integers(0, 4),
        dollars=st.integers(0, 1),
        priority=st.integers(-1, 1),
        timeout=st.sampled_from([None, None, None, 0.5, 3.0]),
    )
    def ask(
        self, at: int, slots: int, tokens: int, dollars: int, priority: int, timeout: float | None
    ) -> None:
        worker = self.asker(at, slots, tokens, dollars, priority=priority, timeout=timeout)
        if worker is not None:
            self.start(worker)

    @precondition(lambda self: self.passable)
    @rule(at=st.integers(0), times=st.integers(2, 12))
    def come_and_go(self, at: int, times: int) -> None:
        """The smallest there are, one after the other, past one who waits for slots at the same node, if they fit."""
        first = self.passable[at % len(self.passable)]
        node, priority = self.nodes.index(first.node), first.priority
        for _ in range(times):
            worker = self.asker(node, 1, 0, 0, priority=priority)
            if worker is None:
                return
            self.start(worker)
            if worker.lease is None:
                return
            self.turn(act=partial(self.let_go, worker))

    def start(self, worker: Worker) -> None:
        worker.on_lease = self.book

        async def run() -> None:
            worker.task = asyncio.create_task(worker.run())

        self.runner.run(run())
        self.workers.append(worker)
        self.turn()

    @rule(
        at=st.integers(0),
        slots=st.integers(1, 4),
        tokens=st.sampled_from([0, 0, 1, 4]),
        dollars=st.integers(0, 1),
    )
    def ask_now(self, at: int, slots: int, tokens: int, dollars: int) -> None:
        worker = self.asker(at, slots, tokens, dollars, priority=0)
        if worker is None:
            return
        capacity = worker.node.capacity
        free = capacity.peek() or dict.fromkeys(worker.cost, 0)
        fits = all(part <= free[resource] for resource, part in worker.cost.items())
        try:
            worker.lease = capacity.acquire_nowait(worker.cost, owner=None)
        except BudgetExhausted as error:
            self.may_fail(worker, error)
            return
        # What can be had is had, unless it is for those who wait; and nothing else is.
        assert fits or worker.lease is None
        assert not fits or worker.lease is not None or self.waiters
        if worker.lease is not None:
            self.workers.append(worker)
            self.book(worker)
            self.turn()

    def book(self, worker: Worker) -> None:
        worker.taking = Taking(self.clock.time(), worker.cost.get("tokens", 0))
        worker.dollars = worker.cost["dollars"]
        for node in worker.node.path():
            node.granted += 1
            node.takings.append(worker.taking)
            node.spent += worker.dollars
            # A grant is within the limit, whatever is held above one that was lowered.
            assert node.held <= node.slots
        for other in self.waiters:
            if other.node is not worker.node or other.cancelled or self.is_late(other):
                continue
            if other.cost == worker.cost and self.is_by_rank(worker, other):
                assert worker.rank < other.rank
            is_later = other.number < worker.number and other.priority == worker.priority
            if is_later and other.lacks_slots_alone:
                other.passed += 1
                self.passes += 1
                assert other.passed <= PASSES

    def is_by_rank(self, worker: Worker, other: Worker) -> bool:
        """Whether the first come is first served among equals, and ten seconds make up for a priority."""
        # Who was passed by so many comes before a higher priority that came later.
        may_be_kept_for = worker.node.capacity.snapshot().bypassed >= PASSES
        return other.priority == worker.priority or not (
            may_be_kept_for or worker.cost.get("tokens")
        )

    def has_gone(self, worker: Worker) -> None:
        for node in worker.node.path():
            node.gone += worker.dollars

    def is_late(self, worker: Worker) -> bool:
        return worker.timeout is not None and self.waited(worker) >= worker.timeout - INSTANT

    def waited(self, worker: Worker) -> float:
        return self.clock.time() - worker.begun

    def let_go(self, worker: Worker) -> None:
        if worker.task is None and worker.lease is not None:
            worker.lease.release()
            worker.lease = None
            self.workers.remove(worker)
            self.has_gone(worker)
        worker.let_go.set()

    @precondition(lambda self: self.holders)
    @rule(at=st.integers(0))
    def release(self, at: int) -> None:
        worker = self.holders[at % len(self.holders)]
        self.turn(act=lambda: self.let_go(worker))

    @precondition(lambda self: self.workers)
    @rule(at=st.integers(0), together=st.booleans())
    def cancel(self, at: int, together: bool) -> None:
        worker = self.workers[at % len(self.workers)]
        # In the same turn as a grant that it may have got.
        if together and (holders := self.holders):

            async def let_go() -> None:
                self.let_go(holders[0])
                await asyncio.sleep(0)

            self.runner.run(let_go())
        if worker.task is not None:
            worker.cancelled = True
            worker.task.cancel()
        self.turn()

    @precondition(lambda self: self.holders)
    @rule(at=st.integers(0), tokens=st.integers(0, 4), dollars=st.integers(0, 2))
    def settle(self, at: int, tokens: int, dollars: int) -> None:
        worker = self.holders[at % len(self.holders)]
        lease, taking = worker.lease, worker.taking
        assert lease is not None
        assert taking is not None
        actual: dict[str, float] = {}
        if "tokens" in lease.cost:
            # To less alone, so that the windows stay what they are.
            actual["tokens"] = taking.tokens = min(tokens, lease.cost["tokens"])
        if "dollars" in lease.cost:
            for node in worker.node.path():
                node.spent += dollars - worker.dollars
            actual["dollars"] = worker.dollars = dollars
        self.turn(act=lambda: lease.settle(**actual))

    @rule(at=st.integers(0), slots=st.integers(0, 6))
    def resize(self, at: int, slots: int) -> None:
        node = self.nodes[at % len(self.nodes)]
        if node.ended:
            return
        node.slots = slots
        node.highest = slots or node.highest
        self.turn(act=lambda: node.capacity.resize({"slots": slots}))

    @rule(at=st.integers(0), paused=st.booleans())
    def pause(self, at: int, paused: bool) -> None:
        node = self.nodes[at % len(self.nodes)]
        if node.ended:
            return
        node.paused = paused
        self.turn(act=node.capacity.pause if paused else node.capacity.resume)

    @precondition(lambda self: len(self.nodes) > 1)
    @rule(at=st.integers(0), sure=st.integers(0, 3))
    def close(self, at: int, sure: int) -> None:
        node = self.nodes[1 + at % (len(self.nodes) - 1)]
        if sure == 0:
            node.closed = True
            self.turn(act=node.capacity.close)
            assert not any(worker.node is node and worker.lease is None for worker in self.workers)

    @rule(seconds=st.sampled_from([0.1, 1.0, 7.5]))
    def wait(self, seconds: float) -> None:
        self.turn(seconds)

    @property
    def holders(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.lease is not None]

    @property
    def passable(self) -> list[Worker]:
        return [one for one in self.waiters if one.slots > 1 and one.lacks_slots_alone]

    @property
    def waiters(self) -> list[Worker]:
        # Those who have let go are there until they are looked at.
        return [worker for worker in self.workers if worker.lease is None and not worker.outcomes]

    @invariant()
    def what_is_held_is_the_sum_of_the_leases(self) -> None:
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
    def no_more_is_held_than_the_limit(self) -> None:
        for node in self.nodes:
            held = self.shots[node].held["slots"]
            # What was held when the limit was lowered may only become less.
            assert held <= max(node.slots, node.over)
            node.over = held

    @invariant()
    def what_is_spent_is_the_sum_of_what_was_settled(self) -> None:
        for node in self.nodes:
            if node.budget is not None:
                assert self.shots[node].held["dollars"] == node.spent

    @invariant()
    def no_window_lets_more_through_than_the_rate(self) -> None:
        # What is missing in a bucket is what the worst window that ends here lets through beyond what the rate brings.
        for node in self.nodes:
            missing, last = 0.0, 0.0
            for taking in node.takings if node.rate else ():
                missing = max(0.0, missing - TOKENS * (taking.when - last)) + taking.tokens
                last = taking.when
                assert missing <= BURST + SLACK

    @invariant()
    def nobody_was_served_twice_or_waits_too_long(self) -> None:
        for worker in self.workers:
            assert worker.outcomes <= 1
            if worker.lease is None and worker.timeout is not None:
                assert self.waited(worker) <= worker.timeout + INSTANT

    @invariant()
    def passes_are_counted(self) -> None:
        if self.nodes:
            assert self.passes <= self.shots[self.nodes[0]].bypassed

    @invariant()
    def nobody_waits_for_what_is_free(self) -> None:
        # Who fits what is free, and kept for nobody, waits for time alone, or for a pause to end; or behind the eight that its
        # line offers.
        lines = Counter(worker.node for worker in self.waiters)
        for worker in self.waiters:
            if lines[worker.node] > OFFERED or worker.node.stopped or worker.cost.get("tokens"):
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
    def nothing_is_kept_for_nobody(self) -> None:
        if not self.waiters:
            assert not any(any(shot.reserved.values()) for shot in self.shots.values())

    def open(self) -> None:
        for node in self.nodes:
            if not node.ended:
                node.paused, node.slots = False, node.highest
                node.capacity.resume()
                node.capacity.resize({"slots": node.highest})
        for worker in tuple(self.workers):
            self.let_go(worker)

    def teardown(self) -> None:
        # Everything is opened and let go: whoever fits is served, and nothing is left.
        if self.nodes:
            self.turn(1_000, act=self.open)
            left = [worker for worker in self.workers if worker.task and not worker.task.done()]
            assert all(
                any(worker.slots > node.highest for node in worker.node.path()) for worker in left
            )
            for worker in left:
                if worker.task:
                    worker.task.cancel()
            self.turn()
            assert [node.capacity.waiting for node in self.nodes] == [0] * len(self.nodes)
            assert self.nodes[0].held == 0
        self.runner.close()


TestTrees = Trees.TestCase
TestTrees.settings = PROFILE
