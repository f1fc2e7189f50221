"""Random cancellations and timeouts of equal tasks and callers over a virtual clock, against a model of a cache."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from headrace import CapacitySource, HierarchicalTaskPoolRunner, Task
from headrace.testing import VirtualClock, shuffled_loop
from tests.cache_support import cache_of, outcomes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CASES = 60


@dataclass
class Caller:
    """A task of a pool, or a caller outside a pool."""

    key: int
    comes: float
    goes: float | None
    """The time of its cancellation."""
    timeout: float | None
    pool: int | None
    """The number of its pool; None for a caller outside a pool."""
    deadline: float | None = None
    end: tuple[float, str] | None = None


@dataclass
class Call:
    """A call of the function in the model."""

    begun: float
    callers: list[Caller]
    leader: Caller | None
    is_left: bool = False


@dataclass
class Plan:
    """The durations and the outcomes of the calls with a key, in their order; the last ones are those of all further calls."""

    seconds: list[float]
    fails: list[bool]

    def of(self, number: int) -> tuple[float, bool]:
        number = min(number, len(self.seconds) - 1)
        return self.seconds[number], self.fails[number]


@dataclass
class Model:
    """The callers with one key: simulates their calls, and their outcomes."""

    callers: list[Caller]
    plan: Plan
    calls: list[tuple[float, float]] = field(default_factory=list)
    """The begins and the ends of the calls."""
    call: Call | None = None
    is_stored: bool = False
    left: int = 0
    """The number of calls that were left."""

    def run(self) -> None:
        waiting = sorted(self.callers, key=lambda caller: caller.comes)
        while waiting or self.call is not None:
            nexts: list[tuple[float, int, Caller | None]] = []
            if waiting:
                nexts.append((waiting[0].comes, 0, waiting[0]))
            if self.call is not None:
                nexts.append((self.call.begun + self.plan.of(len(self.calls))[0], 1, None))
                for caller in self.call.callers:
                    if caller.goes is not None and caller.goes > caller.comes:
                        nexts.append((caller.goes, 2, caller))
                    if caller.deadline is not None:
                        nexts.append((caller.deadline, 3, caller))
            now, kind, nearest = min(nexts, key=lambda event: event[:2])
            if nearest is None:
                self._ends(now)
            elif kind == 0:
                waiting.pop(0)
                self._comes(now, nearest)
            else:
                self._goes(now, nearest, "CancelledError" if kind == 2 else "TimeoutError")

    def _comes(self, now: float, caller: Caller) -> None:
        caller.deadline = None
        timeout = None if caller.timeout is None else now + caller.timeout
        if self.is_stored:
            caller.end = now, "value"
        elif self.call is None:
            leader = None if caller.pool is None else caller
            self.call = Call(now, [caller], leader)
            caller.deadline = timeout
        else:
            self.call.callers.append(caller)
            if self.call.is_left:
                caller.deadline = timeout

    def _goes(self, now: float, caller: Caller, kind: str) -> None:
        call = self.call
        assert call is not None
        caller.end = now, kind
        call.callers.remove(caller)
        if not call.callers:
            self.calls.append((call.begun, now))
            self.call = None
        elif caller is call.leader:
            call.leader, call.is_left = None, True
            self.left += 1
            for other in call.callers:
                other.deadline = None if other.timeout is None else now + other.timeout

    def _ends(self, now: float) -> None:
        call = self.call
        assert call is not None
        fails = self.plan.of(len(self.calls))[1]
        self.calls.append((call.begun, now))
        self.call = None
        self.is_stored = self.is_stored or not fails
        for caller in call.callers:
            if not fails:
                caller.end = now, "value"
            elif caller is call.leader or caller.pool is None:
                caller.end = now, "ValueError"
            else:
                self._comes(now, caller)


class World:
    """The function, the pools and the callers of one case, and the times at which all of it happens."""

    def __init__(self, plans: list[Plan]) -> None:
        self.plans = plans
        self.node = CapacitySource(100, clock=asyncio.get_running_loop().time)
        self.cache = cache_of()
        self.calls: list[list[tuple[float, float]]] = [[] for _ in plans]
        self.live: set[int] = set()

    async def fn(self, key: int) -> int:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        seconds, fails = self.plans[key].of(len(self.calls[key]))
        assert key not in self.live, "two calls with one key"
        self.live.add(key)
        try:
            assert self.node.held >= len(self.live)
            await asyncio.sleep(seconds)
            if fails:
                raise ValueError(key)
            return key
        finally:
            self.live.remove(key)
            self.calls[key].append((begun, loop.time()))

    async def pool(self, callers: list[Caller]) -> None:
        """Run the callers of a pool, in the order in which they come."""
        loop = asyncio.get_running_loop()

        async def tasks() -> AsyncIterator[Task[int]]:
            for caller in callers:
                await asyncio.sleep(caller.comes - loop.time())
                yield Task(self.fn, caller.key, timeout=caller.timeout)

        runner = HierarchicalTaskPoolRunner(tasks(), self.node, cache=self.cache)

        async def cancel(number: int, caller: Caller) -> None:
            if caller.goes is not None:
                await asyncio.sleep(caller.goes)
                runner.cancel(number)

        cancels = asyncio.gather(*map(cancel, range(1, len(callers) + 1), callers))
        found, _ = await asyncio.gather(outcomes(runner), cancels)
        assert set(found) == set(range(1, len(callers) + 1))
        for number, end in found.items():
            check(callers[number - 1], *end)

    async def caller(self, caller: Caller) -> None:
        """Call the function outside a pool."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(caller.comes)
        task = asyncio.ensure_future(self.cache.wrap(self.fn, capacity=self.node)(caller.key))
        if caller.goes is not None and caller.goes > caller.comes:
            handle = loop.call_at(caller.goes, task.cancel)
            task.add_done_callback(lambda _: handle.cancel())
        with suppress(BaseException):
            await asyncio.wait([task])
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        check(caller, loop.time(), "value" if error is None else type(error).__name__)


