"""`CapacitySource`: the tree of capacities."""

from __future__ import annotations

import asyncio
import gc
import math
import random
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, cast

import pytest

from headrace import (
    Budget,
    BudgetExhausted,
    CapacitySource,
    ClosedError,
    Lease,
    QuotaCapacitySource,
    Rate,
    WouldDeadlock,
)
from tests.support import until, wrong, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import Callable


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


async def test_resize_up_grants_and_down_revokes_nothing() -> None:
    capacity = CapacitySource(2)
    held = [await capacity.acquire() for _ in range(2)]
    waiting = [asyncio.ensure_future(capacity.acquire()) for _ in range(2)]
    await until(lambda: capacity.waiting == 2)
    capacity.resize(3)
    assert (capacity.held, capacity.waiting) == (3, 1)
    capacity.resize(1)
    assert (capacity.limit, capacity.held, capacity.waiting) == (1, 3, 1)
    assert capacity.utilization == 3
    held[0].release()
    held[1].release()
    assert (capacity.held, capacity.waiting) == (1, 1)
    (await waiting[0]).release()
    (await waiting[1]).release()
    assert capacity.held == 0


async def test_limit_of_0_pauses() -> None:
    capacity = CapacitySource(2)
    capacity.resize(0)
    assert capacity.acquire_nowait() is None
    assert capacity.peek() is None
    waiting = asyncio.ensure_future(capacity.acquire(2))
    await until(lambda: capacity.waiting == 1)
    with pytest.raises(ValueError, match="cost of 3 slots"):
        _ = capacity.acquire(3)
    capacity.resize(2)
    (await waiting).release()


def test_resize_is_reentrant() -> None:
    others: list[Any] = []

    def clock() -> float:
        # As a signal handler would, inside the other call.
        while others:
            capacity.resize(others.pop())
        return 0.0

    def reported_limits() -> list[dict[str, Any]]:
        return [dict(capacity.limits), dict(capacity.snapshot().limit)]

    limits: dict[str, Any] = {"slots": 2, "memory": 8, "tokens": Rate(5, per=7.0, burst=3)}
    capacity = CapacitySource(limits, clock=clock)
    others.append({"memory": 6})
    capacity.resize({"slots": 3})
    assert reported_limits() == [limits | {"slots": 3, "memory": 6}] * 2
    # The last resize counts, and all views agree.
    others += [{"slots": 9, "memory": 4}, {"slots": 7}]
    capacity.resize({"slots": 5})
    assert reported_limits() == [limits | {"slots": 5, "memory": 4}] * 2


def test_clock_may_wait_for_a_resizing_thread() -> None:
    waits: list[threading.Thread] = []

    def clock() -> float:
        while waits:
            thread = waits.pop()
            thread.start()
            thread.join(10)
            assert not thread.is_alive()
        return 0.0

    capacity = CapacitySource({"slots": 2, "memory": 8}, clock=clock)
    waits.append(threading.Thread(target=capacity.resize, args=[{"memory": 6}], daemon=True))
    capacity.resize({"slots": 3})
    assert capacity.limits == capacity.snapshot().limit == {"slots": 3, "memory": 6}


async def test_pause_and_resume() -> None:
    root = CapacitySource(2)
    leaf = CapacitySource(2, root)
    root.pause()
    assert [node.paused for node in (root, leaf)] == [True, True]
    assert leaf.acquire_nowait() is None
    assert leaf.peek() is None
    waiting = asyncio.ensure_future(leaf.acquire())
    await until(lambda: leaf.waiting == 1)
    root.resume()
    (await waiting).release()
    assert [node.paused for node in (root, leaf)] == [False, False]
    assert leaf.peek() == 2


async def test_close_ends_waiters_of_the_node_only() -> None:
    root = CapacitySource(1, name="root")
    leaf, other = CapacitySource(1, root, name="leaf"), CapacitySource(1, root)
    lease = await leaf.acquire()
    below = asyncio.ensure_future(leaf.acquire())
    beside = asyncio.ensure_future(other.acquire())
    await until(lambda: root.waiting == 2)
    leaf.close()
    leaf.close()
    assert leaf.closed
    with pytest.raises(ClosedError, match="'leaf'"):
        await below
    for use in (
        leaf.acquire,
        leaf.acquire_nowait,
        leaf.acquire_sync,
        leaf.pause,
        leaf.resume,
        leaf.peek,
        lambda: leaf.resize(3),
        lambda: leaf.cool_down(1),
        lambda: CapacitySource(1, leaf),
    ):
        with pytest.raises(ClosedError, match="'leaf'"):
            use()
    assert not beside.done()
    lease.release()
    (await beside).release()
    assert root.held == 0


