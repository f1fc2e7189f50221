"""Leases: their owners, and reuse of lease objects without any trace of the previous lease."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from headrace import (
    Budget,
    CapacitySource,
    ClosedError,
    HeadraceError,
    Lease,
    PushPullBufferObj,
    WouldDeadlock,
)
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import Callable


async def test_owner_is_known_after_interleaved_acquires() -> None:
    capacity = CapacitySource(2)
    first_holds = asyncio.Event()
    taken: list[Lease | None] = []

    async def holds_one() -> None:
        # Acquired by one task, by another, by a callback outside of any task, and by the first task again.
        taken.append(await capacity.acquire())
        first_holds.set()
        await until(lambda: len(taken) == 3)
        assert taken[1] is not None
        taken[1].release()
        # This task holds one of two slots: only its own release could free two.
        with pytest.raises(WouldDeadlock):
            await capacity.acquire(2)
        lease = await capacity.acquire(timeout=60)
        lease.release()

    async def holds_the_other() -> None:
        await first_holds.wait()
        taken.append(capacity.acquire_nowait())
        with pytest.raises(WouldDeadlock):
            await capacity.acquire(2)
        asyncio.get_running_loop().call_soon(lambda: taken.append(capacity.acquire_nowait()))

    await asyncio.gather(holds_one(), holds_the_other())
    assert taken[0] is not None
    taken[0].release()
    assert taken[2] is None
    assert capacity.held == 0


async def test_reused_lease_object_is_as_new() -> None:
    class Clock:
        def __call__(self) -> float:
            return 0.0

    clock = Clock()
    clock_ref = weakref.ref(clock)
    first_lease = CapacitySource({"slots": 2, "calls": 3}, clock=clock)
    other = CapacitySource(5, name="other")
    lease = await first_lease.acquire({"slots": 1, "calls": 2})
    address = id(lease)
    lease.release()
    del lease
    reused = await other.acquire(4)
    assert id(reused) == address, "the object must be reused"
    assert (reused.is_released, reused.cost) == (False, {"slots": 4})
    assert (first_lease.held["slots"], other.held) == (0, 4)
    # A dead lease object keeps no reference to its tree.
    held = await first_lease.acquire()
    held.release()
    del first_lease, clock, held
    gc.collect()
    assert clock_ref() is None
    reused.release()
    reused.release()
    assert other.held == 0
    # More than the free list keeps.
    attempts = (other.acquire_nowait(0.01) for _ in range(200))
    leases = [lease for lease in attempts if lease is not None]
    assert len(leases) == 200
    while leases:
        leases.pop().release()
    with await other.acquire(5) as last:
        assert last.cost == {"slots": 5}


def test_gc_tracks_no_dead_lease() -> None:
    capacity = CapacitySource(1)
    for _ in range(3):
        lease = capacity.acquire_nowait()
        assert lease is not None
        lease.release()
        del lease
        # gc.get_objects() references each tracked object for a moment.
        assert not any(issubclass(type(thing), Lease) for thing in gc.get_objects())


async def test_task_blocking_its_own_reacquire_raises() -> None:
    capacity = CapacitySource(1, name="all")
    lease = await capacity.acquire()
    others: list[Lease] = []
    with pytest.raises(WouldDeadlock, match=r"a lease of 'all', with 1 of the 1 slots of 'all'"):
        async with lease.suspended():
            others.append(await capacity.acquire())
    # The lease could not be reacquired, so it is released.
    assert lease.is_released
    assert (capacity.held, capacity.waiting) == (1, 0)

    async def take_again() -> None:
        async with their_lease.suspended():
            ready.set()
            await may_return.wait()

    # A reacquire in another task waits for this task, which may well release.
    others.pop().release()
    their_lease = await capacity.acquire()
    ready, may_return = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(take_again())
    await ready.wait()
    own_lease = await capacity.acquire()
    may_return.set()
    await until(lambda: capacity.waiting == 1)
    own_lease.release()
    await task
    their_lease.release()


def test_thread_blocking_its_own_reacquire_raises() -> None:
    capacity = CapacitySource(1)
    lease = capacity.acquire_sync()
    others: list[Lease] = []
    with pytest.raises(WouldDeadlock), lease.suspended():
        others.append(capacity.acquire_sync())
    assert lease.is_released
    others[0].release()
    assert (capacity.held, capacity.waiting) == (0, 0)


async def test_task_waiting_for_its_own_budget_raises() -> None:
    capacity = CapacitySource({"dollars": Budget(1)}, name="run")
    async with capacity.acquire({"dollars": 0.25}) as lease:
        lease.settle(dollars=0.125)
    lease = await capacity.acquire({"dollars": 0.5})
    pattern = r"a lease of 'run', with 0\.5 dollars of the 0\.875 that the budget of 'run' has left.* 0\.5 more"
    with pytest.raises(WouldDeadlock, match=pattern):
        await capacity.acquire({"dollars": 0.5})
    # Also while it is suspended, which returns nothing to a budget.
    async with lease.suspended():
        with pytest.raises(WouldDeadlock, match=r"lease\.settle"):
            await capacity.acquire({"dollars": 0.5})
    # Capacity held by another owner may be returned.
    their_lease = await capacity.acquire({"dollars": 0.25}, owner=None)
    waiting = asyncio.ensure_future(capacity.acquire({"dollars": 0.25}))
    await until(lambda: capacity.waiting == 1)
    their_lease.settle(dollars=0)
    for first_lease in (await waiting, their_lease, lease):
        first_lease.release()


async def test_deadlock_error_names_the_blocking_leases() -> None:
    root = CapacitySource(2, name="root")
    first_lease, other = CapacitySource(9, root, name="one"), CapacitySource(9, root, name="other")
    leases = [await first_lease.acquire(), await other.acquire()]
    pattern = r"2 leases, the latest of 'other', with 2 of the 2 slots of 'root', .* to release them: 1 more"
    with pytest.raises(WouldDeadlock, match=pattern):
        await first_lease.acquire()
    leases.pop().release()
    pattern = r"a lease of 'one', with 1 of the 2 slots of 'root', .* to release it: 2 more"
    with pytest.raises(WouldDeadlock, match=pattern):
        await other.acquire(2)
    leases.pop().release()


async def test_reacquire_error_keeps_the_body_error_as_context() -> None:
    capacity = CapacitySource(1)
    lease = await capacity.acquire()
    with pytest.raises(ClosedError) as caught:
        async with lease.suspended():
            capacity.close()
            raise KeyError("body")
    assert repr(caught.value.__context__) == "KeyError('body')"
    assert lease.is_released


def test_reacquire_error_in_a_thread_keeps_context() -> None:
    capacity = CapacitySource(1)
    lease = capacity.acquire_sync()
    with pytest.raises(ClosedError) as caught, lease.suspended():
        capacity.close()
        raise KeyError("body")
    assert repr(caught.value.__context__) == "KeyError('body')"
    assert lease.is_released


def refused_by_a_capacity() -> None:
    capacity = CapacitySource(1)
    capacity.close()
    capacity.acquire_nowait()


def refused_by_a_buffer() -> None:
    PushPullBufferObj[int](maxsize=1).peek()


def refused_with_its_item() -> None:
    buffer = PushPullBufferObj[int](maxsize=1)
    buffer.sink.next_nowait(1)
    buffer.sink.next_nowait(2)


@pytest.mark.parametrize(
    "refused", [refused_by_a_capacity, refused_by_a_buffer, refused_with_its_item]
)
def test_error_has_the_handled_error_as_context(refused: Callable[[], None]) -> None:
    with pytest.raises(HeadraceError) as caught:
        try:
            raise KeyError("first")
        except KeyError:
            refused()
    assert repr(caught.value.__context__) == "KeyError('first')"
    # A later error has no context.
    with pytest.raises(HeadraceError) as caught:
        refused()
    assert caught.value.__context__ is None


def test_release_ends_a_pending_reacquire() -> None:
    capacity = CapacitySource(1)
    lease = capacity.acquire_sync()
    with ThreadPoolExecutor(1) as pool:

        def release() -> None:
            while not capacity.waiting:
                time.sleep(0.001)
            lease.release()

        with lease.suspended():
            other = capacity.acquire_sync(owner=None)
            released = pool.submit(release)
        released.result()
    assert lease.is_released
    other.release()
    assert (capacity.held, capacity.waiting) == (0, 0)
