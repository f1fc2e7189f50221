"""A task of a pool that requests the capacity which the pool holds for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headrace import (
    CapacitySource,
    HierarchicalTaskPoolRunner,
    SourceIterObj,
    Task,
    current_lease,
)
from tests.pool_support import envelopes, summarize

pytestmark = pytest.mark.usefixtures("task_path")


async def request(capacity: CapacitySource, cost: Any = 1, pause: float | None = None) -> str:
    if pause is not None:
        await asyncio.sleep(pause)
    async with capacity.acquire(cost):
        return "granted"


async def outcomes(capacity: CapacitySource, *tasks: Any) -> list[Any]:
    """Run the tasks and return the result, or the class of the error, of each, in order."""
    return summarize(await envelopes(HierarchicalTaskPoolRunner(tasks, capacity, ordered=True)))


@pytest.mark.parametrize("pause", [None, 0], ids=["first-step", "later-step"])
@pytest.mark.parametrize("cost", [None, 2, 1.5, {"slots": 2}], ids=str)
@pytest.mark.parametrize("options", [{}, {"priority": 1}, {"timeout": 3600}], ids=str)
async def test_task_that_waits_for_its_own_slots_fails(
    cost: Any, pause: float | None, options: dict[str, Any]
) -> None:
    capacity = CapacitySource(1 if cost is None else 2)
    if cost is not None:
        options = {**options, "cost": cost}
    task = Task(request, capacity, 1, pause, **options)
    runner = HierarchicalTaskPoolRunner([task, task], capacity)
    found = await envelopes(runner)
    assert summarize(found) == ["WouldDeadlock"] * 2
    assert "would wait for itself to release it" in str(found[0].error)
    assert capacity.held == 0


async def test_message_names_the_node_and_the_amounts() -> None:
    root = CapacitySource(3, name="root")
    leaf = CapacitySource(3, root, name="leaf")
    task = Task(request, root, 2, cost=2)
    (found,) = await envelopes(HierarchicalTaskPoolRunner([task], leaf))
    assert str(found.error).startswith(
        "this task or thread holds a lease of 'leaf', with 2 of the 3 slots of 'root',"
    )


async def test_other_branch_of_the_tree_counts() -> None:
    root = CapacitySource(1)
    leaf, sibling = (CapacitySource(1, root) for _ in range(2))
    assert await outcomes(leaf, Task(request, sibling)) == ["WouldDeadlock"]


async def test_task_with_more_than_its_part_fails_beside_others() -> None:
    capacity = CapacitySource(5)

    async def two() -> str:
        async with capacity.acquire(2):
            return await request(capacity, 2, 0)

    others = [Task(asyncio.sleep, 1, "slept") for _ in range(3)]
    # It holds one slot by the pool and two itself: five are not enough for three more.
    large = Task(two, cost=2)
    found = await outcomes(capacity, large, *others)
    assert found == ["WouldDeadlock", "slept", "slept", "slept"]


@pytest.mark.virtual
async def test_wait_for_the_slot_of_another_task_is_no_deadlock() -> None:
    capacity = CapacitySource(2, clock=asyncio.get_running_loop().time)
    found = await outcomes(capacity, Task(request, capacity, 1, 0), Task(asyncio.sleep, 5, "slept"))
    assert found == ["granted", "slept"]


@pytest.mark.virtual
async def test_many_running_tasks_wait_for_one_another_in_turn() -> None:
    capacity = CapacitySource(8, clock=asyncio.get_running_loop().time)
    spare = CapacitySource(1, CapacitySource(1, clock=asyncio.get_running_loop().time))
    tasks = [Task(request, spare, 1, 0) for _ in range(20)]
    assert await outcomes(capacity, *tasks) == ["granted"] * 20


@pytest.mark.virtual
async def test_owner_none_is_not_checked() -> None:
    capacity = CapacitySource(1, clock=asyncio.get_running_loop().time)

    async def anonymous() -> None:
        await capacity.acquire(owner=None, timeout=5)

    assert await outcomes(capacity, anonymous) == ["TimeoutError"]


async def test_suspended_lease_makes_space() -> None:
    capacity = CapacitySource(1)

    async def suspend() -> str:
        async with current_lease().suspended():
            return await request(capacity)

    assert await outcomes(capacity, Task(suspend, cost={"slots": 1})) == ["granted"]


async def test_child_that_outlives_its_task_is_served() -> None:
    capacity = CapacitySource(1)
    children: list[asyncio.Task[str]] = []

    async def spawn() -> str:
        children.append(asyncio.create_task(request(capacity)))
        await asyncio.sleep(0)
        return "spawned"

    assert await outcomes(capacity, spawn) == ["spawned"]
    assert await asyncio.wait_for(children[0], 5) == "granted"


async def test_nested_run_with_enough_slots_is_served() -> None:
    capacity = CapacitySource(2)

    async def nested() -> list[str]:
        inner = SourceIterObj([capacity] * 3).map_pool(lambda _: "inner", capacity)
        return await inner.collect()

    assert await outcomes(capacity, nested) == [["inner"] * 3]


async def test_sequential_tasks_do_not_share_an_owner() -> None:
    capacity = CapacitySource(2)
    tasks = [Task(request, capacity, 1, 0) for _ in range(20)]
    # Each holds one slot and requests the other, in turn.
    assert await outcomes(CapacitySource(1, capacity), *tasks) == ["granted"] * 20
