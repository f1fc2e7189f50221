"""The slots of an executor that several runs share: no run starves, and their weights hold."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import pytest

from headrace import CapacitySource, HierarchicalTaskPoolRunner, Task
from tests.pool_executors import RemoteExecutor
from tests.pool_support import quiet
from tests.process_jobs import same
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

TASKS = 60


def has_submitted(executor: RemoteExecutor, number: int) -> bool:
    return executor.submitted == number


def has_more(ended: list[int], before: int) -> bool:
    return len(ended) > before


WEIGHTS = (1, 2, 3)


async def run_side_by_side(
    executor: RemoteExecutor, capacities: Mapping[int, CapacitySource]
) -> list[int]:
    """Run tasks under each capacity, one call after another. Return the numbers of the capacities in the order of the ends."""
    executor.is_prompt = False
    ended: list[int] = []

    async def tasks(number: int) -> AsyncIterator[Task[int]]:
        for _ in range(TASKS):
            yield Task(same, number, on_complete=ended.append)

    async with asyncio.TaskGroup() as group:
        for number, capacity in capacities.items():
            runner = HierarchicalTaskPoolRunner(tasks(number), capacity, executor=executor)
            group.create_task(runner.run())
        while len(ended) < len(capacities) * TASKS:
            # Every run that has tasks waits for a slot again.
            await quiet()
            executor.begin()
            before = len(ended)
            await eventually(partial(has_more, ended, before))
    return ended


def until_the_end_of(number: int, ended: list[int]) -> list[int]:
    """Return how often each run had a slot until this one has ended; until then, all have tasks."""
    shared = ended[: len(ended) - ended[::-1].index(number)]
    return [shared.count(one) for one in sorted(set(ended))]


@pytest.mark.parametrize("slots", [1, 2, 3, 5])
@pytest.mark.loops("asyncio")
async def test_runs_share_slots_by_weight(slots: int) -> None:
    executor = RemoteExecutor(slots, window=4)
    capacities = {weight: CapacitySource(100, weight=weight) for weight in WEIGHTS}
    ended = await run_side_by_side(executor, capacities)
    assert until_the_end_of(3, ended) == pytest.approx(
        [TASKS / 3, TASKS * 2 / 3, TASKS], abs=slots + 1
    )
    assert executor.most <= slots


@pytest.mark.parametrize("slots", [1, 2, 3, 5])
@pytest.mark.loops("asyncio")
async def test_runs_share_slots_at_each_level(slots: int) -> None:
    root = CapacitySource(100)
    team = CapacitySource(100, root)
    capacities = {
        1: CapacitySource(100, team, weight=1),
        2: CapacitySource(100, team, weight=2),
        3: CapacitySource(100, root),
    }
    ended = await run_side_by_side(RemoteExecutor(slots, window=4), capacities)
    assert until_the_end_of(3, ended) == pytest.approx(
        [TASKS / 3, TASKS * 2 / 3, TASKS], abs=slots + 1
    )


@pytest.mark.loops("asyncio")
async def test_no_run_starves_while_slots_are_short() -> None:
    executor = RemoteExecutor(2, window=4)
    ended: list[int] = []

    async def run(number: int) -> None:
        tasks = [Task(same, number, on_complete=ended.append) for _ in range(TASKS)]
        await HierarchicalTaskPoolRunner(tasks, 100, executor=executor).run()

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(run(number))
    first = min(len(ended) - ended[::-1].index(number) for number in range(3))
    # Until the first run ends, the others have had slots too.
    assert all(ended[:first].count(number) >= TASKS // 4 for number in range(3))


@pytest.mark.loops("asyncio")
async def test_run_that_is_alone_uses_a_slot_again_at_once() -> None:
    executor = RemoteExecutor(1)
    executor.is_prompt = False
    loop = asyncio.get_running_loop()
    submitted: list[int] = []

    def on_complete(_: int) -> None:
        # The slot was returned, and the feeder takes it in its next step.
        loop.call_soon(lambda: submitted.append(executor.submitted))

    tasks = [Task(same, 1, on_complete=on_complete), Task(same, 2)]
    running = asyncio.ensure_future(HierarchicalTaskPoolRunner(tasks, 100, executor=executor).run())
    for number in (1, 2):
        await eventually(partial(has_submitted, executor, number))
        executor.begin()
    assert sorted(await running) == [1, 2]
    assert submitted == [2]