async def test_close_closes_descendants() -> None:
    root = CapacitySource(1, name="root")
    leaf = CapacitySource(1, root)
    root.close()
    assert leaf.closed
    with pytest.raises(ClosedError):
        await leaf.acquire()


async def test_suspended_frees_the_lease_for_a_block() -> None:
    capacity = CapacitySource(1)
    lease = await capacity.acquire()
    async with lease.suspended():
        assert capacity.held == 0
        async with capacity.acquire():
            assert capacity.held == 1
    assert capacity.held == 1
    assert not lease.is_released
    lease.release()
    assert capacity.held == 0


async def test_end_of_suspended_waits_in_the_queue() -> None:
    capacity = CapacitySource(1)
    order: list[str] = []

    async def other() -> None:
        async with capacity.acquire():
            order.append("other")
            await yield_to_loop(3)

    lease = await capacity.acquire()
    waiting = asyncio.ensure_future(other())
    await until(lambda: capacity.waiting == 1)
    async with lease.suspended():
        order.append("away")
        await yield_to_loop(1)
    order.append("back")
    lease.release()
    await waiting
    assert order == ["away", "other", "back"]


async def test_owner_is_the_current_task_or_none() -> None:
    capacity = CapacitySource(1)
    with pytest.raises(
        TypeError, match="owner must be None, or left out for the current task, got"
    ):
        await capacity.acquire(owner=wrong(asyncio.current_task()))
    for acquire in (capacity.acquire_nowait, capacity.acquire_sync):
        with pytest.raises(TypeError, match="owner must be None"):
            acquire(owner=wrong(False))
    with (
        capacity.acquire_nowait() or pytest.fail("nothing is held"),
        pytest.raises(WouldDeadlock, match=r"with owner=None"),
    ):
        await capacity.acquire()
    with capacity.acquire_nowait(owner=None) or pytest.fail("nothing is held"):
        waiting = asyncio.ensure_future(capacity.acquire(owner=None))
        await yield_to_loop(2)
        assert not waiting.done()
    (await waiting).release()