def check(caller: Caller, time: float, kind: str) -> None:
    """Compare the outcome of a caller with that of the model."""
    assert caller.end is not None
    assert (round(time, 6), kind) == (round(caller.end[0], 6), caller.end[1]), caller


def random_callers(rng: random.Random, keys: int) -> list[Caller]:
    def maybe(share: float, most: float) -> float | None:
        return rng.uniform(0.1, most) if rng.random() < share else None

    cancelled, timed = rng.choice([0, 0.3, 0.8]), rng.choice([0, 0.3, 0.8])
    return [
        Caller(
            key=rng.randrange(keys),
            comes=rng.uniform(0, 10),
            goes=maybe(cancelled, 20),
            timeout=maybe(timed, 6) if pool is not None else None,
            pool=pool,
        )
        for pool in rng.choices([0, 1, None], k=rng.randint(1, 14))
    ]


async def run_case(rng: random.Random, *, fails: bool) -> int:
    """Run a case; return the number of calls that were left."""
    keys = rng.randint(1, 3)
    plans = []
    for _ in range(keys):
        count = rng.randint(1, 4)
        failing = rng.choice([0, 0.4]) if fails else 0
        plans.append(
            Plan(
                [rng.uniform(0.1, 12) for _ in range(count)],
                [rng.random() < failing for _ in range(count)],
            )
        )
    callers = random_callers(rng, keys)
    models = [
        Model([caller for caller in callers if caller.key == key], plan)
        for key, plan in enumerate(plans)
    ]
    for model in models:
        model.run()
    world = World(plans)
    pools: dict[int, list[Caller]] = {}
    for caller in sorted(callers, key=lambda caller: caller.comes):
        if caller.pool is not None:
            pools.setdefault(caller.pool, []).append(caller)
    outside = [world.caller(caller) for caller in callers if caller.pool is None]
    await asyncio.gather(*map(world.pool, pools.values()), *outside)
    for model, calls in zip(models, world.calls, strict=True):
        wanted: Any = [(round(begun, 6), round(end, 6)) for begun, end in model.calls]
        assert [(round(begun, 6), round(end, 6)) for begun, end in calls] == wanted
    assert world.node.held == world.node.waiting == 0
    assert not world.cache._flights._running
    assert world.cache.stats().flights == sum(len(calls) for calls in world.calls)
    await world.cache.aclose()
    return sum(model.left for model in models)


@pytest.mark.loops("asyncio")
def test_law_8_18_20_random_callers_and_failing_calls() -> None:
    left = 0
    for seed in range(CASES):
        print("seed", seed)
        with asyncio.Runner(loop_factory=VirtualClock()) as runner:
            left += runner.run(run_case(random.Random(seed), fails=True))
    assert left > CASES / 4


@pytest.mark.loops("asyncio")
def test_law_8_18_20_random_callers_on_shuffled_loops() -> None:
    """After an error, the next caller that is resumed leads. On a shuffled loop that is any of them, so no call fails."""
    for seed in range(CASES):
        print("seed", seed)
        with asyncio.Runner(loop_factory=shuffled_loop(seed, clock=VirtualClock())) as runner:
            runner.run(run_case(random.Random(seed), fails=False))
