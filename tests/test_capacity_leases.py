"""Leases: whose they are, and that they are made of dead ones without a trace of these."""

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


async def test_whose_a_lease_is_is_known_whoever_asked_in_between() -> None:
    capacity = CapacitySource(2)
    turn = asyncio.Event()
    taken: list[Lease | None] = []

    async def holds_one() -> None:
        # Asked by a task, then by another, by a callback, which is no task, and by the first one again.
        taken.append(await capacity.acquire())
        turn.set()
        await until(lambda: len(taken) == 3)
        assert taken[1] is not None
        taken[1].release()
        # It holds one of two: two more are for others to give back.
        with pytest.raises(WouldDeadlock):
            await capacity.acquire(2)
        lease = await capacity.acquire(timeout=60)
        lease.release()

    async def holds_the_other() -> None:
        await turn.wait()
        taken.append(capacity.acquire_nowait())
        with pytest.raises(WouldDeadlock):
            await capacity.acquire(2)
        asyncio.get_running_loop().call_soon(lambda: taken.append(capacity.acquire_nowait()))

    await asyncio.gather(holds_one(), holds_the_other())
    assert taken[0] is not None
    taken[0].release()
    assert taken[2] is None
    assert capacity.held == 0


async def test_a_lease_is_as_new_though_its_object_was_another_before() -> None:
    class Clock:
        def __call__(self) -> float:
            return 0.0

    clock = Clock()
    known = weakref.ref(clock)
    one = CapacitySource({"slots": 2, "calls": 3}, clock=clock)
    other = CapacitySource(5, name="other")
    lease = await one.acquire({"slots": 1, "calls": 2})
    where = id(lease)
    lease.release()
    del lease
    again = await other.acquire(4)
    assert id(again) == where, "the object is used again, or this shows nothing"
    assert (again.is_released, again.cost) == (False, {"slots": 4})
    assert (one.held["slots"], other.held) == (0, 4)
    # A dead one keeps nothing of its tree.
    held = await one.acquire()
    held.release()
    del one, clock, held
    gc.collect()
    assert known() is None
    again.release()
    again.release()
    assert other.held == 0
    # More than are kept, which go the long way.
    tried = (other.acquire_nowait(0.01) for _ in range(200))
    leases = [lease for lease in tried if lease is not None]
    assert len(leases) == 200
    while leases:
        leases.pop().release()
    with await other.acquire(5) as last:
        assert last.cost == {"slots": 5}


def test_the_collector_comes_upon_no_dead_lease() -> None:
    capacity = CapacitySource(1)
    for _ in range(3):
        lease = capacity.acquire_nowait()
        assert lease is not None
        lease.release()
        del lease
        # Whoever asks for all objects refers to each for a moment.
        assert not any(isinstance(thing, Lease) for thing in gc.get_objects())


async def test_who_would_wait_for_itself_to_take_a_lease_again_is_told() -> None:
    capacity = CapacitySource(1, name="all")
    lease = await capacity.acquire()
    others: list[Lease] = []
    with pytest.raises(WouldDeadlock, match=r"a lease of 'all', with 1 of the 1 slots of 'all'"):
        async with lease.suspended():
            others.append(await capacity.acquire())
    # It could not be taken again, so it is released.
    assert lease.is_released
    assert (capacity.held, capacity.waiting) == (1, 0)

    async def take_again() -> None:
        async with theirs.suspended():
            ready.set()
            await away.wait()

    # Whoever takes it again in another task waits for us, who may well release it.
    others.pop().release()
    theirs = await capacity.acquire()
    ready, away = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(take_again())
    await ready.wait()
    ours = await capacity.acquire()
    away.set()
    await until(lambda: capacity.waiting == 1)
    ours.release()
    await task
    theirs.release()


def test_a_thread_that_would_wait_for_itself_to_take_a_lease_again_is_told() -> None:
    capacity = CapacitySource(1)
    lease = capacity.acquire_sync()
    others: list[Lease] = []
    with pytest.raises(WouldDeadlock), lease.suspended():
        others.append(capacity.acquire_sync())
    assert lease.is_released
    others[0].release()
    assert (capacity.held, capacity.waiting) == (0, 0)


async def test_what_a_task_may_not_need_of_a_budget_it_does_not_wait_for() -> None:
    capacity = CapacitySource({"dollars": Budget(1)}, name="run")
    async with capacity.acquire({"dollars": 0.25}) as lease:
        lease.settle(dollars=0.125)
    lease = await capacity.acquire({"dollars": 0.5})
    said = r"a lease of 'run', with 0\.5 dollars of the 0\.875 that the budget of 'run' has left.* 0\.5 more"
    with pytest.raises(WouldDeadlock, match=said):
        await capacity.acquire({"dollars": 0.5})
    # Also while it is given back for a while, which of a budget gives nothing back.
    async with lease.suspended():
        with pytest.raises(WouldDeadlock, match=r"lease\.settle"):
            await capacity.acquire({"dollars": 0.5})
    # What somebody else holds may come back.
    theirs = await capacity.acquire({"dollars": 0.25}, owner=None)
    waiting = asyncio.ensure_future(capacity.acquire({"dollars": 0.25}))
    await until(lambda: capacity.waiting == 1)
    theirs.settle(dollars=0)
    for one in (await waiting, theirs, lease):
        one.release()


async def test_the_leases_by_which_a_task_would_wait_for_itself_are_named() -> None:
    root = CapacitySource(2, name="root")
    one, other = CapacitySource(9, root, name="one"), CapacitySource(9, root, name="other")
    leases = [await one.acquire(), await other.acquire()]
    said = r"2 leases, the latest of 'other', with 2 of the 2 slots of 'root', .* to release them: 1 more"
    with pytest.raises(WouldDeadlock, match=said):
        await one.acquire()
    leases.pop().release()
    said = r"a lease of 'one', with 1 of the 2 slots of 'root', .* to release it: 2 more"
    with pytest.raises(WouldDeadlock, match=said):
        await other.acquire(2)
    leases.pop().release()


async def test_what_a_block_raised_is_the_context_of_what_its_end_raises() -> None:
    capacity = CapacitySource(1)
    lease = await capacity.acquire()
    with pytest.raises(ClosedError) as caught:
        async with lease.suspended():
            capacity.close()
            raise KeyError("body")
    assert repr(caught.value.__context__) == "KeyError('body')"
    assert lease.is_released


def test_what_a_block_raised_is_the_context_of_what_its_end_raises_in_a_thread() -> None:
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
def test_an_error_says_while_what_was_handled_it_was_raised(refused: Callable[[], None]) -> None:
    with pytest.raises(HeadraceError) as caught:
        try:
            raise KeyError("first")
        except KeyError:
            refused()
    assert repr(caught.value.__context__) == "KeyError('first')"
    # And nothing of what is over.
    with pytest.raises(HeadraceError) as caught:
        refused()
    assert caught.value.__context__ is None


def test_a_lease_that_is_released_while_its_thread_waits_to_take_it_again_ends_the_wait() -> None:
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
