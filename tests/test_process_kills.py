"""Workers that are killed at random moments: no result is lost or doubled, and nothing is left."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    CapacitySource,
    EnvelopeType,
    HierarchicalTaskPoolRunner,
    ProcessExecutor,
    Retry,
    Task,
    WorkerLost,
)
from tests import process_jobs as jobs
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.loops("asyncio")

SCALE = int(os.environ.get("HEADRACE_SOAK", "1"))
TASKS = 500 * SCALE
KILLS = 10 * SCALE


def descriptors() -> int:
    """Return the number of open descriptors of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def rng() -> random.Random:
    """A source of random numbers whose seed a failed test prints."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() <= before


async def kill_workers(
    executor: ProcessExecutor, ended: list[Any], kills: int, rng: random.Random
) -> int:
    """Kill workers at random moments, spread over the tasks; return the number of kills."""
    killed = 0
    for number in range(kills):
        target = (number + rng.random()) * TASKS / kills * 0.9
        await eventually(partial(_has, ended, target), 120)
        alive = [pid for pid in executor.workers if jobs.is_alive(pid)]
        if alive:
            os.kill(rng.choice(alive), signal.SIGKILL)
            killed += 1
    return killed


def _has(ended: list[Any], count: float) -> bool:
    return len(ended) >= count


def begun(directory: Path) -> dict[int, int]:
    """Return how often each task has begun."""
    return {
        int(file.name.split()[1]): len(file.read_text().split())
        for file in directory.glob("begun *")
    }


async def test_killed_workers_lose_no_result(tmp_path: Path, rng: random.Random) -> None:
    capacity = CapacitySource(100)
    ended: list[int] = []

    async def tasks() -> AsyncIterator[Task[int]]:
        for number in range(TASKS):
            yield Task(jobs.note_process, tmp_path, number, on_complete=ended.append)

    async with ProcessExecutor(2) as executor:
        runner = HierarchicalTaskPoolRunner(
            tasks(), capacity, executor=executor, retry=Retry(KILLS, backoff=0.001)
        )
        async with asyncio.TaskGroup() as group:
            killing = group.create_task(kill_workers(executor, ended, KILLS, rng))
            results = await runner.run()
    kills = killing.result()
    assert kills > KILLS // 2
    assert sorted(results) == sorted(ended) == list(range(TASKS))
    counts = begun(tmp_path)
    assert len(counts) == TASKS
    # A kill makes at most the one task that ran there begin again.
    assert sum(counts.values()) - TASKS <= kills
    assert capacity.snapshot().held == {"slots": 0}


async def test_without_retry_only_begun_tasks_fail(tmp_path: Path, rng: random.Random) -> None:
    capacity = CapacitySource(100)
    ended: list[Any] = []

    async def tasks() -> AsyncIterator[Task[int]]:
        for number in range(TASKS):
            yield Task(
                jobs.note_process,
                tmp_path,
                number,
                on_complete=ended.append,
                on_error=ended.append,
            )

    failed: list[BaseException] = []
    results: list[int] = []
    async with ProcessExecutor(2) as executor:
        runner = HierarchicalTaskPoolRunner(
            tasks(), capacity, executor=executor, on_error="continue"
        )
        async with asyncio.TaskGroup() as group:
            killing = group.create_task(kill_workers(executor, ended, KILLS, rng))
            async with runner.run_tasks() as progress:
                async for event in progress:
                    if event.type is EnvelopeType.ERROR:
                        assert event.error is not None
                        failed.append(event.error)
                    else:
                        assert event.value is not None
                        results.append(event.value)
    assert len(failed) <= killing.result()
    assert all(isinstance(error, WorkerLost) and error.started for error in failed)
    assert len(results) + len(failed) == TASKS
    # No task has begun twice: a task that had not begun was not lost. One may be killed before it could note its beginning.
    assert set(begun(tmp_path).values()) <= {0, 1}


async def test_streams_of_killed_workers_are_repeated_whole(rng: random.Random) -> None:
    count, streams = 20, TASKS // 5
    ended: list[Any] = []

    async def tasks() -> AsyncIterator[Task[Any]]:
        for number in range(streams):
            yield Task(jobs.count, count, key=number, on_complete=lambda _: ended.extend([0] * 5))

    values: dict[tuple[Any, int], list[int]] = {}
    async with ProcessExecutor(2) as executor:
        runner = HierarchicalTaskPoolRunner(
            tasks(), CapacitySource(10), executor=executor, retry=Retry(KILLS, backoff=0.001)
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(kill_workers(executor, ended, KILLS, rng))
            async with runner.run_tasks() as progress:
                async for event in progress:
                    if event.type is EnvelopeType.INTERMEDIATE:
                        assert event.value is not None
                        values.setdefault((event.key, event.attempt), []).append(event.value)
                    else:
                        assert event.error is None
                        # The last attempt has all values, each once.
                        assert values[event.key, event.attempt] == list(range(count))
    assert len({key for key, _ in values}) == streams
    # A lost attempt has a beginning of them.
    assert all(found == list(range(len(found))) for found in values.values())


async def test_only_the_dead_worker_is_replaced() -> None:
    async with ProcessExecutor(3) as executor:
        await eventually(lambda: executor.capabilities.slots == 6)
        first = set(executor.workers)
        victim = executor.workers[1]
        os.kill(victim, signal.SIGKILL)
        await eventually(lambda: victim not in executor.workers)
        await eventually(lambda: executor.capabilities.slots == 6)
        assert len(set(executor.workers) & first) == 2
    assert executor.workers == ()