async def test_cancelled_reacquire_releases_the_lease() -> None:
    capacity = CapacitySource(1)
    away, go_back = asyncio.Event(), asyncio.Event()

    async def use() -> None:
        with await capacity.acquire() as lease:
            try:
                async with lease.suspended():
                    away.set()
                    await go_back.wait()
            finally:
                assert lease.is_released

    task = asyncio.ensure_future(use())
    await away.wait()
    async with capacity.acquire():
        go_back.set()
        await until(lambda: capacity.waiting == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (capacity.held, capacity.waiting) == (1, 0)
    assert capacity.held == 0


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


async def test_task_waiting_for_itself_raises() -> None:
    root = CapacitySource(2, name="root")
    leaf = CapacitySource(2, root, name="leaf")
    lease = await leaf.acquire(2)
    with pytest.raises(
        WouldDeadlock, match=r"a lease of 'leaf', with 2 of the 2 slots of 'leaf',.* 1 more"
    ):
        await leaf.acquire()
    # A request of another task only waits.
    other = asyncio.ensure_future(root.acquire())
    await until(lambda: root.waiting == 1)
    lease.release()
    (await other).release()
    # So does a request by a task whose leases have no owner.
    leases = [await leaf.acquire(owner=None) for _ in range(2)]
    waiting = asyncio.ensure_future(leaf.acquire(owner=None))
    await until(lambda: leaf.waiting == 1)
    leases[0].release()
    (await waiting).release()
    leases[1].release()


async def test_ended_task_owns_no_lease() -> None:
    capacity = CapacitySource(1)
    leases = [await asyncio.ensure_future(capacity.acquire())]

    async def swap() -> None:
        waiting = asyncio.ensure_future(capacity.acquire())
        await until(lambda: capacity.waiting == 1)
        leases.pop().release()
        leases.append(await waiting)

    # Each in a task of its own, which probably has the address of the one before it.
    for _ in range(100):
        await asyncio.ensure_future(swap())
    leases.pop().release()


async def test_task_may_wait_for_a_lease_of_another_task() -> None:
    capacity = CapacitySource(2)
    first = await capacity.acquire()

    async def other() -> None:
        async with capacity.acquire(2):
            pass

    waiting = asyncio.ensure_future(other())
    await until(lambda: capacity.waiting == 1)
    first.release()
    await waiting


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


# Bad input.

NUMBERS = [-1, -0.5, math.nan, math.inf]


@pytest.mark.parametrize("value", NUMBERS)
@pytest.mark.parametrize(
    ("parameter", "use"),
    [
        ("limit", CapacitySource),
        ("limit", lambda value: CapacitySource({"slots": value})),
        ("limit", lambda value: CapacitySource(1).resize(value)),
        ("amount", Rate),
        ("per", lambda value: Rate(1, value)),
        ("burst", lambda value: Rate(1, burst=value)),
        ("amount", Budget),
        ("weight", lambda value: CapacitySource(1, weight=value)),
        ("cost", lambda value: CapacitySource(1).acquire(value)),
        ("cost", lambda value: CapacitySource(1).acquire_nowait(value)),
        ("cost", lambda value: CapacitySource(1).acquire_sync(value)),
        ("cost", lambda value: CapacitySource(1).acquire({"slots": value})),
        # None is valid there: the node decides.
        ("seconds", lambda value: CapacitySource(1).cool_down(cast("Any", value or [value]))),
    ],
)
def test_law_14_numbers_must_be_finite_and_not_negative(
    parameter: str, use: Callable[[float], Any], value: float
) -> None:
    with pytest.raises(ValueError, match=rf"{parameter}.* must .*got {value}"):
        use(value)


@pytest.mark.parametrize("value", [10**400, 10**5000, 1e13], ids=["large", "huge", "float"])
@pytest.mark.parametrize(
    ("parameter", "use"),
    [
        ("limit", CapacitySource),
        (r"limit\['slots'\]", lambda value: CapacitySource({"slots": value})),
        ("limit", lambda value: CapacitySource(1).resize(value)),
        ("amount", Rate),
        ("burst", lambda value: Rate(1, burst=value)),
        ("amount", Budget),
        ("cost", lambda value: CapacitySource(1).acquire(value)),
    ],
)
def test_law_14_numbers_must_not_be_too_large(
    parameter: str, use: Callable[[float], Any], value: float
) -> None:
    with pytest.raises(
        ValueError, match=rf"{parameter} must be at most 10\*\*12, got (1000|a huge|<unprintable>)"
    ) as refused:
        use(value)
    assert len(str(refused.value)) < 150
    with pytest.raises(
        ValueError, match=r"per must be from a microsecond to a year, got (1000|a h)"
    ):
        Rate(1, per=value)


@pytest.mark.parametrize("value", [1e-9, 9.9e-7])
@pytest.mark.parametrize(
    ("parameter", "use"),
    [
        ("limit", CapacitySource),
        ("limit", lambda value: CapacitySource(1).resize(value)),
        ("amount", Rate),
        ("burst", lambda value: Rate(1, burst=value)),
        ("amount", Budget),
    ],
)
def test_law_14_amounts_must_not_be_too_small(
    parameter: str, use: Callable[[float], Any], value: float
) -> None:
    with pytest.raises(ValueError, match=rf"{parameter} must be at least a millionth.*got {value}"):
        use(value)


@pytest.mark.parametrize("value", ["3", None, True, [1], object()])
@pytest.mark.parametrize(
    ("parameter", "use"),
    [
        ("limit", CapacitySource),
        ("limit", lambda value: CapacitySource({"slots": value})),
        ("limit", lambda value: CapacitySource(1).resize(value)),
        ("amount", Rate),
        ("per", lambda value: Rate(1, value)),
        ("amount", Budget),
        ("weight", lambda value: CapacitySource(1, weight=value)),
        ("cost", lambda value: CapacitySource(1).acquire(value)),
        ("cost", lambda value: CapacitySource(1).acquire_nowait({"slots": value})),
        ("priority", lambda value: CapacitySource(1).acquire(priority=value)),
        # None is valid there: the node decides.
        ("seconds", lambda value: CapacitySource(1).cool_down(cast("Any", value or [value]))),
    ],
)
def test_law_14_numbers_must_be_numbers(
    parameter: str, use: Callable[[Any], Any], value: Any
) -> None:
    with pytest.raises(TypeError, match=rf"{parameter}.* must be .*got "):
        use(value)


@pytest.mark.parametrize("cost", [0, 0.0, {"slots": 0}, {}, {"slots": 0, "memory": 0}])
def test_cost_must_be_positive(cost: Any) -> None:
    capacity = CapacitySource({"slots": 1, "memory": 1})
    with pytest.raises(ValueError, match="cost must have a positive amount, got "):
        _ = capacity.acquire(cost)
    with pytest.raises(ValueError, match="cost must have a positive amount, got "):
        capacity.acquire_nowait(cost)


def test_unknown_resource_error_lists_known_ones() -> None:
    root = CapacitySource({"slots": 2, "memory": 1})
    leaf = CapacitySource({"tokens": Rate(1)}, root, name="leaf")
    with pytest.raises(
        ValueError,
        match="'gpu' is limited neither by 'leaf' nor above; known there: memory, slots, tokens",
    ):
        _ = leaf.acquire({"slots": 1, "gpu": 1})
    # Known to the tree, but not on this path.
    with pytest.raises(
        ValueError, match=r"'tokens' is limited neither .*; known there: memory, slots"
    ):
        _ = root.acquire({"tokens": 1})
    with pytest.raises(TypeError, match=r"resources of cost must be strings, got 3 \(int\)"):
        _ = root.acquire({wrong(3): 1})


def test_cost_above_the_limit_raises_and_names_node() -> None:
    leaf = CapacitySource(9, CapacitySource(3, name="machine"))
    for use in (leaf.acquire, leaf.acquire_nowait, leaf.acquire_sync):
        with pytest.raises(
            ValueError, match=r"cost of 4 slots can never be granted.*'machine'.* 3"
        ):
            use(4)
    with pytest.raises(ValueError, match="cost of 11 slots"):
        _ = CapacitySource(Rate(60, burst=10)).acquire(11)


def test_parent_must_be_a_capacity_and_no_descendant() -> None:
    with pytest.raises(TypeError, match=r"parent must be a CapacitySource or None, got 3 \(int\)"):
        CapacitySource(1, parent=wrong(3))
    root = CapacitySource(1)
    leaf = CapacitySource(1, root)
    for parent in (leaf, root):
        with pytest.raises(ValueError, match="parent must not be the capacity itself or below it"):
            root.__init__(1, parent)  # type: ignore[misc]
    with pytest.raises(RuntimeError, match="initialised already"):
        root.__init__(1)  # type: ignore[misc]


def test_other_bad_arguments_are_refused() -> None:
    root = CapacitySource(1)
    with pytest.raises(ValueError, match=r"clock .*root"):
        CapacitySource(1, root, clock=time.monotonic)
    with pytest.raises(TypeError, match=r"clock must be callable.*got 3 \(int\)"):
        CapacitySource(1, clock=wrong(3))
    with pytest.raises(TypeError, match=r"name must be a string or None, got 3 \(int\)"):
        CapacitySource(1, name=wrong(3))
    with pytest.raises(ValueError, match="weight must be"):
        CapacitySource(1, weight=0)
    with pytest.raises(ValueError, match="limit must limit at least one resource"):
        CapacitySource({})
    with pytest.raises(TypeError, match="resources of limit must be strings"):
        CapacitySource({wrong(3): 1})
    with pytest.raises(ValueError, match="does not limit 'memory'; it limits 'slots'"):
        root.resize({"memory": 1})
    with pytest.raises(ValueError, match="cannot become"):
        root.resize(Rate(1))
    with pytest.raises(ValueError, match="'slots' must be a Rate or a Budget"):
        QuotaCapacitySource({"slots": wrong(1)})
    with pytest.raises(ValueError, match="'memory'"):
        root.cool_down(1, resource="memory")
    lease = root.acquire_sync()
    with pytest.raises(ValueError, match=r"'memory'.*'slots'"):
        lease.settle(memory=1)
    with pytest.raises(ValueError, match="slots must not be negative"):
        lease.settle(slots=-1)
    lease.release()


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
