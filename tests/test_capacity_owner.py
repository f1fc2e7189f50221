"""Owners of leases: suspended leases, and tasks that wait for themselves."""

from __future__ import annotations

import asyncio

import pytest

from headrace import CapacitySource, WouldDeadlock
from tests.support import until, wrong, yield_to_loop


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
