"""`floor=`, the guaranteed minimum of a child: its setting, refusals and order of grants.

The shares and the bound of the wait are tested in the core, `rust/core/tests/capacity_floors.rs`.
"""

from __future__ import annotations

import asyncio
import copy
from dataclasses import asdict
from typing import Any

import pytest

from headrace import CapacitySource, Rate
from headrace.capacity import QuotaCapacitySource


async def test_next_release_goes_to_the_child_below_its_floor() -> None:
    root = CapacitySource(4)
    first = CapacitySource(4, root, floor=2)
    second = CapacitySource(4, root, weight=100)
    lent = [await second.acquire(owner=None) for _ in range(4)]
    order: list[str] = []

    async def hold(name: str, node: CapacitySource) -> None:
        async with node.acquire():
            order.append(name)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for name, node in [("second", second)] * 3 + [("first", first)] * 2:
            group.create_task(hold(name, node))
        await asyncio.sleep(0)
        assert root.waiting == 5
        for lease in lent:
            lease.release()
    assert order[:2] == ["first", "first"]
    assert root.held == 0


async def test_idle_floor_is_lent() -> None:
    root = CapacitySource(2)
    CapacitySource(2, root, floor=2)
    other = CapacitySource(2, root)
    with await other.acquire(2):
        assert root.available == 0


async def test_floor_is_live() -> None:
    root = CapacitySource(2, name="root")
    first, second = (CapacitySource(2, root, weight=weight) for weight in (1, 1000))
    assert first.floor == 0
    lease = await second.acquire(2, owner=None)
    waiting = [asyncio.ensure_future(node.acquire(owner=None)) for node in (second, second, first)]
    await asyncio.sleep(0)
    first.floor = 1.5
    assert first.floor == 1.5
    first.floor = 1
    assert [child.floor for child in root.snapshot().children] == [1, 0]
    assert asdict(root.snapshot())["children"][0]["floor"] == 1
    lease.release()
    (await waiting[2]).release()
    for other in waiting[:2]:
        (await other).release()


@pytest.mark.parametrize(
    ("floor", "error", "message"),
    [
        (-1, ValueError, "floor must not be negative, got -1"),
        (float("nan"), ValueError, "floor must be finite, got nan"),
        ("2", TypeError, "floor must be a number, got '2'"),
        (True, TypeError, "floor must be a number, got True"),
        (None, TypeError, "floor must be a number, got None"),
        (3, ValueError, "floor is 3, the limit is 2"),
    ],
)
def test_wrong_floor_is_refused(floor: Any, error: type[Exception], message: str) -> None:
    root = CapacitySource(4)
    with pytest.raises(error, match=message):
        CapacitySource(2, root, floor=floor)
    child = CapacitySource(2, root, floor=1)
    with pytest.raises(error, match=message):
        child.floor = floor
    assert child.floor == 1
    assert root.children == (child,)


def test_floor_of_a_root_is_refused() -> None:
    with pytest.raises(ValueError, match="floor is for a node with a parent"):
        CapacitySource(2, floor=1)
    root = CapacitySource(2)
    root.floor = 0


def test_sum_of_floors_is_checked_with_names_and_values() -> None:
    root = CapacitySource(4, name="root")
    child = CapacitySource(4, root, floor=3, name="child")
    text = (
        "the floors of the children of 'root' must add up to at most the limit of slots of 'root'"
    )
    with pytest.raises(ValueError, match=f"{text}: their sum is 5, the limit is 4; lower a floor"):
        CapacitySource(4, root, floor=2)
    with pytest.raises(ValueError, match=f"{text}: their sum is 3, the limit is 2"):
        root.resize(2)
    assert root.limit == 4
    with pytest.raises(ValueError, match="limit of slots of 'child': floor is 3, the limit is 2"):
        child.resize(2)
    root.resize(0)
    root.resize(3)
    # A refused child keeps nothing of the limit.
    child.floor = 1
    other = CapacitySource(2, root, floor=2)
    del other
    CapacitySource(2, root, floor=2)


def test_floor_of_a_quota_is_refused() -> None:
    root = QuotaCapacitySource(Rate(10))
    with pytest.raises(ValueError, match="floor is a number of slots"):
        CapacitySource({"memory": 2}, root, floor=1)


def test_closed_node_returns_its_floor() -> None:
    root = CapacitySource(2)
    CapacitySource(2, root, floor=2).close()
    assert CapacitySource(2, root, floor=2).floor == 2


def test_capacity_with_a_floor_is_not_copied() -> None:
    child = CapacitySource(2, CapacitySource(2), floor=1)
    with pytest.raises(TypeError, match="one for all that share it"):
        copy.copy(child)
