"""`AdaptiveLimit`: its configuration, reports of leases, and pools in virtual time against servers of unknown limits.

`rust/core/tests/adaptive` compares the algorithm with others on the same servers, with more seeds.
"""

from __future__ import annotations

import asyncio
import copy
import math
import random
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    AdaptiveLimit,
    CapacitySource,
    HierarchicalBalancer,
    HierarchicalTaskPoolRunner,
    Rate,
    Retry,
    SourceIterObj,
    SourceObj,
    Task,
    current_lease,
)
from tests.support import wrong

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SEEDS = [1, 2]


class Throttled(Exception):
    status_code = 429


# Configuration.


def test_configuration_is_a_frozen_value() -> None:
    limit = AdaptiveLimit(10, 1, 100)
    assert repr(limit) == "AdaptiveLimit(start=10, minimum=1, maximum=100)"
    assert limit == AdaptiveLimit(10, 1, 100) != AdaptiveLimit(11, 1, 100)
    assert hash(limit) == hash(AdaptiveLimit(10, 1, 100))
    assert copy.deepcopy(limit) == limit
    with pytest.raises(AttributeError):
        limit.start = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("numbers", "error", "message"),
    [
        (("1", 1, 2), TypeError, r"start must be a number, got '1' \(str\)"),
        ((1, True, 2), TypeError, r"minimum must be a number, got True"),
        ((1, 0, 2), ValueError, "minimum must be at least 1, got 0"),
        ((1, 1, math.inf), ValueError, "maximum must be finite, got inf"),
        ((1, 3, 2), ValueError, "maximum must be at least minimum, which is 3, got 2"),
        ((9, 1, 2), ValueError, "start must be between minimum and maximum, 1 and 2, got 9"),
    ],
)
def test_invalid_range_is_refused(
    numbers: tuple[Any, Any, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        AdaptiveLimit(*numbers)


def test_node_shows_current_limit() -> None:
    capacity = CapacitySource({"slots": AdaptiveLimit(10, 1, 100), "calls": Rate(5)}, name="api")
    assert capacity.limits == {"slots": 10, "calls": Rate(5)} == capacity.limit
    assert capacity.snapshot().limit == {"slots": 10, "calls": Rate(5)}
    assert repr(capacity) == (
        "<CapacitySource 'api': 0 of 10 slots, adaptive, 0 of 5 calls in 60.0 s, open>"
    )
    plain = CapacitySource(AdaptiveLimit(10, 1, 100))
    assert (plain.limit, plain.available, plain.utilization) == (10, 10, 0)


def test_resize_sets_the_maximum() -> None:
    capacity = CapacitySource(AdaptiveLimit(10, 2, 100))
    capacity.resize(50)
    assert capacity.limit == 10
    capacity.resize(5)
    assert capacity.limit == 5
    capacity.resize(0)
    assert capacity.limit == 0
    capacity.resize(50)
    assert capacity.limit == 10
    capacity.resize(AdaptiveLimit(12, 12, 20))
    assert capacity.limit == 12
    with pytest.raises(ValueError, match="cannot become AdaptiveLimit"):
        CapacitySource(10).resize(AdaptiveLimit(1, 1, 2))
    with pytest.raises(ValueError, match="cannot become Rate"):
        capacity.resize(Rate(5))


def test_resize_of_another_resource_keeps_the_limit() -> None:
    capacity = CapacitySource({"slots": AdaptiveLimit(10, 1, 100), "calls": Rate(5)})
    with capacity.acquire_sync({"slots": 1, "calls": 1}, owner=None) as lease:
        lease.report(error=Throttled())
    assert capacity.limits["slots"] == 9
    capacity.resize({"calls": Rate(7)})
    assert capacity.limits == {"slots": 9, "calls": Rate(7)}
    capacity.resize({"slots": 40})
    assert capacity.limits["slots"] == 9


def test_balancer_moves_the_maximum() -> None:
    adaptive, fixed = CapacitySource(AdaptiveLimit(10, 1, 20)), CapacitySource(20)
    balancer = HierarchicalBalancer(
        {adaptive: (5, 40), fixed: (5, 40)}, idle_after=0, busy_after=0, step=15
    )
    with fixed.acquire_sync(20, owner=None):
        assert balancer.balance(0) == {adaptive: 5, fixed: 35}
    assert (adaptive.limit, fixed.limit) == (5, 35)


# Reports of leases.


async def test_report_of_congestion_lowers_the_limit_once() -> None:
    capacity = CapacitySource(AdaptiveLimit(10, 1, 100))
    leases = [await capacity.acquire(owner=None) for _ in range(10)]
    for lease in leases:
        lease.report(error=Throttled(), headers={"retry-after": "1"})
    assert capacity.limit == 9
    # Nothing is granted until less is held than the limit.
    leases.pop().release()
    assert (capacity.held, capacity.acquire_nowait(owner=None)) == (9, None)
    leases.pop().release()
    later = await capacity.acquire(owner=None)
    later.report(error=ValueError())
    assert capacity.limit == 9
    later.report(error=Throttled())
    assert capacity.limit == 8
    for lease in [*leases, later]:
        lease.release()


async def test_report_is_checked() -> None:
    capacity = CapacitySource(1)
    lease = await capacity.acquire()
    lease.report()
    lease.report(headers={"x-ratelimit-remaining-requests": "3"})
    with pytest.raises(TypeError, match="error must be exception or None, got 3"):
        lease.report(error=wrong(3))
    with pytest.raises(TypeError, match="headers must be mapping of names to values"):
        lease.report(headers=wrong([("a", "b")]))
    with pytest.raises(TypeError, match="the names of headers must be string, got 1"):
        lease.report(headers=wrong({1: "b"}))
    lease.release()
    with pytest.raises(RuntimeError, match="this lease was released"):
        lease.report()


async def test_cost_above_the_limit_raises_it() -> None:
    capacity = CapacitySource(AdaptiveLimit(2, 1, 20))
    async with asyncio.timeout(5), capacity.acquire(12):
        assert capacity.limit == 12
    with pytest.raises(ValueError, match="20"):
        await capacity.acquire(21)


# Pools.


class Server:
    """A server that serves some calls at once, and refuses the others or queues them silently."""

    def __init__(self, limit: int, *, queues: bool = False, sigma: float = 0.25, seed: int) -> None:
        self.limit = limit
        self.sigma = sigma
        self.errors = self.hangs = 0.0
        self.random = random.Random(seed)
        self.done: list[tuple[float, float]] = []
        self.throttled: list[float] = []
        self.most: list[tuple[float, int]] = []
        self._queues = queues
        self._busy = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        print(f"seed {seed}")

    async def call(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        chance = self.random.random()
        if chance < self.errors:
            await asyncio.sleep(0.05)
            raise ValueError("an error that says nothing about the load")
        if chance < self.errors + self.hangs:
            await asyncio.sleep(math.inf)
        if self._busy >= self.limit:
            if not self._queues:
                await asyncio.sleep(0.02)
                self.throttled.append(loop.time())
                raise Throttled
            ready = loop.create_future()
            self._waiting.append(ready)
            await ready
        else:
            self._busy += 1
        try:
            service = self.random.lognormvariate(-(self.sigma**2) / 2, self.sigma)
            await asyncio.sleep(service)
        finally:
            self._busy -= 1
            while self._waiting and self._busy < self.limit:
                self._busy += 1
                self._waiting.popleft().set_result(None)
        self.done.append((began, loop.time()))

    def rate(self, after: float, until: float) -> float:
        return sum(after <= end < until for _, end in self.done) / (until - after)

    def part_throttled(self, after: float, until: float) -> float:
        throttled = sum(after <= end < until for end in self.throttled)
        return throttled / (throttled + self.rate(after, until) * (until - after))

    def median(self, after: float, until: float) -> float:
        times = sorted(end - began for began, end in self.done if after <= end < until)
        return times[len(times) // 2]


async def serve(
    server: Server,
    capacity: CapacitySource,
    until: float,
    *,
    at: dict[float, int] | None = None,
    timeout: float | None = None,
    cooldown: bool = True,
) -> None:
    """Run a pool of calls until a time. Checks at each call that nothing is granted above the limit."""
    loop = asyncio.get_running_loop()
    last = 0

    async def call() -> None:
        nonlocal last
        held = capacity.held
        # After a decrease what was held before may exceed the limit, and only falls.
        assert held <= capacity.limit or held <= last
        last = held
        await server.call()

    def calls() -> Any:
        while loop.time() < until:
            yield Task(call, timeout=timeout)

    for moment, limit in (at or {}).items():
        loop.call_at(moment, setattr, server, "limit", limit)
    runner = HierarchicalTaskPoolRunner(SourceIterObj(calls()), capacity, cooldown=cooldown)
    async with runner.run_tasks() as events:
        async for envelope in events:
            # An answer that cools down costs the call nothing.
            assert not cooldown or not isinstance(envelope.error, Throttled)


def adaptive(limit: AdaptiveLimit | None = None, **options: Any) -> CapacitySource:
    clock = asyncio.get_running_loop().time
    return CapacitySource(limit or AdaptiveLimit(10, 1, 100), clock=clock, **options)


@pytest.fixture(params=[True, False], ids=["cooldown", "no cooldown"])
def cooldown(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.virtual
@pytest.mark.parametrize("seed", SEEDS)
async def test_hard_cap_is_used_with_few_throttled_calls(seed: int, cooldown: bool) -> None:
    server = Server(40, seed=seed)
    await serve(server, adaptive(), 180, cooldown=cooldown)
    assert server.rate(60, 180) >= 0.9 * 40
    assert server.part_throttled(60, 180) <= 0.01


@pytest.mark.virtual
@pytest.mark.parametrize("seed", SEEDS)
async def test_queue_of_a_silent_server_stays_short(seed: int, cooldown: bool) -> None:
    server = Server(20, queues=True, seed=seed)
    await serve(server, adaptive(), 300, cooldown=cooldown)
    assert server.median(60, 300) <= 1.5
    assert server.rate(60, 300) >= 0.9 * 20


@pytest.mark.virtual
async def test_varying_latency_is_not_taken_for_congestion(cooldown: bool) -> None:
    server = Server(1000, sigma=1.0, seed=8)
    await serve(server, adaptive(), 240, cooldown=cooldown)
    assert server.rate(120, 240) >= 0.9 * 100


@pytest.mark.virtual
@pytest.mark.parametrize("queues", [False, True])
async def test_changed_capacity_is_followed_in_30_s(queues: bool, cooldown: bool) -> None:
    server = Server(40, queues=queues, seed=3)
    await serve(server, adaptive(), 240, at={60: 10, 150: 80}, cooldown=cooldown)
    for best, after, until in [(40, 40, 60), (10, 90, 150), (80, 180, 240)]:
        assert server.rate(after, until) >= 0.8 * best


@pytest.mark.virtual
async def test_errors_and_hangs_do_not_lower_the_limit(cooldown: bool) -> None:
    server = Server(40, seed=4)
    server.errors, server.hangs = 0.01, 0.003
    capacity = adaptive()
    await serve(server, capacity, 150, timeout=30, cooldown=cooldown)
    assert server.rate(60, 150) >= 0.85 * 40


@pytest.mark.virtual
async def test_timeouts_lower_the_limit() -> None:
    server = Server(40, seed=5)
    server.hangs = 1.0
    capacity = adaptive()
    await serve(server, capacity, 300, timeout=10)
    assert capacity.limit <= 2


@pytest.mark.virtual
async def test_limit_does_not_rise_while_something_else_holds_work_back() -> None:
    loop = asyncio.get_running_loop()
    parent = CapacitySource(5, clock=loop.time)
    behind = CapacitySource(AdaptiveLimit(10, 1, 100), parent=parent)
    rated = CapacitySource(
        {"slots": AdaptiveLimit(10, 1, 100), "calls": Rate(5, 1)}, clock=loop.time
    )
    slow = CapacitySource(AdaptiveLimit(10, 1, 100), clock=loop.time)

    class Slow(SourceObj[Any]):
        async def pull_impl(self) -> AsyncIterator[Any]:
            for _ in range(300):
                await asyncio.sleep(0.2)
                yield work

    async def work() -> None:
        await asyncio.sleep(1)

    async def run(source: Any, capacity: CapacitySource) -> None:
        async with HierarchicalTaskPoolRunner(source, capacity).run_tasks() as events:
            assert len([event async for event in events]) == 300

    rated_tasks = [Task(work, cost={"slots": 1, "calls": 1}) for _ in range(300)]
    await asyncio.gather(
        run(SourceIterObj([work] * 300), behind),
        run(SourceIterObj(rated_tasks), rated),
        run(Slow(), slow),
    )
    assert (behind.limit, rated.limits["slots"], slow.limit) == (10, 10, 10)


@pytest.mark.virtual
async def test_idle_phase_keeps_the_limit(cooldown: bool) -> None:
    server = Server(40, seed=6)
    capacity = adaptive()
    await serve(server, capacity, 60, cooldown=cooldown)
    learned = capacity.limit
    await asyncio.sleep(1000)
    assert capacity.limit == learned
    await serve(server, capacity, asyncio.get_running_loop().time() + 60, cooldown=cooldown)
    now = asyncio.get_running_loop().time()
    assert server.rate(now - 50, now - 5) >= 0.9 * 40


@pytest.mark.virtual
async def test_weights_hold_while_the_limit_adapts(cooldown: bool) -> None:
    server = Server(40, seed=7)
    root = adaptive()
    weights = (1, 2, 3)
    children = [CapacitySource(1000, root, weight=weight) for weight in weights]
    done: Counter[int] = Counter()
    loop = asyncio.get_running_loop()

    async def call(number: int) -> None:
        await server.call()
        if 60 <= loop.time() < 240:
            done[number] += 1

    async def run(number: int) -> None:
        def calls() -> Any:
            while loop.time() < 240:
                yield Task(call, number)

        source = SourceIterObj(calls())
        runner = HierarchicalTaskPoolRunner(source, children[number], cooldown=cooldown)
        async with runner.run_tasks() as events:
            async for _ in events:
                pass

    await asyncio.gather(*map(run, range(3)))
    total = done.total()
    assert total >= 0.9 * 40 * 180
    for number, weight in enumerate(weights):
        assert done[number] / total == pytest.approx(weight / 6, rel=0.03)


@pytest.mark.virtual
@pytest.mark.parametrize("cost", [1, 2, {"slots": 1}])
async def test_every_kind_of_cost_is_learned_from(cost: Any, cooldown: bool) -> None:
    capacity = adaptive()

    async def call() -> None:
        await asyncio.sleep(1)
        raise Throttled

    tasks = SourceIterObj([Task(call, cost=cost) for _ in range(20)])
    # All calls are throttled, for ever.
    runner = HierarchicalTaskPoolRunner(tasks, capacity, cooldown=cooldown)
    async with runner.run_tasks() as events:
        errors = [type(event.error).__name__ async for event in events]
    assert errors == ["ThrottledError" if cooldown else "Throttled"] * 20
    assert capacity.limit < 10


@pytest.mark.virtual
async def test_classify_of_a_retry_decides_what_is_learned() -> None:
    async def limit_after(error: Exception, classify: Any) -> Any:
        capacity = adaptive()

        async def call() -> None:
            await asyncio.sleep(1)
            raise error

        retry = Retry(0, classify=classify)
        tasks = SourceIterObj([Task(call, retry=retry) for _ in range(20)])
        runner = HierarchicalTaskPoolRunner(tasks, capacity, cooldown=False)
        async with runner.run_tasks() as events:
            assert len([event async for event in events]) == 20
        return capacity.limit

    assert await limit_after(Throttled(), None) < 10
    assert await limit_after(Throttled(), lambda _: "permanent") == 10
    assert await limit_after(ValueError(), None) == 10
    assert await limit_after(ValueError(), lambda _: "throttled") < 10
    # The pool reports what it raises.
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    assert await limit_after(ValueError(), lambda _: 1 / 0) == 10
    assert len(reported) == 20


async def test_task_of_a_thread_is_learned_from(cooldown: bool) -> None:
    capacity = CapacitySource(AdaptiveLimit(10, 1, 100))

    def call() -> None:
        raise Throttled

    tasks = SourceIterObj([Task(call, thread=True) for _ in range(3)])
    # All calls are throttled, for ever.
    runner = HierarchicalTaskPoolRunner(tasks, capacity, cooldown=cooldown, max_cooldown=0.1)
    async with runner.run_tasks() as events:
        async for _ in events:
            pass
    assert capacity.limit < 10


@pytest.mark.virtual
async def test_limit_below_the_cooled_node_answers_too() -> None:
    loop = asyncio.get_running_loop()
    provider = CapacitySource(1000, clock=loop.time, cooldown=True)
    model, other = CapacitySource(AdaptiveLimit(10, 1, 100), provider), CapacitySource(5, provider)
    server = Server(40, seed=9)
    await serve(server, model, 120)
    assert server.rate(60, 120) >= 0.9 * 40
    # A call at a node without one cools the provider down, and so does a delay of the server.
    assert provider.cool_down(None) == 0.5
    await asyncio.sleep(100)
    with other.acquire_sync(owner=None) as lease:
        lease.report(error=Throttled())
        assert provider._back_off(other) == 0.5


@pytest.mark.virtual
async def test_task_may_report_a_call_that_it_survives() -> None:
    capacity = adaptive()

    async def call() -> None:
        await asyncio.sleep(1)
        # Results are reported by the pool alone, at the end of the task.
        current_lease().report(headers={"x-ratelimit-remaining-requests": "3"})
        current_lease().report(error=Throttled())

    async with HierarchicalTaskPoolRunner(
        SourceIterObj([Task(call, cost={"slots": 1})]), capacity
    ).run_tasks() as events:
        async for _ in events:
            pass
    assert capacity.limit == 9
