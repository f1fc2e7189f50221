"""`HierarchicalBalancer`: limits that follow the load."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from headrace import CapacitySource, HierarchicalBalancer, Rate
from tests.support import until, wrong

NUMBERS: dict[str, Any] = {"idle_after": 60, "busy_after": 10, "idle_below": 0.5, "busy_above": 0.9}


def children(*limits: float) -> list[CapacitySource]:
    root = CapacitySource(100)
    return [CapacitySource(limit, root, name=str(number)) for number, limit in enumerate(limits)]


async def acquire_all(capacity: CapacitySource) -> list[Any]:
    return [await capacity.acquire(owner=None) for _ in range(capacity.limit)]


async def test_slots_move_from_idle_to_busy_children() -> None:
    busy, idle, steady = children(4, 4, 4)
    leases = await acquire_all(busy)
    leases += [await steady.acquire(owner=None) for _ in range(3)]
    balancer = HierarchicalBalancer(dict.fromkeys((busy, idle, steady), (1, 6)), **NUMBERS)
    for now in (0, 30, 59):
        assert balancer.balance(now) == {}
    assert balancer.balance(60) == {idle: 3, busy: 5}
    # Both timers start again after a move.
    assert balancer.balance(61) == {}
    leases.append(await busy.acquire(owner=None))
    assert balancer.balance(62) == {}
    assert balancer.balance(121) == {idle: 2, busy: 6}
    leases.append(await busy.acquire(owner=None))
    # The limits stay within their bounds.
    assert balancer.balance(1000) == balancer.balance(2000) == {}
    assert [one.limit for one in (busy, idle, steady)] == [6, 2, 4]
    for lease in leases:
        lease.release()


async def test_short_changes_of_load_move_nothing() -> None:
    busy, idle = children(2, 2)
    leases = await acquire_all(busy)
    balancer = HierarchicalBalancer({busy: (1, 3), idle: (1, 3)}, **NUMBERS)
    for now in range(0, 600, 5):
        # In use at every second check.
        if now % 10:
            lease = await idle.acquire(2)
            assert balancer.balance(now) == {}
            lease.release()
        else:
            assert balancer.balance(now) == {}
    for lease in leases:
        lease.release()


async def test_child_with_a_waiter_is_not_idle() -> None:
    root = CapacitySource(2)
    busy, other = CapacitySource(2, root), CapacitySource(2, root)
    leases = await acquire_all(busy)
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
async def test_async_with_balances_at_each_interval() -> None:
    busy, idle = children(2, 2)
    leases = await acquire_all(busy)
    balancer = HierarchicalBalancer(
        {busy: (1, 4), idle: (0.5, 4)}, interval=2, busy_after=4, idle_after=10, step=0.5
    )
    async with balancer:
        with pytest.raises(RuntimeError, match="running already"):
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
async def test_closed_child_does_not_stop_the_balancer() -> None:
    busy, other, idle = children(2, 2, 2)
    leases = await acquire_all(busy)
    bounds = dict.fromkeys((busy, other, idle), (0, 6))
    balancer = HierarchicalBalancer(bounds, idle_after=20, busy_after=5)
    async with balancer:
        await asyncio.sleep(3)
        assert repr(balancer) == "<HierarchicalBalancer: moves 3 limits, running>"
        other.close()
        await asyncio.sleep(100)
        assert repr(balancer) == "<HierarchicalBalancer: moves 2 limits, running>"
        # The closed child keeps its limit.
        assert [one.limit for one in (busy, other, idle)] == [3, 2, 1]
        for one in (busy, idle):
            one.close()
        await asyncio.sleep(2)
        assert repr(balancer) == "<HierarchicalBalancer: moves 0 limits, running>"
    for lease in leases:
        lease.release()


class Closing(CapacitySource):
    """A capacity that is closed by another party while it is resized."""

    def resize(self, limit: Any) -> None:
        self.close()
        super().resize(limit)


@pytest.mark.parametrize("closing", ["busy", "idle"])
async def test_child_closed_during_a_move_moves_nothing(closing: str) -> None:
    root = CapacitySource(9)
    busy = (Closing if closing == "busy" else CapacitySource)(2, root)
    idle = (Closing if closing == "idle" else CapacitySource)(2, root)
    leases = await acquire_all(busy)
    balancer = HierarchicalBalancer(dict.fromkeys((busy, idle), (0, 4)), idle_after=0, busy_after=0)
    assert balancer.balance(0) == {}
    # The limit taken from the other child is returned to it.
    assert (busy.limit, idle.limit) == (2, 2)
    for lease in leases:
        lease.release()


@pytest.mark.virtual
async def test_repr_shows_a_failed_balancer() -> None:
    class Failing(CapacitySource):
        def snapshot(self) -> Any:
            raise OSError("no snapshot")

    balancer = HierarchicalBalancer({Failing(1): (0, 2)})
    with pytest.raises(OSError, match="no snapshot"):
        async with balancer:
            await asyncio.sleep(1)
            assert repr(balancer) == "<HierarchicalBalancer: moves 1 limit, failed>"
    assert repr(balancer) == "<HierarchicalBalancer: moves 1 limit, idle>"


async def test_moved_amounts_do_not_drift() -> None:
    first, second = children(1.0, 1.0)
    balancer = HierarchicalBalancer(
        {first: (0.1, 1.9), second: (0.1, 1.9)}, step=0.1, idle_after=0, busy_after=0
    )
    seen: set[float] = set()
    for now in range(60):
        busy = (first, second)[now // 13 % 2]
        async with busy.acquire(busy.limit):
            balancer.balance(now)
        seen.update((first.limit, second.limit))
        assert first.limit + second.limit == 2
        snapshots = [one.snapshot().limit["slots"] for one in (first, second)]
        assert snapshots == [first.limit, second.limit]
    assert seen == {number / 10 for number in range(1, 20)}


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
        ({"step": 1e-9}, ValueError, "step must be at least a millionth, .*, got 1e-09"),
        ({"step": 10**400}, ValueError, r"step must be at most 10\*\*12, got 1000.*… \(int\)"),
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
