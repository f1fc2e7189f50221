"""Rates, settled costs, and cooldowns."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from headrace import Budget, BudgetExhausted, CapacitySource, QuotaCapacitySource, Rate
from tests.support import until, wrong

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace import Lease


def now() -> float:
    return asyncio.get_running_loop().time()


def quota(limit: Any, **more: Any) -> QuotaCapacitySource:
    """Create a quota on the clock of the loop, which is virtual in these tests."""
    return QuotaCapacitySource(limit, clock=asyncio.get_running_loop().time, **more)


async def take(capacity: CapacitySource, cost: float | Mapping[str, float] = 1) -> float:
    """Acquire the cost, and return the time of the grant."""
    async with capacity.acquire(cost):
        return now()


async def grants(capacity: CapacitySource, tasks: int, seconds: float) -> list[float]:
    """Return the times of all grants to a number of tasks that acquire again and again."""
    begun, granted = now(), list[float]()

    async def acquire_repeatedly() -> None:
        while True:
            async with capacity.acquire():
                granted.append(now() - begun)

    acquiring = [asyncio.create_task(acquire_repeatedly()) for _ in range(tasks)]
    await asyncio.sleep(seconds)
    for task in acquiring:
        task.cancel()
    await asyncio.gather(*acquiring, return_exceptions=True)
    return granted


def check_windows(
    granted: list[tuple[float, float]], burst: float, per_second: float, slack: float = 1e-6
) -> None:
    """Check that no window of length t has more than burst + rate x t."""
    # A leaky bucket: its level is what the worst window that ends here has beyond the rate.
    level, last = 0.0, 0.0
    for when, amount in granted:
        level = max(0.0, level - (when - last) * per_second) + amount
        last = when
        assert level <= burst + slack, f"{level} above {burst} at {when}"


@pytest.mark.virtual
async def test_rate_without_burst_is_even() -> None:
    capacity = quota(Rate(4, per=1.0))
    begun = now()
    times = [await take(capacity) - begun for _ in range(5)]
    assert times == pytest.approx([0, 0.25, 0.5, 0.75, 1.0])
    await asyncio.sleep(100)
    begun = now()
    times = [await take(capacity) - begun for _ in range(3)]
    assert times == pytest.approx([0, 0.25, 0.5])


@pytest.mark.virtual
async def test_burst_is_granted_at_once() -> None:
    capacity = quota(Rate(1, per=1.0, burst=3))
    begun = now()
    times = [await take(capacity) - begun for _ in range(6)]
    assert times == pytest.approx([0, 0, 0, 1, 2, 3])


async def order_at_a_rate(*requests: tuple[str, float, int]) -> dict[str, float]:
    """Return the times of the grants of these requests, given as node, cost and priority.

    The nodes are below a rate of 1 a second, which has 2 of its burst of 3 left.
    """
    root = quota(Rate(1, per=1.0, burst=3))
    nodes = {"root": root, "leaf": QuotaCapacitySource(Rate(9, per=1.0, burst=3), root)}
    await take(root)
    begun, times = now(), dict[str, float]()

    async def request(node: str, cost: float, priority: int) -> None:
        async with nodes[node].acquire(cost, priority=priority):
            times[f"{cost:g} of {node}"] = round(now() - begun, 6)

    async with asyncio.TaskGroup() as group:
        for request_arguments in requests:
            group.create_task(request(*request_arguments))
        await until(lambda: root.waiting + len(times) == len(requests))
        assert root.acquire_nowait(1) is None
    return times


@pytest.mark.virtual
async def test_smaller_cost_does_not_overtake_at_a_rate() -> None:
    times = await order_at_a_rate(("root", 3, 0), ("root", 1, 0), ("root", 2, 0))
    assert times == {"3 of root": 1, "1 of root": 2, "2 of root": 4}


@pytest.mark.virtual
async def test_smaller_cost_of_a_child_does_not_overtake() -> None:
    times = await order_at_a_rate(("root", 3, 0), ("leaf", 1, 9))
    assert times == {"3 of root": 1, "1 of leaf": 2}


@pytest.mark.virtual
async def test_higher_priority_overtakes_a_wait_for_quota() -> None:
    times = await order_at_a_rate(("root", 3, 0), ("root", 2, 1))
    assert times == {"2 of root": 0, "3 of root": 3}


@pytest.mark.virtual
async def test_smaller_cost_may_overtake_at_a_budget() -> None:
    run = quota({"dollars": Budget(10)})
    call = await run.acquire({"dollars": 8})
    large = asyncio.create_task(take(run, {"dollars": 5}))
    await until(lambda: run.waiting == 1)
    await take(run, {"dollars": 1})
    call.settle(dollars=5)
    with pytest.raises(BudgetExhausted, match="has 4 left"):
        call.release()
        await large


@pytest.mark.virtual
@pytest.mark.parametrize("tasks", [1, 1000])
@pytest.mark.parametrize("burst", [None, 1, 2.5, 20])
async def test_rate_of_200_grants_600_in_3_seconds(tasks: int, burst: float | None) -> None:
    capacity = quota(Rate(200, per=1.0, burst=burst))
    granted = await grants(capacity, tasks, 2.9999)
    assert len(granted) == pytest.approx(600 + (burst or 1) - 1, abs=1)
    check_windows([(when, 1) for when in granted], burst or 1, 200)
    assert capacity.waiting == 0


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("tasks", [1, 1000])
async def test_rate_of_200_needs_no_polling(tasks: int) -> None:
    if asyncio.get_running_loop().get_debug():
        pytest.skip("in debug mode asyncio spends more on its tasks than polling would cost")
    # In real time, where a timer may be late. Delays up to 50 ms are made up for; a busy machine may cause longer ones.
    capacity = QuotaCapacitySource(Rate(200, per=1.0))
    async with capacity.acquire():
        pass
    spent = time.process_time()
    granted = await grants(capacity, tasks, 0.5)
    spent = time.process_time() - spent
    assert 30 <= len(granted) <= 1 + 200 * (granted[-1] + 0.05)
    # The benchmark measures the cost of 3 seconds; this test only detects a busy loop.
    assert spent < 0.25


@pytest.mark.virtual
async def test_waiting_for_quota_holds_no_slot() -> None:
    root = CapacitySource({"slots": 1, "requests": Rate(1, per=10.0)}, clock=now)
    (await root.acquire({"slots": 1, "requests": 1})).release()
    waiting = asyncio.create_task(take(root, {"slots": 1, "requests": 1}))
    await until(lambda: root.waiting == 1)
    # It holds no slot yet, so no other request has to wait for one.
    begun = now()
    assert await take(root) == begun
    assert root.held["slots"] == 0
    assert await waiting - begun == pytest.approx(10)


@pytest.mark.virtual
async def test_settling_upwards_makes_debt() -> None:
    capacity = quota({"tokens": Rate(10, per=1.0, burst=100)})
    lease = await capacity.acquire({"tokens": 50})
    lease.settle(tokens=120)
    lease.release()
    begun = now()
    assert await take(capacity, {"tokens": 10}) - begun == pytest.approx(3)


@pytest.mark.virtual
async def test_settling_downwards_returns_the_rest() -> None:
    capacity = quota({"tokens": Rate(10, per=1.0, burst=100)})
    lease = await capacity.acquire({"tokens": 100})
    assert capacity.available == {"tokens": 0}
    await asyncio.sleep(3)
    # 30 of the 100 have been restored by time; they are not returned twice.
    lease.settle(tokens=0)
    lease.release()
    assert capacity.available == {"tokens": 100}
    begun = now()
    times = [await take(capacity, {"tokens": 100}) - begun for _ in range(2)]
    assert times == pytest.approx([0, 10])


@pytest.mark.virtual
@pytest.mark.parametrize("seed", range(5))
async def test_rate_holds_in_every_window_if_settled_late(seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    capacity = quota({"tokens": Rate(60, per=60.0, burst=100)})
    admitted = list[tuple[float, float]]()
    begun = now()

    async def work() -> None:
        lease = await capacity.acquire({"tokens": 90})
        acquired = now() - begun
        await asyncio.sleep(rng.choice([0, 1, 60]))
        # The amount that was really used counts from the time of the acquire.
        used = rng.choice([0, 30, 90])
        admitted.append((acquired, used))
        lease.settle(tokens=used)
        lease.release()

    await asyncio.gather(*(work() for _ in range(30)))
    check_windows(sorted(admitted), 100, 1)


@pytest.mark.virtual
async def test_no_grant_during_a_cooldown() -> None:
    root = CapacitySource({"slots": 2, "tokens": Rate(100, per=1.0)}, clock=now)
    begun = now()
    root.cool_down(5, resource="tokens")
    assert await take(root) == begun
    assert await take(root, {"tokens": 1}) - begun == pytest.approx(5)
    root.cool_down(5)
    root.cool_down(1)
    assert root.acquire_nowait() is None
    assert await take(root) - begun == pytest.approx(10)
    root.cool_down(0)
    (await root.acquire()).release()


@pytest.mark.virtual
async def test_larger_rate_serves_sooner() -> None:
    capacity = quota(Rate(1, per=100.0))
    await take(capacity)
    begun = now()
    waiting = asyncio.create_task(take(capacity))
    await asyncio.sleep(1)
    capacity.resize(Rate(1, per=10.0))
    assert await waiting - begun == pytest.approx(10, abs=1)


@pytest.mark.virtual
async def test_abandoned_wait_spends_nothing() -> None:
    capacity = quota({"requests": Rate(1, per=10.0), "dollars": Budget(3)})
    cost = {"requests": 1, "dollars": 1}
    await take(capacity, cost)
    begun = now()
    waiting = [asyncio.create_task(take(capacity, cost)) for _ in range(2)]
    await asyncio.sleep(5)
    waiting[0].cancel()
    assert await waiting[1] - begun == pytest.approx(10)
    with pytest.raises(TimeoutError):
        await capacity.acquire(cost, timeout=9)
    assert capacity.held["dollars"] == 2
    await take(capacity, cost)
    assert capacity.held["dollars"] == 3
    with pytest.raises(BudgetExhausted):
        await capacity.acquire(cost)


@pytest.mark.virtual
async def test_spent_budget_ends_its_waiters() -> None:
    budget = CapacitySource({"dollars": Budget(1)}, name="run", clock=now)
    lease = await budget.acquire({"dollars": 1})
    waiting = asyncio.create_task(take(budget, {"dollars": 0.5}))
    await until(lambda: budget.waiting == 1)
    lease.settle(dollars=0.9)
    lease.release()
    with pytest.raises(BudgetExhausted, match="dollars of 'run'"):
        await waiting
    assert budget.waiting == 0


@pytest.mark.virtual
async def test_timeout_and_rate_use_the_same_clock() -> None:
    capacity = quota(Rate(1, per=10.0))
    await take(capacity)
    begun = now()
    with pytest.raises(TimeoutError):
        await capacity.acquire(timeout=9.5)
    assert now() - begun == pytest.approx(9.5)
    async with capacity.acquire(timeout=9.5):
        assert now() - begun == pytest.approx(10)


async def test_bad_result_of_a_clock_is_refused() -> None:
    reading: Any = 1.0
    capacity = CapacitySource(1, clock=lambda: reading)
    lease = await capacity.acquire()
    for wrong_time, error in (("now", TypeError), (float("nan"), ValueError), (-1.0, ValueError)):
        reading = wrong_time
        with pytest.raises(error, match=r"clock must return a .*number of seconds"):
            capacity.acquire_nowait()
    reading = wrong(None)
    # The lease is released nevertheless.
    with suppress(TypeError):
        lease.release()
    reading = 2.0
    assert capacity.held == 0


async def test_clock_error_is_raised_to_the_caller() -> None:
    def clock() -> float:
        raise ZeroDivisionError

    capacity = CapacitySource(1, clock=clock)
    with pytest.raises(ZeroDivisionError):
        await capacity.acquire()


@pytest.mark.virtual
@pytest.mark.parametrize("seed", range(20))
async def test_all_of_peek_can_be_acquired(seed: int) -> None:
    dice, loop = random.Random(seed), asyncio.get_running_loop()
    root = CapacitySource(
        {
            "slots": dice.randint(1, 5),
            "tokens": Rate(dice.randint(1, 9), dice.choice([0.5, 1, 7]), dice.choice([None, 2, 8])),
            "dollars": Budget(dice.randint(1, 30)),
        },
        clock=loop.time,
    )
    nodes = [root, *(CapacitySource(dice.randint(1, 5), root) for _ in range(2))]
    nodes.append(CapacitySource({"slots": 2, "dollars": Budget(9)}, nodes[1]))
    leases: list[Lease] = []
    for _ in range(200):
        node = dice.choice(nodes)
        if (free := node.peek()) is not None:
            lease = node.acquire_nowait(free)
            assert lease is not None, free
            # Not a millionth more is free.
            assert not any((node.peek() or {}).values())
            # Restore the state from before the acquire.
            lease.settle(**dict.fromkeys(lease.cost, 0))
            lease.release()
            assert node.peek() == free
        cost = {"slots": 1, "tokens": dice.choice([0, 0.1, 1]), "dollars": dice.choice([0, 0.5])}
        with suppress(BudgetExhausted):
            if (taken := node.acquire_nowait(cost)) is not None:
                leases.append(taken)
        if leases and dice.random() < 0.6:
            leases.pop(dice.randrange(len(leases))).release()
        if dice.random() < 0.1:
            root.cool_down(dice.random(), resource=dice.choice([None, "tokens"]))
        if dice.random() < 0.2:
            await asyncio.sleep(dice.random())
    for lease in leases:
        lease.release()


def test_rate_is_parsed() -> None:
    assert Rate.parse("500/m") == Rate(500, 60)
    assert Rate.parse("0.5/s") == Rate(1, 2)
    for text in ("500", "500/min", "-1/s", "1e10/s"):
        with pytest.raises(
            ValueError, match=rf"rate must be a number above 0 per .*, got '{text}'"
        ):
            Rate.parse(text)
    with pytest.raises(ValueError, match="rate must be at least one per year"):
        Rate.parse("0.001/d")
    number: Any = 5
    with pytest.raises(TypeError, match=r"rate must be a string such as '500/m', got 5 \(int\)"):
        Rate.parse(number)
