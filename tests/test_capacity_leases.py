"""Leases: whose they are, and that they are made of dead ones without a trace of these."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from headrace import CapacitySource, Lease, WouldDeadlock
from tests.support import until


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
        taken.append(capacity.try_acquire())
        with pytest.raises(WouldDeadlock):
            await capacity.acquire(2)
        asyncio.get_running_loop().call_soon(lambda: taken.append(capacity.try_acquire()))

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
    tried = (other.try_acquire(0.01) for _ in range(200))
    leases = [lease for lease in tried if lease is not None]
    assert len(leases) == 200
    while leases:
        leases.pop().release()
    with await other.acquire(5) as last:
        assert last.cost == {"slots": 5}


def test_the_collector_comes_upon_no_dead_lease() -> None:
    capacity = CapacitySource(1)
    for _ in range(3):
        lease = capacity.try_acquire()
        assert lease is not None
        lease.release()
        del lease
        # Whoever asks for all objects refers to each for a moment.
        assert not any(isinstance(thing, Lease) for thing in gc.get_objects())
