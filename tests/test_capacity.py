"""`CapacitySource`: the tree of capacities."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import weakref
from typing import Any

import pytest

from headrace import Budget, BudgetExhausted, CapacitySource, Lease, Rate
from tests.support import until, wrong


async def test_lease_is_held_on_the_whole_path() -> None:
    root = CapacitySource(3, name="root")
    left, right = CapacitySource(2, parent=root), CapacitySource(2, parent=root)
    async with left.acquire(2):
        assert (left.held, right.held, root.held) == (2, 0, 2)
        assert right.available == 1
        assert right.acquire_nowait(2) is None
        lease = right.acquire_nowait()
        assert lease is not None
        with lease:
            assert root.held == 3
    assert (left.held, right.held, root.held) == (0, 0, 0)
    assert root.children == (left, right)


async def test_waiters_are_served_in_fifo_order() -> None:
    capacity = CapacitySource(1)
    order: list[int] = []

    async def use(number: int) -> None:
        async with capacity.acquire():
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(use(number) for number in range(5)))
    assert order == [0, 1, 2, 3, 4]
    assert capacity.held == capacity.waiting == 0


async def test_idle_child_does_not_wait_behind_busy_sibling() -> None:
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


async def test_law_8_undelivered_grant_is_returned() -> None:
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
async def test_law_8_no_excess_or_leak_under_cancellation(seed: int) -> None:
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


async def test_releasing_twice_frees_once() -> None:
    capacity = CapacitySource(2)
    first, second = await capacity.acquire(), await capacity.acquire()
    first.release()
    first.release()
    assert capacity.held == 1
    assert first.is_released
    assert (repr(first), repr(second)) == ("<Lease, released>", "<Lease of 1 slots>")
    second.release()


async def test_collected_lease_warns_and_frees_its_capacity() -> None:
    capacity = CapacitySource(1)
    with pytest.warns(ResourceWarning, match="collected before it was released"):
        await capacity.acquire()
        gc.collect()
    assert capacity.held == 0


async def test_lease_by_await_and_as_context_manager() -> None:
    capacity = CapacitySource(2)
    async with capacity.acquire() as lease:
        assert isinstance(lease, Lease)
        assert capacity.held == 1
    assert lease.is_released
    lease = await capacity.acquire(2)
    with lease as same:
        assert same is lease
        assert lease.cost == {"slots": 2}
    assert capacity.held == 0
    lease = await asyncio.ensure_future(capacity.acquire())
    lease.release()
    lease = await asyncio.wait_for(capacity.acquire(), 1)
    lease.release()
    with pytest.raises(ZeroDivisionError):
        async with capacity.acquire():
            raise ZeroDivisionError
    assert capacity.held == 0


async def test_acquire_cannot_be_reused() -> None:
    capacity = CapacitySource(2)
    waiting = capacity.acquire()
    (await waiting).release()
    with pytest.raises(RuntimeError, match="cannot reuse"):
        await waiting
    with pytest.raises(RuntimeError, match="cannot enter"):
        async with waiting:
            pass
    with (
        pytest.warns(RuntimeWarning, match="acquire.. was never awaited"),
        pytest.raises(RuntimeError, match="cannot leave"),
    ):
        await capacity.acquire().__aexit__(None, None, None)


async def test_unawaited_acquire_takes_nothing() -> None:
    capacity = CapacitySource(1)
    waiting = [capacity.acquire(), capacity.acquire()]
    assert capacity.held == capacity.waiting == 0
    with pytest.warns(RuntimeWarning, match="acquire.. was never awaited") as warned:
        del waiting
    assert len(warned) == 2


async def test_highest_priority_is_served_first() -> None:
    capacity = CapacitySource(1)
    order: list[int] = []

    async def use(priority: int) -> None:
        async with capacity.acquire(priority=priority):
            order.append(priority)

    async with capacity.acquire():
        waiting = [asyncio.ensure_future(use(priority)) for priority in (0, 5, -3, 5, 2)]
        await until(lambda: capacity.waiting == 5)
    await asyncio.gather(*waiting)
    assert order == [5, 5, 2, 0, -3]


async def test_several_resources_are_granted_together() -> None:
    root = CapacitySource({"slots": 4, "memory": 10.5}, name="machine")
    leaf = CapacitySource({"slots": 3}, root)
    lease = await leaf.acquire({"slots": 1, "memory": 8})
    assert (root.held, leaf.held) == ({"slots": 1, "memory": 8}, {"slots": 1})
    assert leaf.available == {"slots": 2, "memory": 2.5}
    assert leaf.acquire_nowait({"slots": 1, "memory": 3}) is None
    assert leaf.held == {"slots": 1}
    assert root.utilization == pytest.approx(8 / 10.5)
    assert leaf.peek() == {"slots": 2, "memory": 2.5}
    lease.release()
    assert root.held == {"slots": 0, "memory": 0}


async def test_amounts_do_not_drift() -> None:
    capacity = CapacitySource(0.3)
    leases = [await capacity.acquire(0.1) for _ in range(3)]
    assert capacity.held == 0.3
    assert capacity.available == 0
    for lease in leases:
        lease.release()
    assert capacity.held == 0


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (0.1 + 0.2, 0.3),
        (1.0000004, 1.0),
        (0.0000015, 0.000002),
        (0.000001, 0.000001),
        (10**12, 10**12),
        (0, 0),
        (Budget(0.1 + 0.2), Budget(0.3)),
        (Rate(0.1 + 0.2, 1, 1.0000004), Rate(0.3, 1, 1.0)),
    ],
)
def test_limit_is_reported_as_it_is_stored(given: Any, stored: Any) -> None:
    capacity = CapacitySource(given)
    assert repr(capacity.limit) == repr(stored)
    assert capacity.limit == capacity.limits["slots"] == capacity.snapshot().limit["slots"]
    other = CapacitySource(type(given)(1))
    other.resize(given)
    assert repr(other.limit) == repr(stored)
    assert other.limit == other.snapshot().limit["slots"]


@pytest.mark.virtual
async def test_timeout_uses_the_loops_clock() -> None:
    loop = asyncio.get_running_loop()
    capacity = CapacitySource(1, name="one")
    lease = capacity.acquire_nowait()
    assert lease is not None
    begun = loop.time()

    async def other(timeout: float) -> None:
        async with capacity.acquire(timeout=timeout):
            pass

    with pytest.raises(TimeoutError, match=r"within 2\.5 seconds"):
        await asyncio.create_task(other(2.5))
    assert loop.time() - begun == pytest.approx(2.5)
    with pytest.raises(TimeoutError):
        await asyncio.create_task(other(0))
    assert capacity.waiting == 0
    waiting = asyncio.create_task(other(5))
    await asyncio.sleep(4)
    lease.release()
    await waiting
    # A timeout that is not needed leaves no timer behind.
    assert loop.time() - begun == pytest.approx(6.5)
    await asyncio.sleep(10)
    assert capacity.held == 0


async def test_snapshot_is_atomic_over_the_tree() -> None:
    root = CapacitySource({"slots": 4}, name="root")
    left, right = CapacitySource(3, root, name="left", weight=3), CapacitySource(2, root, name="b")
    lease = await left.acquire(3)
    waiting = asyncio.ensure_future(left.acquire())
    await until(lambda: left.waiting == 1)
    shot = root.snapshot()
    assert [one.name for one in shot] == ["root", "left", "b"]
    assert (shot.limit, shot.held, shot.waiting, shot.granted) == ({"slots": 4}, {"slots": 3}, 1, 1)
    first, second = shot.children
    assert (first.held, first.waiting, first.granted) == ({"slots": 3}, 1, 1)
    assert (second.held, second.waiting, second.granted) == ({"slots": 0}, 0, 0)
    # No other child has held or requested anything.
    assert (first.share_due, second.share_due) == (1, 0.25)
    with pytest.raises(AttributeError):
        wrong(shot).name = "other"
    lease.release()
    (await waiting).release()
    # The snapshot itself does not change.
    assert shot.held == {"slots": 3}
    assert right.parent is root


def test_dropped_child_leaves_the_tree() -> None:
    root = CapacitySource(1)
    children = [CapacitySource(1, root, name=str(number)) for number in range(3)]
    assert [child.name for child in root.children] == ["0", "1", "2"]
    lease = children[1].acquire_nowait()
    assert lease is not None
    del children[1]
    gc.collect()
    assert [child.name for child in root.children] == ["0", "2"]
    # Its lease is still held.
    assert [one.name for one in root.snapshot()] == [None, "0", "1", "2"]
    assert root.held == 1
    lease.release()
    assert root.held == 0
    assert [one.name for one in root.snapshot()] == [None, "0", "2"]
    for _ in range(1000):
        CapacitySource(1, root)
    assert len(root.children) == 2


def test_capacity_in_a_cycle_is_collected() -> None:
    class Named(CapacitySource):
        """A capacity that references itself."""

        me: Any

    capacity = Named(1)
    capacity.me = capacity
    reference = weakref.ref(capacity)
    del capacity
    gc.collect()
    assert reference() is None


async def test_thousands_of_short_lived_children_leak_nothing() -> None:
    root = CapacitySource(64, name="root")

    async def work(tenant: int) -> None:
        capacity = CapacitySource(2, root, weight=1 + tenant % 3, name=f"tenant {tenant}")
        async with capacity.acquire():
            await asyncio.sleep(0)

    kept = CapacitySource(1, root, name="kept")
    sizes = list[int]()
    for _ in range(4):
        await asyncio.gather(*(work(tenant) for tenant in range(1_000)))
        gc.collect()
        assert root.children == (kept,)
        assert [node.name for node in root.snapshot()] == ["root", "kept"]
        # Weak references to tasks are dropped in bulk, once half of the tasks have ended; they are not counted.
        sizes.append(sum(type(found) is not weakref.ref for found in gc.get_objects()))
    # The first round fills free lists and caches.
    assert sizes[-1] - sizes[1] < 500, sizes
    assert (root.held, root.waiting) == (0, 0)


async def test_subclass_may_define_its_own_arguments() -> None:
    class Pool(CapacitySource):
        def __init__(self, host: str) -> None:
            super().__init__(2, name=host)

    pool = Pool("example.org")
    assert pool.name == "example.org"
    async with pool.acquire():
        assert repr(pool) == "<Pool 'example.org': 1 of 2 slots, open>"


def test_uninitialised_capacity_raises() -> None:
    class Forgetful(CapacitySource):
        def __init__(self) -> None:
            pass

    with pytest.raises(RuntimeError, match="not initialised"):
        _ = Forgetful().acquire()
    with pytest.raises(RuntimeError, match="not initialised"):
        CapacitySource(1, Forgetful())


def test_spent_budget_raises_until_it_is_resized() -> None:
    budget = CapacitySource({"dollars": Budget(1)}, name="run")
    first = budget.acquire_sync({"dollars": 0.75})
    # Held capacity may still be returned, so no request is refused for good yet.
    assert budget.acquire_nowait({"dollars": 0.5}) is None
    first.settle(dollars=0.4)
    first.release()
    assert budget.held == {"dollars": 0.4}
    budget.acquire_sync({"dollars": 0.6}).release()
    with pytest.raises(
        BudgetExhausted, match=r"budget of dollars of 'run' has 0 left, .*; resize\(\) raises it"
    ):
        budget.acquire_sync({"dollars": 0.01})
    with pytest.raises(BudgetExhausted):
        budget.acquire_nowait({"dollars": 0.01})
    budget.resize({"dollars": Budget(2)})
    budget.acquire_sync({"dollars": 1}).release()
