"""Runs with `max_failures` and with a retry budget. `test_pool_doomed.py` has the tests of how a run is stopped."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headrace import (
    CapacitySource,
    HierarchicalTaskPoolRunner,
    PushPullBufferObj,
    Retry,
    RunStopped,
    SourceCancelledError,
    SourceIterObj,
    Task,
)
from tests.pool_support import Flaky, envelopes, pool, quiet, read_until_stopped, summarize

# max_failures


def failing(numbers: set[int], total: int) -> list[Task]:
    async def work(name: int) -> int:
        await asyncio.sleep(1)
        if name in numbers:
            raise Flaky(name)
        return name

    return [Task(work, name) for name in range(total)]


@pytest.mark.virtual
@pytest.mark.parametrize("most", [0, 1, 10])
async def test_more_failures_than_allowed_stop_the_run(most: int) -> None:
    runner = pool(failing(set(range(0, 200, 2)), 200), 1, max_failures=most)
    async with runner.run_tasks() as progress:
        found, stopped = await read_until_stopped(progress)
    failed = [e for e in found if e.error is not None]
    assert len(failed) == most + 1
    assert len(found) == 2 * most + 1
    assert stopped.__cause__ is failed[-1].error
    tasks = "1 task" if most == 0 else f"{most + 1} tasks"
    assert f"{tasks} failed, more than max_failures={most}; the last is pool-" in str(stopped)
    assert f"task {2 * most + 1} (Flaky), so no more tasks were called" in str(stopped)


@pytest.mark.virtual
async def test_as_many_failures_as_allowed_do_not_stop() -> None:
    found = await envelopes(pool(failing(set(range(10)), 50), 3, max_failures=10))
    assert len(found) == 50


@pytest.mark.virtual
async def test_share_of_failures_is_compared_from_20_tasks_on() -> None:
    # The first ten fail; a share of 30% is exceeded at the 20th task, but compared only at the next failure.
    runner = pool(failing({*range(10), 25}, 100), 1, max_failures=0.3)
    async with runner.run_tasks() as progress:
        found, stopped = await read_until_stopped(progress)
    assert len(found) == 26
    assert "11 of 26 tasks failed, more than max_failures=0.3" in str(stopped)
    assert (
        len(await envelopes(pool(failing(set(range(0, 100, 4)), 100), 1, max_failures=0.3))) == 100
    )
    # Fewer tasks than that are never stopped by a share.
    assert len(await envelopes(pool(failing(set(range(19)), 19), 1, max_failures=0.1))) == 19


@pytest.mark.virtual
async def test_cancelled_and_retried_tasks_are_no_failures() -> None:
    called = set()

    async def flaky(name: int) -> None:
        if name not in called:
            called.add(name)
            raise Flaky

    tasks = [Task(flaky, name, retry=1) for name in range(9)]
    assert len(await envelopes(pool(tasks, 1, max_failures=0))) == 9
    runner = pool([asyncio.Event().wait, *failing(set(), 3)], 2, max_failures=0)
    async with runner.run_tasks() as progress:
        await quiet()
        assert runner.cancel(1)
        assert len([envelope async for envelope in progress]) == 4


@pytest.mark.virtual
async def test_each_run_counts_its_own_failures() -> None:
    queue: PushPullBufferObj[Task] = PushPullBufferObj()
    runner = HierarchicalTaskPoolRunner(queue.source, CapacitySource(1), max_failures=2)
    for _ in range(3):
        for task in failing({0, 1}, 2):
            await queue.sink.next(task)
        async with runner.run_tasks() as progress:
            assert summarize([await anext(progress) for _ in range(2)]) == ["Flaky"] * 2
            await runner.drain()
            assert [envelope async for envelope in progress] == []


# retry_budget


@pytest.mark.virtual
@pytest.mark.parametrize("limit", [1, 20])
@pytest.mark.parametrize("options", [{}, {"ordered": True}, {"cooldown": False}])
async def test_retry_budget_bounds_the_calls(limit: int, options: dict[str, Any]) -> None:
    calls = 0

    async def flaky() -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.1)
        raise Flaky

    retry = Retry(5, backoff=0.5)
    found = await envelopes(pool([flaky] * 1000, limit, retry=retry, retry_budget=0.2, **options))
    assert len(found) == 1000
    assert 1190 <= calls <= 1210
    notes = [getattr(e.error, "__notes__", []) for e in found]
    spent = [note for one in notes for note in one if "the retry budget of pool-" in note]
    assert len(spent) > 700
    assert "(20% of the calls) is used up" in spent[0]


@pytest.mark.virtual
async def test_retry_budget_leaves_rare_failures_alone() -> None:
    called: set[int] = set()

    async def flaky(name: int) -> int:
        await asyncio.sleep(0.1)
        if name % 10 == 0 and name not in called:
            called.add(name)
            raise Flaky
        return name

    tasks = [Task(flaky, name) for name in range(1000)]
    found = await envelopes(pool(tasks, 10, retry=3, retry_budget=0.2))
    assert all(envelope.error is None for envelope in found)


@pytest.mark.virtual
async def test_retry_budget_covers_one_failure_of_all_that_run() -> None:
    """A healthy run, and then one disturbance that hits all 400 running calls."""
    is_down = False

    async def work(_: int) -> None:
        await asyncio.sleep(1)
        if is_down:
            raise Flaky

    async def disturb() -> None:
        nonlocal is_down
        await asyncio.sleep(9.5)
        is_down = True
        await asyncio.sleep(1)
        is_down = False

    disturbing = asyncio.create_task(disturb())
    tasks = [Task(work, name) for name in range(8000)]
    found = await envelopes(pool(tasks, 400, retry=Retry(1, backoff=5), retry_budget=0.2))
    await disturbing
    assert sum(envelope.error is not None for envelope in found) == 0
    assert sum(envelope.attempt == 2 for envelope in found) == 400


@pytest.mark.virtual
async def test_saved_retries_are_bounded() -> None:
    """A long healthy run does not save up for many failures of few running calls."""
    calls = 0

    async def work(name: int) -> None:
        nonlocal calls
        calls += 1
        if name >= 5000:
            raise Flaky

    tasks = [Task(work, name) for name in range(5100)]
    await envelopes(pool(tasks, 2, retry=Retry(50, backoff=1), retry_budget=0.5, max_buffered=10))
    assert calls <= 5100 + 100 + 51


@pytest.mark.virtual
async def test_throttled_answers_are_not_in_the_budget() -> None:
    class Busy(Exception):
        status_code = 429
        retry_after = 1

    refused: set[int] = set()

    async def work(name: int) -> int:
        if name not in refused:
            refused.add(name)
            raise Busy
        return name

    tasks = [Task(work, name) for name in range(50)]
    # On the virtual clock, as the event loop: each answer cools the capacity down for a second.
    capacity = CapacitySource(1, clock=asyncio.get_running_loop().time)
    runner = HierarchicalTaskPoolRunner(tasks, capacity, retry=1, retry_budget=0.01)
    found = await envelopes(runner)
    assert sorted(summarize(found)) == list(range(50))


@pytest.mark.virtual
async def test_map_pool_has_the_options() -> None:
    calls = []

    async def flaky(name: int) -> None:
        calls.append(name)
        raise Flaky

    results = SourceIterObj(range(100)).map_pool(
        flaky, CapacitySource(1), retry=Retry(5, backoff=1), retry_budget=0.2, max_failures=19
    )
    failed = 0
    async with results:
        with pytest.raises(RunStopped, match="20 tasks failed"):
            while True:
                try:
                    await anext(results)
                except (Flaky, SourceCancelledError) as error:
                    # A task that waited for another call was cancelled.
                    failed += isinstance(error, Flaky)
    assert failed == 20
    assert len(calls) <= 1.2 * len(set(calls)) + 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_failures": -1}, "max_failures must be at least 0, got -1"),
        ({"max_failures": 1.0}, "max_failures must be a whole number, or a share above 0.0"),
        ({"max_failures": 0.0}, "share above 0.0 and below 1.0, got 0.0"),
        ({"max_failures": float("nan")}, "below 1.0, got nan"),
        ({"max_failures": True}, "max_failures must be an integer, got True"),
        ({"max_failures": "5%"}, "max_failures must be an integer, got '5%'"),
        ({"retry_budget": 0}, "retry_budget must be positive, got 0"),
        ({"retry_budget": 1.5}, "retry_budget must be a share of at most 1, got 1.5"),
        ({"retry_budget": "20%"}, "retry_budget must be a number, got '20%'"),
        ({"on_error": "fatal"}, "on_error must be 'stop_if_fatal', 'continue' or 'stop'"),
    ],
)
def test_bad_limits_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        HierarchicalTaskPoolRunner([], CapacitySource(1), **options)
