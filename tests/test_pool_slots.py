"""Slots of an executor, which tasks of several runs share."""

from __future__ import annotations

import asyncio

import pytest

from headrace import Retry, Task
from tests.pool_executors import RemoteExecutor, double, has_ended
from tests.pool_support import pool, quiet, summarize
from tests.support import until

# 1. Slots.


async def test_slots_are_taken_before_capacity() -> None:
    executor = RemoteExecutor(2)
    executor.is_prompt = False
    runner = pool([Task(double, number) for number in range(6)], 5, executor=executor)
    running = asyncio.ensure_future(runner.run())
    await until(lambda: len(executor.queue) == 2)
    await quiet()
    # No task holds capacity, or waits for it, without a slot.
    assert (len(executor.queue), runner.capacity.held, runner.capacity.waiting) == (2, 2, 0)
    while not running.done():
        await until(lambda: executor.queue or running.done())
        if executor.queue:
            executor.begin()
    assert sorted(running.result()) == [0, 2, 4, 6, 8, 10]
    assert executor.most == 2
    assert runner.capacity.held == 0


async def test_slots_may_change() -> None:
    executor = RemoteExecutor(0)
    executor.is_prompt = False
    runner = pool([Task(double, number) for number in range(6)], 6, executor=executor)
    running = asyncio.ensure_future(runner.run())
    await quiet()
    assert (len(executor.queue), runner.capacity.held) == (0, 0)
    executor.change(slots=3)
    await until(lambda: len(executor.queue) == 3)
    await quiet()
    assert len(executor.queue) == 3
    # Fewer slots end no work.
    executor.change(slots=1)
    await quiet()
    for _ in range(3):
        executor.begin()
    await until(lambda: len(executor.queue) == 1 and len(executor.live) == 1)
    executor.change(slots=None)
    await until(lambda: len(executor.queue) == 3)
    for _ in range(3):
        executor.begin()
    assert sorted(await has_ended(running)) == [0, 2, 4, 6, 8, 10]


async def test_runs_share_slots() -> None:
    executor = RemoteExecutor(3)
    runners = [
        pool([Task(double, number) for number in range(30)], 5, executor=executor) for _ in range(3)
    ]
    results = await asyncio.wait_for(asyncio.gather(*(runner.run() for runner in runners)), 30)
    assert [sorted(result) for result in results] == [[double(n) for n in range(30)]] * 3
    assert executor.most == 3
    assert executor.watchers == 0


async def test_slot_passes_by_a_run_that_does_not_need_it() -> None:
    executor = RemoteExecutor(1)
    executor.is_prompt = False
    runners = [pool([Task(double, number)], executor=executor) for number in (1, 2, 3)]
    runs = []
    for runner in runners:
        runs.append(asyncio.ensure_future(runner.run()))
        await quiet()
    runners[1].pause()
    executor.begin()
    assert await has_ended(runs[0]) == [2]
    await until(lambda: executor.queue)
    executor.begin()
    assert await has_ended(runs[2]) == [6]
    runners[1].resume()
    await until(lambda: executor.queue)
    executor.begin()
    assert await has_ended(runs[1]) == [4]


@pytest.mark.parametrize("ending", ["abort", "drain", "cancel", "pause"])
async def test_task_without_slot_can_be_withdrawn(ending: str) -> None:
    executor = RemoteExecutor(1)
    executor.is_prompt = False
    first, second = Task(double, 1, key=1), Task(double, 2, key=2)
    runner = pool([first, second], 2, executor=executor)
    async with runner.run_tasks() as progress:
        await until(lambda: executor.queue)
        await quiet()
        assert runner.snapshot().queued == 1
        if ending == "abort":
            await runner.abort()
        elif ending == "drain":
            draining = asyncio.ensure_future(runner.drain())
            await quiet()
            executor.begin()
            assert await draining == [second]
        elif ending == "cancel":
            assert runner.cancel(2)
            executor.begin()
        else:
            runner.pause()
            executor.begin()
            await until(lambda: not executor.live)
            await quiet()
            assert not executor.queue
            runner.resume()
            await until(lambda: executor.queue)
            executor.begin()
        found = summarize([event async for event in progress])
    assert (
        found
        == {
            "abort": [],  # The next run gets both.
            "drain": [2],
            "cancel": ["CancelledError", 2],
            "pause": [2, 4],
        }[ending]
    )
    executor.is_prompt = True
    if ending == "abort":
        assert await asyncio.wait_for(runner.run(), 10) == [2, 4]
    # The slot is free for another run.
    assert await asyncio.wait_for(pool([Task(double, 4)], executor=executor).run(), 10) == [8]


async def test_retries_wait_for_slots() -> None:
    executor = RemoteExecutor(1)
    calls: list[int] = []

    def fails_first(number: int) -> int:
        calls.append(number)
        if calls.count(number) < 3:
            raise OSError(number)
        return number

    tasks = [Task(fails_first, number) for number in range(8)]
    runner = pool(tasks, 4, executor=executor, retry=Retry(retries=5, backoff=0.0001))
    assert sorted(await asyncio.wait_for(runner.run(), 20)) == list(range(8))
    assert executor.most == 1
    assert len(calls) == 24
