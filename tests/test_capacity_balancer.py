"""`HierarchicalBalancer`: limits that follow the load."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from headrace import CapacitySource, ClosedError, HierarchicalBalancer, Rate
from tests.support import until, wrong

NUMBERS: dict[str, Any] = {"idle_after": 60, "busy_after": 10, "idle_below": 0.5, "busy_above": 0.9}


def children(*limits: float) -> list[CapacitySource]:
    root = CapacitySource(100)
    return [CapacitySource(limit, root, name=str(number)) for number, limit in enumerate(limits)]


async def filled(capacity: CapacitySource) -> list[Any]:
    return [await capacity.acquire(detached=True) for _ in range(capacity.limit)]


async def test_slots_move_from_the_idle_to_the_busy() -> None:
    busy, idle, neither = children(4, 4, 4)
    leases = await filled(busy)
    leases += [await neither.acquire(detached=True) for _ in range(3)]
    balancer = HierarchicalBalancer(dict.fromkeys((busy, idle, neither), (1, 6)), **NUMBERS)
    for now in (0, 30, 59):
        assert balancer.balance(now) == {}
    assert balancer.balance(60) == {idle: 3, busy: 5}
    # Both are watched anew.
    assert balancer.balance(61) == {}
    leases.append(await busy.acquire(detached=True))
    assert balancer.balance(62) == {}
    assert balancer.balance(121) == {idle: 2, busy: 6}
    leases.append(await busy.acquire(detached=True))
    # The bounds hold.
    assert balancer.balance(1000) == balancer.balance(2000) == {}
    assert [one.limit for one in (busy, idle, neither)] == [6, 2, 4]
    for lease in leases:
        lease.release()


async def test_what_comes_and_goes_moves_nothing() -> None:
    busy, idle = children(2, 2)
    leases = await filled(busy)
    balancer = HierarchicalBalancer({busy: (1, 3), idle: (1, 3)}, **NUMBERS)
    for now in range(0, 600, 5):
        # In use at every second look.
        if now % 10:
            lease = await idle.acquire(2)
            assert balancer.balance(now) == {}
            lease.release()
        else:
            assert balancer.balance(now) == {}
    for lease in leases:
        lease.release()


async def test_who_has_somebody_waiting_is_not_idle() -> None:
    root = CapacitySource(2)
    busy, other = CapacitySource(2, root), CapacitySource(2, root)
    leases = await filled(busy)
    waiting = asyncio.ensure_future(other.acquire())
    await until(lambda: other.waiting == 1)
    balancer = HierarchicalBalancer({busy: (1, 3), other: (1, 3)}, **NUMBERS)
    for now in range(0, 200, 10):
        assert balancer.balance(now) == {}
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    for lease in leases:
        lease.release()


@pytest.mark.virtual
async def test_it_looks_by_itself_in_a_block() -> None:
    busy, idle = children(2, 2)
    leases = await filled(busy)
    balancer = HierarchicalBalancer(
        {busy: (1, 4), idle: (0.5, 4)}, interval=2, busy_after=4, idle_after=10, step=0.5
    )
    async with balancer:
        with pytest.raises(RuntimeError, match="at work already"):
            async with balancer:
                pass
        await asyncio.sleep(9)
        assert (busy.limit, idle.limit) == (2, 2)
        await asyncio.sleep(2)
        assert (busy.limit, idle.limit) == (2.5, 1.5)
    await asyncio.sleep(100)
    assert (busy.limit, idle.limit) == (2.5, 1.5)
    for lease in leases:
        lease.release()


@pytest.mark.virtual
async def test_a_child_that_is_closed_ends_it() -> None:
    busy, idle = children(1, 1)
    leases = await filled(busy)
    with pytest.raises(ClosedError, match="'0'"):
        async with HierarchicalBalancer({busy: (0, 2), idle: (0, 2)}, idle_after=0, busy_after=5):
            await asyncio.sleep(3)
            busy.close()
            await asyncio.sleep(10)
    # What the other had given up is its own again.
    assert idle.limit == 1
    for lease in leases:
        lease.release()


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"children": 3}, TypeError, r"children must be a mapping .*got 3 \(int\)"),
        ({"children": {}}, ValueError, "children must have at least one"),
        ({"children": {3: (0, 1)}}, TypeError, r"children must be CapacitySources, got 3 \(int\)"),
        ({"bounds": 3}, TypeError, r"bounds of .* must be a tuple \(min, max\), got 3"),
        ({"bounds": (2, 1)}, ValueError, r"bounds of .* must be \(min, max\), got \(2, 1\)"),
        ({"bounds": (-1, 1)}, ValueError, "bounds of .* must not be negative"),
        ({"bounds": (0, 0.5)}, ValueError, "limit of .* must be between its bounds, 0 and 0.5"),
        ({"resource": "memory"}, ValueError, "has no number of 'memory' that could be moved"),
        ({"resource": "tokens"}, ValueError, "has no number of 'tokens' that could be moved"),
        ({"interval": 0}, ValueError, "interval must be above 0, got 0"),
        ({"interval": math.nan}, ValueError, "interval must be finite, got nan"),
        ({"idle_after": -1}, ValueError, "idle_after must not be negative, got -1"),
        ({"busy_after": "1"}, TypeError, r"busy_after must be a number, got '1' \(str\)"),
        ({"idle_below": 1.5}, ValueError, "idle_below must be at most 1, got 1.5"),
        ({"busy_above": 0.5}, ValueError, "busy_above must be above idle_below, which is 0.5"),
        ({"step": 0}, ValueError, "step must be above 0, got 0"),
    ],
)
def test_law_14_bad_input_fails_at_construction(
    bad: dict[str, Any], error: type[Exception], message: str
) -> None:
    child = CapacitySource({"slots": 1, "tokens": Rate(1)})
    given: Any = bad.pop("children", None)
    bounds: Any = bad.pop("bounds", (0, 1))
    with pytest.raises(error, match=message):
        HierarchicalBalancer(wrong({child: bounds} if given is None else given), **bad)
