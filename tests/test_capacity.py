"""The tree of capacities."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
from typing import Any

import pytest

from headrace import CapacitySource


async def test_a_lease_is_held_on_the_whole_path() -> None:
    root = CapacitySource(3, name="root")
    left, right = CapacitySource(2, parent=root), CapacitySource(2, parent=root)
    async with left.acquire(2):
        assert (left.held, right.held, root.held) == (2, 0, 2)
        assert right.available == 1
        assert right.try_acquire(2) is None
        lease = right.try_acquire()
        assert lease is not None
        with lease:
            assert root.held == 3
    assert (left.held, right.held, root.held) == (0, 0, 0)
    assert set(root.children) == {left, right}


async def test_those_who_wait_are_served_in_order() -> None:
    capacity = CapacitySource(1)
    order: list[int] = []

    async def use(number: int) -> None:
        async with capacity.acquire():
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(use(number) for number in range(5)))
    assert order == [0, 1, 2, 3, 4]
    assert capacity.held == capacity.waiting == 0


async def test_an_idle_branch_does_not_wait_behind_a_busy_sibling() -> None:
    root = CapacitySource(2)
    busy, idle = CapacitySource(1, parent=root), CapacitySource(1, parent=root)
    held = await busy.acquire()
    waiting = [asyncio.ensure_future(busy.acquire()) for _ in range(3)]
    await asyncio.sleep(0)
    lease = await idle.acquire()
    assert root.held == 2
    lease.release()
    for wait in waiting:
        wait.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    held.release()
    assert root.held == 0


async def test_law_8_a_grant_that_was_never_delivered_reverts() -> None:
    capacity = CapacitySource(1)
    lease = await capacity.acquire()
    wait = asyncio.ensure_future(capacity.acquire())
    await asyncio.sleep(0)
    lease.release()
    wait.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wait
    assert capacity.held == 0


@pytest.mark.parametrize("seed", range(5))
async def test_law_8_never_exceeded_and_never_leaked_under_cancellation(seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    root = CapacitySource(4)
    leaves = [CapacitySource(rng.randint(1, 3), parent=root) for _ in range(3)]
    held = [0] * 3

    async def use() -> None:
        number = rng.randrange(3)
        leaf = leaves[number]
        cost = rng.randint(1, leaf.limit)
        async with leaf.acquire(cost):
            held[number] += cost
            try:
                assert sum(held) <= root.limit
                assert held[number] <= leaf.limit
                for _ in range(rng.randrange(4)):
                    await asyncio.sleep(0)
            finally:
                held[number] -= cost

    tasks = [asyncio.ensure_future(use()) for _ in range(200)]
    for task in tasks:
        if rng.random() < 0.4:
            await asyncio.sleep(0)
            task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(
        outcome is None or isinstance(outcome, asyncio.CancelledError) for outcome in outcomes
    )
    assert [node.held for node in (root, *leaves)] == [0, 0, 0, 0]
    assert root.waiting == 0


def test_law_9_one_tree_serves_two_loops() -> None:
    capacity = CapacitySource(2)
    peak = current = 0
    lock = threading.Lock()

    async def use() -> None:
        nonlocal peak, current
        async with capacity.acquire():
            with lock:
                current += 1
                peak = max(peak, current)
            await asyncio.sleep(0)
            with lock:
                current -= 1

    async def main() -> None:
        await asyncio.gather(*(use() for _ in range(200)))

    threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert peak == 2
    assert capacity.held == 0


async def test_releasing_twice_gives_back_once() -> None:
    capacity = CapacitySource(2)
    first, second = await capacity.acquire(), await capacity.acquire()
    first.release()
    first.release()
    assert capacity.held == 1
    assert first.released
    second.release()


async def test_a_lease_that_is_collected_warns_and_returns_its_capacity() -> None:
    capacity = CapacitySource(1)
    with pytest.warns(ResourceWarning, match="collected before it was released"):
        await capacity.acquire()
        gc.collect()
    assert capacity.held == 0


@pytest.mark.parametrize("value", [0, -1])
def test_law_14_limits_and_costs_must_be_positive(value: int) -> None:
    with pytest.raises(ValueError, match=f"limit must be a positive integer below .*, got {value}"):
        CapacitySource(value)
    with pytest.raises(ValueError, match=f"cost must be a positive integer below .*, got {value}"):
        _ = CapacitySource(1).acquire(value)


@pytest.mark.parametrize("value", ["3", None, True, 1.5])
def test_law_14_limits_and_costs_must_be_integers(value: Any) -> None:
    with pytest.raises(TypeError, match="limit must be a positive integer, got"):
        CapacitySource(value)
    with pytest.raises(TypeError, match="cost must be a positive integer, got"):
        CapacitySource(1).try_acquire(value)


def test_a_cost_above_a_limit_of_the_path_fails_at_once() -> None:
    leaf = CapacitySource(9, parent=CapacitySource(3))
    with pytest.raises(
        ValueError, match="cost 4 can never be had: a capacity on its path has the limit 3"
    ):
        _ = leaf.acquire(4)
    parent: Any = 3
    with pytest.raises(TypeError, match=r"parent must be a CapacitySource or None, got 3 \(int\)"):
        CapacitySource(1, parent=parent)
