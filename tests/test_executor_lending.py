"""Runs that share an executor and wait for their capacities: they lend their slots to the other runs."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from headrace import CapacitySource, HierarchicalTaskPoolRunner, Task
from headrace.pool.executor import shared_slots
from headrace.testing import Outcome, cancel_everywhere
from tests.pool_executors import RemoteExecutor
from tests.pool_rows import OneSlot
from tests.pool_support import envelopes, one, quiet
from tests.process_jobs import same
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine

pytestmark = pytest.mark.loops("asyncio")

SLOTS = 2
TASKS = 5


def runner_of(
    executor: RemoteExecutor, capacity: CapacitySource | int, **options: Any
) -> HierarchicalTaskPoolRunner:
    tasks = [Task(same, number) for number in range(TASKS)]
    return HierarchicalTaskPoolRunner(tasks, capacity, executor=executor, **options)


def have_ended(executor: RemoteExecutor, number: int) -> bool:
    return executor.submitted - len(executor.live) >= number


async def ended(runner: HierarchicalTaskPoolRunner) -> list[Any]:
    """Run to the end and return the values of the tasks that have not failed."""
    found = await envelopes(runner)
    return [envelope.value for envelope in found if envelope.error is None]


@asynccontextmanager
async def waiting(
    *runners: HierarchicalTaskPoolRunner, capacity: CapacitySource
) -> AsyncGenerator[list[asyncio.Task[list[Any]]]]:
    """Run tasks while their capacity is full, and release it at the end. Yield the runs."""
    async with capacity.acquire(owner=None), asyncio.TaskGroup() as group:
        runs = [group.create_task(ended(runner)) for runner in runners]
        await quiet()
        yield runs
        capacity.resize(2)


async def test_runs_without_capacity_keep_no_slots_from_others() -> None:
    executor, capacity = RemoteExecutor(SLOTS), CapacitySource(1)
    runners = [runner_of(executor, capacity) for _ in range(3 * SLOTS)]
    async with waiting(*runners, capacity=capacity) as runs:
        assert sorted(await runner_of(executor, 100).run()) == list(range(TASKS))
        assert executor.submitted == TASKS
    assert [sorted(run.result()) for run in runs] == [list(range(TASKS))] * len(runs)
    assert not shared_slots._shared


@pytest.mark.parametrize("lookahead", [1, 4])
async def test_run_that_is_alone_never_exceeds_the_slots(lookahead: int) -> None:
    executor, capacity = RemoteExecutor(SLOTS, window=4), CapacitySource(1)
    async with waiting(
        runner_of(executor, capacity, lookahead=lookahead), capacity=capacity
    ) as runs:
        capacity.resize(100)
        await eventually(runs[0].done)
    assert executor.most <= SLOTS


async def test_reclaimed_slot_may_exceed_the_slots_by_one() -> None:
    executor, capacity = RemoteExecutor(SLOTS, window=4), CapacitySource(1)
    executor.is_prompt = False
    runner = runner_of(executor, capacity)
    async with waiting(runner, capacity=capacity), asyncio.TaskGroup() as group:
        group.create_task(runner_of(executor, 100).run())
        await quiet()
        assert executor.submitted == SLOTS
        capacity.resize(100)
        await quiet()
        # Its other tasks wait for a slot.
        assert executor.submitted == SLOTS + 1
        for number in range(1, 2 * TASKS + 1):
            executor.begin()
            await eventually(partial(have_ended, executor, number))
            await quiet()
    assert executor.most == SLOTS + 1
    assert not shared_slots._shared


@pytest.mark.parametrize("end", ["cancel", "abort", "pause"])
async def test_lent_slots_are_returned(end: str) -> None:
    executor, capacity = RemoteExecutor(1), CapacitySource(1)
    runner = runner_of(executor, capacity, lookahead=3)
    async with waiting(runner, capacity=capacity) as runs:
        # One has lent its slot, and another one lacks a slot.
        assert runner.snapshot().queued == 2
        if end == "cancel":
            for task_id in range(1, TASKS + 1):
                runner.cancel(task_id)
                await quiet()
        elif end == "abort":
            await runner.abort()
        else:
            runner.pause()
            await quiet()
            assert sorted(await runner_of(executor, 100).run()) == list(range(TASKS))
            runner.resume()
            capacity.resize(100)
        await eventually(runs[0].done)
    assert not shared_slots._shared


async def test_law_8_run_that_lends_its_slot_cancelled_anywhere_returns_it() -> None:
    async def work(runner: HierarchicalTaskPoolRunner, capacity: CapacitySource) -> None:
        lease = await capacity.acquire(owner=None)
        try:
            async with runner.run_tasks() as progress:
                await quiet()
                lease.release()
                async for _ in progress:
                    pass
        finally:
            lease.release()

    async def case() -> AsyncGenerator[Coroutine[Any, Any, None], Outcome]:
        executor, capacity = OneSlot(), CapacitySource(1)
        runner = HierarchicalTaskPoolRunner([one] * TASKS, capacity, executor=executor)
        outcome = yield work(runner, capacity)
        assert outcome.cancelled or outcome.error is None
        assert (capacity.held, capacity.waiting) == (0, 0)
        # All slots are free for the next run.
        assert (
            await HierarchicalTaskPoolRunner([one] * TASKS, 1, executor=executor).run()
            == [1] * TASKS
        )
        assert not shared_slots._shared

    assert await cancel_everywhere(case) > 0
